"""Dense matrix products as in DeepBench: ``C[m, n] = op(A) op(B)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workers.ops.base import SEPARATOR, Tensor, parse
from workers.protocol import Pass

if TYPE_CHECKING:
    from workers.ops.base import Operation

EXAMPLE: Final = "gemm/m1760-n128-k1760-nn"
_PATTERN: Final = r"m(?P<m>\d+)-n(?P<n>\d+)-k(?P<k>\d+)-(?P<a>[nt])(?P<b>[nt])"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gemm:
    """One product; a factor that is transposed lies in memory the other way round."""

    m: int
    n: int
    k: int
    a_transposed: bool = False
    b_transposed: bool = False

    @property
    def name(self) -> str:
        """Kind and problem."""
        letters = "".join("t" if each else "n" for each in (self.a_transposed, self.b_transposed))
        return f"gemm{SEPARATOR}m{self.m}-n{self.n}-k{self.k}-{letters}"

    @property
    def batch_size(self) -> int:
        """Return 1."""
        return 1

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Forward alone: its gradients are products again."""
        return (Pass.FORWARD,)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Both factors as they lie in memory."""
        a = (self.k, self.m) if self.a_transposed else (self.m, self.k)
        b = (self.n, self.k) if self.b_transposed else (self.k, self.n)
        return Tensor(name="a", shape=a, sd=1.0), Tensor(name="b", shape=b, sd=self.k**-0.5)

    def flop(self, batch_size: int, pass_: Pass) -> int:
        """Return 2 m n k."""
        return 2 * self.m * self.n * self.k

    def bytes(self, batch_size: int, pass_: Pass, itemsize: int) -> int:
        """Return what both factors and the product hold."""
        return itemsize * (self.m * self.k + self.k * self.n + self.m * self.n)


def _parse(name: str) -> Operation:
    values = parse("gemm", name, _PATTERN, EXAMPLE)
    return Gemm(
        m=int(values["m"]),
        n=int(values["n"]),
        k=int(values["k"]),
        a_transposed=values["a"] == "t",
        b_transposed=values["b"] == "t",
    )


KINDS: Final = {"gemm": _parse}
