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
from typing import TYPE_CHECKING, Any, Final

from workers.codec import to_data

if TYPE_CHECKING:
    from orchestrator.report.table import Column, Row, Table

FORMAT: Final = "json"

SCHEMA_VERSION: Final = 1


def render(table: Table, *, width: int | None = None, color: bool = False) -> str:
    """Return the table as indented ASCII JSON; raises ValueError for NaN and infinities."""
    del width, color
    data = {
        "schema_version": SCHEMA_VERSION,
        "title": table.title,
        "columns": [{"key": column.key, "heading": column.heading, "unit": column.unit} for column in table.columns],
        "rows": [_row(table.columns, row) for row in table.rows],
        "notes": list(table.notes),
    }
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def _row(columns: tuple[Column, ...], row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind.value,
        "definition": dict(row.definition),
        "cells": {column.key: to_data(cell) for column, cell in zip(columns, row.cells, strict=True)},
    }
