"""What a framework must offer to be measured: a module of this folder with these functions.

The module is its own registration: ``workers.frameworks.tensorflow`` answers to ``framework: tensorflow``. Importing
it must not import the framework; that happens inside :meth:`Framework.build`, in the measuring child alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Protocol

from workers.protocol import DeviceKind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from workers.models.network import Model
    from workers.protocol import Device, Environment, Verdict, Workload


class UnsupportedError(Exception):
    """The device or the framework cannot do what the workload asks; the message says why."""


class WrongDeviceError(Exception):
    """The framework would run somewhere else than on the device that was asked for."""


#: The first compute capability whose tensor cores know TensorFloat-32: Ampere's (CUDA C++ Programming Guide, "Compute
#: Capabilities").
TF32_CAPABILITY: Final = (8, 0)


def require_gpu_for_tf32(device: Device) -> None:
    """Raise :class:`UnsupportedError` for a CPU: TensorFloat-32 is of NVIDIA's tensor cores."""
    if device.kind is not DeviceKind.GPU:
        raise UnsupportedError("a CPU has no TF32: it is of NVIDIA's GPUs, from Ampere on")


def threads_of(device: Device, workload: Workload) -> int:
    """Return how many threads share an operation: as asked for, or the cores of a CPU device, or beside a GPU all.

    Raises :class:`UnsupportedError` for more threads than there are cores.
    """
    cores = len(device.cores) or len(os.sched_getaffinity(0))
    if workload.threads is not None and workload.threads > cores:
        raise UnsupportedError(f"{workload.threads} threads are more than {device.selector} has cores: {cores}")
    return workload.threads or cores


class Step(Protocol):
    """One compiled pass, ready to be timed."""

    @property
    def environment(self) -> Environment:
        """What really is in use: ``framework.name``, ``.version``, ``.device``, threads, oneDNN, XLA, CUDA."""

    def __call__(self) -> None:
        """Run the pass once; return when the device has finished it and, for ``fetch: host``, its output is copied."""

    def outputs(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Return what the last call gave, on the host: the last tensor, or the gradients in the parameters' order.

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

    def build(self, model: Model, workload: Workload, device: Device) -> Step:
        """Return the compiled pass, on ``device`` and nowhere else.

        Raises :class:`UnsupportedError` and :class:`WrongDeviceError`.
        """

    def peak_flops(self, workload: Workload, device: Device) -> float:
        """Return the FLOP/s that a large matrix product reaches on ``device`` at the workload's precision."""

    def verdict_of(self, error: Exception) -> Verdict:
        """Return what an exception from building or running a step means: ``oom``, ``unsupported`` or ``crashed``."""
