"""Two runs held against each other."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from orchestrator.report.plots.style import Theme
from orchestrator.store.sides import BASELINE
from orchestrator.web.context import Here
from orchestrator.web.pages.render import page
from orchestrator.web.pages.runs import svg
from orchestrator.web.runtables import compared
from orchestrator.web.sorting import sorted_by

router = APIRouter(include_in_schema=False)

#: Runs to choose from, the newest; others can be named in the address.
_MOST_OFFERED: Final = 500


@router.get("/compare")
def compare(
    request: Request,
    here: Here,
    before: str = "",
    after: str = "",
    threshold: str = "",
    sort: str = "",
    desc: bool = False,
) -> Response:
    """Choose two; then what became slower or faster, with intervals, and what else is different."""
    with here.source.opened() as store:
        every = [run for run in store.runs() if run.figures][:_MOST_OFFERED]
        baselines = store.baselines()
    found, table = None, None
    if before and after:
        found, table = compared(here.source.side(before), here.source.side(after), threshold)
        table = sorted_by(table, sort, is_descending=desc)
    return page(
        request,
        here,
        "compare.html",
        runs=every,
        baselines=[f"{BASELINE}{one.name}" for one in baselines],
        before=before,
        after=after,
        threshold=threshold,
        table=table,
        has_picture=found is not None and bool(found.comparable),
        sort=sort,
        desc=desc,
        regressions=0 if found is None else len(found.regressions(None)),
    )


@router.get("/compare.svg")
def picture(here: Here, before: str, after: str, theme: Theme = Theme.LIGHT) -> Response:
    """Each case's change with its interval."""
    from orchestrator.report.plots.changes import changes  # matplotlib: only where there is a picture

    old, new = here.source.side(before), here.source.side(after)
    key = ("compare", old.run.id, old.run.finished_at, new.run.id, new.run.finished_at, new.floors)
    return svg(here.charts.svg(key, theme, lambda: changes(compared(old, new, "")[0])))
