"""What stands before every route: whose request it is, how large it may be, and what browsers are told."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse

from orchestrator.web.session import COOKIE
from orchestrator.web.settings import is_loopback

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from orchestrator.web.session import Sessions
    from orchestrator.web.settings import ServeSettings

#: Nothing that is sent here is larger: a token, or a form with one button.
MOST_BODY_BYTES: Final = 16 * 1024

#: Longer addresses are no page of ours.
MOST_ADDRESS_BYTES: Final = 8 * 1024

#: What is answered without a token: whether the server lives, how to get in, and what that page looks like.
OPEN: Final = ("/healthz", "/login")
_OPEN_FOLDER: Final = "/static/"

_READING: Final = frozenset({"GET", "HEAD"})

#: Scripts, styles and pictures of this server alone, none of them within a page; nobody frames it.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)

_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # None at all would have browsers leave out who asks, also where a form of ours is sent.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, sessions: Sessions) -> None:
        self._app = app
        self._settings = settings
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by itself what is not let through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope["muster.cookie"] = cookie_of(headers)
        refusal = self._refused(scope, headers)
        answer = _with_headers(send, is_tls=self._settings.tls_cert is not None)
        body = await _body(scope, receive) if refusal is None else b""
        refusal = _told(413, "too much was sent") if body is None else refusal
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        await self._app(scope, _again(body or b"", receive), answer)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > MOST_ADDRESS_BYTES:
            return _told(414, "the address is too long")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BODY_BYTES:
            return _told(413, "too much was sent")
        if not self._is_our_name(headers):
            # A page elsewhere whose name leads to this machine (DNS rebinding) would be read with our eyes.
            return _told(421, "this server is not called so; open it as http://127.0.0.1:PORT or http://localhost:PORT")
        if scope["method"] not in _READING and not _is_from_here(headers):
            return _told(403, "this came from another site")
        return self._stranger(scope, headers)

    def _is_our_name(self, headers: Headers) -> bool:
        if self._sessions.needs_token:
            return True
        return is_loopback(_host_of(headers.get("host", "")))

    def _stranger(self, scope: Scope, headers: Headers) -> Response | None:
        path = scope["path"]
        if path in OPEN or path.startswith(_OPEN_FOLDER):
            return None
        if self._sessions.is_let_in(headers, scope["muster.cookie"]):
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            query = scope["query_string"].decode("latin-1")
            where = quote(path, safe="/") + (f"?{query}" if query else "")
            return RedirectResponse(f"/login?next={quote(where, safe='')}", status_code=303)
        return JSONResponse(
            {"error": "a token is needed", "remedy": "Authorization: Bearer TOKEN"},
            status_code=401,
            headers={"www-authenticate": 'Bearer realm="muster"'},
        )


def cookie_of(headers: Headers) -> str | None:
    """Return our cookie, where there is one."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


def _is_from_here(headers: Headers) -> bool:
    """Return whether a request that changes something was made by a page of ours, or by no page at all."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


def _host_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _told(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status_code=status)


def _with_headers(send: Send, *, is_tls: bool) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if is_tls:
                headers.setdefault("strict-transport-security", "max-age=31536000")
        await send(message)

    return sent


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """Return what was sent; ``None`` for too much, whose length nobody told."""
    if scope["method"] in _READING:
        return b""
    taken = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        taken += part
        if len(taken) > MOST_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return taken


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives the body once more, and then whatever comes."""
    is_given = False

    async def received() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received
