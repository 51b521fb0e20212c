"""JAX: one function a kind of layer."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from workers.frameworks.base import UnsupportedError, mask_of
from workers.models.evaluation import last_tensor
from workers.models.joins import Add, Concat
from workers.models.layers import AveragePool, BatchNorm, Conv, Dense, Dropout, Flatten, LocalResponseNorm, MaxPool
from workers.protocol import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.models.joins import Join
    from workers.models.layers import Layer
    from workers.models.network import Model


def network_output(model: Model, layout: Layout, images: Any, parameters: Sequence[Any]) -> Any:
    """Return the network's last array."""
    return last_tensor(
        model,
        images,
        parameters,
        apply=functools.partial(_apply, layout=layout),
        join=functools.partial(_join, layout=layout),
    )


@functools.singledispatch
def _apply(layer: Layer, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    """Return the layer's output; ``parameters`` are its own."""
    raise UnsupportedError(f"layer {layer.name}: JAX's builder has nothing for {type(layer).__name__}")


@_apply.register(Conv)
def _apply_conv(layer: Conv, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    convolved = jax.lax.conv_general_dilated(
        array,
        parameters[0],
        (layer.stride, layer.stride),
        layer.padding.value,
        dimension_numbers=(layout.value, "HWIO", layout.value),
        feature_group_count=layer.groups,
    )
    if layer.bias:
        convolved = convolved + _by_channel(parameters[1], layout)
    return jax.nn.relu(convolved) if layer.relu else convolved


@_apply.register(MaxPool)
def _apply_max_pool(layer: MaxPool, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    window, strides = _window(layer.kernel, layout), _window(layer.stride, layout)
    return jax.lax.reduce_window(array, -jax.numpy.inf, jax.lax.max, window, strides, layer.padding.value)


@_apply.register(AveragePool)
def _apply_average_pool(layer: AveragePool, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    window, strides = _window(layer.kernel, layout), _window(layer.stride, layout)
    return jax.lax.reduce_window(array, 0.0, jax.lax.add, window, strides, "VALID") / layer.kernel**2


@_apply.register(LocalResponseNorm)
def _apply_local_response_norm(layer: LocalResponseNorm, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    # In float32, in which a sum of squares belongs.
    wide = array.astype("float32")
    window = [1, 1, 1, 1]
    window[_channel_axis(layout)] = 2 * layer.radius + 1
    squares = jax.lax.reduce_window(wide**2, 0.0, jax.lax.add, window, (1, 1, 1, 1), "SAME")
    return (wide / (layer.offset + layer.alpha * squares) ** layer.beta).astype(array.dtype)


@_apply.register(BatchNorm)
def _apply_batch_norm(layer: BatchNorm, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    # Means and variances in float32, as the kernels of other frameworks have them.
    wide = array.astype("float32")
    axes = tuple(axis for axis in range(4) if axis != _channel_axis(layout))
    mean = wide.mean(axes, keepdims=True)
    variance = ((wide - mean) ** 2).mean(axes, keepdims=True)
    scales, shifts = (_by_channel(parameter.astype("float32"), layout) for parameter in parameters)
    normalised = ((wide - mean) * (scales * jax.lax.rsqrt(variance + layer.epsilon)) + shifts).astype(array.dtype)
    return jax.nn.relu(normalised) if layer.relu else normalised


@_apply.register(Dropout)
def _apply_dropout(layer: Dropout, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    return array * _mask(layer, tuple(array.shape), str(array.dtype), layout)


@_apply.register(Flatten)
def _apply_flatten(layer: Flatten, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    images = array.transpose(0, 2, 3, 1) if layout is Layout.NCHW else array
    return images.reshape(images.shape[0], -1)


@_apply.register(Dense)
def _apply_dense(layer: Dense, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    product = array @ parameters[0]
    if layer.bias:
        product = product + parameters[1]
    return jax.nn.relu(product) if layer.relu else product


@functools.singledispatch
def _join(layer: Join, arrays: Sequence[Any], layout: Layout) -> Any:
    """Return what a layer makes of the ends of its paths."""
    raise UnsupportedError(f"layer {layer.name}: JAX's builder has nothing for {type(layer).__name__}")


@_join.register(Concat)
def _join_concat(layer: Concat, arrays: Sequence[Any], layout: Layout) -> Any:
    import jax

    return jax.numpy.concatenate(arrays, axis=_channel_axis(layout))


@_join.register(Add)
def _join_add(layer: Add, arrays: Sequence[Any], layout: Layout) -> Any:
    import jax

    total = functools.reduce(lambda one, other: one + other, arrays)
    return jax.nn.relu(total) if layer.relu else total


@functools.cache
def _mask(layer: Dropout, shape: tuple[int, ...], kind: str, layout: Layout) -> Any:
    """Return a dropout's mask, which is made once."""
    import jax

    # Not a part of whatever is being traced: it is to be the same array at every step.
    with jax.ensure_compile_time_eval():
        return jax.numpy.asarray(mask_of(layer, shape, layout), kind)


def _channel_axis(layout: Layout) -> int:
    return layout.value.index("C")


def _by_channel(parameter: Any, layout: Layout) -> Any:
    return parameter[:, None, None] if layout is Layout.NCHW else parameter


def _window(side: int, layout: Layout) -> tuple[int, ...]:
    return tuple(side if letter in "HW" else 1 for letter in layout.value)
