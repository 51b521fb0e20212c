"""A table in the order of one of its columns. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.report.table import CellValue, Table


def sorted_by(table: Table, key: str | None, *, is_descending: bool = False) -> Table:
    """Return the table by a column's values: numbers before words; rows without a value last, whichever way.

    A column that is not there changes nothing.
    """
    place = next((i for i, column in enumerate(table.columns) if column.key == key), None)
    if place is None:
        return table
    with_value = [row for row in table.rows if row.cells[place].value is not None]
    without = [row for row in table.rows if row.cells[place].value is None]
    ordered = sorted(with_value, key=lambda row: _order(row.cells[place].value), reverse=is_descending)
    return replace(table, rows=(*ordered, *without))


def _order(value: CellValue) -> tuple[bool, float, str]:
    if isinstance(value, int | float):
        return False, float(value), ""
    return True, 0.0, str(value).casefold()
