"""Pictures on their way to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.files import STDOUT, deliver
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure


def form_of(output: Path) -> str:
    """Return the form that a file's name asks for; raises UsageError for one that cannot be written."""
    if output == STDOUT:
        return "svg"
    form = output.suffix.removeprefix(".").lower()
    if form not in ("png", "svg"):
        raise UsageError(f"--output {output}: pictures are written as .png or .svg", remedy=f"{output.stem}.svg")
    return form


def write(figure: Figure, output: Path, form: str) -> None:
    """Write a picture, as :func:`orchestrator.cli.files.deliver` does."""
    from orchestrator.report.plots.style import written

    deliver(written(figure, form), output)
