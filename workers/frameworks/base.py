"""What a framework must offer to be measured: a module of this folder with these functions.

The module is its own registration: ``workers.frameworks.tensorflow`` answers to ``framework: tensorflow``. Importing
it must not import the framework; that happens inside :meth:`Framework.build`, in the measuring child alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from workers.models.network import Model
    from workers.protocol import Device, Environment, Verdict, Workload


class UnsupportedError(Exception):
    """The device or the framework cannot do what the workload asks; the message says why."""


class WrongDeviceError(Exception):
    """The framework would run somewhere else than on the device that was asked for."""


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

    def prepare(self, device: Device) -> None:
        """Import the framework and set its threads for ``device``.

        Called once in the child, after visibility, affinity and variables are set.
        """

    def build(self, model: Model, workload: Workload, device: Device) -> Step:
        """Return the compiled pass, on ``device`` and nowhere else.

        Raises :class:`UnsupportedError` and :class:`WrongDeviceError`.
        """

    def peak_flops(self, workload: Workload, device: Device) -> float:
        """Return the FLOP/s that a large matrix product reaches on ``device`` at the workload's precision."""

    def verdict_of(self, error: Exception) -> Verdict:
        """Return what an exception from building or running a step means: ``oom``, ``unsupported`` or ``crashed``."""
