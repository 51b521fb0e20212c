"""`muster export`: a run as a file that another lab, or another program, can read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from orchestrator.cli import options

#: What a file's ending asks for.
FORMS: Final = {".zip": "bundle", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


def export(
    name: options.ShownRun = "latest",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=(
                "Where to. Its ending says what: .muster.zip a bundle, .json the run alone, .csv or .parquet every step"
                " as a row; - the JSON on stdout. Without it: RUN.muster.zip."
            ),
            show_default=False,
        ),
    ] = None,
    anonymous: Annotated[
        bool,
        typer.Option(
            "--anonymous", help="Without the names of people, hosts, addresses and folders; look before you send."
        ),
    ] = False,
    store: options.StoreUrl = None,
) -> None:
    """Write a run as a file: a bundle that another muster checks and takes in, or data for other programs."""
    from orchestrator.bundle.archive import SUFFIX
    from orchestrator.bundle.forms import run_as
    from orchestrator.cli.files import deliver
    from orchestrator.cli.sides import sides

    (given,) = sides(store or options.DEFAULT_STORE, name)
    run, floors = given.run, given.floors
    if anonymous:
        from orchestrator.bundle.anonymous import anonymous as without_names

        run, floors = without_names(run, floors)
    path = output or Path(f"{run.id}{SUFFIX}")
    data = run_as(_form_of(path), run, floors, is_anonymous=anonymous)
    deliver(data, path, f": run {run.id}, {len(data)} bytes")


def _form_of(path: Path) -> str:
    from orchestrator.cli.files import STDOUT
    from orchestrator.errors import UsageError

    if path == STDOUT:
        return "json"
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(
            f"--output {path}: runs are written as {', '.join(FORMS)}",
            remedy=f"such as {path.stem or 'lab'}.muster.zip",
        )
    return form
