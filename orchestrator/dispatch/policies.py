"""Decisions of the dispatcher that are matters of taste: what is tried again, and what may run beside what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestrator.dispatch.settings import HostConcurrency
from workers.protocol import DeviceKind, Verdict

#: Endings that another try may mend. Too little memory, an unsupported workload and a timeout come out the same again.
RETRYABLE: Final = frozenset({Verdict.CRASHED})


@dataclass(frozen=True, kw_only=True, slots=True)
class HostLoad:
    """What the devices of one host are doing."""

    #: Devices whose agents are starting, which costs the host's CPU.
    preparing: int
    #: CPU devices at work on a case.
    active_cpus: int
    #: GPUs at work on a case.
    active_gpus: int

    @property
    def is_quiet(self) -> bool:
        """True where nothing of ours uses the host."""
        return self.preparing + self.active_cpus + self.active_gpus == 0


def is_tried_again(verdict: Verdict, *, attempt: int, attempts: int) -> bool:
    """Return whether a case whose ``attempt`` (from 1) ended with ``verdict`` gets another, of ``attempts`` at most."""
    return verdict in RETRYABLE and attempt < attempts


def must_be_alone(kind: DeviceKind, concurrency: HostConcurrency) -> bool:
    """Return whether nothing else may be at work on a host while a device of ``kind`` is, also of other musters."""
    return concurrency is HostConcurrency.EXCLUSIVE or (
        concurrency is HostConcurrency.CONCURRENT and kind is DeviceKind.CPU
    )


def may_start(kind: DeviceKind, load: HostLoad, concurrency: HostConcurrency) -> bool:
    """Return whether a device of ``kind`` may begin a case beside what its host is doing."""
    if concurrency is HostConcurrency.TOGETHER:
        return True
    if must_be_alone(kind, concurrency):
        return load.is_quiet
    return load.active_cpus == 0


def turn(kind: DeviceKind, position: int, concurrency: HostConcurrency) -> tuple[int, int]:
    """Return the key by which idle devices of a host are sorted: the smallest goes next.

    ``position`` is the place in the plan of the case that the device would begin. Hosts follow the plan, but where
    only a CPU device needs the whole host GPUs go first: to empty it between two GPU cases would leave the GPUs without
    work. It still gets its turn, for a GPU has a finite number of cases, each of which has deadlines.
    """
    waits_for_gpus = concurrency is HostConcurrency.CONCURRENT and kind is DeviceKind.CPU
    return (int(waits_for_gpus), position)
