"""What every operation tells of itself. Standard library only.

An operation's name holds its problem size, ``gemm/m1760-n128-k1760-nn``: a workload names it as it names a network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from workers.models.layers import Shape
    from workers.protocol import Pass

#: Where the kind of an operation ends, and its problem begins.
SEPARATOR: Final = "/"

#: The largest size that a problem may have: what every tensor library can index.
_MOST: Final = 2**31 - 1


class UnknownOperationError(LookupError):
    """No operation has that name; the message says what one looks like."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One that an operation is given: normal numbers with mean 0."""

    name: str
    shape: Shape
    #: Such that what an operation gives is about 1, which every number type can hold.
    sd: float


class Operation(Protocol):
    """A single operation of one problem size."""

    @property
    def name(self) -> str:
        """Kind and problem: ``gemm/m1760-n128-k1760-nn``."""

    @property
    def batch_size(self) -> int:
        """Images or sequences in a call; 1 where a problem has no such size."""

    @property
    def passes(self) -> tuple[Pass, ...]:
        """What of it can be timed."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What it is given, in one order for every framework."""

    def flop(self, batch_size: int, pass_: Pass) -> int:
        """Return the floating-point operations of one call, as DeepBench counts them; a multiply-add is two."""

    def bytes(self, batch_size: int, pass_: Pass, itemsize: int) -> int:
        """Return the bytes that a call moves at the least: what it is given read once, what it gives written once."""


def parse(kind: str, name: str, pattern: str, example: str) -> dict[str, int | str]:
    """Return the named groups of ``pattern`` in a problem's name, numbers as such.

    What is optional in the pattern and not there has no value. Raises :class:`UnknownOperationError` where the name is
    of another form, or a number is 0 or too large.
    """
    found = re.fullmatch(pattern, name.removeprefix(kind + SEPARATOR))
    values = (
        {}
        if found is None
        else {key: int(text) if text.isdigit() else text for key, text in found.groupdict().items() if text is not None}
    )
    sizes = [value for key, value in values.items() if isinstance(value, int) and not key.startswith("pad")]
    if not values or min(sizes) < 1 or max(sizes) > _MOST:
        raise UnknownOperationError(f"no operation is called {name!r}: a problem of {kind} looks like {example!r}")
    return values
