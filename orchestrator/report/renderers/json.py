"""The table as JSON, for machines: nothing that the table holds is left out.

The shape, at ``schema_version`` 1; keys are only ever added within a version::

    {
      "schema_version": 1,
      "title": "lab, run 7f3a, 2026-11-23 14:03 UTC",
      "columns": [{"key": "forward_ms", "heading": "Forward pass (ms)", "unit": "ms"}, ...],
      "rows": [
        {
          "kind": "measured",                       one of measured, simulated, reference
          "definition": {"device_id": "localhost/cpu", "model": "alexnet", "batch_size": 128, ...},
          "cells": {                                by the column's key
            "forward_ms": {
              "text": "373.4 +/- 5.2",              what people read
              "value": 373.41,                      in the column's unit; null where there is no figure
              "sd": 5.19,                           population standard deviation, same unit, or null
              "verdict": "ok",                      null where the cell is not about a case
              "reason": null,                       why there is no value, or why it is doubtful
              "links": [{"text": ..., "url": ...}]
            }, ...
          }
        }, ...
      ],
      "notes": ["..."]
    }
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from typing_extensions import TypedDict

if TYPE_CHECKING:
    from orchestrator.report.table import Cell, Column, Row, Table

FORMAT: Final = "json"

SCHEMA_VERSION: Final = 1


class ColumnData(TypedDict):
    """One column."""

    key: str
    heading: str
    unit: str | None


class LinkData(TypedDict):
    """Words of a cell that lead somewhere."""

    text: str
    url: str


class CellData(TypedDict):
    """One cell; without a value there is a verdict or a reason."""

    text: str
    value: str | int | float | None
    sd: float | None
    verdict: str | None
    reason: str | None
    links: list[LinkData]


class RowData(TypedDict):
    """One row; its cells by the columns' keys."""

    kind: str
    definition: dict[str, str | int | float | None]
    cells: dict[str, CellData]


class TableData(TypedDict):
    """A table."""

    schema_version: int
    title: str
    columns: list[ColumnData]
    rows: list[RowData]
    notes: list[str]


def render(table: Table, *, width: int | None = None, color: bool = False) -> str:
    """Return the table as indented ASCII JSON; raises ValueError for NaN and infinities."""
    del width, color
    return json.dumps(table_data(table), indent=2, allow_nan=False) + "\n"


def table_data(table: Table) -> TableData:
    """Return the table as data."""
    return {
        "schema_version": SCHEMA_VERSION,
        "title": table.title,
        "columns": [{"key": column.key, "heading": column.heading, "unit": column.unit} for column in table.columns],
        "rows": [_row(table.columns, row) for row in table.rows],
        "notes": list(table.notes),
    }


def _row(columns: tuple[Column, ...], row: Row) -> RowData:
    return {
        "kind": row.kind.value,
        "definition": dict(row.definition),
        "cells": {column.key: _cell(cell) for column, cell in zip(columns, row.cells, strict=True)},
    }


def _cell(cell: Cell) -> CellData:
    return {
        "text": cell.text,
        "value": cell.value,
        "sd": cell.sd,
        "verdict": None if cell.verdict is None else cell.verdict.value,
        "reason": cell.reason,
        "links": [{"text": link.text, "url": link.url} for link in cell.links],
    }
