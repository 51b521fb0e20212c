"""The kinds of layers, and what follows from each by arithmetic alone. Standard library only.

A new kind of layer is a new class with the members of :class:`Layer`; :class:`workers.models.network.Model` asks for no
more than these. Kinds that are made of layers themselves are in :mod:`workers.models.joins`.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Protocol, TypeAlias

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
    ONES = "ones"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One tensor that training would change."""

    name: str
    #: Convolutions: kernel height, kernel width, channels in of a group, channels out. Dense layers: in, out.
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
    #: Channels and filters are split into so many groups, each of which sees nothing of the others.
    groups: int = 1
    bias: bool = True
    relu: bool = True

    def __post_init__(self) -> None:
        _require_positive(self.name, filters=self.filters, kernel=self.kernel, stride=self.stride, groups=self.groups)
        if self.filters % self.groups:
            raise ValueError(f"{self.name}: {self.filters} filters cannot be split into {self.groups} groups")

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return height, width and filters."""
        height, width, _ = as_image(self.name, input_shape)
        self._channels_of_group(input_shape)
        return (*_slid(self.name, (height, width), self.kernel, self.stride, self.padding), self.filters)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return the kernel (HWIO) and, where there is one, the bias."""
        shape = (self.kernel, self.kernel, self._channels_of_group(input_shape), self.filters)
        return _weights_and_bias(self.name, shape, self.bias)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return output height x width x filters x kernel height x kernel width x channels in of a group."""
        return math.prod(self.output_shape(input_shape)) * self.kernel**2 * self._channels_of_group(input_shape)

    def _channels_of_group(self, input_shape: Shape) -> int:
        channels = as_image(self.name, input_shape)[2]
        if channels % self.groups:
            raise ValueError(f"{self.name}: {channels} channels cannot be split into {self.groups} groups")
        return channels // self.groups


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
        height, width, channels = as_image(self.name, input_shape)
        return (*_slid(self.name, (height, width), self.kernel, self.stride, self.padding), channels)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return none."""
        return ()

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return 0: it compares, and multiplies nothing."""
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AveragePool:
    """The mean of each square window of an image, without padding."""

    name: str
    kernel: int
    stride: int = 1

    def __post_init__(self) -> None:
        _require_positive(self.name, kernel=self.kernel, stride=self.stride)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return height, width and the same channels."""
        height, width, channels = as_image(self.name, input_shape)
        return (*_slid(self.name, (height, width), self.kernel, self.stride, Padding.VALID), channels)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return none."""
        return ()

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return 0: it has no weights."""
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Flatten:
    """An image as one row of numbers, in the order height, width, channels whatever the layout."""

    name: str

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return how many numbers the image holds."""
        return (math.prod(as_image(self.name, input_shape)),)

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
class LocalResponseNorm:
    """Each value divided by what its neighbours in the channels, itself among them, come to.

    ``x / (offset + alpha * sum(x^2 over 2 radius + 1 channels)) ^ beta``; the defaults are k, n = 2 radius + 1, alpha
    and beta of Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (NIPS
    2012), section 3.3.
    """

    name: str
    radius: int = 2
    offset: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75

    def __post_init__(self) -> None:
        _require_positive(self.name, radius=self.radius)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the same shape."""
        return as_image(self.name, input_shape)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return none."""
        return ()

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return 0: it has no weights."""
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchNorm:
    """Each channel with the batch's own mean and variance taken out, then a scale and a shift: as in training.

    Ioffe, Szegedy, "Batch Normalization" (ICML 2015), algorithm 1. No running averages are kept: nobody would use them.
    """

    name: str
    epsilon: float = 1e-5
    relu: bool = True

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the same shape."""
        return as_image(self.name, input_shape)

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return a scale and a shift for each channel."""
        channels = as_image(self.name, input_shape)[2:]
        return (
            Parameter(name=f"{self.name}/scales", shape=channels, initial=Initial.ONES),
            Parameter(name=f"{self.name}/shifts", shape=channels, initial=Initial.ZEROS),
        )

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return 0: they are not counted, as in every published count."""
        return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropout:
    """A share of the numbers set to zero and the rest scaled up, as in training.

    Which ones is drawn once, as the weights are (:func:`workers.models.initial.dropout_mask`), and stays the same for
    every step: so that every framework computes the same, and so that drawing is no part of what is timed.
    """

    name: str
    #: Share of the numbers that become zero.
    rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"{self.name}: rate must be at least 0 and less than 1, not {self.rate}")

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the same shape."""
        return input_shape

    def parameters(self, input_shape: Shape) -> tuple[Parameter, ...]:
        """Return none."""
        return ()

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return 0: it has no weights."""
        return 0


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


def padding_around(side: int, kernel: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Return how many places are added before and after a side; with SAME the lesser half comes before.

    Source: TensorFlow, *tf.nn*, notes on padding.
    """
    if padding is Padding.VALID:
        return 0, 0
    missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return missing // 2, missing - missing // 2


def as_image(name: str, shape: Shape) -> tuple[int, int, int]:
    """Return height, width and channels; raises ValueError for the shape of anything else."""
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
