"""The application: routes, what stands before them, and what becomes of errors."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from orchestrator.errors import MusterError
from orchestrator.web import metrics
from orchestrator.web.api import v1
from orchestrator.web.api.answers import status_of
from orchestrator.web.charts import Charts
from orchestrator.web.context import Context
from orchestrator.web.feed import Feed
from orchestrator.web.guard import Guard
from orchestrator.web.pages import compare, lab, login, now, runs, schedules, trends
from orchestrator.web.pages.render import page
from orchestrator.web.session import Sessions
from orchestrator.web.source import StoreSource
from workers.version import VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.web.settings import ServeSettings

_STATIC: Final = Path(__file__).with_name("static")

_HEADINGS: Final = {400: "That cannot be", 403: "Not from here", 404: "Not here", 409: "That cannot be"}


def create_app(settings: ServeSettings, *, feed_every_s: float = 1.0) -> FastAPI:
    """Return the application for a store; the store is opened with the first request."""
    source = StoreSource(settings.store_url)
    sessions = Sessions(settings.token)
    context = Context(
        settings=settings,
        source=source,
        sessions=sessions,
        feed=Feed(source, every_s=feed_every_s),
        charts=Charts(),
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        context.feed.close()
        source.close()

    app = FastAPI(
        title="muster",
        version=VERSION,
        description="What a store has, as `muster … --json` gives it.",
        openapi_url="/api/v1/openapi.json",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.context = context
    for module in (now, runs, compare, trends, lab, schedules, login, metrics, v1):
        app.include_router(module.router)
    app.add_api_route("/healthz", _healthz, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_STATIC))
    app.add_exception_handler(MusterError, _muster_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _not_valid)
    # The server's log has the rest.
    app.add_exception_handler(Exception, _mistake)
    # Server-sent events are left as they are: each has to arrive by itself.
    app.add_middleware(GZipMiddleware, minimum_size=1024)
    app.add_middleware(Guard, settings=settings, sessions=sessions)
    return app


def _healthz() -> Response:
    """The server answers; of the store nothing is said, for anybody may ask."""
    return PlainTextResponse("ok\n")


async def _muster_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MusterError)
    return _problem(request, status_of(error), error.message, error.remedy)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers: Any = error.headers
    answer = _problem(request, error.status_code, str(error.detail), None)
    answer.headers.update(headers or {})
    return answer


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    return _problem(request, 400, f"{place}: {first['msg']}", None)


async def _mistake(request: Request, error: Exception) -> Response:
    remedy = "The server's own log says more; please report it."
    return _problem(request, 500, f"muster made a mistake: {type(error).__name__}", remedy)


def _problem(request: Request, status: int, message: str, remedy: str | None) -> Response:
    path = request.url.path
    if path.startswith("/api/") or "text/html" not in request.headers.get("accept", "text/html"):
        return JSONResponse({"error": message, "remedy": remedy}, status_code=status)
    heading = _HEADINGS.get(status, "Something is wrong")
    here: Context = request.app.state.context
    return page(request, here, "problem.html", status=status, heading=heading, message=message, remedy=remedy)
