"""AlexNet, in the variants that published figures stand for."""

from __future__ import annotations

from typing import Final

from workers.models.layers import Conv, Dense, Flatten, Layer, MaxPool, Model, Padding

#: The convolutions of TensorFlow's own benchmark: 224 x 224 x 3 in, 6 x 6 x 256 out; no local response normalisation.
_CONVOLUTIONS: Final[tuple[Layer, ...]] = (
    Conv(name="conv1", filters=64, kernel=11, stride=4, padding=Padding.SAME),
    MaxPool(name="pool1", kernel=3, stride=2, padding=Padding.VALID),
    Conv(name="conv2", filters=192, kernel=5, padding=Padding.SAME),
    MaxPool(name="pool2", kernel=3, stride=2, padding=Padding.VALID),
    Conv(name="conv3", filters=384, kernel=3, padding=Padding.SAME),
    Conv(name="conv4", filters=256, kernel=3, padding=Padding.SAME),
    Conv(name="conv5", filters=256, kernel=3, padding=Padding.SAME),
    MaxPool(name="pool5", kernel=3, stride=2, padding=Padding.VALID),
)

#: As convnet-benchmarks' TensorFlow script has them: a ReLU after every one, the last included.
_FULLY_CONNECTED: Final[tuple[Layer, ...]] = (
    Flatten(name="flatten"),
    Dense(name="affine1", units=4096),
    Dense(name="affine2", units=4096),
    Dense(name="affine3", units=1000),
)

VARIANTS: Final = (
    Model(
        name="alexnet",
        description="TensorFlow r0.11's alexnet_benchmark: five convolutions, nothing fully connected.",
        source="tensorflow/tensorflow v0.11.0, tensorflow/models/image/alexnet/alexnet_benchmark.py",
        input_shape=(224, 224, 3),
        layers=_CONVOLUTIONS,
        weight_sd=0.1,
        input_sd=0.1,
    ),
    Model(
        name="alexnet-owt",
        description="The same convolutions, then 4096-4096-1000 fully connected, as in One Weird Trick.",
        source="soumith/convnet-benchmarks b458aab, tensorflow/benchmark_alexnet.py; input and conv1 as in alexnet",
        input_shape=(224, 224, 3),
        layers=_CONVOLUTIONS + _FULLY_CONNECTED,
        weight_sd=0.1,
        input_sd=0.1,
    ),
)
