"""`muster trend`: how a device or a workload went from run to run, and where it changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.results import History
    from workers.protocol import Case


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
    from orchestrator.cli.output import print_table
    from orchestrator.cli.pictures import form_of, write
    from orchestrator.report.trend import trend_of
    from orchestrator.store import open_store

    picture = None if output is None else form_of(output)
    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        case = _the_one(opened.histories(simulated=simulated), only or ())
        past = opened.past(case.device.id, case.workload, last, simulated=simulated)
        floors = opened.noise_floors(simulated=simulated)
    found = trend_of(case, past, floors, simulated=simulated)
    print_table(found.table, form="json" if json else form)
    if output is not None and picture is not None:
        from orchestrator.report.plots.trend import trend_figure  # matplotlib: only where there is a picture

        write(trend_figure(found.title, found.points, found.changes), output, picture)


def _the_one(histories: Sequence[History], only: Sequence[str]) -> Case:
    """Return a case of the device and workload whose history is meant; raises UsageError for none and for several."""
    from orchestrator.errors import UsageError
    from orchestrator.planning import fits, parse_filters
    from orchestrator.report.workloads import in_words

    filters = parse_filters(only)
    found = [each.case for each in histories if fits(each.case, filters)]
    if not found:
        raise UsageError("no run has a figure of that", remedy="see what there is: muster runs, muster show RUN")
    if len(found) > 1:
        named = "; ".join(f"{case.device.id} {in_words(case.workload)}" for case in found[:5])
        raise UsageError(
            f"{len(found)} histories could be meant: {named}{' …' if len(found) > 5 else ''}",
            remedy="pick one: --only host=gpu01 --only device=gpu:0 --only pass=forward --only batch_size=128",
        )
    return found[0]
