"""ResNet: residual blocks of bottlenecks, batch normalisation after each convolution."""

from __future__ import annotations

from typing import Final

from workers.models.joins import Add
from workers.models.layers import AveragePool, BatchNorm, Conv, Dense, Flatten, Layer, MaxPool, Padding
from workers.models.network import Model

#: Blocks, and filters inside them, of each stage: 50-layer column of He, Zhang, Ren, Sun, "Deep Residual Learning"
#: (CVPR 2016), table 1.
_STAGES_OF_50: Final = ((3, 64), (4, 128), (6, 256), (3, 512))

#: A block gives four times as many channels as its convolution of 3x3 has filters.
_EXPANSION: Final = 4


def _normalised(name: str, filters: int, kernel: int, stride: int = 1, *, relu: bool = True) -> tuple[Layer, ...]:
    return (
        Conv(name=name, filters=filters, kernel=kernel, stride=stride, bias=False, relu=False),
        BatchNorm(name=f"{name}/bn", relu=relu),
    )


def _block(name: str, filters: int, stride: int, *, is_first: bool) -> Layer:
    """Return a bottleneck; version 1.5 halves the image in its 3x3, where version 1 does in its first 1x1."""
    wide = _EXPANSION * filters
    return Add(
        name=name,
        paths=(
            (
                *_normalised(f"{name}/conv1", filters, 1),
                *_normalised(f"{name}/conv2", filters, 3, stride),
                *_normalised(f"{name}/conv3", wide, 1, relu=False),
            ),
            _normalised(f"{name}/shortcut", wide, 1, stride, relu=False) if is_first else (),
        ),
    )


def _stages(stages: tuple[tuple[int, int], ...]) -> tuple[Layer, ...]:
    return tuple(
        _block(f"stage{stage}_{block}", filters, stride=2 if block == 1 and stage > 1 else 1, is_first=block == 1)
        for stage, (blocks, filters) in enumerate(stages, start=1)
        for block in range(1, blocks + 1)
    )


VARIANTS: Final = (
    Model(
        name="resnet-50",
        description="ResNet-50, version 1.5: stride 2 in the 3x3 of a block; batch norm as in training.",
        source="NVIDIA/DeepLearningExamples, ResNet50 v1.5; He et al. 2016, table 1; padding is TensorFlow's SAME",
        input_shape=(224, 224, 3),
        layers=(
            *_normalised("conv1", 64, 7, 2),
            MaxPool(name="pool1", kernel=3, stride=2, padding=Padding.SAME),
            *_stages(_STAGES_OF_50),
            AveragePool(name="pool5", kernel=7),
            Flatten(name="flatten"),
            Dense(name="affine", units=1000, relu=False),
        ),
        weight_sd=0.1,
        input_sd=0.1,
    ),
)
