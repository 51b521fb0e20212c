"""Arguments and options that several commands share: one spelling, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Beside the option that it is for.
from orchestrator.config.defaults import DEFAULT_STORE as DEFAULT_STORE

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML file.", show_default=False)]
RunName = Annotated[str, typer.Argument(metavar="[RUN]", help="An id, the beginning of one, or latest.")]
ShownRun = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]", help="An id, the beginning of one, latest, a baseline's name, or a bundle of muster export."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config: --set measure.steps=20."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="FIELD=VALUE", help="Keep only these cases: --only pass=forward."),
]
Simulate = Annotated[
    bool, typer.Option("--simulate", help="Use a made-up lab in virtual time; every row says that it is simulated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print data for machines.")]
Wide = Annotated[bool, typer.Option("--wide", help="Add images/s, TFLOP/s, share of peak, percentiles and more.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Say nothing while it runs.")]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="MUSTER_STORE",
        help=f"Where results are kept. Without it: the config's store, else {DEFAULT_STORE}.",
        show_default=False,
    ),
]


def _formats() -> list[str]:
    from orchestrator.report import renderers

    return list(renderers.names())


def _known_format(name: str) -> str:
    """Refuse a form that is not there before anything is run."""
    from orchestrator.report import renderers

    renderers.load(name)
    return name


OutputFormat = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        metavar="NAME",
        help=f"Form of the table: {', '.join(_formats())}.",
        autocompletion=_formats,
        callback=_known_format,
    ),
]
