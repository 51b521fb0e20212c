"""Networks as data: layer kinds, and what follows from them by arithmetic alone. Standard library only.

A new kind of layer is a new class with the members of :class:`Layer`; :class:`Model` asks for no more than these.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from workers.protocol import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A tensor's dimensions without the batch; an image's are height, width, channels.
Shape: TypeAlias = tuple[int, ...]


class Padding(str, enum.Enum):
    """What happens at an image's edges; the names are TensorFlow's."""

    SAME = "SAME"
    VALID = "VALID"


class Initial(str, enum.Enum):
    """What a parameter holds before the first step."""

    #: Normal with the model's ``weight_sd``, drawn again beyond two standard deviations.
    TRUNCATED_NORMAL = "truncated_normal"
    ZEROS = "zeros"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One tensor that training would change."""

    name: str
    #: Convolutions: kernel height, kernel width, channels in, channels out. Dense layers: in, out.
    shape: Shape
    initial: Initial

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class Layer(Protocol):
    """What every kind of layer tells of itself; each method takes the shape of the layer's input.

    All of them raise ValueError where the layer cannot follow on such an input.
    """

    @property
    def name(self) -> str:
        """Its name, the only one of that name in its model."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of what it gives for one image."""

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return its weights and biases, in the order in which they are used."""

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return the multiply-add pairs of its weights for one image; biases, ReLU and pooling count as nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conv:
    """A square convolution over an image."""

    name: str
    filters: int
    #: Height and width of the kernel, in pixels.
    kernel: int
    stride: int = 1
    padding: Padding = Padding.SAME
    bias: bool = True
    relu: bool = True

    def __post_init__(self) -> None:
        _require_positive(self.name, filters=self.filters, kernel=self.kernel, stride=self.stride)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return height, width and filters."""
        height, width, _ = _as_image(self.name, input_shape)
        return (*_slid(self.name, (height, width), self.kernel, self.stride, self.padding), self.filters)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return the kernel (HWIO) and, where there is one, the bias."""
        channels = _as_image(self.name, input_shape)[2]
        shape = (self.kernel, self.kernel, channels, self.filters)
        return _weights_and_bias(self.name, shape, self.bias)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return output height x width x filters x kernel height x kernel width x channels in."""
        channels = _as_image(self.name, input_shape)[2]
        return math.prod(self.output_shape(input_shape)) * self.kernel**2 * channels


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxPool:
    """The greatest value of each square window of an image."""

    name: str
    kernel: int
    stride: int
    padding: Padding = Padding.VALID

    def __post_init__(self) -> None:
        _require_positive(self.name, kernel=self.kernel, stride=self.stride)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return height, width and the same channels."""
        height, width, channels = _as_image(self.name, input_shape)
        return (*_slid(self.name, (height, width), self.kernel, self.stride, self.padding), channels)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return none."""
        return ()

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return 0: it compares, and multiplies nothing."""
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Flatten:
    """An image as one row of numbers, in the order height, width, channels whatever the layout."""

    name: str

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return how many numbers the image holds."""
        return (math.prod(_as_image(self.name, input_shape)),)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return none."""
        return ()

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return 0: it only names things anew."""
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """A fully connected layer; a :class:`Flatten` must stand between it and an image."""

    name: str
    units: int
    bias: bool = True
    relu: bool = True

    def __post_init__(self) -> None:
        _require_positive(self.name, units=self.units)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the units."""
        _as_row(self.name, input_shape)
        return (self.units,)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return the weights (in, out) and, where there is one, the bias."""
        return _weights_and_bias(self.name, (_as_row(self.name, input_shape), self.units), self.bias)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return numbers in x units."""
        return _as_row(self.name, input_shape) * self.units


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
        """Its weights and biases."""
        return self.layer.parameters(self.input_shape)

    @property
    def multiply_adds(self) -> int:
        """Multiply-add pairs for one image, forward."""
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

    def __post_init__(self) -> None:
        if not self.input_shape or min(self.input_shape) < 1:
            raise ValueError(f"model {self.name}: its input cannot have the shape {self.input_shape}")
        _require_distinct(self.name, [layer.name for layer in self.layers])
        try:
            placed = self.placed()
        except ValueError as error:
            raise ValueError(f"model {self.name}: {error}") from error
        if not any(each.parameters for each in placed):
            raise ValueError(f"model {self.name}: no layer has weights")

    def placed(self) -> tuple[PlacedLayer, ...]:
        """Return every layer with the shape of its input, in order."""
        shape, placed = self.input_shape, []
        for layer in self.layers:
            placed.append(PlacedLayer(layer=layer, input_shape=shape))
            shape = layer.output_shape(shape)
        return tuple(placed)

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
        ``2 B (3 sum(M) - M of the first layer with weights)``.
        """
        if pass_ is Pass.FORWARD:
            return 2 * batch_size * self.multiply_adds
        first = next(placed.multiply_adds for placed in self.placed() if placed.parameters)
        return 2 * batch_size * (3 * self.multiply_adds - first)


def _weights_and_bias(name: str, shape: Shape, bias: bool) -> tuple[Parameter, ...]:
    weights = Parameter(name=f"{name}/weights", shape=shape, initial=Initial.TRUNCATED_NORMAL)
    if not bias:
        return (weights,)
    return (weights, Parameter(name=f"{name}/biases", shape=shape[-1:], initial=Initial.ZEROS))


def _slid(name: str, sides: tuple[int, int], kernel: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Return how often a window fits along each side.

    SAME: ``ceil(side / stride)``. VALID: ``ceil((side - kernel + 1) / stride)``. Source: TensorFlow, *tf.nn*, notes on
    padding.
    """
    if padding is Padding.SAME:
        return -(-sides[0] // stride), -(-sides[1] // stride)
    if kernel > min(sides):
        raise ValueError(f"{name}: a {kernel}x{kernel} kernel with VALID padding does not fit {sides[0]}x{sides[1]}")
    return (sides[0] - kernel) // stride + 1, (sides[1] - kernel) // stride + 1


def _as_image(name: str, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{name}: expected an image (height, width, channels), found the shape {shape}")
    return shape[0], shape[1], shape[2]


def _as_row(name: str, shape: Shape) -> int:
    if len(shape) != 1:
        raise ValueError(f"{name}: expected one row of numbers, found the shape {shape}; put a Flatten before it")
    return shape[0]


def _require_positive(name: str, **given: int) -> None:
    for what, value in given.items():
        if value < 1:
            raise ValueError(f"{name}: {what} must be at least 1, not {value}")


def _require_distinct(model: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"model {model}: two layers are called {name}")
