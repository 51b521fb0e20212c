"""`muster trend`: how a device or a workload went from run to run, and where it changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.analysis.trend import ChangePoint, TrendPoint
    from orchestrator.results import Run
    from workers.protocol import Device, Workload


def trend(
    only: options.Only = None,
    last: Annotated[int, typer.Option("--last", min=2, max=1000, help="How many runs to look back at most.")] = 50,
    simulated: Annotated[bool, typer.Option("--simulated", help="Of simulated runs.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Draw it as well: .png or .svg.")
    ] = None,
    store: options.StoreUrl = None,
    form: options.OutputFormat = "table",
    json: options.Json = False,
) -> None:
    """Show one workload on one device over the store's runs, with the points where its level changed."""
    from orchestrator.analysis.noise import floor_for
    from orchestrator.analysis.trend import change_points
    from orchestrator.cli.output import print_table
    from orchestrator.cli.pictures import form_of, write
    from orchestrator.report.trend import trend_table
    from orchestrator.report.workloads import in_words
    from orchestrator.store import open_store

    picture = None if output is None else form_of(output)
    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        # What is called localhost elsewhere is another machine: imported runs are no history of this one.
        own = [each for each in opened.runs() if each.simulated == simulated and each.imported is None]
        runs = [opened.run(each.id) for each in own if each.figures][:last]
        floors = opened.noise_floors(simulated=simulated)
    runs.reverse()
    device, workload = _the_one(runs, only or ())
    points = _points(runs, device, workload)
    floor = floor_for(floors, device, workload)
    changes = change_points(points, between_sd=None if floor is None else floor.between_sd)
    title = f"{device.id}: {in_words(workload)}"
    why = {change.place: _why(runs, points, change, device, workload) for change in changes}
    table = trend_table(title, points, changes, simulated=simulated, why=why)
    print_table(table, form="json" if json else form)
    if output is not None and picture is not None:
        from orchestrator.report.plots.trend import trend_figure  # matplotlib: only where there is a picture

        write(trend_figure(title, points, changes), output, picture)


def _the_one(runs: Sequence[Run], only: Sequence[str]) -> tuple[Device, Workload]:
    """Return the device and workload whose history is meant; raises UsageError for none and for several."""
    from orchestrator.errors import UsageError
    from orchestrator.planning import fits, parse_filters
    from orchestrator.report.workloads import in_words

    filters = parse_filters(only)
    found: dict[tuple[str, Workload], Device] = {}
    for run in runs:
        for case in run.cases:
            if case.verdict is not None and case.verdict.has_figure and fits(case.case, filters):
                # The device as it was last: another card in its place has a history of its own.
                found[case.case.device.id, case.case.workload] = case.case.device
    if not found:
        raise UsageError("no run has a figure of that", remedy="see what there is: muster runs, muster show RUN")
    if len(found) > 1:
        named = "; ".join(f"{device_id} {in_words(workload)}" for device_id, workload in list(found)[:5])
        raise UsageError(
            f"{len(found)} histories could be meant: {named}{' …' if len(found) > 5 else ''}",
            remedy="pick one: --only host=gpu01 --only device=gpu:0 --only pass=forward --only batch_size=128",
        )
    ((_, workload), device) = next(iter(found.items()))
    return device, workload


def _points(runs: Sequence[Run], device: Device, workload: Workload) -> list[TrendPoint]:
    from statistics import fmean, median

    from orchestrator.analysis.pooling import pooled
    from orchestrator.analysis.trend import TrendPoint
    from workers.protocol import Company

    found = []
    for run in runs:
        for each in pooled(run.cases):
            is_it = (each.device.id, each.device.uuid, each.workload) == (device.id, device.uuid, workload)
            processes = [samples for samples in each.processes_ms if samples]
            if is_it and processes and each.company is not Company.TOGETHER:
                found.append(
                    TrendPoint(
                        run_id=run.id,
                        created_at=run.created_at,
                        median_ms=fmean(map(median, processes)),
                        is_doubtful=each.verdict is not None and each.verdict.is_doubtful,
                    )
                )
    return found


def _why(
    runs: Sequence[Run], points: Sequence[TrendPoint], change: ChangePoint, device: Device, workload: Workload
) -> tuple[str, ...]:
    """Return what differs between a change's run and the one before, on that device."""
    from orchestrator.analysis.comparison import compare
    from orchestrator.analysis.explanation import explain

    by_id = {run.id: run for run in runs}
    before, after = (
        [
            case
            for case in by_id[points[place].run_id].cases
            if case.case.device.id == device.id and case.case.workload == workload
        ]
        for place in (change.place - 1, change.place)
    )
    return tuple(str(each) for each in explain(compare(before, after), before, after)[:5])
