"""The five convolutions of convnet-benchmarks' layer-wise table, each by itself."""

from __future__ import annotations

from typing import Final

from workers.models.layers import Conv, Padding
from workers.models.network import Model

#: Side of the square image in pixels, channels in and out, side of the kernel.
_LAYERS: Final = {
    "l1": (128, 3, 96, 11),
    "l2": (64, 64, 128, 9),
    "l3": (32, 128, 128, 9),
    "l4": (16, 128, 128, 7),
    "l5": (13, 384, 384, 3),
}


def _model(name: str, side: int, channels: int, filters: int, kernel: int) -> Model:
    return Model(
        name=f"convnet-{name}",
        description=f"convnet-benchmarks' layer {name.upper()}: {filters} filters of {kernel}x{kernel}.",
        source="soumith/convnet-benchmarks b458aab, README.md, layer-wise benchmarks",
        input_shape=(side, side, channels),
        layers=(Conv(name="conv", filters=filters, kernel=kernel, padding=Padding.VALID, bias=False, relu=False),),
        weight_sd=0.1,
        input_sd=0.1,
        # Published as backward with respect to input and weights.
        wants_input_gradient=True,
    )


VARIANTS: Final = tuple(_model(name, *sizes) for name, sizes in _LAYERS.items())
