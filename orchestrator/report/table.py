"""The one table that every renderer draws."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from workers.protocol import Verdict

#: What a cell holds for machines; ``None`` where there is no figure.
CellValue: TypeAlias = str | int | float | None


class Align(str, enum.Enum):
    """On which side of its column a cell stands."""

    LEFT = "left"
    RIGHT = "right"


class RowKind(str, enum.Enum):
    """Where a row's figures come from."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a table."""

    #: Its name for machines: ``forward_ms``.
    key: str
    #: Its name for people: ``Forward pass (ms)``.
    heading: str
    unit: str | None = None
    align: Align = Align.LEFT
    #: True where each cell is a mean with a standard deviation and a verdict.
    has_spread: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """Words of a cell's text that lead somewhere, for the forms that can show it."""

    text: str
    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One cell: what people read and what machines read."""

    text: str
    value: CellValue = None
    #: Population standard deviation of ``value``, in the column's unit; ``None`` where it has none.
    sd: float | None = None
    #: Where the cell holds a figure or the reason for none; ``None`` for plain text.
    verdict: Verdict | None = None
    #: Why there is no value, or why it is doubtful.
    reason: str | None = None
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row; its cells stand in the order of the table's columns."""

    kind: RowKind
    cells: tuple[Cell, ...]
    #: For machines: what the row's figures are of, such as ``("batch_size", 128)``.
    definition: tuple[tuple[str, CellValue], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table and what must be said below it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
