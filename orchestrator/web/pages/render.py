"""Templates, filled: everything that came from a config, a host or a bundle is escaped, and steers nothing."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import jinja2
from fastapi.responses import HTMLResponse

from orchestrator.report.links import is_web
from orchestrator.report.printable import printable
from orchestrator.report.words import count, seconds
from workers.version import VERSION

if TYPE_CHECKING:
    from fastapi import Request

    from orchestrator.web.context import Context

_FOLDER: Final = Path(__file__).parent.parent / "templates"

#: The pages, in the order of the menu.
MENU: Final = (
    ("/", "Now"), ("/runs", "Runs"), ("/compare", "Compare"), ("/trends", "Trends"), ("/lab", "Lab"),
    ("/schedules", "Schedules"),
)  # fmt: skip


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(printable=printable, when=when, part=lambda text: quote(str(text), safe=""), seconds=seconds)
    made.globals.update(count=count, menu=MENU, version=VERSION, is_web=is_web, facts=lambda row: dict(row.definition))
    return made


def when(moment: datetime.datetime | str | None) -> str:
    """Return a time as tables show it, in UTC; ``never`` for none."""
    if moment is None:
        return "never"
    at = datetime.datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"{at.astimezone(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"


_TEMPLATES: Final = _environment()


def page(request: Request, here: Context, template: str, *, status: int = 200, **given: Any) -> HTMLResponse:
    """Return a page; its templates know who looks, and what this server allows."""
    shared = {
        "path": request.url.path,
        "simulated": False,
        "has_token": here.sessions.needs_token,
        "allow_runs": here.settings.allow_runs,
        "form_word": here.sessions.form_word(request.scope.get("muster.cookie")),
        "address": lambda **changed: _address(request, changed),
    }
    text = _TEMPLATES.get_template(template).render(**{**shared, **given})
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), status_code=status)


def _address(request: Request, changed: dict[str, str | None]) -> str:
    """Return this page's address with some of its questions put otherwise; ``None`` leaves one out."""
    asked = {**dict(request.query_params), **changed}
    return f"?{urlencode({name: value for name, value in asked.items() if value not in (None, '')})}"
