"""The table as CSV (RFC 4180), for spreadsheets and data frames.

The header has the columns' keys after ``kind`` (measured, simulated or reference). A column whose cells are a mean with
a spread becomes three: ``forward_ms``, ``forward_ms_sd`` and ``forward_ms_verdict``. Figures are bare numbers with all
their digits; where there is none the field is empty and the verdict says why. Title and notes have no place in CSV.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

from orchestrator.report.printable import for_spreadsheet

if TYPE_CHECKING:
    from orchestrator.report.table import Cell, CellValue, Column, Row, Table

FORMAT: Final = "csv"


def render(table: Table, *, width: int | None = None, color: bool = False) -> str:
    """Return the table as CSV with a header line; text that a spreadsheet would run begins with an apostrophe."""
    del width, color
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["kind", *(name for column in table.columns for name in _names(column))])
    writer.writerows(_fields(table.columns, row) for row in table.rows)
    return buffer.getvalue()


def _names(column: Column) -> tuple[str, ...]:
    return (column.key, f"{column.key}_sd", f"{column.key}_verdict") if column.has_spread else (column.key,)


def _fields(columns: tuple[Column, ...], row: Row) -> list[str]:
    fields = [row.kind.value]
    for column, cell in zip(columns, row.cells, strict=True):
        fields.append(_field(cell.value))
        if column.has_spread:
            fields += [_field(cell.sd), _verdict(cell)]
    return fields


def _verdict(cell: Cell) -> str:
    return "" if cell.verdict is None else cell.verdict.value


def _field(value: CellValue) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    return for_spreadsheet(value)
