"""Pictures on their way to a file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

#: Written on stdout, as SVG.
_STDOUT = "-"


def form_of(output: Path) -> str:
    """Return the form that a file's name asks for; raises UsageError for one that cannot be written."""
    if str(output) == _STDOUT:
        return "svg"
    form = output.suffix.removeprefix(".").lower()
    if form not in ("png", "svg"):
        raise UsageError(f"--output {output}: pictures are written as .png or .svg", remedy=f"{output.stem}.svg")
    return form


def write(figure: Figure, output: Path, form: str) -> None:
    """Write a picture, in place of one that is there; raises UsageError where it cannot be written."""
    from orchestrator.report.plots.style import written

    data = written(figure, form)
    if str(output) == _STDOUT:
        sys.stdout.buffer.write(data)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}", remedy="--output FILE") from error
