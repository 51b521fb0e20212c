"""JAX: one function an operation."""

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
    """Return what the operation gives for its arrays."""
    raise UnsupportedError(f"{operation.name}: JAX's builder has nothing for {type(operation).__name__}")


@operation_outputs.register(Gemm)
def _gemm(operation: Gemm, workload: Workload, given: Sequence[Any]) -> list[Any]:
    a, b = given
    return [(a.T if operation.a_transposed else a) @ (b.T if operation.b_transposed else b)]


@operation_outputs.register(Convolution)
def _convolution(operation: Convolution, workload: Workload, given: Sequence[Any]) -> list[Any]:
    import jax

    images, filters, gradient = given
    layout = workload.layout.value
    pads = {"H": operation.pad_height, "W": operation.pad_width}
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(operation.stride_height, operation.stride_width),
        padding=[(pads[letter], pads[letter]) for letter in "HW"],
        dimension_numbers=(layout, "HWIO", layout),
    )
    if workload.pass_ is Pass.FORWARD:
        return [convolve(images, filters)]
    # A convolution is linear in either, so that its gradient needs no pass before.
    if workload.pass_ is Pass.BACKWARD_DATA:
        return list(jax.linear_transpose(lambda data: convolve(data, filters), images)(gradient))
    return list(jax.linear_transpose(lambda weights: convolve(images, weights), filters)(gradient))


@operation_outputs.register(Recurrent)
def _recurrent(operation: Recurrent, workload: Workload, given: Sequence[Any]) -> list[Any]:
    import jax

    if workload.pass_ is Pass.FORWARD:
        return [_sequence(operation, *given)]
    last, backward = jax.vjp(functools.partial(_sequence, operation), *given)
    return list(backward(last))


def _sequence(operation: Recurrent, inputs: Any, weights: Any) -> Any:
    """Return what the layer gives at each step."""
    import jax

    zeros = jax.numpy.zeros((operation.batch_size, operation.hidden), inputs.dtype)

    def body(held: tuple[Any, Any], given: Any) -> tuple[tuple[Any, Any], Any]:
        hidden, cell = _CELLS[operation.cell](given, *held, weights)
        return (hidden, cell), hidden

    _, made = jax.lax.scan(body, (zeros, zeros), inputs)
    return made


def _vanilla(given: Any, hidden: Any, cell: Any, weights: Any) -> tuple[Any, Any]:
    import jax

    return jax.nn.relu(given + hidden @ weights), cell


def _lstm(given: Any, hidden: Any, cell: Any, weights: Any) -> tuple[Any, Any]:
    import jax

    let_in, forget, new, let_out = (given + part for part in jax.numpy.split(hidden @ weights, 4, axis=1))
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(let_in) * jax.numpy.tanh(new)
    return jax.nn.sigmoid(let_out) * jax.numpy.tanh(cell), cell


def _gru(given: Any, hidden: Any, cell: Any, weights: Any) -> tuple[Any, Any]:
    import jax

    reset, update, new = jax.numpy.split(hidden @ weights, 3, axis=1)
    proposed = jax.numpy.tanh(given + jax.nn.sigmoid(given + reset) * new)
    kept = jax.nn.sigmoid(given + update)
    return (1 - kept) * proposed + kept * hidden, cell


_CELLS = {Cell.VANILLA: _vanilla, Cell.LSTM: _lstm, Cell.GRU: _gru}
