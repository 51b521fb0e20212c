"""`muster report`: a run as one page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import options


def report(
    name: options.ShownRun = "latest",
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - for stdout.")] = Path(
        "muster.html"
    ),
    store: options.StoreUrl = None,
) -> None:
    """Write a run as one page of HTML that needs nothing else: table, pictures, environments, config."""
    from orchestrator.bundle.forms import page_of
    from orchestrator.cli.files import deliver
    from orchestrator.cli.sides import sides

    (shown,) = sides(store or options.DEFAULT_STORE, name)
    page = page_of(shown.run, shown.floors)
    deliver(page.encode("utf-8", "backslashreplace"), output)
