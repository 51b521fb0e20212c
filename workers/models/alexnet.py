"""AlexNet, in the variants that published figures stand for."""

from __future__ import annotations

from typing import Final

from workers.models.layers import Conv, Dense, Dropout, Flatten, Layer, LocalResponseNorm, MaxPool, Padding
from workers.models.network import Model


def _convolutions(first: Padding, fourth: int) -> tuple[Layer, ...]:
    """Return the convolutions of one tower; the variants differ in how the first is padded, and in the fourth."""
    return (
        Conv(name="conv1", filters=64, kernel=11, stride=4, padding=first),
        MaxPool(name="pool1", kernel=3, stride=2),
        Conv(name="conv2", filters=192, kernel=5),
        MaxPool(name="pool2", kernel=3, stride=2),
        Conv(name="conv3", filters=384, kernel=3),
        Conv(name="conv4", filters=fourth, kernel=3),
        Conv(name="conv5", filters=256, kernel=3),
        MaxPool(name="pool5", kernel=3, stride=2),
    )


def _with_dropout(classes: int) -> tuple[Layer, ...]:
    return (
        Flatten(name="flatten"),
        Dense(name="affine1", units=4096),
        Dropout(name="dropout1"),
        Dense(name="affine2", units=4096),
        Dropout(name="dropout2"),
        Dense(name="affine3", units=classes, relu=False),
    )


VARIANTS: Final = (
    Model(
        name="alexnet",
        description="TensorFlow r0.11's alexnet_benchmark: five convolutions, nothing fully connected.",
        source="tensorflow/tensorflow v0.11.0, tensorflow/models/image/alexnet/alexnet_benchmark.py",
        input_shape=(224, 224, 3),
        layers=_convolutions(Padding.SAME, 256),
        weight_sd=0.1,
        input_sd=0.1,
    ),
    Model(
        name="alexnet-owt",
        description="convnet-benchmarks' One Weird Trick: the same filters, then 4096-4096-1000 fully connected.",
        source="soumith/convnet-benchmarks b458aab, tensorflow/benchmark_alexnet.py",
        input_shape=(227, 227, 3),
        layers=(
            *_convolutions(Padding.VALID, 256),
            # A ReLU after every one, the last included.
            Flatten(name="flatten"),
            Dense(name="affine1", units=4096),
            Dense(name="affine2", units=4096),
            Dense(name="affine3", units=1000),
        ),
        weight_sd=0.1,
        input_sd=0.1,
    ),
    Model(
        name="alexnet-tfcnn",
        description="tf_cnn_benchmarks' AlexNet: 384 filters in the fourth convolution, dropout, 1001 classes.",
        source="tensorflow/benchmarks 9165a70, scripts/tf_cnn_benchmarks, alexnet model",
        input_shape=(227, 227, 3),
        layers=(*_convolutions(Padding.VALID, 384), *_with_dropout(1001)),
        weight_sd=0.1,
        input_sd=0.1,
    ),
    Model(
        name="alexnet-2012",
        description="The paper's: 96-256-384-384-256 in two groups, response normalisation, dropout.",
        source="Krizhevsky, Sutskever, Hinton, NIPS 2012; the image is 227 wide, which is what makes 55 x 55 work",
        input_shape=(227, 227, 3),
        layers=(
            Conv(name="conv1", filters=96, kernel=11, stride=4, padding=Padding.VALID),
            LocalResponseNorm(name="norm1"),
            MaxPool(name="pool1", kernel=3, stride=2),
            Conv(name="conv2", filters=256, kernel=5, groups=2),
            LocalResponseNorm(name="norm2"),
            MaxPool(name="pool2", kernel=3, stride=2),
            Conv(name="conv3", filters=384, kernel=3),
            Conv(name="conv4", filters=384, kernel=3, groups=2),
            Conv(name="conv5", filters=256, kernel=3, groups=2),
            MaxPool(name="pool5", kernel=3, stride=2),
            *_with_dropout(1000),
        ),
        weight_sd=0.1,
        input_sd=0.1,
    ),
)
