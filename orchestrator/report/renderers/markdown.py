"""The table as Markdown, in the seed's form to the letter, so that it can be pasted beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from orchestrator.report.links import address, pieces
from orchestrator.report.printable import printable
from orchestrator.report.table import Align

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.report.table import Cell, Column, Table

FORMAT: Final = "md"

#: What GitHub Flavored Markdown would take for markup inside a cell. An underscore within a word is none.
_MARKUP: Final = re.compile(r"[\\`*\[\]|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")

_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def render(table: Table, *, width: int | None = None, color: bool = False) -> str:
    """Return the table as GitHub Flavored Markdown: title, table, notes.

    All columns but the last are padded to their widest cell, the last to its heading, as in the seed.
    """
    del width, color
    grid = [[_cell(cell) for cell in row.cells] for row in table.rows]
    headings = [escaped(column.heading) for column in table.columns]
    widths = _widths(headings, grid)
    lines = [_line(headings, widths), _rule(table.columns, widths), *(_line(row, widths) for row in grid)]
    blocks = [f"### {escaped(table.title)}"] if table.title else []
    blocks.append("\n".join(lines))
    if table.notes:
        blocks.append("\n".join(f"* {escaped(note)}" for note in table.notes))
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Return ``text`` as one line that Markdown shows as it is."""
    return _escaped_line(printable(text))


def _escaped_line(line: str) -> str:
    entities = "".join(_ENTITIES.get(character, character) for character in line)
    return _MARKUP.sub(lambda match: f"\\{match[0]}", entities)


def _cell(cell: Cell) -> str:
    return "".join(
        _escaped_line(piece) if url is None else f"[{_escaped_line(piece)}]({address(url)})"
        for piece, url in pieces(cell)
    )


def _widths(headings: Sequence[str], grid: Sequence[Sequence[str]]) -> list[int]:
    widest = [max(map(len, column)) for column in zip(headings, *grid, strict=True)]
    return [*widest[:-1], len(headings[-1])]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _rule(columns: Sequence[Column], widths: Sequence[int]) -> str:
    dashes = (
        "-" * (width + 1) + (":" if column.align is Align.RIGHT else "-")
        for column, width in zip(columns, widths, strict=True)
    )
    return "|" + "|".join(dashes) + "|"
