"""OverFeat's fast network."""

from __future__ import annotations

from typing import Final

from workers.models.layers import Conv, Dense, Flatten, MaxPool, Padding
from workers.models.network import Model

VARIANTS: Final = (
    Model(
        name="overfeat",
        description="OverFeat, fast: five convolutions, then 3072-4096-1000 fully connected.",
        source="soumith/convnet-benchmarks b458aab, tensorflow/benchmark_overfeat.py",
        input_shape=(231, 231, 3),
        layers=(
            Conv(name="conv1", filters=96, kernel=11, stride=4, padding=Padding.VALID),
            MaxPool(name="pool1", kernel=2, stride=2),
            Conv(name="conv2", filters=256, kernel=5, padding=Padding.VALID),
            MaxPool(name="pool2", kernel=2, stride=2),
            Conv(name="conv3", filters=512, kernel=3),
            Conv(name="conv4", filters=1024, kernel=3),
            Conv(name="conv5", filters=1024, kernel=3),
            MaxPool(name="pool5", kernel=2, stride=2),
            Flatten(name="flatten"),
            Dense(name="affine1", units=3072),
            Dense(name="affine2", units=4096),
            Dense(name="affine3", units=1000),
        ),
        weight_sd=0.1,
        input_sd=0.1,
    ),
)
