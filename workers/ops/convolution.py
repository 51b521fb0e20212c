"""Convolutions as in DeepBench: forward, and the gradients of the data and of the weights, each by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workers.ops.base import SEPARATOR, Tensor, UnknownOperationError, parse
from workers.protocol import Pass

if TYPE_CHECKING:
    from workers.models.layers import Shape
    from workers.ops.base import Operation

EXAMPLE: Final = "conv/w112-h112-c64-n16-k128-f3x3-p1x1-s1x1"
_PATTERN: Final = (
    r"w(?P<width>\d+)-h(?P<height>\d+)-c(?P<channels>\d+)-n(?P<batch_size>\d+)-k(?P<filters>\d+)"
    r"-f(?P<filter_width>\d+)x(?P<filter_height>\d+)-p(?P<pad_width>\d+)x(?P<pad_height>\d+)"
    r"-s(?P<stride_width>\d+)x(?P<stride_height>\d+)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Convolution:
    """One convolution without bias; the same padding on both sides. Sizes in pixels."""

    width: int
    height: int
    channels: int
    batch_size: int
    filters: int
    filter_width: int
    filter_height: int
    pad_width: int = 0
    pad_height: int = 0
    stride_width: int = 1
    stride_height: int = 1

    def __post_init__(self) -> None:
        if min(self.output_shape) < 1:
            raise UnknownOperationError(f"{self.name}: the filter is larger than the padded image")

    @property
    def name(self) -> str:
        """Kind and problem."""
        return (
            f"conv{SEPARATOR}w{self.width}-h{self.height}-c{self.channels}-n{self.batch_size}-k{self.filters}"
            f"-f{self.filter_width}x{self.filter_height}-p{self.pad_width}x{self.pad_height}"
            f"-s{self.stride_width}x{self.stride_height}"
        )

    @property
    def passes(self) -> tuple[Pass, ...]:
        """All three that DeepBench has."""
        return Pass.FORWARD, Pass.BACKWARD_DATA, Pass.BACKWARD_WEIGHTS

    @property
    def output_shape(self) -> Shape:
        """Batch, height, width, filters."""
        height = (self.height + 2 * self.pad_height - self.filter_height) // self.stride_height + 1
        width = (self.width + 2 * self.pad_width - self.filter_width) // self.stride_width + 1
        return self.batch_size, height, width, self.filters

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Images (NHWC), filters (HWIO), and the gradient of what the convolution gives (NHWC)."""
        images = (self.batch_size, self.height, self.width, self.channels)
        filters = (self.filter_height, self.filter_width, self.channels, self.filters)
        inputs_of_one = math.prod(filters[:3])
        return (
            Tensor(name="images", shape=images, sd=1.0),
            Tensor(name="filters", shape=filters, sd=inputs_of_one**-0.5),
            Tensor(name="gradient", shape=self.output_shape, sd=math.prod(self.output_shape[:3]) ** -0.5),
        )

    def flop(self, batch_size: int, pass_: Pass) -> int:
        """Return 2 p q k c r s n, with p x q places: the same for each pass."""
        return 2 * math.prod(self.output_shape) * self.filter_height * self.filter_width * self.channels

    def bytes(self, batch_size: int, pass_: Pass, itemsize: int) -> int:
        """Return what images, filters and output hold: of the three each pass reads two and writes one."""
        return itemsize * sum(math.prod(tensor.shape) for tensor in self.tensors)


def _parse(name: str) -> Operation:
    values = parse("conv", name, _PATTERN, EXAMPLE)
    return Convolution(**{key: int(value) for key, value in values.items()})


KINDS: Final = {"conv": _parse}
