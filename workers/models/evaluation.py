"""Walks a network from its input to its last tensor, whatever the tensors are. Standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from workers.models.joins import is_join, placed_along

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from workers.models.joins import Join, Path
    from workers.models.layers import Layer, Shape
    from workers.models.network import Model

    #: Returns a layer's output, given the layer, its input and its own parameters.
    Apply: TypeAlias = Callable[[Layer, Any, Sequence[Any]], Any]
    #: Returns what a join makes of the ends of its paths.
    JoinUp: TypeAlias = Callable[[Join, Sequence[Any]], Any]


def last_tensor(model: Model, tensor: Any, parameters: Sequence[Any], *, apply: Apply, join: JoinUp) -> Any:
    """Return what the network gives for ``tensor``; ``parameters`` in the order of the model's layers."""
    return _along(model.layers, model.input_shape, tensor, iter(parameters), apply, join)


def _along(path: Path, shape: Shape, tensor: Any, rest: Iterator[Any], apply: Apply, join: JoinUp) -> Any:
    for layer, input_shape in placed_along(path, shape):
        if is_join(layer):
            paths = cast("Join", layer).paths
            ends = [_along(inner, input_shape, tensor, rest, apply, join) for inner in paths]
            tensor = join(cast("Join", layer), ends)
        else:
            tensor = apply(layer, tensor, [next(rest) for _ in layer.parameters(input_shape)])
    return tensor
