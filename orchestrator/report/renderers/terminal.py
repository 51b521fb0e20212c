"""The table for a terminal: wrapped to its width, nothing left out, failures in words and not by colour alone."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.report.console import UNBOUNDED, drawing_console, drawn
from orchestrator.report.printable import printable
from orchestrator.report.table import Align, RowKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.text import Text

    from orchestrator.report.table import Cell, Row, Table

FORMAT: Final = "table"

#: The seed's columns stand in one block; what ``--wide`` adds follows in blocks of as many columns as fit.
_FIRST_BLOCK: Final = 6

#: Columns that every further block repeats, so that its rows can be told apart: Num and GPU/CPU.
_REPEATED: Final = (0, 1)

_GAP: Final = "  "

#: How far the last column of a block stands in where it goes below its row.
_INDENT: Final = 5

#: The narrowest that a column of words is made before figures are wrapped as well.
_NARROWEST_WORDS: Final = 10

#: A command of ours at the end of a note.
_COMMAND: Final = re.compile(r": (muster .*)$")

#: What a shell takes as: this line goes on.
_CONTINUED: Final = " \\"

_ROW_STYLES: Final = {RowKind.MEASURED: "", RowKind.SIMULATED: "magenta", RowKind.REFERENCE: "dim"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """Columns that stand side by side."""

    #: Places in the table, and the width of each.
    places: tuple[int, ...]
    widths: tuple[int, ...]
    #: The column that stands below each row, for there is no room beside it.
    below: int | None = None


def render(table: Table, *, width: int | None = None, color: bool = False) -> str:
    """Return the table drawn with blanks and a rule: title, blocks of columns, notes.

    Where the seed's six columns do not fit into ``width``, Details go below their row. Words wrap; figures stay in one
    piece unless the terminal is too narrow for them. Further columns go on in blocks below, each with the row's
    number and device.
    """
    console = drawing_console(width, color)
    if table.title:
        console.print(_text(table.title, "bold"), end="\n\n")
    for number, block in enumerate(_blocks(table, width or UNBOUNDED)):
        console.print(end="\n" if number else "")
        for line in _lines(table, block, console):
            console.print(line)
    if table.notes:
        console.print()
    for note in table.notes:
        for number, line in enumerate(_note(note, console)):
            mark = _text("" if number else "*")
            mark.align("left", 2)
            console.print(mark.append_text(line))
    return drawn(console)


def _note(note: str, console: Console) -> list[Text]:
    """The lines of a note. Where a command at its end is folded, backslashes keep it whole for those who copy it."""
    text, width = _text(note), console.width - 2
    command = _COMMAND.search(text.plain)
    if command is None:
        return _wrapped(text, width, console)
    lines = _wrapped(text, width - len(_CONTINUED), console)
    end = -1
    for line in lines[:-1]:
        end += len(line.plain) + 1
        line.append(_CONTINUED if end > command.start(1) else "")
    return lines


# --- where columns stand ---------------------------------------------------------------------------------------


def _blocks(table: Table, width: int) -> list[_Block]:
    places = tuple(range(len(table.columns)))
    first, rest = places[:_FIRST_BLOCK], list(places[_FIRST_BLOCK:])
    blocks = [_first_block(table, first, width)]
    while rest:
        taken = 1
        while taken < len(rest) and _fits(table, (*_REPEATED, *rest[: taken + 1]), width):
            taken += 1
        together = (*_REPEATED, *rest[:taken])
        blocks.append(_Block(places=together, widths=_widths(table, together, width)))
        rest = rest[taken:]
    return blocks


def _first_block(table: Table, places: tuple[int, ...], width: int) -> _Block:
    natural = tuple(_natural(table, place) for place in places)
    if _total(natural) <= width or len(places) < _FIRST_BLOCK:
        return _Block(places=places, widths=natural if _total(natural) <= width else _widths(table, places, width))
    beside = places[:-1]
    return _Block(places=beside, widths=_widths(table, beside, width), below=places[-1])


def _fits(table: Table, places: Sequence[int], width: int) -> bool:
    return _total([_narrowest(table, place) for place in places]) <= width


def _widths(table: Table, places: Sequence[int], width: int) -> tuple[int, ...]:
    """Return how wide each column is made: columns of words give way first, the widest of them before the others."""
    widths = [_needed(table, place) for place in places]
    floors = [_narrowest(table, place) for place in places]
    if _total(floors) > width:
        floors = [1] * len(places)
    while _total(widths) > width and widths != floors:
        widest = max(range(len(places)), key=lambda at: widths[at] if widths[at] > floors[at] else 0)
        widths[widest] -= 1
    return tuple(widths)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _stays_whole(table: Table, place: int) -> bool:
    """True for columns of figures and of verdicts, which are read as one word."""
    column = table.columns[place]
    is_figure = column.has_spread or column.align is Align.RIGHT
    return is_figure or any(row.cells[place].verdict is not None for row in table.rows)


def _natural(table: Table, place: int) -> int:
    """The width at which nothing of a column wraps."""
    return max(_length(table.columns[place].heading), _widest_cell(table, place))


def _needed(table: Table, place: int) -> int:
    """The width at which no cell of a column wraps, its heading folded at words and hyphens."""
    return max([_widest_cell(table, place), *map(_length, _folded(table.columns[place].heading, 1))])


def _narrowest(table: Table, place: int) -> int:
    needed = _needed(table, place)
    return needed if _stays_whole(table, place) else min(needed, _NARROWEST_WORDS)


def _widest_cell(table: Table, place: int) -> int:
    return max((_length(row.cells[place].text) for row in table.rows), default=1)


def _length(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(printable(text))


# --- what stands there -----------------------------------------------------------------------------------------


def _lines(table: Table, block: _Block, console: Console) -> Iterator[Text]:
    headings = [
        _heading(_folded(table.columns[place].heading, width))
        for place, width in zip(block.places, block.widths, strict=True)
    ]
    yield from _beside(table, block, headings, console)
    yield _text("-" * min(_total(block.widths), console.width))
    for row in table.rows:
        cells = [_cell(row, row.cells[place]) for place in block.places]
        yield from _beside(table, block, cells, console)
        if block.below is not None and row.cells[block.below].text:
            below = _cell(row, row.cells[block.below])
            for line in _wrapped(below, console.width - _INDENT, console):
                line.pad_left(_INDENT)
                yield line


def _beside(table: Table, block: _Block, cells: Sequence[Text], console: Console) -> Iterator[Text]:
    """The lines of one row: as many as its highest cell has."""
    columns = [_wrapped(cell, width, console) for cell, width in zip(cells, block.widths, strict=True)]
    for at in range(max(map(len, columns))):
        line = _text("")
        for place, width, pieces in zip(block.places, block.widths, columns, strict=True):
            piece = pieces[at] if at < len(pieces) else _text("")
            piece.align(table.columns[place].align.value, width)
            line.append_text(piece).append(_GAP)
        line.rstrip()
        yield line


def _wrapped(text: Text, width: int, console: Console) -> list[Text]:
    lines = list(text.wrap(console, max(width, 1), overflow="fold"))
    for line in lines:
        line.rstrip()
    return lines


def _folded(heading: str, width: int) -> list[str]:
    return textwrap.wrap(printable(heading), width, break_long_words=False)


def _heading(lines: Sequence[str]) -> Text:
    from rich.text import Text

    return Text("\n").join(_text(line, "bold") for line in lines)


def _cell(row: Row, cell: Cell) -> Text:
    if cell.verdict is None or cell.verdict.value == "ok":
        return _text(cell.text, _ROW_STYLES[row.kind])
    return _text(cell.text, "yellow" if cell.verdict.has_figure else "bold red")


def _text(text: str, style: str = "") -> Text:
    """``text`` as it stands: rich reads no markup in it, and nothing in it can steer the terminal."""
    from rich.text import Text

    return Text(printable(text), style=style)
