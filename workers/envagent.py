"""Ray's agent for runtime environments, refusing every peer but its own host: ``envagent.py SCRIPT ARGUMENTS``.

See :mod:`workers.raystart` for why. Runs in Ray's environment, by path: it finds nothing of ours.
"""

from __future__ import annotations

import ipaddress
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket


def main() -> None:
    """Run the script named first, with what follows as its arguments."""
    del sys.argv[0]
    script = sys.argv[0]
    # Ray brings its own copy of aiohttp, and takes it from there.
    sys.path.insert(0, str(Path(script).with_name("thirdparty_files")))
    from aiohttp import web

    run = web.run_app

    def run_guarded(app: Any, *, sock: socket.socket, **named: Any) -> None:
        app.middlewares.insert(0, own_host_alone(web, sock.getsockname()[0]))
        run(app, sock=sock, **named)

    web.run_app = run_guarded
    runpy.run_path(script, run_name="__main__")


def own_host_alone(web: Any, own: str) -> Any:
    """Return a middleware that refuses every peer that is not this host, whose address is ``own``.

    ``web`` is ``aiohttp.web``. What comes from a loopback address comes from this host: the kernel sees to that.
    """

    async def refuse_others(request: Any, handler: Any) -> Any:
        if request.remote != own and not ipaddress.ip_address(request.remote).is_loopback:
            raise web.HTTPForbidden(text="for its own host alone")
        return await handler(request)

    return web.middleware(refuse_others)


if __name__ == "__main__":
    main()
