"""What a framework must offer to be measured: a module of this folder with these functions.

The module is its own registration: ``workers.frameworks.tensorflow`` answers to ``framework: tensorflow``. Importing
it must not import the framework; that happens inside :meth:`Framework.build`, in the measuring child alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Protocol

from workers.models.initial import dropout_mask, operation_values
from workers.models.network import Model
from workers.protocol import DeviceKind, Fact, Layout, Pass, Precision, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from workers.models.layers import Dropout
    from workers.ops.base import Operation
    from workers.protocol import Device, Environment, Ring, Workload


class UnsupportedError(Exception):
    """The device or the framework cannot do what the workload asks; the message says why."""


class WrongDeviceError(Exception):
    """The framework would run somewhere else than on the device that was asked for."""


#: The first compute capability whose tensor cores know TensorFloat-32: Ampere's (CUDA C++ Programming Guide, "Compute
#: Capabilities").
TF32_CAPABILITY: Final = (8, 0)


#: The type of tensors in every framework's words; TF32 is what a GPU makes of float32 factors.
TYPES: Final = {
    Precision.FLOAT32: "float32",
    Precision.TF32: "float32",
    Precision.FLOAT16: "float16",
    Precision.BFLOAT16: "bfloat16",
}


def require_tf32(device: Device, capability: Callable[[], tuple[int, ...] | None]) -> None:
    """Raise :class:`UnsupportedError` where a device has no TensorFloat-32, which is of NVIDIA's tensor cores.

    ``capability`` is asked of GPUs alone; ``None`` where the framework does not tell.
    """
    if device.kind is not DeviceKind.GPU:
        raise UnsupportedError("a CPU has no TF32: it is of NVIDIA's GPUs, from Ampere on")
    found = capability()
    if found is not None and found < TF32_CAPABILITY:
        in_words = ".".join(map(str, found))
        raise UnsupportedError(f"{device.name} has compute capability {in_words}, and TF32 begins with 8.0")


def require_cpu_for_onednn(device: Device, workload: Workload) -> None:
    """Raise :class:`UnsupportedError` where oneDNN is to be turned on or off for another device than a CPU."""
    if workload.onednn is not None and device.kind is not DeviceKind.CPU:
        raise UnsupportedError("oneDNN is for CPUs")


def laid_out(array: Any, layout: Layout) -> Any:
    """Return images in a layout, given in the order height, width, channels; what is no image stays."""
    return array.transpose(0, 3, 1, 2) if layout is Layout.NCHW and array.ndim == 4 else array


def operands(operation: Operation, layout: Layout) -> list[Any]:
    """Return what an operation is given, as float32, its images in a layout."""
    pairs = zip(operation.tensors, operation_values(operation), strict=True)
    return [array if tensor.name == "filters" else laid_out(array, layout) for tensor, array in pairs]


def mask_of(layer: Dropout, shape: tuple[int, ...], layout: Layout) -> Any:
    """Return a dropout's mask for a tensor of that shape, which is an image in a layout or a row."""
    if len(shape) == 4 and layout is Layout.NCHW:
        shape = (shape[0], *shape[2:], shape[1])
    return laid_out(dropout_mask(layer, shape), layout)


def in_channels_last(array: Any) -> Any:
    """Return images that are in NCHW in the order height, width, channels; what is no image stays."""
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def as_written(work: Model | Operation, workload: Workload, arrays: Sequence[Any]) -> list[Any]:
    """Return a step's outputs with images in the order height, width, channels; filters have one order anyway."""
    if workload.layout is Layout.NHWC:
        return list(arrays)
    if workload.pass_ in (Pass.FORWARD, Pass.BACKWARD_DATA):
        return [in_channels_last(array) for array in arrays]
    if isinstance(work, Model) and work.wants_input_gradient:
        return [*arrays[:-1], in_channels_last(arrays[-1])]
    return list(arrays)


def threads_of(device: Device, workload: Workload) -> int:
    """Return how many threads share an operation: as asked for, or the cores of a CPU device, or beside a GPU all.

    Raises :class:`UnsupportedError` for more threads than there are cores.
    """
    cores = len(device.cores) or len(os.sched_getaffinity(0))
    if workload.threads is not None and workload.threads > cores:
        raise UnsupportedError(f"{workload.threads} threads are more than {device.selector} has cores: {cores}")
    return workload.threads or cores


def require_cores(device: Device) -> None:
    """Raise :class:`WrongDeviceError` where this process may not use all the cores of a CPU device."""
    allowed = os.sched_getaffinity(0)
    if not allowed.issuperset(device.cores):
        raise WrongDeviceError(f"{device.id} has the cores {device.cores}, this process may use {sorted(allowed)}")


def verdict_by_words(
    error: Exception,
    *,
    oom_classes: frozenset[str],
    oom_words: tuple[str, ...],
    unsupported_classes: frozenset[str],
    unsupported_words: tuple[str, ...],
) -> Verdict:
    """Return what an exception means by the names of its classes and by its message; nothing need be imported."""
    classes = {kind.__name__ for kind in type(error).__mro__}
    message = str(error).lower()
    if classes & (oom_classes | {"MemoryError"}) or any(words.lower() in message for words in oom_words):
        return Verdict.OOM
    unsupported = unsupported_classes | {UnsupportedError.__name__}
    if classes & unsupported or any(words.lower() in message for words in unsupported_words):
        return Verdict.UNSUPPORTED
    return Verdict.CRASHED


def variable_fact(name: str) -> Fact:
    """Return the value of an environment variable."""
    return fact(os.environ.get(name), f"{name} is not set")


def fact(value: str | None, reason: str | None) -> Fact:
    """Return a value, or why there is none."""
    if value is not None:
        return Fact(value=value)
    return Fact(value=None, reason=reason or "the framework does not tell")


class Step(Protocol):
    """One compiled pass, ready to be timed."""

    @property
    def environment(self) -> Environment:
        """What really is in use: ``framework.name``, ``.version``, ``.device``, threads, oneDNN, XLA, CUDA."""

    def __call__(self) -> None:
        """Run the pass once; return when the device has finished it and, for ``fetch: host``, its output is copied."""

    def outputs(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Return what the last call gave, on the host: the last tensor, or the gradients in the parameters' order.

        Where the gradient of the input is wanted it comes last. Of an operation what it gives, images as NHWC.

        So that anybody can see that the timed work was done, and right.
        """


class Framework(Protocol):
    """The functions of a framework's module."""

    def available(self) -> str | None:
        """Return why it cannot be used here, with the command that mends it, or ``None``; imports nothing heavy."""

    def prepare(self, device: Device, workload: Workload) -> None:
        """Import the framework, and set what holds for the whole process: threads, oneDNN.

        Called once in the child, after visibility, affinity and variables are set. Raises :class:`UnsupportedError`.
        """

    def build(self, work: Model | Operation, workload: Workload, device: Device) -> Step:
        """Return the compiled pass of a network or an operation, on ``device`` and nowhere else.

        Raises :class:`UnsupportedError` and :class:`WrongDeviceError`.
        """

    def build_collective(self, work: Model | Operation, workload: Workload, device: Device, ring: Ring) -> Step:
        """Return this device's part in an operation of several, which has run once: each call is one step of all.

        Waits for the processes of the other devices, for as long as they need. Raises as :meth:`build`, also where the
        framework has no such operation, and what the framework raises when another process has gone.
        """

    def product(self, rows: int, workload: Workload, device: Device) -> Callable[[], None]:
        """Return what multiplies two square matrices of so many rows on ``device``, at the workload's precision.

        It returns when the device has finished, as the next one does.
        """

    def update(self, count: int, device: Device) -> Callable[[], None]:
        """Return what reads and writes ``count`` bytes of float32 in the device's memory, in place."""

    def verdict_of(self, error: Exception) -> Verdict:
        """Return what an exception from building or running a step means: ``oom``, ``unsupported`` or ``crashed``."""
