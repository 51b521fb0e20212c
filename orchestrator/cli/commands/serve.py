"""`muster serve`: the dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import options

#: The variable that the token may stand in; as an argument every user of the machine could read it.
TOKEN_VARIABLE = "MUSTER_SERVE_TOKEN"


def serve(
    host: Annotated[
        str, typer.Option("--host", help="Where to listen. Any address but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any that is free.")] = 8787,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help=f"A file with the token that browsers and scripts must show; or set {TOKEN_VARIABLE}.",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="Serve https with it.", show_default=False)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's key.", show_default=False)
    ] = None,
    allow_runs: Annotated[
        bool, typer.Option("--allow-runs", help="Let people pause schedules and ask them for runs.")
    ] = False,
    store: options.StoreUrl = None,
) -> None:
    """Show the store in a browser: what goes on now, past runs, comparisons, trends, the lab, schedules."""
    import os
    import sys

    from orchestrator.web.settings import ServeSettings, checked, is_loopback, token_of

    settings = checked(
        ServeSettings(
            store_url=store or options.DEFAULT_STORE,
            host=host,
            port=port,
            token=token_of(token_file, os.environ.get(TOKEN_VARIABLE)),
            allow_runs=allow_runs,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
    )
    from orchestrator.web.server import serve as serve_until_ended

    def ready(address: str) -> None:
        mode = "schedules can be paused and run" if allow_runs else "read-only"
        print(f"muster dashboard: {address}  ({mode}; Ctrl-C ends it)", file=sys.stderr, flush=True)
        if settings.token is not None and settings.tls_cert is None and not is_loopback(host):
            print("  without TLS the token can be read on the network: --tls-cert, --tls-key", file=sys.stderr)

    serve_until_ended(settings, ready)
