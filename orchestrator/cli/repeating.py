"""What a config wants to be run again by itself, once, when its run has ended."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from orchestrator.config.schema import Rerun
from orchestrator.errors import ExitCode
from workers.protocol import Verdict

if TYPE_CHECKING:
    from orchestrator.cli.execution import Executed, Order
    from workers.protocol import Case

#: These come out the same again, a moment later and with nothing mended.
_LASTING: Final = frozenset({Verdict.UNSUPPORTED, Verdict.OOM, Verdict.DEVICE_MISSING})


def rerun_of(order: Order, executed: Executed) -> Order | None:
    """Return the order for the run that follows on one that has ended; ``None`` where the config wants none.

    A run that was stopped, or that ran nothing, is not run again by itself.
    """
    rule = order.loaded.config.rerun
    has_ended = executed.exit_code in (ExitCode.OK, ExitCode.INCOMPLETE) and executed.store_error is None
    if rule is Rerun.NEVER or not has_ended:
        return None
    cases = order.cases
    if rule is Rerun.ON_FAILURE:
        cases = _failed(executed)
        if not cases:
            return None
    return dataclasses.replace(order, cases=cases, stale_since=None, rerun_of=executed.run.id)


def _failed(executed: Executed) -> tuple[Case, ...]:
    return tuple(
        result.case
        for result in executed.run.cases
        if result.verdict is None or not (result.verdict.has_figure or result.verdict in _LASTING)
    )
