"""GoogLeNet: inception modules, without the auxiliary heads."""

from __future__ import annotations

from typing import Final

from workers.models.joins import Concat
from workers.models.layers import AveragePool, Conv, Dense, Flatten, Layer, MaxPool, Padding
from workers.models.network import Model

#: Filters of each module: 1x1; 3x3 and the 1x1 before it; 5x5 and the 1x1 before it; 1x1 after the pool.
_MODULES: Final = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


def _inception(module: str) -> Layer:
    one, (before_three, three), (before_five, five), after_pool = _MODULES[module]
    name = f"inception{module}"
    return Concat(
        name=name,
        paths=(
            (Conv(name=f"{name}/1x1", filters=one, kernel=1),),
            (
                Conv(name=f"{name}/3x3_reduce", filters=before_three, kernel=1),
                Conv(name=f"{name}/3x3", filters=three, kernel=3),
            ),
            (
                Conv(name=f"{name}/5x5_reduce", filters=before_five, kernel=1),
                Conv(name=f"{name}/5x5", filters=five, kernel=5),
            ),
            (
                MaxPool(name=f"{name}/pool", kernel=3, stride=1, padding=Padding.SAME),
                Conv(name=f"{name}/pool_proj", filters=after_pool, kernel=1),
            ),
        ),
    )


def _pool(name: str) -> Layer:
    return MaxPool(name=name, kernel=3, stride=2, padding=Padding.SAME)


VARIANTS: Final = (
    Model(
        name="googlenet-v1",
        description="GoogLeNet, the first: nine inception modules, no response normalisation, no auxiliary heads.",
        source="soumith/convnet-benchmarks b458aab, tensorflow/benchmark_googlenet.py",
        input_shape=(224, 224, 3),
        layers=(
            Conv(name="conv1", filters=64, kernel=7, stride=2),
            _pool("pool1"),
            Conv(name="conv2", filters=64, kernel=1),
            Conv(name="conv3", filters=192, kernel=3),
            _pool("pool3"),
            *map(_inception, ("3a", "3b")),
            _pool("pool_3b"),
            *map(_inception, ("4a", "4b", "4c", "4d", "4e")),
            _pool("pool_4e"),
            *map(_inception, ("5a", "5b")),
            AveragePool(name="pool5", kernel=7),
            Flatten(name="flatten"),
            Dense(name="affine1", units=1000),
        ),
        weight_sd=0.1,
        input_sd=0.1,
    ),
)
