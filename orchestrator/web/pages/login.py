"""The way in, and out."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from orchestrator.web.context import Here
from orchestrator.web.pages.render import page
from orchestrator.web.session import COOKIE, LASTS_S

router = APIRouter(include_in_schema=False)


@router.get("/login")
def login(request: Request, here: Here, next: str = "/") -> Response:
    """Ask for the token."""
    if not here.sessions.needs_token:
        return RedirectResponse("/", status_code=303)
    return page(request, here, "login.html", next=_local(next), problem="")


@router.post("/login")
async def enter(request: Request, here: Here) -> Response:
    """Let a browser in that knows the token."""
    form = parse_qs((await request.body()).decode("latin-1"))
    token, where = (form.get("token") or [""])[0], _local((form.get("next") or ["/"])[0])
    if here.sessions.is_held_off():
        problem = "Too many wrong tokens; wait a minute."
        return page(request, here, "login.html", status=429, next=where, problem=problem)
    if not here.sessions.is_token(token.strip()):
        here.sessions.note_wrong()
        return page(request, here, "login.html", status=401, next=where, problem="That is not the token.")
    answer = RedirectResponse(where, status_code=303)
    answer.set_cookie(
        COOKIE,
        here.sessions.new(),
        max_age=LASTS_S,
        httponly=True,
        samesite="strict",
        secure=here.settings.tls_cert is not None,
    )
    return answer


@router.post("/logout")
def leave() -> Response:
    """Have a browser forget that it was let in."""
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(COOKIE)
    return answer


def _local(where: str) -> str:
    """Return an address of this server's; its first page for any other."""
    is_local = where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable()
    return where if is_local and "\\" not in where else "/"
