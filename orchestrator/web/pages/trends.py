"""How each workload on each device went from run to run."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from orchestrator.report.plots.style import Theme
from orchestrator.report.workloads import in_words
from orchestrator.web.context import Here
from orchestrator.web.listing import has_words
from orchestrator.web.pages.render import page
from orchestrator.web.pages.runs import svg
from orchestrator.web.runtables import history_id, history_of
from orchestrator.web.sorting import sorted_by

router = APIRouter(include_in_schema=False)


@router.get("/trends")
def trends(request: Request, here: Here, q: str = "", simulated: bool = False) -> Response:
    """Every workload on every device of which there are figures."""
    with here.source.opened() as store:
        every = store.histories(simulated=simulated)
    lines = [(history_id(each), each, in_words(each.case.workload)) for each in every]
    found = [line for line in lines if has_words(f"{line[1].case.device.id} {line[2]}", q)]
    return page(request, here, "trends.html", lines=found, total=len(lines), q=q, simulated=simulated)


@router.get("/trends/{word}")
def trend(
    request: Request, here: Here, word: str, simulated: bool = False, sort: str = "", desc: bool = False
) -> Response:
    """One history: its figures, the points where its level changed, and what differs there."""
    found = history_of(here.source, word, simulated=simulated)
    table = sorted_by(found.table, sort, is_descending=desc)
    return page(
        request, here, "trend.html", trend=found, table=table, word=word, simulated=simulated, sort=sort, desc=desc
    )


@router.get("/trends/{word}/picture.svg")
def picture(here: Here, word: str, simulated: bool = False, theme: Theme = Theme.LIGHT) -> Response:
    """A history as a picture."""
    from orchestrator.report.plots.trend import trend_figure  # matplotlib: only where there is a picture

    found = history_of(here.source, word, simulated=simulated)
    key = ("trend", word, simulated, tuple(point.run_id for point in found.points))
    return svg(here.charts.svg(key, theme, lambda: trend_figure(found.title, found.points, found.changes)))
