"""Operations in plain numpy, float64: slow, obvious, and sharing nothing with any framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.contract.network_reference import Array, slopes
from workers.ops.convolution import Convolution
from workers.ops.gemm import Gemm
from workers.ops.recurrent import Cell, Recurrent
from workers.protocol import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from workers.ops.base import Operation


def outputs(operation: Operation, pass_: Pass, given: Sequence[npt.ArrayLike]) -> list[Array]:
    """Return what the operation gives, images as NHWC, filters as HWIO."""
    arrays = [np.asarray(each, np.float64) for each in given]
    if isinstance(operation, Gemm):
        a, b = arrays
        return [(a.T if operation.a_transposed else a) @ (b.T if operation.b_transposed else b)]
    if isinstance(operation, Convolution):
        return [_convolution(operation, pass_, *arrays)]
    assert isinstance(operation, Recurrent)
    if pass_ is Pass.FORWARD:
        return [_sequence(operation, *arrays)]
    return [slopes(lambda: float((_sequence(operation, *arrays) ** 2).sum() / 2), array) for array in arrays]


def _convolution(operation: Convolution, pass_: Pass, images: Array, filters: Array, gradient: Array) -> Array:
    """Go through the places of the output one by one."""
    rows, columns = operation.pad_height, operation.pad_width
    padded = np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    output, of_padded, of_filters = np.zeros(operation.output_shape), np.zeros(padded.shape), np.zeros(filters.shape)
    for row in range(operation.output_shape[1]):
        for column in range(operation.output_shape[2]):
            top, left = row * operation.stride_height, column * operation.stride_width
            window = np.s_[:, top : top + operation.filter_height, left : left + operation.filter_width]
            output[:, row, column] = np.einsum("nhwc,hwcf->nf", padded[window], filters)
            of_padded[window] += np.einsum("nf,hwcf->nhwc", gradient[:, row, column], filters)
            of_filters += np.einsum("nf,nhwc->hwcf", gradient[:, row, column], padded[window])
    of_images = of_padded[:, rows : rows + operation.height, columns : columns + operation.width]
    return {Pass.FORWARD: output, Pass.BACKWARD_DATA: of_images, Pass.BACKWARD_WEIGHTS: of_filters}[pass_]


def _sequence(operation: Recurrent, inputs: Array, weights: Array) -> Array:
    hidden = cell = np.zeros(inputs.shape[1:])
    made = []
    for given in inputs:
        parts = np.split(hidden @ weights, operation.cell.gates, axis=1)
        if operation.cell is Cell.VANILLA:
            hidden = np.maximum(given + parts[0], 0)
        elif operation.cell is Cell.LSTM:
            let_in, forget, new, let_out = (given + part for part in parts)
            cell = _sigmoid(forget) * cell + _sigmoid(let_in) * np.tanh(new)
            hidden = _sigmoid(let_out) * np.tanh(cell)
        else:
            reset, update = _sigmoid(given + parts[0]), _sigmoid(given + parts[1])
            hidden = (1 - update) * np.tanh(given + reset * parts[2]) + update * hidden
        made.append(hidden)
    return np.stack(made)


def _sigmoid(array: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-array)))
