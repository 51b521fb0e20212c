"""`muster report`: a run as one page of HTML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import options


def report(
    name: options.RunName = "latest",
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - for stdout.")] = Path(
        "muster.html"
    ),
    store: options.StoreUrl = None,
) -> None:
    """Write a run as one page of HTML that needs nothing else: table, pictures, environments, config."""
    from orchestrator.analysis import references
    from orchestrator.cli.output import report_of
    from orchestrator.cli.sides import floors_of
    from orchestrator.errors import UsageError
    from orchestrator.report.page.render import render_page
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        run = opened.run(name)
        floors = floors_of(opened, run)
    page = render_page(run, references=references.load(report_of(run).references), floors=floors)
    if str(output) == "-":
        sys.stdout.write(page)
        return
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}", remedy="--output FILE") from error
    print(f"{output}", file=sys.stderr)
