"""A network in plain numpy, float64: slow, obvious, and sharing nothing with any framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from workers.models.initial import dropout_mask
from workers.models.joins import Add, Concat
from workers.models.layers import (
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    LocalResponseNorm,
    MaxPool,
    Padding,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from workers.models.layers import Layer
    from workers.models.network import Model

Array: TypeAlias = npt.NDArray[np.float64]


def last_tensor(model: Model, images: npt.ArrayLike, parameters: Sequence[npt.ArrayLike]) -> Array:
    """Return the model's output for NHWC images, layer by layer."""
    rest = iter([np.asarray(parameter, np.float64) for parameter in parameters])
    return _along(model.layers, np.asarray(images, np.float64), rest)


def _along(path: Sequence[Layer], tensor: Array, rest: Iterator[Array]) -> Array:
    for layer in path:
        if isinstance(layer, Concat):
            tensor = np.concatenate([_along(inner, tensor, rest) for inner in layer.paths], axis=3)
        elif isinstance(layer, Add):
            tensor = np.sum([_along(inner, tensor, rest) for inner in layer.paths], axis=0)
        else:
            own = [next(rest) for _ in layer.parameters(tensor.shape[1:])]
            tensor = _output(layer, tensor, own)
        if getattr(layer, "relu", False):
            tensor = np.maximum(tensor, 0)
    return tensor


def _output(layer: Layer, tensor: Array, own: Sequence[Array]) -> Array:  # one return a kind
    """Return what a layer gives before its ReLU, if it has one."""
    if isinstance(layer, Conv):
        convolved = _convolved(layer, tensor, own[0])
        return convolved + own[1] if layer.bias else convolved
    if isinstance(layer, MaxPool):
        return np.asarray(windows(tensor, layer.kernel, layer.stride, layer.padding, -np.inf).max(axis=(3, 4)))
    if isinstance(layer, AveragePool):
        return np.asarray(windows(tensor, layer.kernel, layer.stride, Padding.VALID, 0.0).mean(axis=(3, 4)))
    if isinstance(layer, LocalResponseNorm):
        return _normalised_by_neighbours(layer, tensor)
    if isinstance(layer, BatchNorm):
        away = tensor - tensor.mean(axis=(0, 1, 2))
        return np.asarray(away / np.sqrt((away**2).mean(axis=(0, 1, 2)) + layer.epsilon) * own[0] + own[1])
    if isinstance(layer, Dropout):
        return tensor * dropout_mask(layer, tensor.shape)
    if isinstance(layer, Flatten):
        return tensor.reshape(len(tensor), -1)
    if isinstance(layer, Dense):
        return tensor @ own[0] + own[1] if layer.bias else tensor @ own[0]
    raise NotImplementedError(type(layer).__name__)


def _convolved(layer: Conv, tensor: Array, kernel: Array) -> Array:
    """Convolve each group of channels with its own filters."""
    pairs = zip(np.split(tensor, layer.groups, axis=3), np.split(kernel, layer.groups, axis=3), strict=True)
    parts = [
        np.einsum("nhwklc,klcf->nhwf", windows(part, layer.kernel, layer.stride, layer.padding, 0.0), own)
        for part, own in pairs
    ]
    return np.concatenate(parts, axis=3)


def _normalised_by_neighbours(layer: LocalResponseNorm, tensor: Array) -> Array:
    """Divide, channel by channel, as the paper's formula reads."""
    channels = tensor.shape[3]
    given = np.empty_like(tensor)
    for channel in range(channels):
        near = tensor[..., max(channel - layer.radius, 0) : min(channel + layer.radius, channels - 1) + 1]
        scale = layer.offset + layer.alpha * (near**2).sum(axis=3)
        given[..., channel] = tensor[..., channel] / scale**layer.beta
    return given


def gradients(model: Model, images: npt.ArrayLike, parameters: Sequence[npt.ArrayLike]) -> list[Array]:
    """Return the gradient of ``sum(last_tensor ** 2) / 2`` for every parameter, by central differences."""
    given = [np.array(parameter, np.float64) for parameter in parameters]

    def loss() -> float:
        return float((last_tensor(model, images, given) ** 2).sum() / 2)

    return [slopes(loss, tensor) for tensor in given]


def slopes(loss: Callable[[], float], tensor: Array) -> Array:
    """Return the slope of ``loss`` for each number of ``tensor``, by central differences."""
    found = [_slope(loss, tensor, place) for place in np.ndindex(tensor.shape)]
    return np.array(found).reshape(tensor.shape)


def _slope(loss: Callable[[], float], tensor: Array, place: tuple[int, ...], step: float = 1e-6) -> float:
    kept = tensor[place]
    tensor[place] = kept + step
    above = loss()
    tensor[place] = kept - step
    below = loss()
    tensor[place] = kept
    return float((above - below) / (2 * step))


def windows(images: Array, kernel: int, stride: int, padding: Padding, fill: float) -> Array:
    """Return every window of NHWC images as [image, row, column, kernel row, kernel column, channel].

    With SAME the lesser half of the padding comes before, as TensorFlow's notes on padding tell.
    """
    if padding is Padding.SAME:
        missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in images.shape[1:3]]
        around = [(0, 0), *((each // 2, each - each // 2) for each in missing), (0, 0)]
        images = np.pad(images, around, constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(images, (kernel, kernel), axis=(1, 2))
    return np.moveaxis(view[:, ::stride, ::stride], 3, -1)
