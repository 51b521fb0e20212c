"""Which runs are old enough to go. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.results import RunState

if TYPE_CHECKING:
    import datetime
    from collections.abc import Collection, Sequence

    from orchestrator.results import RunSummary


def old_runs(
    runs: Sequence[RunSummary],
    *,
    now: datetime.datetime,
    keep_runs: int | None,
    keep_for: datetime.timedelta | None,
    baselines: Collection[str],
) -> tuple[RunSummary, ...]:
    """Return the runs to remove, the oldest first: those that one of the limits lets go.

    A baseline's run stays, whatever its age, as does one that is still at work; neither counts among ``keep_runs``.
    """
    removable = sorted(
        (run for run in runs if run.id not in baselines and run.state is not RunState.RUNNING),
        key=lambda run: (run.created_at, run.id),
        reverse=True,
    )
    too_many = set() if keep_runs is None else {run.id for run in removable[keep_runs:]}
    too_old = set() if keep_for is None else {run.id for run in removable if now - run.created_at > keep_for}
    return tuple(run for run in reversed(removable) if run.id in too_many | too_old)
