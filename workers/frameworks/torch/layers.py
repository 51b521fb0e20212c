"""PyTorch: one function a kind of layer."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

from workers.frameworks.base import UnsupportedError
from workers.models.evaluation import last_tensor
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
    padding_around,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workers.models.joins import Join
    from workers.models.layers import Layer
    from workers.models.network import Model

    #: Returns a dropout's mask for a tensor.
    Mask: TypeAlias = Callable[[Dropout, Any], Any]


def network_output(model: Model, images: Any, parameters: Sequence[Any], mask: Mask) -> Any:
    """Return the network's last tensor; ``mask`` gives what dropouts multiply with."""
    return last_tensor(model, images, parameters, apply=functools.partial(_apply, mask=mask), join=_join)


@functools.singledispatch
def _apply(layer: Layer, tensor: Any, parameters: Sequence[Any], mask: Mask) -> Any:
    """Return the layer's output; ``parameters`` are its own."""
    raise UnsupportedError(f"layer {layer.name}: PyTorch's builder has nothing for {type(layer).__name__}")


@_apply.register(Conv)
def _apply_conv(layer: Conv, tensor: Any, parameters: Sequence[Any], mask: Mask) -> Any:
    from torch.nn import functional

    tensor, padding = _padded(layer, tensor, 0.0)
    bias = parameters[1] if layer.bias else None
    convolved = functional.conv2d(tensor, parameters[0], bias, layer.stride, padding, groups=layer.groups)
    return functional.relu(convolved) if layer.relu else convolved


@_apply.register(MaxPool)
def _apply_max_pool(layer: MaxPool, tensor: Any, parameters: Sequence[Any], mask: Mask) -> Any:
    from torch.nn import functional

    around = [padding_around(side, layer.kernel, layer.stride, layer.padding) for side in tensor.shape[2:]]
    if all(before == 0 for before, _ in around) and any(after for _, after in around):
        # A last window that reaches over the edge, without a padded copy of the image.
        return functional.max_pool2d(tensor, layer.kernel, layer.stride, ceil_mode=True)
    tensor, padding = _padded(layer, tensor, float("-inf"))
    return functional.max_pool2d(tensor, layer.kernel, layer.stride, padding)


@_apply.register(AveragePool)
def _apply_average_pool(layer: AveragePool, tensor: Any, parameters: Sequence[Any], mask: Mask) -> Any:
    from torch.nn import functional

    return functional.avg_pool2d(tensor, layer.kernel, layer.stride)


@_apply.register(LocalResponseNorm)
def _apply_local_response_norm(layer: LocalResponseNorm, tensor: Any, parameters: Sequence[Any], mask: Mask) -> Any:
    from torch.nn import functional

    # PyTorch takes the mean of the squares where the paper has their sum. In float32, where a sum of squares belongs.
    size = 2 * layer.radius + 1
    wide = tensor.float()
    normalised = functional.local_response_norm(wide, size, alpha=layer.alpha * size, beta=layer.beta, k=layer.offset)
    return normalised.to(tensor.dtype)


@_apply.register(BatchNorm)
def _apply_batch_norm(layer: BatchNorm, tensor: Any, parameters: Sequence[Any], mask: Mask) -> Any:
    from torch.nn import functional

    normalised = functional.batch_norm(
        tensor, None, None, parameters[0], parameters[1], training=True, eps=layer.epsilon
    )
    return functional.relu(normalised) if layer.relu else normalised


@_apply.register(Dropout)
def _apply_dropout(layer: Dropout, tensor: Any, parameters: Sequence[Any], mask: Mask) -> Any:
    return tensor * mask(layer, tensor)


@_apply.register(Flatten)
def _apply_flatten(layer: Flatten, tensor: Any, parameters: Sequence[Any], mask: Mask) -> Any:
    return tensor.permute(0, 2, 3, 1).flatten(1)


@_apply.register(Dense)
def _apply_dense(layer: Dense, tensor: Any, parameters: Sequence[Any], mask: Mask) -> Any:
    from torch.nn import functional

    product = functional.linear(tensor, *parameters)
    return functional.relu(product) if layer.relu else product


@functools.singledispatch
def _join(layer: Join, tensors: Sequence[Any]) -> Any:
    """Return what a layer makes of the ends of its paths."""
    raise UnsupportedError(f"layer {layer.name}: PyTorch's builder has nothing for {type(layer).__name__}")


@_join.register(Concat)
def _join_concat(layer: Concat, tensors: Sequence[Any]) -> Any:
    import torch

    return torch.cat(list(tensors), dim=1)


@_join.register(Add)
def _join_add(layer: Add, tensors: Sequence[Any]) -> Any:
    from torch.nn import functional

    total = functools.reduce(lambda one, other: one + other, tensors)
    return functional.relu(total) if layer.relu else total


def _padded(layer: Conv | MaxPool, tensor: Any, fill: float) -> tuple[Any, tuple[int, int]]:
    """Return a tensor and the padding that the operation itself can do: it pads both sides alike or not at all."""
    from torch.nn import functional

    rows, columns = (padding_around(side, layer.kernel, layer.stride, layer.padding) for side in tensor.shape[2:])
    if rows[0] == rows[1] and columns[0] == columns[1]:
        return tensor, (rows[0], columns[0])
    return functional.pad(tensor, (*columns, *rows), value=fill), (0, 0)
