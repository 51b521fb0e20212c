"""What goes on now."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from orchestrator.schedules.state import schedule_data
from orchestrator.web.context import Here
from orchestrator.web.liveview import structure
from orchestrator.web.pages.render import page

router = APIRouter(include_in_schema=False)

#: Past runs that are shown where none goes on.
_LATEST: Final = 5


@router.get("/")
def now(request: Request, here: Here) -> Response:
    """Every run that goes on: a card a host, a bar a device."""
    return _shown(request, here, "now.html")


@router.get("/now/region")
def region(request: Request, here: Here) -> Response:
    """The part of the page that is drawn anew where runs or devices are other ones."""
    return _shown(request, here, "now_region.html")


@router.get("/now/events")
async def events(here: Here, shown: str = "") -> Response:
    """Server-sent events: what has changed since the page was drawn, once a second at most."""
    if here.feed.is_full:
        return JSONResponse({"error": "too many pages look at once", "remedy": "close some"}, status_code=503)
    return StreamingResponse(
        here.feed.events(shown), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )


def _shown(request: Request, here: Here, template: str) -> Response:
    found = here.feed.look()
    with here.source.opened() as store:
        latest = () if found else store.runs()[:_LATEST]
        coming = [] if found else [schedule_data(store.schedules, each) for each in store.schedules.every()]
    return page(
        request,
        here,
        template,
        runs=found,
        structure=structure(found),
        latest=latest,
        coming=sorted((each for each in coming if each["next_at"]), key=lambda each: str(each["next_at"])),
    )
