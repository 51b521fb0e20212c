"""Layers that are made of layers: paths that begin at one tensor and come together again. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from workers.models.layers import Layer, as_image

if TYPE_CHECKING:
    from workers.models.layers import Parameter, Shape

#: Layers one after another; none at all gives what it was given.
Path: TypeAlias = tuple[Layer, ...]


class Join(Layer, Protocol):
    """A layer that is made of layers."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """What leads from its input to where it joins them, in the order in which their parameters come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Concat:
    """The channels of some paths behind each other, as in an inception module."""

    name: str
    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        _require_paths(self)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the paths' height and width, and all their channels."""
        shapes = [as_image(self.name, end_of(path, input_shape)) for path in self.paths]
        if len({shape[:2] for shape in shapes}) > 1:
            raise ValueError(f"{self.name}: its paths end in images of different sizes: {_listed(shapes)}")
        return (*shapes[0][:2], sum(shape[2] for shape in shapes))

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return those of its paths."""
        return _parameters(self, input_shape)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return those of its paths."""
        return _multiply_adds(self, input_shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Add:
    """The sum of some paths, number by number, as in a residual block; an empty path gives the input itself."""

    name: str
    paths: tuple[Path, ...]
    relu: bool = True

    def __post_init__(self) -> None:
        _require_paths(self)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape in which every path ends."""
        shapes = [end_of(path, input_shape) for path in self.paths]
        if len(set(shapes)) > 1:
            raise ValueError(f"{self.name}: its paths end in different shapes: {_listed(shapes)}")
        return shapes[0]

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return those of its paths."""
        return _parameters(self, input_shape)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return those of its paths; the sum itself counts as nothing."""
        return _multiply_adds(self, input_shape)


def is_join(layer: Layer) -> bool:
    """True where the layer is made of layers: a :class:`Join`."""
    return hasattr(layer, "paths")


def end_of(path: Path, input_shape: Shape) -> Shape:
    """Return the shape of what the last layer of a path gives."""
    shape = input_shape
    for layer in path:
        shape = layer.output_shape(shape)
    return shape


def placed_along(path: Path, input_shape: Shape) -> tuple[tuple[Layer, Shape], ...]:
    """Return each layer of a path with the shape of its input."""
    placed, shape = [], input_shape
    for layer in path:
        placed.append((layer, shape))
        shape = layer.output_shape(shape)
    return tuple(placed)


def _parameters(join: Join, input_shape: Shape) -> tuple[Parameter, ...]:
    return tuple(
        parameter
        for path in join.paths
        for layer, shape in placed_along(path, input_shape)
        for parameter in layer.parameters(shape)
    )


def _multiply_adds(join: Join, input_shape: Shape) -> int:
    return sum(layer.multiply_adds(shape) for path in join.paths for layer, shape in placed_along(path, input_shape))


def _require_paths(join: Join) -> None:
    if len(join.paths) < 2:
        raise ValueError(f"{join.name}: it needs two paths at least, not {len(join.paths)}")


def _listed(shapes: list[Shape] | list[tuple[int, int, int]]) -> str:
    return ", ".join(" x ".join(map(str, shape)) for shape in shapes)
