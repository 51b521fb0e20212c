"""One recurrent layer as in DeepBench: vanilla, LSTM without peepholes, GRU.

The input is added to every gate as it is: DeepBench leaves the product with the input's weights out
(``CUDNN_SKIP_INPUT``), so that what is timed is the recurrence.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workers.ops.base import SEPARATOR, Tensor, parse
from workers.protocol import Pass

if TYPE_CHECKING:
    from workers.ops.base import Operation


class Cell(str, enum.Enum):
    """What happens at each step; the values are what an operation's name begins with."""

    #: ``h' = relu(x + h R)``.
    VANILLA = "rnn"
    #: Gates i, f, g, o of ``x + h R``; ``c' = sigmoid(f) c + sigmoid(i) tanh(g)``, ``h' = sigmoid(o) tanh(c')``.
    LSTM = "lstm"
    #: Gates r, z of ``x + h R``; ``n = tanh(x + sigmoid(r) (h R_n))``, ``h' = (1 - sigmoid(z)) n + sigmoid(z) h``.
    GRU = "gru"

    @property
    def gates(self) -> int:
        """How many hidden-by-hidden matrices it has."""
        return {Cell.VANILLA: 1, Cell.LSTM: 4, Cell.GRU: 3}[self]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recurrent:
    """One layer over all its steps."""

    cell: Cell
    hidden: int
    batch_size: int
    steps: int

    @property
    def name(self) -> str:
        """Kind and problem."""
        return f"{self.cell.value}{SEPARATOR}h{self.hidden}-b{self.batch_size}-t{self.steps}"

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Forward, and that with the gradients of the input and the weights."""
        return Pass.FORWARD, Pass.FORWARD_BACKWARD

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The input (step, sequence, unit) and the weights of all gates beside each other (unit, gate x unit)."""
        return (
            Tensor(name="input", shape=(self.steps, self.batch_size, self.hidden), sd=0.5),
            Tensor(name="weights", shape=(self.hidden, self.cell.gates * self.hidden), sd=0.5 * self.hidden**-0.5),
        )

    def flop(self, batch_size: int, pass_: Pass) -> int:
        """Return 2 g h^2 b t, with g gates; with both gradients three times that."""
        forward = 2 * self.cell.gates * self.hidden**2 * self.batch_size * self.steps
        return forward if pass_ is Pass.FORWARD else 3 * forward

    def bytes(self, batch_size: int, pass_: Pass, itemsize: int) -> int:
        """Return what weights, input and output hold; three times that with both gradients."""
        sequence = self.steps * self.batch_size * self.hidden
        forward = itemsize * (self.cell.gates * self.hidden**2 + 2 * sequence)
        return forward if pass_ is Pass.FORWARD else 3 * forward


def _parse(cell: Cell, name: str) -> Operation:
    example = f"{cell.value}{SEPARATOR}h512-b16-t25"
    values = parse(cell.value, name, r"h(?P<hidden>\d+)-b(?P<batch_size>\d+)-t(?P<steps>\d+)", example)
    return Recurrent(cell=cell, **{key: int(value) for key, value in values.items()})


KINDS: Final = {cell.value: functools.partial(_parse, cell) for cell in Cell}
