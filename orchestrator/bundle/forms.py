"""A run as a file: a bundle, or data for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.analysis import references
from orchestrator.bundle.archive import packed
from orchestrator.bundle.document import document_of, written
from orchestrator.bundle.samples import as_csv, as_parquet
from orchestrator.report.asked import report_of
from orchestrator.report.page.render import render_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.results import NoiseFloor, Run


def run_as(form: str, run: Run, floors: Sequence[NoiseFloor], *, is_anonymous: bool = False) -> bytes:
    """Return a run as a ``bundle``, as ``json``, or with every step as a row of ``csv`` or ``parquet``."""
    if form == "bundle":
        page = page_of(run, floors)
        return packed(run, page, tuple(floors), is_anonymous=is_anonymous)
    if form == "json":
        return written(document_of(run, tuple(floors))).encode()
    return as_parquet(run) if form == "parquet" else as_csv(run).encode("utf-8", "backslashreplace")


def page_of(run: Run, floors: Sequence[NoiseFloor]) -> str:
    """Return a run as one page of HTML, with the published rows that its config asks for."""
    return render_page(run, references=references.load(report_of(run).references), floors=floors)
