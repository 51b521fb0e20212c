"""Sums over several devices as in DeepBench: each gives an array, and each has the sum of all in the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from workers.ops.base import SEPARATOR, Tensor, UnknownOperationError, parse
from workers.protocol import Pass

if TYPE_CHECKING:
    from workers.ops.base import Operation

EXAMPLE: Final = "allreduce/n100000-r2"
_PATTERN: Final = r"n(?P<n>\d+)(-r(?P<r>\d+))?"


@dataclass(frozen=True, kw_only=True, slots=True)
class AllReduce:
    """One sum, of so many numbers on each of so many devices."""

    numbers: int
    #: Devices that take part; ``None`` where the plan is still to say, as many as there are.
    ranks: int | None = None

    @property
    def name(self) -> str:
        """Kind and problem."""
        ranks = "" if self.ranks is None else f"-r{self.ranks}"
        return f"allreduce{SEPARATOR}n{self.numbers}{ranks}"

    @property
    def batch_size(self) -> int:
        """Return 1."""
        return 1

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Forward alone: the gradient of a sum is none that is timed."""
        return (Pass.FORWARD,)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What one device gives."""
        return (Tensor(name="numbers", shape=(self.numbers,), sd=1.0),)

    def among(self, ranks: int) -> AllReduce:
        """Return the same sum over so many devices."""
        return replace(self, ranks=ranks)

    def flop(self, batch_size: int, pass_: Pass) -> int:
        """Return 0: what takes the time is the way between the devices, and DeepBench counts no operations."""
        return 0

    def bytes(self, batch_size: int, pass_: Pass, itemsize: int) -> int:
        """Return what one device reads and writes at the least: its array, and the sum."""
        return 2 * itemsize * self.numbers

    def reduced_bytes(self, itemsize: int) -> int:
        """Return the bytes of all arrays together; by the time of a call, DeepBench's bandwidth.

        ``floats * sizeof(float) * ranks / time``: the figures published with DeepBench follow from their times so.
        """
        return itemsize * self.numbers * (self.ranks or 1)


def _parse(name: str) -> Operation:
    values = parse("allreduce", name, _PATTERN, EXAMPLE)
    ranks = values.get("r")
    found = AllReduce(numbers=int(values["n"]), ranks=None if ranks is None else int(ranks))
    if found.ranks == 1:
        raise UnknownOperationError(f"no operation is called {name!r}: a sum over devices takes two of them at least")
    return found


KINDS: Final = {"allreduce": _parse}
