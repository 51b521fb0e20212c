"""Networks as data: layers in order, and what follows from them by arithmetic alone. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from workers.models.joins import end_of, is_join, placed_along
from workers.models.layers import Flatten
from workers.protocol import NETWORK_PASSES, Pass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workers.models.joins import Join, Path
    from workers.models.layers import Layer, Parameter, Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedLayer:
    """A layer at its place in a model, where its input's shape is known."""

    layer: Layer
    input_shape: Shape

    @property
    def output_shape(self) -> Shape:
        """The shape of what it gives for one image."""
        return self.layer.output_shape(self.input_shape)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its weights and biases, with those of the layers that it is made of."""
        return self.layer.parameters(self.input_shape)

    @property
    def multiply_adds(self) -> int:
        """Multiply-add pairs for one image, forward, with those of the layers that it is made of."""
        return self.layer.multiply_adds(self.input_shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A network as data: a named variant, never ranked together with another one.

    Raises ValueError where the layers do not fit one after another, or two have the same name.
    """

    name: str
    #: One sentence for people.
    description: str
    #: Where the definition was read.
    source: str
    #: Height, width, channels of one image.
    input_shape: Shape
    layers: tuple[Layer, ...]
    #: Standard deviation of the weights before truncation.
    weight_sd: float
    #: Standard deviation of the input image.
    input_sd: float
    #: Whether the gradient of the input belongs to the pass back: of a layer that stands alone and not at an image.
    wants_input_gradient: bool = False

    def __post_init__(self) -> None:
        if not self.input_shape or min(self.input_shape) < 1:
            raise ValueError(f"model {self.name}: its input cannot have the shape {self.input_shape}")
        try:
            placed = self.placed()
            _require_distinct([each.layer.name for each in self.every_layer()])
        except ValueError as error:
            raise ValueError(f"model {self.name}: {error}") from error
        if not (self.wants_input_gradient or any(each.parameters for each in placed)):
            raise ValueError(f"model {self.name}: no layer has weights")

    def placed(self) -> tuple[PlacedLayer, ...]:
        """Return the layers that stand one after another, with the shape of their inputs."""
        return tuple(
            PlacedLayer(layer=layer, input_shape=shape) for layer, shape in placed_along(self.layers, self.input_shape)
        )

    def every_layer(self) -> tuple[PlacedLayer, ...]:
        """Return the same, and before each layer that is made of layers those that it is made of."""
        return tuple(_every_layer(self.layers, self.input_shape))

    def layer_alone(self, name: str) -> Model:
        """Return the layer of that name by itself, on the input that it has here; raises LookupError.

        Its pass back has the gradient of its input too, unless that is the image, whose gradient nobody needs.
        """
        found = next((each for each in self.every_layer() if each.layer.name == name), None)
        if found is None:
            raise LookupError(name)
        return Model(
            name=f"{self.name}/{name}",
            description=f"The layer {name} of {self.name} by itself.",
            source=self.source,
            input_shape=found.input_shape,
            layers=(found.layer,),
            weight_sd=self.weight_sd,
            input_sd=self.input_sd,
            wants_input_gradient=not self._is_at_image(name),
        )

    def layers_with_work(self) -> tuple[str, ...]:
        """Return the names of the layers that can be measured by themselves: no joins of others, nothing reshaped."""
        return tuple(
            each.layer.name
            for each in self.every_layer()
            if not is_join(each.layer) and not isinstance(each.layer, Flatten)
        )

    def _is_at_image(self, name: str) -> bool:
        return name in _at_the_input(self.layers[0])

    @property
    def batch_size(self) -> None:
        """None: a network takes any."""

    @property
    def passes(self) -> tuple[Pass, ...]:
        """What of it can be timed."""
        return NETWORK_PASSES

    def shapes(self) -> tuple[Shape, ...]:
        """Return the output shape of every layer, in order, without the batch."""
        return tuple(placed.output_shape for placed in self.placed())

    @property
    def parameters(self) -> int:
        """How many numbers its weights and biases hold."""
        return sum(parameter.size for placed in self.placed() for parameter in placed.parameters)

    @property
    def multiply_adds(self) -> int:
        """Multiply-add pairs for one image, forward."""
        return sum(placed.multiply_adds for placed in self.placed())

    def flop(self, batch_size: int, pass_: Pass) -> int:
        """Return the floating-point operations of one step; a multiply-add is two.

        With ``M`` a layer's multiply-adds for one image: forward is ``2 B sum(M)``. The gradients of a layer's weights
        and of its input take as many multiply-adds as its forward pass each (Goodfellow, Bengio, Courville, *Deep
        Learning*, 2016, section 6.5.6), but nobody needs the gradient of the image, so forward-backward is
        ``2 B (3 sum(M) - M of the first layer with weights)``; where paths begin at the image, of the first of each. A
        layer by itself may need that gradient, and takes ``2 B 3 M``.
        """
        if pass_ is Pass.FORWARD:
            return 2 * batch_size * self.multiply_adds
        spared = 0 if self.wants_input_gradient else _of_the_first(self.layers, self.input_shape)
        return 2 * batch_size * (3 * self.multiply_adds - spared)

    def bytes(self, batch_size: int, pass_: Pass, itemsize: int) -> int:
        """Return the bytes that a step moves at the least, layer by layer.

        Forward a layer reads its input and its parameters and writes its output, each once; back it reads and writes as
        much for either gradient. What stays in a cache between two layers, or is fused, moves less.
        """
        moved = sum(_bytes(each, batch_size) for each in self.every_layer())
        return itemsize * moved * (1 if pass_ is Pass.FORWARD else 3)


def _every_layer(path: Path, input_shape: Shape) -> Iterator[PlacedLayer]:
    for layer, shape in placed_along(path, input_shape):
        for inner in _paths(layer):
            yield from _every_layer(inner, shape)
        yield PlacedLayer(layer=layer, input_shape=shape)


def _of_the_first(path: Path, input_shape: Shape) -> int:
    """Return the multiply-adds of the first layer with weights: the one whose input needs no gradient."""
    for layer, shape in placed_along(path, input_shape):
        if layer.parameters(shape):
            paths = _paths(layer)
            return sum(_of_the_first(inner, shape) for inner in paths) if paths else layer.multiply_adds(shape)
    return 0


def _bytes(placed: PlacedLayer, batch_size: int) -> int:
    """Return how many numbers a layer reads and writes; of one that joins paths the ends of these are what it reads."""
    written = batch_size * math.prod(placed.output_shape)
    paths = _paths(placed.layer)
    if paths:
        ends = sum(math.prod(end_of(path, placed.input_shape)) for path in paths)
        return batch_size * ends + written
    parameters = sum(parameter.size for parameter in placed.parameters)
    return batch_size * math.prod(placed.input_shape) + parameters + written


def _at_the_input(layer: Layer) -> frozenset[str]:
    """Return the names of the layers that take what the first one takes: itself, and the first of each of its paths."""
    inner = [_at_the_input(path[0]) for path in _paths(layer) if path]
    return frozenset({layer.name}).union(*inner)


def _paths(layer: Layer) -> tuple[Path, ...]:
    return cast("Join", layer).paths if is_join(layer) else ()


def _require_distinct(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two layers are called {name}")
