"""TensorFlow: one function an operation."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from workers.frameworks.base import UnsupportedError
from workers.ops.convolution import Convolution
from workers.ops.gemm import Gemm
from workers.ops.recurrent import Cell, Recurrent
from workers.protocol import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.ops.base import Operation
    from workers.protocol import Workload


@functools.singledispatch
def operation_outputs(operation: Operation, workload: Workload, given: Sequence[Any]) -> list[Any]:
    """Return what the operation gives for its tensors."""
    raise UnsupportedError(f"{operation.name}: TensorFlow's builder has nothing for {type(operation).__name__}")


@operation_outputs.register(Gemm)
def _gemm(operation: Gemm, workload: Workload, given: Sequence[Any]) -> list[Any]:
    import tensorflow as tf

    a, b = given
    return [tf.matmul(a, b, transpose_a=operation.a_transposed, transpose_b=operation.b_transposed)]


@operation_outputs.register(Convolution)
def _convolution(operation: Convolution, workload: Workload, given: Sequence[Any]) -> list[Any]:
    import tensorflow as tf

    layout = workload.layout
    images, filters, gradient = given
    shape = tuple(images.shape)
    around = {
        "N": (0, 0),
        "C": (0, 0),
        "H": (operation.pad_height, operation.pad_height),
        "W": (operation.pad_width, operation.pad_width),
    }
    strides = {"N": 1, "C": 1, "H": operation.stride_height, "W": operation.stride_width}
    settings: dict[str, Any] = {
        "strides": [strides[letter] for letter in layout.value],
        "padding": [list(around[letter]) for letter in layout.value] if any(map(any, around.values())) else "VALID",
        "data_format": layout.value,
    }
    if workload.pass_ is Pass.FORWARD:
        return [tf.nn.conv2d(images, filters, **settings)]
    if workload.pass_ is Pass.BACKWARD_DATA:
        return [tf.compat.v1.nn.conv2d_backprop_input(shape, filters, gradient, **settings)]
    return [tf.compat.v1.nn.conv2d_backprop_filter(images, tuple(filters.shape), gradient, **settings)]


@operation_outputs.register(Recurrent)
def _recurrent(operation: Recurrent, workload: Workload, given: Sequence[Any]) -> list[Any]:
    import tensorflow as tf

    inputs, weights = (tf.convert_to_tensor(each) for each in given)
    if workload.pass_ is Pass.FORWARD:
        return [_sequence(operation, inputs, weights)]
    with tf.GradientTape() as tape:
        tape.watch([inputs, weights])
        loss = tf.nn.l2_loss(_sequence(operation, inputs, weights))
    return list(tape.gradient(loss, [inputs, weights]))


def _sequence(operation: Recurrent, inputs: Any, weights: Any) -> Any:
    """Return what the layer gives at each step."""
    import tensorflow as tf

    steps = operation.steps
    zeros = tf.zeros((operation.batch_size, operation.hidden), inputs.dtype)
    given = tf.TensorArray(inputs.dtype, size=steps, element_shape=zeros.shape).unstack(inputs)
    made = tf.TensorArray(inputs.dtype, size=steps, element_shape=zeros.shape)

    def body(step: Any, hidden: Any, cell: Any, made: Any) -> tuple[Any, Any, Any, Any]:
        hidden, cell = _CELLS[operation.cell](given.read(step), hidden, cell, weights)
        return step + 1, hidden, cell, made.write(step, hidden)

    *_, made = tf.while_loop(
        lambda step, *_: step < steps, body, (tf.constant(0), zeros, zeros, made), maximum_iterations=steps
    )
    return made.stack()


def _vanilla(given: Any, hidden: Any, cell: Any, weights: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    return tf.nn.relu(given + tf.matmul(hidden, weights)), cell


def _lstm(given: Any, hidden: Any, cell: Any, weights: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    let_in, forget, new, let_out = (given + part for part in tf.split(tf.matmul(hidden, weights), 4, axis=1))
    cell = tf.sigmoid(forget) * cell + tf.sigmoid(let_in) * tf.tanh(new)
    return tf.sigmoid(let_out) * tf.tanh(cell), cell


def _gru(given: Any, hidden: Any, cell: Any, weights: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    reset, update, new = tf.split(tf.matmul(hidden, weights), 3, axis=1)
    proposed = tf.tanh(given + tf.sigmoid(given + reset) * new)
    kept = tf.sigmoid(given + update)
    return (1 - kept) * proposed + kept * hidden, cell


_CELLS = {Cell.VANILLA: _vanilla, Cell.LSTM: _lstm, Cell.GRU: _gru}
