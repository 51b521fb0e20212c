"""The figures of one workload on one device, run by run, and what else changed where their level did."""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from orchestrator.analysis.comparison import compare
from orchestrator.analysis.explanation import explain
from orchestrator.analysis.pooling import pooled
from orchestrator.analysis.trend import TrendPoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.analysis.trend import ChangePoint
    from orchestrator.results import Past
    from workers.protocol import Device

#: Differences that are told of one change; more would bury the first.
_MOST_DIFFERENCES: Final = 5


def points_of(past: Sequence[Past], device: Device) -> tuple[TrendPoint, ...]:
    """Return a figure for each run that has one: the mean of its processes' median steps, milliseconds.

    Another card in the device's place, by its UUID, has a history of its own.
    """
    found = []
    for run in past:
        for each in pooled(run.cases):
            processes = [samples for samples in each.processes_ms if samples]
            if each.device.uuid == device.uuid and processes:
                found.append(
                    TrendPoint(
                        run_id=run.run_id,
                        created_at=run.created_at,
                        median_ms=fmean(map(median, processes)),
                        is_doubtful=each.verdict is not None and each.verdict.is_doubtful,
                    )
                )
    return tuple(found)


def reasons(
    past: Sequence[Past], points: Sequence[TrendPoint], changes: Sequence[ChangePoint]
) -> Mapping[int, tuple[str, ...]]:
    """Return by each change's place what differs between its run and the one before, on that device."""
    by_id = {run.run_id: run.cases for run in past}
    found = {}
    for change in changes:
        before, after = by_id[points[change.place - 1].run_id], by_id[points[change.place].run_id]
        differences = explain(compare(before, after), before, after)[:_MOST_DIFFERENCES]
        found[change.place] = tuple(str(each) for each in differences)
    return found
