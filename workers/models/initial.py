"""What a model's parameters and input hold before the first step: the same numbers under every framework."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from workers.models.layers import Initial
from workers.protocol import Precision

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from workers.models.layers import Dropout, Parameter, Shape
    from workers.models.network import Model
    from workers.ops.base import Operation

    Floats: TypeAlias = npt.NDArray[np.float32]

#: Any fixed number; timings do not hang on it, but outputs of two frameworks can be compared.
SEED: Final = 11


@dataclass(frozen=True, kw_only=True, slots=True)
class InitialValues:
    """A batch of images and a model's parameters, as float32."""

    #: Batch, height, width, channels, whatever the layout.
    images: Floats
    #: In the order of the model's layers, shaped as each :class:`Parameter` says.
    parameters: tuple[Floats, ...]


def initial_values(model: Model, batch_size: int, precision: Precision = Precision.FLOAT32) -> InitialValues:
    """Return normal images and truncated normal weights by the model's standard deviations; biases are zero.

    In float16, whose largest number is 65504, the published deviations would end in infinities: there a weight's is
    ``sqrt(2 / inputs of a unit)`` (He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 10).
    """
    import numpy as np

    generator = np.random.default_rng(SEED)
    parameters = tuple(
        _values(generator, parameter, _deviation(parameter, model, precision))
        for placed in model.placed()
        for parameter in placed.parameters
    )
    images = generator.standard_normal((batch_size, *model.input_shape), dtype=np.float32)
    images *= np.float32(model.input_sd)
    return InitialValues(images=images, parameters=parameters)


def _deviation(parameter: Parameter, model: Model, precision: Precision) -> float:
    if precision is not Precision.FLOAT16:
        return model.weight_sd
    return math.sqrt(2 / math.prod(parameter.shape[:-1]))


def dropout_mask(layer: Dropout, shape: Shape) -> Floats:
    """Return what a dropout multiplies a tensor of that shape, batch first, with: 0, or ``1 / (1 - rate)``.

    Another one for every layer, the same in every process and under every framework.
    """
    import numpy as np

    generator = np.random.default_rng((SEED, *layer.name.encode()))
    kept = generator.random(shape, dtype=np.float32) >= np.float32(layer.rate)
    return kept * np.float32(1 / (1 - layer.rate))


def operation_values(operation: Operation) -> tuple[Floats, ...]:
    """Return what an operation is given, as float32, in the order of its tensors: normal numbers."""
    import numpy as np

    generator = np.random.default_rng(SEED)
    return tuple(
        generator.standard_normal(tensor.shape, dtype=np.float32) * np.float32(tensor.sd)
        for tensor in operation.tensors
    )


def _values(generator: np.random.Generator, parameter: Parameter, weight_sd: float) -> Floats:
    import numpy as np

    if parameter.initial is Initial.ZEROS:
        return np.zeros(parameter.shape, np.float32)
    if parameter.initial is Initial.ONES:
        return np.ones(parameter.shape, np.float32)
    values = generator.standard_normal(parameter.shape, dtype=np.float32)
    # Truncated as TensorFlow does it: what lies beyond two standard deviations is drawn again.
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = generator.standard_normal(int(beyond.sum()), dtype=np.float32)
    return values * np.float32(weight_sd)
