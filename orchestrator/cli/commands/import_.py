"""`muster import`: runs of other labs, checked and taken in."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import options

if TYPE_CHECKING:
    from orchestrator.bundle.archive import Bundle


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Bundles that muster export made.")],
    store: options.StoreUrl = None,
    json: options.Json = False,
) -> None:
    """Check bundles of other labs, and take their runs into the store: all of them, or none where one is wrong."""
    from orchestrator.bundle.archive import read
    from orchestrator.cli.output import print_data
    from orchestrator.results import Imported
    from orchestrator.store import open_store

    bundles = [(path, read(path)) for path in files]
    now = datetime.datetime.now(datetime.timezone.utc)
    told = []
    with open_store(store or options.DEFAULT_STORE) as opened:
        for path, bundle in bundles:
            with opened.written_by(bundle.run.id):
                is_new = opened.import_run(bundle.run, Imported(source=path.name, at=now))
            told.append(_told(path, bundle, is_new=is_new))
    if json:
        print_data(told)
        return
    for one in told:
        print(_line(one))


def _told(path: Path, bundle: Bundle, *, is_new: bool) -> dict[str, Any]:
    cases = bundle.run.cases
    return {
        "file": str(path),
        "sha256": bundle.sha256,
        "run": bundle.run.id,
        "name": bundle.run.name,
        "simulated": bundle.run.simulated,
        "anonymous": bundle.is_anonymous,
        "cases": len(cases),
        "figures": sum(each.verdict is not None and each.verdict.has_figure for each in cases),
        "new": is_new,
    }


def _line(one: dict[str, Any]) -> str:
    from orchestrator.report.printable import printable

    what = f"{one['figures']} of {one['cases']} cases with a figure{', simulated' if one['simulated'] else ''}"
    if not one["new"]:
        return f"run {one['run']} is there already: {one['file']} changed nothing"
    return (
        f"run {one['run']} ({printable(one['name'])}) is taken in from {one['file']}: {what}\n"
        f"  muster show {one['run']}    its table\n"
        f"  muster show --beside {one['run']}    its rows below those of the newest run here"
    )
