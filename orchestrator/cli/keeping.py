"""A run's results on their way into the store, and what a run that fails there leaves for the next ones."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from orchestrator.results import Quarantine

if TYPE_CHECKING:
    from orchestrator.config.schema import LimitsConfig
    from orchestrator.dispatch.messages import PutAside
    from orchestrator.store.repository import Store
    from workers.protocol import Result, Verdict


class Keeping:
    """A :class:`orchestrator.runner.Recorder` over the store; it alone knows the calendar."""

    def __init__(self, store: Store, limits: LimitsConfig, *, simulated: bool) -> None:
        self._store = store
        self._limits = limits
        self._simulated = simulated

    def save_attempt(self, run_id: str, result: Result) -> None:
        """Keep one attempt."""
        self._store.save_attempt(run_id, result)

    def save_verdict(self, run_id: str, case_key: str, verdict: Verdict, reason: str | None) -> None:
        """Keep how a case ended."""
        self._store.save_verdict(run_id, case_key, verdict, reason)

    def save_late(self, run_id: str, result: Result) -> bool:
        """Keep a result that nobody awaits any more; return False where it is known."""
        return self._store.save_late(run_id, result)

    def put_aside(self, run_id: str, command: PutAside) -> None:
        """Keep a device or host from getting cases for the time that the config says."""
        now = datetime.datetime.now(datetime.timezone.utc)
        quarantine = Quarantine(
            target=command.target,
            since=now,
            until=now + datetime.timedelta(seconds=self._limits.quarantine_time_s),
            failures=command.failures,
            reason=command.reason,
            run_id=run_id,
        )
        self._store.put_aside(quarantine, simulated=self._simulated)
