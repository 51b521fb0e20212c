"""Runs that begin by themselves: when next, what came of the last time, and two buttons."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from orchestrator.errors import ConfigError, UnknownNameError
from orchestrator.schedules.service import LEADER
from orchestrator.schedules.state import coming, firing_data, require, schedule_data, schedule_of
from orchestrator.web.context import Here, NotAllowedError
from orchestrator.web.pages.render import page

if TYPE_CHECKING:
    from orchestrator.results import Schedule
    from orchestrator.web.context import Context

router = APIRouter(include_in_schema=False)

#: Times of a schedule on its page.
_MOST: Final = 50
_MOST_COMING: Final = 5

ACTS: Final = ("pause", "unpause", "run-now")


@router.get("/schedules")
def schedules(request: Request, here: Here) -> Response:
    """Every schedule."""
    with here.source.opened() as store:
        found = [schedule_data(store.schedules, each) for each in store.schedules.every()]
        is_led = LEADER in store.at_work()
    return page(request, here, "schedules.html", schedules=found, is_led=is_led)


@router.get("/schedules/{name}")
def history(request: Request, here: Here, name: str) -> Response:
    """One schedule and its latest times."""
    with here.source.opened() as store:
        found = require(store.schedules, name)
        return page(
            request,
            here,
            "schedule.html",
            schedule=schedule_data(store.schedules, found),
            coming=_coming(found),
            firings=[firing_data(each) for each in store.schedules.history(name, _MOST)],
            config=found.config_text,
            is_led=LEADER in store.at_work(),
        )


def _coming(found: Schedule) -> tuple[datetime.datetime, ...]:
    try:
        return () if found.is_paused else coming(schedule_of(found), found.name, _MOST_COMING)
    except ConfigError:  # the page says what is wrong with it
        return ()


@router.post("/schedules/{name}/{act}")
async def change(request: Request, here: Here, name: str, act: str) -> Response:
    """Pause a schedule, let it run again, or ask for a run now; from a form of ours alone."""
    here.require_runs()
    form = parse_qs((await request.body()).decode("latin-1"))
    word = (form.get("word") or [""])[0]
    if not here.sessions.is_form_word(word, request.scope.get("muster.cookie")):
        raise NotAllowedError("the form is not this server's, or is of before it began", remedy="load the page anew")
    await run_in_threadpool(done, here, name, act)
    return RedirectResponse(f"/schedules/{quote(name, safe='')}", status_code=303)


def done(here: Context, name: str, act: str) -> None:
    """Do what was asked of a schedule; raises UsageError for one that is not there."""
    if act not in ACTS:
        raise UnknownNameError(f"there is nothing called {act!r} to do", remedy=f"there are: {', '.join(ACTS)}")
    with here.source.opened() as store:
        require(store.schedules, name)
        if act == "run-now":
            store.schedules.ask(name, datetime.datetime.now(datetime.timezone.utc))
        else:
            store.schedules.pause(name, act == "pause")
