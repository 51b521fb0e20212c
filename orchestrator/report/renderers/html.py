"""The table as HTML to be put into another page: a ``table`` and a list of notes, no style and no script.

``muster report`` makes a whole page.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from orchestrator.report.links import address, pieces
from orchestrator.report.printable import printable
from orchestrator.report.table import Align

if TYPE_CHECKING:
    from orchestrator.report.table import Cell, Column, Row, Table

FORMAT: Final = "html"


def render(table: Table, *, width: int | None = None, color: bool = False) -> str:
    """Return the table as HTML 5; everything that came from a config or a host is escaped.

    A row has its kind as a class, a figure ``number``; a cell its column's key and its verdict as ``data-`` attributes,
    and the reason why there is no figure, or a doubtful one, as its title.
    """
    del width, color
    headings = "".join(f'<th scope="col">{_escaped(column.heading)}</th>' for column in table.columns)
    lines = [
        "<table>",
        *([f"<caption>{_escaped(table.title)}</caption>"] if table.title else []),
        f"<thead><tr>{headings}</tr></thead>",
        "<tbody>",
        *(_row(table.columns, row) for row in table.rows),
        "</tbody>",
        "</table>",
    ]
    if table.notes:
        lines += ["<ul>", *(f"<li>{_escaped(note)}</li>" for note in table.notes), "</ul>"]
    return "\n".join(lines) + "\n"


def _row(columns: tuple[Column, ...], row: Row) -> str:
    cells = "".join(_cell(column, cell) for column, cell in zip(columns, row.cells, strict=True))
    return f'<tr class="{row.kind.value}">{cells}</tr>'


def _cell(column: Column, cell: Cell) -> str:
    verdict = "" if cell.verdict is None else f' data-verdict="{cell.verdict.value}"'
    reason = "" if not cell.reason else f' title="{_escaped(cell.reason)}"'
    align = ' class="number"' if column.align is Align.RIGHT else ""
    return f'<td data-column="{_escaped(column.key)}"{verdict}{reason}{align}>{_content(cell)}</td>'


def _content(cell: Cell) -> str:
    return "".join(
        escape(piece) if url is None else f'<a href="{escape(address(url))}" rel="noreferrer">{escape(piece)}</a>'
        for piece, url in pieces(cell)
    )


def _escaped(text: str) -> str:
    return escape(printable(text))
