"""One time of a schedule, in a process of its own: the run, what it is compared with, and who is told.

Whatever of it is done stands in the store, so that it can be begun again after a crash: the run is gone on with, or is
there already, and is compared and told of then. Somebody may be told twice, and nobody never.
"""

from __future__ import annotations

import asyncio
import datetime
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from orchestrator.cli.execution import Order, execute, new_run_id
from orchestrator.cli.preparation import examine
from orchestrator.config.overrides import from_typed
from orchestrator.errors import ExitCode, MusterError, RunNotFoundError, UsageError
from orchestrator.results import FiringState, RunState
from orchestrator.schedules.notices import OK, Ended, document, is_told
from orchestrator.schedules.retention import old_runs
from orchestrator.schedules.service import BUSY, holder_of
from orchestrator.schedules.state import loaded_of
from orchestrator.schedules.telling import tell
from orchestrator.store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.load import Loaded
    from orchestrator.results import Firing, Run, Schedule
    from orchestrator.store.repository import Store
    from workers.protocol import HostReport

#: Share of a host's cores that must be busy for it to count so.
BUSY_SHARE: Final = 0.5

#: Outcomes of runs that others may be held against.
_GOOD: Final = frozenset({OK, "recovery"})

#: Times of a schedule that are looked through for a run to compare with.
_MOST_LOOKED_AT: Final = 500


def fire(firing_id: int, store_url: str) -> int:
    """Do what is left to do of a firing; return an exit code: :data:`BUSY` where it has to wait for hosts.

    Raises StoreBusyError where another process is at it.
    """
    with open_store(store_url, create=False) as store, store.written_by(holder_of(firing_id)):
        firing = store.schedules.firing(firing_id)
        if firing is None or not firing.state.is_open:
            return int(ExitCode.OK)
        schedule = next((each for each in store.schedules.every() if each.name == firing.schedule), None)
        if schedule is None:
            _finish(store, firing, outcome="failure", reason="the schedule was removed")
            return int(ExitCode.NOTHING_RAN)
        return _Turn(store, store_url, schedule).take(firing)


class _Turn:
    """A firing and what it needs."""

    def __init__(self, store: Store, store_url: str, schedule: Schedule) -> None:
        self._store = store
        self._url = store_url
        self._schedule = schedule

    def take(self, firing: Firing) -> int:
        try:
            loaded = loaded_of(self._schedule)
            if firing.state is FiringState.WAITING and (who := self._busy(loaded)):
                print(f"waiting: {who}", file=sys.stderr)
                return BUSY
        except MusterError as error:
            return self._tell(firing, None, None, error.message)
        if firing.state is FiringState.WAITING:
            began = {"run_id": firing.run_id or new_run_id(), "began_at": _now()}
            self._store.schedules.change(firing.id, state=FiringState.RUNNING, **began)
            firing = replace(firing, state=FiringState.RUNNING, **began)  # type: ignore[arg-type]
        reason = None
        try:
            if self._run(firing, loaded) is ExitCode.INTERRUPTED:
                return int(ExitCode.INTERRUPTED)  # stopped from outside: whoever starts the scheduler again goes on
        except MusterError as error:
            reason = error.message
        return self._tell(firing, loaded, self._run_of(firing), reason)

    def _run(self, firing: Firing, loaded: Loaded) -> ExitCode:
        """Make the run, or go on with what there is of it."""
        known = self._run_of(firing)
        if known is not None and known.state is RunState.FINISHED:
            return ExitCode.OK
        _, filters = from_typed(self._schedule.overrides)
        order = Order(
            loaded=loaded,
            only=filters,
            simulate=self._schedule.simulated,
            store_url=self._url,
            quiet=True,
            overrides=self._schedule.overrides,
            resumes=known,
            run_id=firing.run_id,
            schedule=self._schedule.name,
        )
        executed = execute(order)
        if executed.store_error is not None:
            raise executed.store_error
        return executed.exit_code

    def _run_of(self, firing: Firing) -> Run | None:
        try:
            return None if firing.run_id is None else self._store.run(firing.run_id)
        except RunNotFoundError:
            return None

    # --- hosts that are busy -----------------------------------------------------------------------------------

    def _busy(self, loaded: Loaded) -> str | None:
        """Return who is at work, where the schedule waits until nobody is."""
        schedule = loaded.config.schedule
        if schedule is None or not schedule.when_idle:
            return None
        others = [run.id for run in self._store.runs() if run.state is RunState.RUNNING]
        if others:
            return f"run {others[0]} is at work"
        examined = asyncio.run(examine(loaded.config, simulate=self._schedule.simulated))
        return busy_host(examined.inventory.reports)

    # --- what came of it ---------------------------------------------------------------------------------------

    def _tell(self, firing: Firing, loaded: Loaded | None, run: Run | None, reason: str | None) -> int:
        history = self._store.schedules.history(firing.schedule, _MOST_LOOKED_AT)
        earlier = [each for each in history if each.due_at < firing.due_at and each.outcome is not None]
        ended = Ended(
            firing=firing,
            run=run,
            reason=reason,
            before=earlier[0].outcome if earlier else None,
        )
        if run is not None and loaded is not None:
            ended = self._compared(ended, run, loaded, earlier)
        notify = None if loaded is None else loaded.config.notify
        told: tuple[str, ...] = ()
        if notify is not None and is_told(ended.outcome, notify.on):
            told = tell(notify, document(ended, store=self._url))
        _finish(self._store, firing, outcome=ended.outcome, reason=ended.reason, told=told)
        for line in told:
            print(line, file=sys.stderr)
        self._remove_old(loaded)
        return int(ExitCode.OK if ended.outcome in _GOOD else ExitCode.FOUND)

    def _compared(self, ended: Ended, run: Run, loaded: Loaded, earlier: Sequence[Firing]) -> Ended:
        """Hold the run against the schedule's baseline, or its last good run."""
        from orchestrator.analysis.comparison import compare
        from orchestrator.store.sides import BASELINE, floors_of, side

        schedule = loaded.config.schedule
        name = None if schedule is None else schedule.baseline
        good = [each.run_id for each in earlier if each.outcome in _GOOD and each.run_id is not None]
        for candidate in [f"{BASELINE}{name}"] if name is not None else good:
            try:
                other = side(self._store, candidate)
            except UsageError as error:
                return replace(ended, reason=error.message)
            except RunNotFoundError:  # removed since
                continue
            if other.run.id == run.id or other.run.simulated != run.simulated:
                continue
            found = compare(other.run.cases, run.cases, floors=floors_of(self._store, run))
            return replace(ended, compared_with=other.name, regressions=found.regressions(None))
        return ended

    def _remove_old(self, loaded: Loaded | None) -> None:
        schedule = None if loaded is None else loaded.config.schedule
        if schedule is None or schedule.keep_runs is None:
            return
        own = [run for run in self._store.runs() if run.schedule == self._schedule.name]
        kept = {baseline.run_id for baseline in self._store.baselines()}
        old = old_runs(own, now=_now(), keep_runs=schedule.keep_runs, keep_for=None, baselines=kept)
        self._store.remove_runs([run.id for run in old])


def busy_host(reports: Sequence[HostReport]) -> str | None:
    """Return which host is busy, and with what; ``None`` where none is."""
    for report in reports:
        leases = report.condition.get("host.leases").value
        if leases:
            return f"{report.host}: held by {leases}"
        load = report.condition.get("cpu.load").value
        if isinstance(load, int | float) and load > BUSY_SHARE * len(report.cpu.cores):
            return f"{report.host}: {load:g} of {len(report.cpu.cores)} cores were busy over the last minute"
        for gpu in report.gpus:
            if gpu.state is not None and gpu.state.processes:
                return f"{report.host}: gpu:{gpu.index} is in use"
    return None


def _finish(
    store: Store, firing: Firing, *, outcome: str, reason: str | None = None, told: tuple[str, ...] = ()
) -> None:
    store.schedules.change(
        firing.id, state=FiringState.DONE, outcome=outcome, reason=reason, told=told, ended_at=_now()
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
