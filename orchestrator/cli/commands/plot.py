"""`muster plot`: a run as a picture."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from orchestrator.results import CaseResult, Run


class Kind(str, enum.Enum):
    """What is drawn."""

    #: Each figure with its interval.
    BARS = "bars"
    #: One case's steps over time, with telemetry below.
    SAMPLES = "samples"
    #: Images a second against the batch.
    SCALING = "scaling"
    #: FLOP/s under what each device attains.
    ROOFLINE = "roofline"


Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="Where to: .png or .svg; - for SVG on stdout."),
]


def plot(
    name: options.ShownRun = "latest",
    kind: Annotated[Kind, typer.Option("--kind", help="What is drawn.")] = Kind.BARS,
    output: Output = Path("muster.svg"),
    only: options.Only = None,
    store: options.StoreUrl = None,
) -> None:
    """Draw a run: bars with intervals, one case's steps, images a second by batch, or each device's roofline."""
    from orchestrator.cli.pictures import form_of, write
    from orchestrator.cli.sides import sides

    form = form_of(output)
    (drawn,) = sides(store or options.DEFAULT_STORE, name)
    figure = _figure(_filtered(drawn.run, only or ()), kind)
    write(figure, output, form)


def _filtered(run: Run, only: list[str] | tuple[()]) -> Run:
    import dataclasses

    from orchestrator.errors import UsageError
    from orchestrator.planning import fits, parse_filters

    filters = parse_filters(only)
    cases = tuple(case for case in run.cases if fits(case.case, filters))
    if not cases:
        raise UsageError(f"no case of run {run.id} is left by --only {' --only '.join(only)}", remedy="muster show")
    return dataclasses.replace(run, cases=cases)


def _figure(run: Run, kind: Kind) -> Figure:
    # matplotlib takes its time: not before there is something to draw.
    if kind is Kind.SCALING:
        from orchestrator.report.plots.scaling import scaling

        return scaling(run)
    if kind is Kind.ROOFLINE:
        from orchestrator.report.plots.roofline import roofline

        return roofline(run)
    if kind is Kind.SAMPLES:
        from orchestrator.report.plots.samples import samples

        return samples(_one_case(run))
    from orchestrator.analysis import references
    from orchestrator.report.asked import report_of
    from orchestrator.report.plots.bars import bars

    return bars(run, references.load(report_of(run).references))


def _one_case(run: Run) -> CaseResult:
    """Return the case whose steps are drawn, the first with a figure; raises UsageError for several works."""
    from orchestrator.errors import UsageError
    from orchestrator.report.workloads import in_words

    with_figure = [case for case in run.cases if case.result is not None and case.result.samples_ms] or list(run.cases)
    works = dict.fromkeys(
        (case.case.device.id, in_words(case.case.workload, case.case.company)) for case in with_figure
    )
    if len(works) > 1:
        named = "; ".join(" ".join(work) for work in list(works)[:5])
        raise UsageError(
            f"{len(works)} cases could be drawn: {named}{' …' if len(works) > 5 else ''}",
            remedy="pick one: --only device=gpu:0 --only pass=forward --only batch_size=128",
        )
    return with_figure[0]
