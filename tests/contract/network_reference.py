"""A network in plain numpy, float64: slow, obvious, and sharing nothing with any framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from workers.models.layers import Conv, Dense, Flatten, MaxPool, Padding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workers.models.layers import Model

Array: TypeAlias = npt.NDArray[np.float64]


def last_tensor(model: Model, images: npt.ArrayLike, parameters: Sequence[npt.ArrayLike]) -> Array:
    """Return the model's output for NHWC images, layer by layer."""
    tensor = np.asarray(images, np.float64)
    rest = iter([np.asarray(parameter, np.float64) for parameter in parameters])
    for placed in model.placed():
        layer, own = placed.layer, [next(rest) for _ in placed.parameters]
        if isinstance(layer, Conv):
            tensor = np.einsum(
                "nhwklc,klcf->nhwf", windows(tensor, layer.kernel, layer.stride, layer.padding, 0.0), own[0]
            )
        elif isinstance(layer, MaxPool):
            tensor = windows(tensor, layer.kernel, layer.stride, layer.padding, -np.inf).max(axis=(3, 4))
        elif isinstance(layer, Flatten):
            tensor = tensor.reshape(len(tensor), -1)
        elif isinstance(layer, Dense):
            tensor = tensor @ own[0]
        if isinstance(layer, Conv | Dense):
            tensor = tensor + own[1] if layer.bias else tensor
            tensor = np.maximum(tensor, 0) if layer.relu else tensor
    return tensor


def gradients(model: Model, images: npt.ArrayLike, parameters: Sequence[npt.ArrayLike]) -> list[Array]:
    """Return the gradient of ``sum(last_tensor ** 2) / 2`` for every parameter, by central differences."""
    given = [np.array(parameter, np.float64) for parameter in parameters]

    def loss() -> float:
        return float((last_tensor(model, images, given) ** 2).sum() / 2)

    return [_slopes(loss, tensor) for tensor in given]


def _slopes(loss: Callable[[], float], tensor: Array) -> Array:
    slopes = [_slope(loss, tensor, place) for place in np.ndindex(tensor.shape)]
    return np.array(slopes).reshape(tensor.shape)


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
