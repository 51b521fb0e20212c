"""`muster export`: a run as a file that another lab, or another program, can read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.cli import options

if TYPE_CHECKING:
    from orchestrator.results import NoiseFloor, Run

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
    from orchestrator.cli.files import deliver
    from orchestrator.cli.sides import sides

    (given,) = sides(store or options.DEFAULT_STORE, name)
    run, floors = given.run, given.floors
    if anonymous:
        from orchestrator.bundle.anonymous import anonymous as without_names

        run, floors = without_names(run, floors)
    path = output or Path(f"{run.id}{SUFFIX}")
    data = _data(run, floors, _form_of(path), is_anonymous=anonymous)
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


def _data(run: Run, floors: tuple[NoiseFloor, ...], form: str, *, is_anonymous: bool) -> bytes:
    if form == "bundle":
        from orchestrator.analysis import references
        from orchestrator.bundle.archive import packed
        from orchestrator.cli.output import report_of
        from orchestrator.report.page.render import render_page

        page = render_page(run, references=references.load(report_of(run).references), floors=floors)
        return packed(run, page, floors, is_anonymous=is_anonymous)
    if form == "json":
        from orchestrator.bundle.document import document_of, written

        return written(document_of(run, floors)).encode()
    from orchestrator.bundle.samples import as_csv, as_parquet

    return as_parquet(run) if form == "parquet" else as_csv(run).encode("utf-8", "backslashreplace")
