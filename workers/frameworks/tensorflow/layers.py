"""TensorFlow: one function a kind of layer."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from workers.frameworks.base import UnsupportedError, mask_of
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
)
from workers.protocol import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.models.joins import Join
    from workers.models.layers import Layer
    from workers.models.network import Model


def network_output(model: Model, layout: Layout, images: Any, parameters: Sequence[Any]) -> Any:
    """Return the network's last tensor."""
    import tensorflow as tf

    return last_tensor(
        model,
        tf.convert_to_tensor(images),
        parameters,
        apply=functools.partial(_apply, layout=layout),
        join=functools.partial(_join, layout=layout),
    )


@functools.singledispatch
def _apply(layer: Layer, tensor: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    """Return the layer's output; ``parameters`` are its own."""
    raise UnsupportedError(f"layer {layer.name}: TensorFlow's builder has nothing for {type(layer).__name__}")


@_apply.register(Conv)
def _apply_conv(layer: Conv, tensor: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import tensorflow as tf

    convolved = tf.nn.conv2d(tensor, parameters[0], layer.stride, layer.padding.value, data_format=layout.value)
    if layer.bias:
        convolved = tf.nn.bias_add(convolved, parameters[1], data_format=layout.value)
    return tf.nn.relu(convolved) if layer.relu else convolved


@_apply.register(MaxPool)
def _apply_max_pool(layer: MaxPool, tensor: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import tensorflow as tf

    return tf.nn.max_pool2d(tensor, layer.kernel, layer.stride, layer.padding.value, data_format=layout.value)


@_apply.register(AveragePool)
def _apply_average_pool(layer: AveragePool, tensor: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import tensorflow as tf

    return tf.nn.avg_pool2d(tensor, layer.kernel, layer.stride, "VALID", data_format=layout.value)


@_apply.register(LocalResponseNorm)
def _apply_local_response_norm(layer: LocalResponseNorm, tensor: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import tensorflow as tf

    # The kernel takes NHWC alone; and float32 alone everywhere, in which its sum of squares belongs anyway.
    images = tf.transpose(tensor, (0, 2, 3, 1)) if layout is Layout.NCHW else tensor
    normalised = tf.nn.local_response_normalization(
        tf.cast(images, tf.float32), layer.radius, layer.offset, layer.alpha, layer.beta
    )
    normalised = tf.cast(normalised, tensor.dtype)
    return tf.transpose(normalised, (0, 3, 1, 2)) if layout is Layout.NCHW else normalised


@_apply.register(BatchNorm)
def _apply_batch_norm(layer: BatchNorm, tensor: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import tensorflow as tf

    # Scales and shifts are float32 to the kernel, whatever the images are.
    scales, shifts = (tf.cast(parameter, tf.float32) for parameter in parameters)
    normalised, *_ = tf.compat.v1.nn.fused_batch_norm(
        tensor, scales, shifts, epsilon=layer.epsilon, data_format=layout.value, is_training=True
    )
    return tf.nn.relu(normalised) if layer.relu else normalised


@_apply.register(Dropout)
def _apply_dropout(layer: Dropout, tensor: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import tensorflow as tf

    return tensor * tf.cast(mask_of(layer, tuple(tensor.shape), layout), tensor.dtype)


@_apply.register(Flatten)
def _apply_flatten(layer: Flatten, tensor: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import tensorflow as tf

    if layout is Layout.NCHW:
        tensor = tf.transpose(tensor, (0, 2, 3, 1))
    return tf.reshape(tensor, (tensor.shape[0], -1))


@_apply.register(Dense)
def _apply_dense(layer: Dense, tensor: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import tensorflow as tf

    product = tf.matmul(tensor, parameters[0])
    if layer.bias:
        product = tf.nn.bias_add(product, parameters[1])
    return tf.nn.relu(product) if layer.relu else product


@functools.singledispatch
def _join(layer: Join, tensors: Sequence[Any], layout: Layout) -> Any:
    """Return what a layer makes of the ends of its paths."""
    raise UnsupportedError(f"layer {layer.name}: TensorFlow's builder has nothing for {type(layer).__name__}")


@_join.register(Concat)
def _join_concat(layer: Concat, tensors: Sequence[Any], layout: Layout) -> Any:
    import tensorflow as tf

    return tf.concat(tensors, axis=1 if layout is Layout.NCHW else 3)


@_join.register(Add)
def _join_add(layer: Add, tensors: Sequence[Any], layout: Layout) -> Any:
    import tensorflow as tf

    total = functools.reduce(tf.add, tensors)
    return tf.nn.relu(total) if layer.relu else total
