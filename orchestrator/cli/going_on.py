"""Whether an earlier run may be gone on with: what it still has to do, and whether its hosts are as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.diagnosis import changes
from orchestrator.errors import UsageError
from orchestrator.results import RunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.results import Run
    from workers.protocol import HostReport

#: Changes that are named; more of them are counted.
_SHOWN: Final = 10


def refuse_finished(run: Run) -> None:
    """Raise :class:`UsageError` where nothing of a run is left to do here, or somebody is doing it."""
    if run.imported is not None:
        raise UsageError(
            f"run {run.id} was imported from {run.imported.source}: its hosts are not here",
            remedy=f"measure the same here: muster rerun {run.id}",
        )
    if run.state is RunState.RUNNING:
        raise UsageError(f"run {run.id} is still going on", remedy="wait for its end, or stop it with Ctrl-C there")
    if any(result.is_open for result in run.cases):
        return
    failed = sum(result.verdict is not None and not result.verdict.has_figure for result in run.cases)
    remedy = f"those {failed} without a figure again: muster rerun {run.id} --failed" if failed else None
    raise UsageError(
        f"run {run.id} has ended: each of its {len(run.cases)} cases has its verdict",
        remedy=remedy or f"all again: muster rerun {run.id}",
    )


def refuse_moved(run: Run, now: Run) -> None:
    """Raise :class:`UsageError` where somebody else went on with a run since it was looked at."""
    if now.cases != run.cases:
        raise UsageError(f"run {run.id} was gone on with meanwhile", remedy=f"look at it: muster show {run.id}")


def refuse_changes(run: Run, reports: Sequence[HostReport], *, accepted: bool) -> None:
    """Raise :class:`UsageError` that says what differs where hosts are not as they were, unless that is accepted."""
    found = changes(run.cases, reports)
    if accepted or not found:
        return
    lines = [f"  {change}" for change in found[:_SHOWN]]
    lines += [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    raise UsageError(
        "\n".join([f"hosts are not as they were when run {run.id} measured on them:", *lines]),
        remedy=f"go on all the same: muster resume {run.id} --accept-changed; or measure anew: muster rerun {run.id}",
    )
