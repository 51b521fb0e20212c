"""Decisions of the dispatcher that are matters of taste: what is tried again, and what may run beside what."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.dispatch.settings import HostConcurrency
from workers.protocol import Company, DeviceKind, Verdict

if TYPE_CHECKING:
    from workers.protocol import Case

#: Endings that speak against the device or its host; the others are the workload's fault, or nobody's.
FAILURES: Final = frozenset({Verdict.CRASHED, Verdict.TIMEOUT, Verdict.HOST_DOWN})

#: Longest pause between two tries to bring back an agent, seconds.
LONGEST_PAUSE_S: Final = 10.0

#: How often an agent may come back and be lost again before its device is given up, while no case begins on it.
MOST_RETURNS: Final = 8


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
    return verdict.is_transient and attempt < attempts


def retry_delay_s(tries: int, delay_s: float) -> float:
    """Return seconds until the next attempt after ``tries`` failed ones, at least one: doubled with each."""
    return float(delay_s * 2 ** (tries - 1))


def return_delay_s(losses: int) -> float:
    """Return seconds from the loss of an agent, the ``losses``-th in a row, until another one is tried."""
    return min(2.0 ** min(losses - 1, 10), LONGEST_PAUSE_S)


def needs_more_memory(case: Case, than: Case) -> bool:
    """Return whether a case is the same workload on the same device as another one, with a larger batch."""
    mine, other = case.workload, than.workload
    return (
        case.device.id == than.device.id
        and mine.batch_size > other.batch_size
        and dataclasses.replace(mine, batch_size=other.batch_size) == other
    )


def must_be_alone(kind: DeviceKind, concurrency: HostConcurrency, company: Company | None = None) -> bool:
    """Return whether nothing else may be at work on a host while a device of ``kind`` is, also of other musters.

    Nothing else than what is begun together with it, where it is to be measured in ``company``.
    """
    if concurrency is HostConcurrency.BOTH:
        return company is not Company.TOGETHER
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
