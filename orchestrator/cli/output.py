"""What commands print on stdout."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.schema import ReportConfig
    from orchestrator.report.table import Table
    from orchestrator.results import NoiseFloor, Run


def print_data(data: Any) -> None:
    """Print data for machines: indented JSON."""
    print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def print_run(
    run: Run,
    report: ReportConfig,
    *,
    form: str,
    wide: bool,
    store: str | None = None,
    floors: Sequence[NoiseFloor] = (),
    beside: Sequence[Run] = (),
) -> None:
    """Print a run's table as the config's ``report`` asks for it; as JSON always with every column.

    ``store`` is where the run is kept, for the commands in the notes; ``floors`` are the noise floors that it knows;
    the rows of the runs ``beside`` it stand below its own.
    """
    # Here and not above: numpy comes with this, and `check` and `plan` have no use for it.
    from orchestrator.report.asked import table_as_asked

    table = table_as_asked(run, report, wide=wide or form == "json", store=store, floors=floors, beside=beside)
    print_table(table, form=form)


def print_table(table: Table, *, form: str) -> None:
    """Print a table in a form, as the terminal can show it."""
    from orchestrator.report import renderers

    sys.stdout.write(renderers.load(form)(table, width=width(), color=has_color()))


def width() -> int | None:
    """Return the terminal's width; where output goes elsewhere a table takes what it needs."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def has_color() -> bool:
    """Return whether stdout is a terminal that shows colours, and nobody asked for none."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
