"""The server in the foreground, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Final

import uvicorn

from orchestrator.errors import UsageError
from orchestrator.web.app import create_app

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from fastapi import FastAPI

    from orchestrator.web.settings import ServeSettings

#: Connections at once; more are told to come again.
MOST_CONNECTIONS: Final = 256

#: Seconds that requests have to end once the server is to.
_END_S: Final = 3


class _Server(uvicorn.Server):
    """Sends those home who look at the live page when it is to end: they would wait for ever."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        asyncio.get_event_loop().call_soon_threadsafe(self._app.state.context.feed.close)
        super().handle_exit(sig, frame)


def serve(settings: ServeSettings, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``ready`` is told the address. Raises UsageError for one that cannot be had."""
    listening = _listening(settings)
    with contextlib.closing(listening):
        _serve(settings, listening, ready)


def _serve(settings: ServeSettings, listening: socket.socket, ready: Callable[[str], None]) -> None:
    app = create_app(settings)
    app.state.context.source.check()
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=_END_S,
        timeout_keep_alive=10,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    # The server raises the signal once more when it has ended: here it is all that was to be done.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ready(_address(settings, listening))
        _Server(config, app).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listening(settings: ServeSettings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, reuse_port=False)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {settings.host} port {settings.port}: {error}",
            remedy="take another one: --port 8788, or --port 0 for any that is free",
        ) from error


def _address(settings: ServeSettings, listening: socket.socket) -> str:
    port = listening.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{settings.scheme}://{host}:{port}/"
