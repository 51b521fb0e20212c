"""PyTorch: one function an operation."""

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
    raise UnsupportedError(f"{operation.name}: PyTorch's builder has nothing for {type(operation).__name__}")


@operation_outputs.register(Gemm)
def _gemm(operation: Gemm, workload: Workload, given: Sequence[Any]) -> list[Any]:
    import torch

    a, b = given
    with torch.inference_mode():
        return [torch.matmul(a.T if operation.a_transposed else a, b.T if operation.b_transposed else b)]


@operation_outputs.register(Convolution)
def _convolution(operation: Convolution, workload: Workload, given: Sequence[Any]) -> list[Any]:
    import torch

    images, filters, gradient = given
    stride = (operation.stride_height, operation.stride_width)
    padding = (operation.pad_height, operation.pad_width)
    with torch.inference_mode():
        if workload.pass_ is Pass.FORWARD:
            return [torch.nn.functional.conv2d(images, filters, None, stride, padding)]
        wanted = (workload.pass_ is Pass.BACKWARD_DATA, workload.pass_ is Pass.BACKWARD_WEIGHTS, False)
        found = torch.ops.aten.convolution_backward(
            gradient, images, filters, None, stride, padding, (1, 1), False, (0, 0), 1, wanted
        )
    return [found[0] if wanted[0] else found[1]]


@operation_outputs.register(Recurrent)
def _recurrent(operation: Recurrent, workload: Workload, given: Sequence[Any]) -> list[Any]:
    import torch

    if workload.pass_ is Pass.FORWARD:
        with torch.inference_mode():
            return [_sequence(operation, *given)]
    inputs, weights = (each.detach().requires_grad_() for each in given)
    last = _sequence(operation, inputs, weights)
    return list(torch.autograd.grad(last, [inputs, weights], grad_outputs=last.detach()))


def _sequence(operation: Recurrent, inputs: Any, weights: Any) -> Any:
    """Return what the layer gives at each step."""
    import torch

    hidden = torch.zeros((operation.batch_size, operation.hidden), dtype=inputs.dtype, device=inputs.device)
    cell, made = hidden, []
    for given in inputs.unbind(0):
        hidden, cell = _CELLS[operation.cell](given, hidden, cell, weights)
        made.append(hidden)
    return torch.stack(made)


def _vanilla(given: Any, hidden: Any, cell: Any, weights: Any) -> tuple[Any, Any]:
    return (given + hidden @ weights).relu(), cell


def _lstm(given: Any, hidden: Any, cell: Any, weights: Any) -> tuple[Any, Any]:
    let_in, forget, new, let_out = (given + part for part in (hidden @ weights).chunk(4, dim=1))
    cell = forget.sigmoid() * cell + let_in.sigmoid() * new.tanh()
    return let_out.sigmoid() * cell.tanh(), cell


def _gru(given: Any, hidden: Any, cell: Any, weights: Any) -> tuple[Any, Any]:
    reset, update, new = (hidden @ weights).chunk(3, dim=1)
    proposed = (given + (given + reset).sigmoid() * new).tanh()
    kept = (given + update).sigmoid()
    return (1 - kept) * proposed + kept * hidden, cell


_CELLS = {Cell.VANILLA: _vanilla, Cell.LSTM: _lstm, Cell.GRU: _gru}
