"""Past runs, one run, and one case of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from orchestrator.analysis.statistics import summarise
from orchestrator.bundle.archive import SUFFIX
from orchestrator.bundle.forms import page_of, run_as
from orchestrator.errors import UnknownNameError
from orchestrator.report import renderers
from orchestrator.report.attempts import attempts_table
from orchestrator.report.environments import environments, environments_table
from orchestrator.report.plots.style import Theme
from orchestrator.report.workloads import in_place, in_words
from orchestrator.results import RunState
from orchestrator.web.charts import PICTURE_POLICY
from orchestrator.web.context import Here
from orchestrator.web.listing import has_words, paged
from orchestrator.web.pages.render import page
from orchestrator.web.runtables import run_table
from orchestrator.web.sorting import sorted_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from orchestrator.analysis.statistics import Summary
    from orchestrator.results import CaseResult, Run, RunSummary
    from workers.protocol import Result

router = APIRouter(include_in_schema=False)

#: What a run can be taken away as: word, media type, ending of the file's name.
DOWNLOADS: Final = {
    "md": ("Markdown", "text/markdown; charset=utf-8", ".md"),
    "csv": ("CSV", "text/csv; charset=utf-8", ".csv"),
    "json": ("JSON", "application/json", ".json"),
    "bundle": ("Bundle", "application/zip", SUFFIX),
    "steps": ("Every step (CSV)", "text/csv; charset=utf-8", ".steps.csv"),
    "html": ("Page", "text/html; charset=utf-8", ".html"),
}

#: The kinds of picture of a whole run, and what is said below each.
PICTURES: Final = {
    "bars": "Each figure with its 95 % interval. Shorter is faster.",
    "scaling": "Images a second by batch, with 95 % intervals.",
    "roofline": "What each device reaches, under the roof of what it attains.",
}


@router.get("/runs")
def runs(
    request: Request,
    here: Here,
    q: str = "",
    state: str = "",
    schedule: str = "",
    kind: str = "",
    number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
) -> Response:
    """List runs, the newest first: searched, filtered, a page at a time."""
    with here.source.opened() as store:
        every = store.runs()
        baselines = store.baselines()
    found = [run for run in every if fits(run, q=q, state=state, schedule=schedule, kind=kind)]
    return page(
        request,
        here,
        "runs.html",
        runs=paged(found, number),
        q=q,
        state=state,
        schedule=schedule,
        kind=kind,
        states=[each.value for each in RunState],
        schedules=sorted({run.schedule for run in every if run.schedule}),
        baselines={one.run_id: one.name for one in baselines},
    )


def fits(run: RunSummary, *, q: str, state: str, schedule: str, kind: str) -> bool:
    """Return whether a run is one of those that are asked for; words are searched in its id, name and origin."""
    source = "" if run.imported is None else run.imported.source
    text = f"{run.id} {run.name} {run.schedule or ''} {source}"
    kinds = {"simulated": run.simulated, "imported": run.imported is not None, "scheduled": run.schedule is not None}
    return (
        has_words(text, q)
        and state in ("", run.state.value)
        and schedule in ("", run.schedule)
        and (not kind or kinds.get(kind, False))
    )


@router.get("/runs/{name}")
def run(request: Request, here: Here, name: str, sort: str = "", desc: bool = False, wide: bool = False) -> Response:
    """One run: its table, verdicts, pictures, and the way to everything else that it has."""
    shown = here.source.side(name)
    table = sorted_by(run_table(here.source, shown, wide=wide), sort, is_descending=desc)
    return page(
        request,
        here,
        "run.html",
        run=shown.run,
        table=table,
        sort=sort,
        desc=desc,
        wide=wide,
        verdicts=_verdicts(shown.run.cases),
        downloads=DOWNLOADS,
        pictures=PICTURES,
    )


def _verdicts(cases: Sequence[CaseResult]) -> list[tuple[str, int]]:
    counted = Counter("open" if case.verdict is None else case.verdict.value for case in cases)
    return sorted(counted.items(), key=lambda pair: -pair[1])


@router.get("/runs/{name}/cases")
def cases(
    request: Request,
    here: Here,
    name: str,
    device: str = "",
    verdict: str = "",
    number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
) -> Response:
    """The cases of a run, or of one device or verdict in it, each with the way to its steps."""
    found_run = here.source.run(name)
    found = [
        each
        for each in found_run.cases
        if device in ("", each.case.device.id, each.case.device.host)
        and verdict in ("", "open" if each.verdict is None else each.verdict.value)
    ]
    return page(
        request,
        here,
        "cases.html",
        run=found_run,
        cases=paged(found, number),
        mean_ms=_mean_ms,
        device=device,
        verdict=verdict,
        in_words=in_words,
        in_place=in_place,
    )


def _mean_ms(known: CaseResult) -> float | None:
    summary = _summary(known.result) if known.verdict is not None and known.verdict.has_figure else None
    return None if summary is None else summary.mean_ms


def _summary(result: Result | None) -> Summary | None:
    """Return a result's steps in few figures; ``None`` where it has none."""
    return summarise(result.samples_ms) if result is not None and result.samples_ms else None


def case_of(found: Run, key: str) -> CaseResult:
    """Return a case of a run by its key; raises UnknownNameError for one that it has not."""
    for known in found.cases:
        if known.case.key == key:
            return known
    raise UnknownNameError(f"run {found.id} has no case {key}", remedy="see which it has on its page")


@router.get("/runs/{name}/cases/{key}")
def case(request: Request, here: Here, name: str, key: str) -> Response:
    """One case: its steps, what was seen meanwhile, what speaks against it, and where it was measured."""
    found_run = here.source.run(name)
    known = case_of(found_run, key)
    alone = replace(found_run, cases=(known,))
    result = known.result
    taken_in = environments(alone)
    return page(
        request,
        here,
        "case.html",
        run=found_run,
        known=known,
        result=result,
        summary=_summary(result),
        title=f"{in_place(known.case)}: {in_words(known.case.workload, known.case.company)}",
        attempts=attempts_table(alone),
        environment=environments_table(alone, taken_in) if taken_in else None,
    )


@router.get("/runs/{name}/cases/{key}/samples.svg")
def samples_picture(here: Here, name: str, key: str, theme: Theme = Theme.LIGHT) -> Response:
    """The steps of a case over time, with clocks, temperatures and load below."""
    found_run = here.source.run(name)
    known = case_of(found_run, key)
    from orchestrator.report.plots.samples import samples

    data = here.charts.svg((found_run.id, key, len(known.attempts)), theme, lambda: samples(known))
    return svg(data)


@router.get("/runs/{name}/{kind}.svg")
def picture(here: Here, name: str, kind: str, theme: Theme = Theme.LIGHT) -> Response:
    """A picture of a whole run."""
    if kind not in PICTURES:
        raise UnknownNameError(f"there is no picture {kind!r}", remedy=f"there are: {', '.join(PICTURES)}")
    found_run = here.source.run(name)
    ended = sum(each.verdict is not None for each in found_run.cases)
    return svg(here.charts.svg((found_run.id, kind, ended), theme, lambda: _drawn(found_run, kind)))


def _drawn(found: Run, kind: str) -> Figure:
    # matplotlib takes its time: not before there is something to draw.
    from orchestrator.analysis import references
    from orchestrator.report.asked import report_of
    from orchestrator.report.plots.bars import bars
    from orchestrator.report.plots.roofline import roofline
    from orchestrator.report.plots.scaling import scaling

    if kind == "scaling":
        return scaling(found)
    return roofline(found) if kind == "roofline" else bars(found, references.load(report_of(found).references))


def svg(data: bytes) -> Response:
    """Return a picture."""
    return Response(data, media_type="image/svg+xml", headers={"content-security-policy": PICTURE_POLICY})


@router.get("/runs/{name}/environments")
def run_environments(request: Request, here: Here, name: str, device: str = "") -> Response:
    """Where a run's figures were taken, fact by fact."""
    found_run = here.source.run(name)
    taken_in = environments(found_run, device or None)
    table = environments_table(found_run, taken_in) if taken_in else None
    return page(request, here, "environments.html", run=found_run, table=table, device=device)


@router.get("/runs/{name}/download/{form}")
def download(here: Here, name: str, form: str) -> Response:
    """A run as a file."""
    if form not in DOWNLOADS:
        raise UnknownNameError(f"there is no download {form!r}", remedy=f"there are: {', '.join(DOWNLOADS)}")
    shown = here.source.side(name)
    _, media_type, ending = DOWNLOADS[form]
    if form == "bundle":
        data = run_as("bundle", shown.run, shown.floors)
    elif form == "steps":
        data = run_as("csv", shown.run, shown.floors)
    elif form == "html":
        data = page_of(shown.run, shown.floors).encode("utf-8", "backslashreplace")
    else:
        table = run_table(here.source, shown, wide=form == "json")
        data = renderers.load(form)(table).encode("utf-8", "backslashreplace")
    safe = "".join(letter for letter in shown.run.id if letter.isascii() and (letter.isalnum() or letter in "._-"))
    headers = {"content-disposition": f'attachment; filename="muster-{safe}{ending}"'}
    return Response(data, media_type=media_type, headers=headers)
