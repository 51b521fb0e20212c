"""What every route needs, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from orchestrator.errors import ExitCode, MusterError

if TYPE_CHECKING:
    from orchestrator.web.charts import Charts
    from orchestrator.web.feed import Feed
    from orchestrator.web.session import Sessions
    from orchestrator.web.settings import ServeSettings
    from orchestrator.web.source import StoreSource


class NotAllowedError(MusterError):
    """The server only shows, or a form is not one of its own."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """The parts of a server."""

    settings: ServeSettings
    source: StoreSource
    sessions: Sessions
    feed: Feed
    charts: Charts

    def require_runs(self) -> None:
        """Raise NotAllowedError where nothing may be begun or stopped from here."""
        if not self.settings.allow_runs:
            raise NotAllowedError("this dashboard only shows", remedy="begin it so: muster serve --allow-runs")


def _context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


Here = Annotated[Context, Depends(_context)]
