"""JAX: any model as a function of its images and parameters; compiled whole by XLA, or run operation by operation.

Importing this module imports no JAX: the functions that need it do, in the measuring child alone.

JAX has no kernels of its own: with ``compiler: none`` each operation is compiled by XLA for itself and called from
Python, with ``compiler: xla`` the whole step is one program.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import TYPE_CHECKING, Any, Final, NoReturn

from workers.frameworks.base import (
    TYPES,
    UnsupportedError,
    WrongDeviceError,
    as_written,
    fact,
    laid_out,
    operands,
    require_cores,
    require_tf32,
    threads_of,
    variable_fact,
    verdict_by_words,
)
from workers.frameworks.jax.layers import network_output
from workers.frameworks.jax.operations import operation_outputs
from workers.models.initial import initial_values
from workers.models.network import Model
from workers.protocol import Compiler, DeviceKind, Environment, Fact, Fetch, Layout, Pass, Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from workers.ops.base import Operation
    from workers.protocol import Device, Ring, Verdict, Workload

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


def build(work: Model | Operation, workload: Workload, device: Device) -> JaxStep:
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
    if workload.precision is Precision.TF32:
        require_tf32(device, lambda: tuple(int(part) for part in str(place.compute_capability).split(".")))
    jax.config.update("jax_default_matmul_precision", _matmul_precision(workload))
    function, given = _network_pass(work, workload) if isinstance(work, Model) else _operation_pass(work, workload)
    run = jax.jit(function) if workload.compiler is Compiler.XLA else function
    placed = [jax.device_put(array, place) for array in given]
    step = JaxStep(functools.partial(run, placed), work, workload, place, _environment(place))
    step()
    step.require_placement()
    return step


def build_collective(work: Model | Operation, workload: Workload, device: Device, ring: Ring) -> NoReturn:
    """Raise :class:`UnsupportedError`: operations of several devices are TensorFlow's here."""
    raise UnsupportedError(f"{work.name} over several devices is measured with TensorFlow, not with JAX")


def product(rows: int, workload: Workload, device: Device) -> Callable[[], None]:
    """Return what multiplies two square matrices of so many rows once."""
    import jax

    factor = jax.random.normal(jax.random.key(1), (rows, rows), TYPES[workload.precision])
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
        self,
        run: Callable[[], Sequence[Any]],
        work: Model | Operation,
        workload: Workload,
        place: Any,
        environment: Environment,
    ) -> None:
        self._run = run
        self._place = place
        self._fetch = workload.fetch
        self._written = functools.partial(as_written, work, workload)
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

        return tuple(self._written([np.asarray(array).astype(np.float32) for array in self._arrays]))

    def require_placement(self) -> None:
        """Raise :class:`WrongDeviceError` unless every output of the last call lies on the step's device."""
        for array in self._arrays:
            if array.devices() != {self._place}:
                raise WrongDeviceError(f"asked for {self._place}, JAX ran on {array.devices()}")


# --- what a step is made of -----------------------------------------------------------------------------------


def _network_pass(model: Model, workload: Workload) -> tuple[Callable[[Sequence[Any]], list[Any]], list[Any]]:
    """Return a function of the images and all parameters, and these."""
    import jax

    values = initial_values(model, workload.batch_size, workload.precision)
    images = laid_out(values.images, workload.layout)
    kind = TYPES[workload.precision]
    given = [jax.numpy.asarray(array, kind) for array in (images, *values.parameters)]
    function = _forward if workload.pass_ is Pass.FORWARD else _forward_backward
    return functools.partial(function, model, workload.layout), given


def _operation_pass(operation: Operation, workload: Workload) -> tuple[Callable[[Sequence[Any]], list[Any]], list[Any]]:
    """Return a function of what an operation is given, and that."""
    import jax

    given = [jax.numpy.asarray(array, TYPES[workload.precision]) for array in operands(operation, workload.layout)]
    return functools.partial(operation_outputs, operation, workload), given


def _forward(model: Model, layout: Layout, given: Sequence[Any]) -> list[Any]:
    images, *parameters = given
    return [network_output(model, layout, images, parameters)]


def _forward_backward(model: Model, layout: Layout, given: Sequence[Any]) -> list[Any]:
    import jax

    images, *parameters = given
    # The gradient of half a sum of squares is the array itself.
    if model.wants_input_gradient:
        last, backward = jax.vjp(functools.partial(network_output, model, layout), images, parameters)
        of_images, of_parameters = backward(last)
        return [*of_parameters, of_images]
    last, backward = jax.vjp(functools.partial(network_output, model, layout, images), parameters)
    (of_parameters,) = backward(last)
    return list(of_parameters)


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
