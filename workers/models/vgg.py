"""VGG, the networks of Oxford's Visual Geometry Group."""

from __future__ import annotations

from typing import Final

from workers.models.layers import Conv, Dense, Flatten, Layer, MaxPool
from workers.models.network import Model

#: Filters of each convolution, a group between two poolings.
_GROUPS_OF_A: Final = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def _convolutions(groups: tuple[tuple[int, ...], ...]) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for group, filters in enumerate(groups, start=1):
        layers += [
            Conv(name=f"conv{group}_{place}", filters=count, kernel=3) for place, count in enumerate(filters, start=1)
        ]
        layers.append(MaxPool(name=f"pool{group}", kernel=2, stride=2))
    return tuple(layers)


VARIANTS: Final = (
    Model(
        name="vgg-a",
        description="VGG model A: eight convolutions of 3x3, then 4096-4096-1000 fully connected.",
        source="soumith/convnet-benchmarks b458aab, tensorflow/benchmark_vgg.py; its images are all ones",
        input_shape=(224, 224, 3),
        layers=(
            *_convolutions(_GROUPS_OF_A),
            Flatten(name="flatten"),
            Dense(name="affine1", units=4096),
            Dense(name="affine2", units=4096),
            Dense(name="affine3", units=1000),
        ),
        weight_sd=0.1,
        input_sd=0.1,
    ),
)
