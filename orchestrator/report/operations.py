"""The operations that can be measured as tables: the sets of problems, and what is in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.report.table import Align, Cell, Column, Row, RowKind, Table
from workers import ops

if TYPE_CHECKING:
    from workers.ops.base import Operation

_SETS: Final = (
    Column(key="set", heading="Set"),
    Column(key="operation", heading="Operation"),
    Column(key="problems", heading="Problems", align=Align.RIGHT),
    Column(key="first", heading="The first"),
)
_PROBLEMS: Final = (
    Column(key="name", heading="Operation and problem"),
    Column(key="passes", heading="Passes"),
    Column(key="gflop", heading="GFLOP forward", unit="GFLOP", align=Align.RIGHT),
    Column(key="intensity", heading="FLOP/byte in float32", align=Align.RIGHT),
)


def sets_table() -> Table:
    """Return a row for each kind of operation in each set of problems."""
    rows = []
    for name in ops.set_names():
        for kind in ops.kinds():
            found = ops.problems(name, kind)
            if found:
                rows.append(
                    _row(_text(name), _text(kind), Cell(text=str(len(found)), value=len(found)), _text(found[0]))
                )
    return Table(title="operations", columns=_SETS, rows=tuple(rows))


def problems_table(name: str) -> Table:
    """Return a row for each problem of a set, in its order; raises KeyError for a set that is not there."""
    return Table(title=name, columns=_PROBLEMS, rows=tuple(_problem_row(ops.get(each)) for each in ops.problems(name)))


def _problem_row(operation: Operation) -> Row:
    first = operation.passes[0]
    flop = operation.flop(operation.batch_size, first)
    intensity = flop / operation.bytes(operation.batch_size, first, 4)
    return _row(
        _text(operation.name),
        _text(", ".join(pass_.value for pass_ in operation.passes)),
        Cell(text=f"{flop / 1e9:,.3f}", value=flop / 1e9),
        Cell(text=f"{intensity:.1f}", value=intensity),
    )


def _text(text: str) -> Cell:
    return Cell(text=text, value=text)


def _row(*cells: Cell) -> Row:
    return Row(kind=RowKind.MEASURED, cells=cells)
