"""JAX: any model as a function of its images and parameters; compiled whole by XLA, or run operation by operation.

Importing this module imports no JAX: the functions that need it do, in the measuring child alone.

JAX has no kernels of its own: with ``compiler: none`` each operation is compiled by XLA for itself and called from
Python, with ``compiler: xla`` the whole step is one program.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import TYPE_CHECKING, Any, Final

from workers.frameworks.base import (
    TF32_CAPABILITY,
    UnsupportedError,
    WrongDeviceError,
    fact,
    require_cores,
    require_gpu_for_tf32,
    threads_of,
    variable_fact,
    verdict_by_words,
)
from workers.models.evaluation import last_tensor
from workers.models.initial import dropout_mask, initial_values
from workers.models.joins import Add, Concat
from workers.models.layers import AveragePool, BatchNorm, Conv, Dense, Dropout, Flatten, LocalResponseNorm, MaxPool
from workers.protocol import Compiler, DeviceKind, Environment, Fact, Fetch, Layout, Pass, Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from workers.models.joins import Join
    from workers.models.layers import Layer
    from workers.models.network import Model
    from workers.protocol import Device, Verdict, Workload

#: The type of arrays; TF32 is what a GPU makes of float32 factors.
_TYPES: Final = {
    Precision.FLOAT32: "float32",
    Precision.TF32: "float32",
    Precision.FLOAT16: "float16",
    Precision.BFLOAT16: "bfloat16",
}

#: XLA's client for CPUs has as many threads as this says when it is made, or else as the process may use cores
#: (xla/pjrt/utils.cc, DefaultThreadPoolSize).
_THREADS_VARIABLE: Final = "NPROC"

_OOM_WORDS: Final = ("resource_exhausted", "out of memory", "bad_alloc")
_UNSUPPORTED_WORDS: Final = ("unimplemented", "not supported", "unsupported")


def available() -> str | None:
    """Return why JAX cannot be used here, with the command that mends it, or ``None``."""
    if importlib.util.find_spec("jax") is not None and importlib.util.find_spec("jaxlib") is not None:
        return None
    return (
        "JAX is not installed; type: pip install 'muster-bench[jax]', "
        "or pip install 'muster-bench[jax-gpu]' on a host with NVIDIA GPUs"
    )


def prepare(device: Device, workload: Workload) -> None:
    """Import JAX and set what holds for the whole process: platform, threads, memory.

    Raises :class:`UnsupportedError`.
    """
    if workload.onednn is not None:
        raise UnsupportedError("JAX has no switch for oneDNN")
    os.environ[_THREADS_VARIABLE] = str(threads_of(device, workload))
    os.environ["JAX_PLATFORMS"] = "cpu" if device.kind is DeviceKind.CPU else "cuda"
    # Otherwise three quarters of a GPU are taken before anything is asked for.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    del jax


def build(model: Model, workload: Workload, device: Device) -> JaxStep:
    """Return the pass, which has run once, on ``device`` and nowhere else.

    Forward is the network to its last tensor; forward-backward the gradients of half the last tensor's sum of squares
    with respect to all weights and biases. Raises :class:`UnsupportedError`, :class:`WrongDeviceError`, and whatever
    JAX raises (see :func:`verdict_of`).
    """
    import jax

    require_cores(device)
    if os.environ.get(_THREADS_VARIABLE) != str(wanted := threads_of(device, workload)):
        found = os.environ.get(_THREADS_VARIABLE)
        raise WrongDeviceError(f"{device.id} is to have {wanted} threads, JAX has {found}")
    place = _place(device)
    _require_tf32(device, workload, place)
    jax.config.update("jax_default_matmul_precision", _matmul_precision(workload))
    function = functools.partial(_PASSES[workload.pass_], model, workload.layout)
    run = jax.jit(function) if workload.compiler is Compiler.XLA else function
    images, parameters = _arrays(model, workload, place)
    step = JaxStep(functools.partial(run, images, parameters), workload, place, _environment(place))
    step()
    step.require_placement()
    return step


def product(rows: int, workload: Workload, device: Device) -> Callable[[], None]:
    """Return what multiplies two square matrices of so many rows once."""
    import jax

    factor = jax.random.normal(jax.random.key(1), (rows, rows), _TYPES[workload.precision])
    placed, multiply = jax.device_put(factor, _place(device)), jax.jit(jax.numpy.matmul)

    def once() -> None:
        jax.block_until_ready(multiply(placed, placed))

    return once


def update(count: int, device: Device) -> Callable[[], None]:
    """Return what adds one to each of ``count / 4`` numbers, in place."""
    import jax

    held = [jax.device_put(jax.numpy.zeros(count // 4, "float32"), _place(device))]
    add = jax.jit(lambda numbers: numbers + 1.0, donate_argnums=0)

    def once() -> None:
        held[0] = jax.block_until_ready(add(held[0]))

    return once


def verdict_of(error: Exception) -> Verdict:
    """Return what an exception from building or running a step means: ``oom``, ``unsupported`` or ``crashed``."""
    return verdict_by_words(
        error,
        oom_classes=frozenset(),
        oom_words=_OOM_WORDS,
        unsupported_classes=frozenset({"NotImplementedError"}),
        unsupported_words=_UNSUPPORTED_WORDS,
    )


class JaxStep:
    """One pass; what its last call gave is kept until the next one has ended."""

    def __init__(
        self, run: Callable[[], Sequence[Any]], workload: Workload, place: Any, environment: Environment
    ) -> None:
        self._run = run
        self._place = place
        self._fetch = workload.fetch
        #: Images come out in the layout in which they were computed.
        self._is_channels_first = workload.pass_ is Pass.FORWARD and workload.layout is Layout.NCHW
        self._environment = environment
        self._arrays: Sequence[Any] = ()
        self._fetched: Sequence[Any] = ()

    @property
    def environment(self) -> Environment:
        """What really is in use."""
        return self._environment

    def __call__(self) -> None:
        """Run the pass once; return when the device has finished and, for ``fetch: host``, all outputs are copied."""
        import jax
        import numpy as np

        arrays = jax.block_until_ready(self._run())
        if self._fetch is Fetch.HOST:
            self._fetched = [np.asarray(array) for array in arrays]
        self._arrays = arrays

    def outputs(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Return what the last call gave, as float32: the last tensor, or the gradients in the parameters' order."""
        import numpy as np

        arrays = [np.asarray(array).astype(np.float32) for array in self._arrays]
        if self._is_channels_first:
            arrays = [array.transpose(0, 2, 3, 1) if array.ndim == 4 else array for array in arrays]
        return tuple(arrays)

    def require_placement(self) -> None:
        """Raise :class:`WrongDeviceError` unless every output of the last call lies on the step's device."""
        for array in self._arrays:
            if array.devices() != {self._place}:
                raise WrongDeviceError(f"asked for {self._place}, JAX ran on {array.devices()}")


# --- one function a kind of layer -----------------------------------------------------------------------------


@functools.singledispatch
def _apply(layer: Layer, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    """Return the layer's output; ``parameters`` are its own."""
    raise UnsupportedError(f"layer {layer.name}: JAX's builder has nothing for {type(layer).__name__}")


@_apply.register(Conv)
def _apply_conv(layer: Conv, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    convolved = jax.lax.conv_general_dilated(
        array,
        parameters[0],
        (layer.stride, layer.stride),
        layer.padding.value,
        dimension_numbers=(layout.value, "HWIO", layout.value),
        feature_group_count=layer.groups,
    )
    if layer.bias:
        convolved = convolved + _by_channel(parameters[1], layout)
    return jax.nn.relu(convolved) if layer.relu else convolved


@_apply.register(MaxPool)
def _apply_max_pool(layer: MaxPool, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    window, strides = _window(layer.kernel, layout), _window(layer.stride, layout)
    return jax.lax.reduce_window(array, -jax.numpy.inf, jax.lax.max, window, strides, layer.padding.value)


@_apply.register(AveragePool)
def _apply_average_pool(layer: AveragePool, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    window, strides = _window(layer.kernel, layout), _window(layer.stride, layout)
    return jax.lax.reduce_window(array, 0.0, jax.lax.add, window, strides, "VALID") / layer.kernel**2


@_apply.register(LocalResponseNorm)
def _apply_local_response_norm(layer: LocalResponseNorm, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    # In float32, in which a sum of squares belongs.
    wide = array.astype("float32")
    window = [1, 1, 1, 1]
    window[_channel_axis(layout)] = 2 * layer.radius + 1
    squares = jax.lax.reduce_window(wide**2, 0.0, jax.lax.add, window, (1, 1, 1, 1), "SAME")
    return (wide / (layer.offset + layer.alpha * squares) ** layer.beta).astype(array.dtype)


@_apply.register(BatchNorm)
def _apply_batch_norm(layer: BatchNorm, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    # Means and variances in float32, as the kernels of other frameworks have them.
    wide = array.astype("float32")
    axes = tuple(axis for axis in range(4) if axis != _channel_axis(layout))
    mean = wide.mean(axes, keepdims=True)
    variance = ((wide - mean) ** 2).mean(axes, keepdims=True)
    scales, shifts = (_by_channel(parameter.astype("float32"), layout) for parameter in parameters)
    normalised = ((wide - mean) * (scales * jax.lax.rsqrt(variance + layer.epsilon)) + shifts).astype(array.dtype)
    return jax.nn.relu(normalised) if layer.relu else normalised


@_apply.register(Dropout)
def _apply_dropout(layer: Dropout, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    return array * _mask(layer, tuple(array.shape), str(array.dtype), layout)


@_apply.register(Flatten)
def _apply_flatten(layer: Flatten, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    images = array.transpose(0, 2, 3, 1) if layout is Layout.NCHW else array
    return images.reshape(images.shape[0], -1)


@_apply.register(Dense)
def _apply_dense(layer: Dense, array: Any, parameters: Sequence[Any], layout: Layout) -> Any:
    import jax

    product = array @ parameters[0]
    if layer.bias:
        product = product + parameters[1]
    return jax.nn.relu(product) if layer.relu else product


@functools.singledispatch
def _join(layer: Join, arrays: Sequence[Any], layout: Layout) -> Any:
    """Return what a layer makes of the ends of its paths."""
    raise UnsupportedError(f"layer {layer.name}: JAX's builder has nothing for {type(layer).__name__}")


@_join.register(Concat)
def _join_concat(layer: Concat, arrays: Sequence[Any], layout: Layout) -> Any:
    import jax

    return jax.numpy.concatenate(arrays, axis=_channel_axis(layout))


@_join.register(Add)
def _join_add(layer: Add, arrays: Sequence[Any], layout: Layout) -> Any:
    import jax

    total = functools.reduce(lambda one, other: one + other, arrays)
    return jax.nn.relu(total) if layer.relu else total


@functools.cache
def _mask(layer: Dropout, shape: tuple[int, ...], kind: str, layout: Layout) -> Any:
    """Return a dropout's mask, which is made once."""
    if len(shape) == 4 and layout is Layout.NCHW:
        mask = dropout_mask(layer, (shape[0], *shape[2:], shape[1])).transpose(0, 3, 1, 2)
    else:
        mask = dropout_mask(layer, shape)
    import jax

    # Not a part of whatever is being traced: it is to be the same array at every step.
    with jax.ensure_compile_time_eval():
        return jax.numpy.asarray(mask, kind)


def _channel_axis(layout: Layout) -> int:
    return layout.value.index("C")


def _by_channel(parameter: Any, layout: Layout) -> Any:
    return parameter[:, None, None] if layout is Layout.NCHW else parameter


def _window(side: int, layout: Layout) -> tuple[int, ...]:
    return tuple(side if letter in "HW" else 1 for letter in layout.value)


# --- what a step is made of -----------------------------------------------------------------------------------


def _forward(model: Model, layout: Layout, images: Any, parameters: Sequence[Any]) -> list[Any]:
    return [
        last_tensor(
            model,
            images,
            parameters,
            apply=functools.partial(_apply, layout=layout),
            join=functools.partial(_join, layout=layout),
        )
    ]


def _forward_backward(model: Model, layout: Layout, images: Any, parameters: Sequence[Any]) -> list[Any]:
    import jax

    # The gradient of half a sum of squares is the tensor itself.
    (last,), backward = jax.vjp(functools.partial(_forward, model, layout, images), parameters)
    (gradients,) = backward([last])
    return list(gradients)


_PASSES: Final = {Pass.FORWARD: _forward, Pass.FORWARD_BACKWARD: _forward_backward}


def _arrays(model: Model, workload: Workload, place: Any) -> tuple[Any, list[Any]]:
    import jax

    values = initial_values(model, workload.batch_size, workload.precision)
    images = values.images.transpose(0, 3, 1, 2) if workload.layout is Layout.NCHW else values.images
    kind = _TYPES[workload.precision]
    made = [jax.device_put(jax.numpy.asarray(array, kind), place) for array in (images, *values.parameters)]
    return made[0], made[1:]


# --- where it runs --------------------------------------------------------------------------------------------


def _place(device: Device) -> Any:
    """Return JAX's device; the child has hidden every other GPU."""
    import jax

    wanted = "cpu" if device.kind is DeviceKind.CPU else "gpu"
    try:
        found = jax.devices(wanted)
    except RuntimeError as error:
        raise WrongDeviceError(f"{device.id}: JAX sees no {wanted}: {error}") from error
    if len(found) != 1:
        raise WrongDeviceError(f"{device.id}: JAX must see this device alone, it sees {len(found)}")
    return found[0]


def _matmul_precision(workload: Workload) -> str:
    """Return JAX's word for how exact products are; by default GPUs since Ampere round float32 factors."""
    return "tensorfloat32" if workload.precision is Precision.TF32 else "highest"


def _require_tf32(device: Device, workload: Workload, place: Any) -> None:
    if workload.precision is not Precision.TF32:
        return
    require_gpu_for_tf32(device)
    capability = tuple(int(part) for part in str(place.compute_capability).split("."))
    if capability < TF32_CAPABILITY:
        raise UnsupportedError(
            f"{device.name} has compute capability {place.compute_capability}, and TF32 begins with 8.0"
        )


def _environment(place: Any) -> Environment:
    import jax

    threads = int(os.environ[_THREADS_VARIABLE])
    no_cuda = None if place.platform == "gpu" else "this step runs on a CPU"
    facts = {
        "framework.name": Fact(value="jax"),
        "framework.version": Fact(value=jax.__version__),
        "framework.device": Fact(value=str(place)),
        "framework.intra_op_threads": Fact(value=threads),
        "framework.inter_op_threads": Fact(value=threads),
        "framework.onednn": Fact(value=None, reason="JAX does not tell"),
        "framework.xla_flags": variable_fact("XLA_FLAGS"),
        "framework.tf32": Fact(value=jax.config.jax_default_matmul_precision == "tensorfloat32"),
        "framework.cuda": fact(getattr(place.client, "platform_version", None) if no_cuda is None else None, no_cuda),
        "framework.cudnn": Fact(value=None, reason=no_cuda or "JAX does not tell"),
    }
    return Environment(facts=tuple(sorted(facts.items())))
