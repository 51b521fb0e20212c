r"""The table as LaTeX, for papers: a ``tabular`` with the rules of booktabs, notes below it.

The document loads ``booktabs``; ``\\usepackage{booktabs,hyperref}`` where the links of references should work.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from orchestrator.report.links import address, pieces
from orchestrator.report.printable import printable
from orchestrator.report.table import Align

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.report.table import Cell, Row, Table

FORMAT: Final = "latex"

#: Characters that mean something to TeX.
_SPECIAL: Final = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "…": r"\ldots{}", "→": r"$\rightarrow$",
}  # fmt: skip

_PLUS_MINUS: Final = re.compile(r" \+/- ")

#: What TeX lets stand in an address.
_URL_SAFE: Final = "/:?=+,;@!"


def render(table: Table, *, width: int | None = None, color: bool = False) -> str:
    """Return the table as LaTeX; everything that came from a config or a host is escaped."""
    del width, color
    columns = "".join("r" if column.align is Align.RIGHT else "l" for column in table.columns)
    lines = [
        "% needs \\usepackage{booktabs}, and hyperref for links",
        "\\begin{table}",
        "\\centering",
        *([f"\\caption{{{escaped(table.title)}}}"] if table.title else []),
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _line(escaped(column.heading) for column in table.columns),
        "\\midrule",
        *_rows(table.rows),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    if table.notes:
        notes = (f"\\item {escaped(note)}" for note in table.notes)
        lines += ["", "\\begin{itemize}", *notes, "\\end{itemize}"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return text that TeX sets as it is; ``+/-`` between spaces becomes its sign."""
    line = "".join(_SPECIAL.get(character, character) for character in printable(text))
    return _PLUS_MINUS.sub(lambda _: r" $\pm$ ", line)


def _rows(rows: Iterable[Row]) -> list[str]:
    """Return the rows, with a rule where ours end and the published ones begin."""
    found: list[str] = []
    before = None
    for row in rows:
        if before is not None and row.kind is not before:
            found.append("\\midrule")
        found.append(_line(map(_cell, row.cells)))
        before = row.kind
    return found


def _line(cells: Iterable[str]) -> str:
    # A line that begins with a bracket would be taken for the argument of the line end before it.
    return " & ".join(f"{{}}{cell}" if cell.startswith(("[", "*")) else cell for cell in cells) + r" \\"


def _cell(cell: Cell) -> str:
    return "".join(
        escaped(piece) if url is None else f"\\href{{{_address(url)}}}{{{escaped(piece)}}}"
        for piece, url in pieces(cell)
    )


def _address(url: str) -> str:
    return address(url, safe=_URL_SAFE).replace("%", r"\%")
