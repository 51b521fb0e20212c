"""How much longer: from what was planned and the pace of this run. Pure; seconds everywhere.

What nobody knows is ``None``, and so is what depends on it: no number is better than a wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.dispatch.policies import must_be_alone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.dispatch.settings import HostConcurrency
    from workers.protocol import DeviceKind, Sampling


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What is left for one device to do."""

    host: str
    kind: DeviceKind
    left_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Cases that gave a figure in this run, together."""

    cases: int = 0
    took_s: float = 0.0
    #: What those of them that had an estimate took, and what they were expected to take.
    estimated_took_s: float = 0.0
    estimated_s: float = 0.0

    def with_case(self, took_s: float, estimate_s: float | None) -> Pace:
        """Return the pace with one more case."""
        has_estimate = estimate_s is not None
        return Pace(
            cases=self.cases + 1,
            took_s=self.took_s + took_s,
            estimated_took_s=self.estimated_took_s + (took_s if has_estimate else 0.0),
            estimated_s=self.estimated_s + (estimate_s or 0.0),
        )

    @property
    def mean_s(self) -> float | None:
        """Seconds that a case took on average."""
        return self.took_s / self.cases if self.cases else None

    @property
    def ratio(self) -> float:
        """By what estimates are to be multiplied; 1 as long as none has been put to the test."""
        return self.estimated_took_s / self.estimated_s if self.estimated_s > 0 else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """Where the counted steps of a case are."""

    #: When the first progress of them came, and how many were done by then.
    first_at: float
    first: int
    #: The same of the latest.
    last_at: float
    last: int
    last_ms: float | None


def queue_left_s(known_s: float, unknown: int, pace: Pace, mean_s: float | None) -> float | None:
    """Return what is left of a device's queue: ``known_s`` of estimates, and ``unknown`` cases without one.

    ``mean_s`` is what a case takes on average, there or on devices like it.
    """
    if unknown and mean_s is None:
        return None
    # Sums that were counted down can end a rounding error below zero.
    return max(0.0, known_s) * pace.ratio + unknown * (mean_s or 0.0)


def steps_left_s(sampling: Sampling, steps: Steps, now: float) -> float | None:
    """Return how long the counted steps will still take at most; ``None`` before there is a pace."""
    if steps.last > steps.first:
        step_s = (steps.last_at - steps.first_at) / (steps.last - steps.first)
    elif steps.last_ms is not None:
        step_s = steps.last_ms / 1000
    else:
        return None
    left_s = (sampling.max_steps - steps.last) * step_s
    if sampling.max_time_s is not None:
        # Sampling looks at the clock after each step, so it ends up to one step late.
        spent_s = steps.first * step_s + steps.last_at - steps.first_at
        left_s = min(left_s, sampling.max_time_s + step_s - spent_s)
    return max(0.0, left_s - (now - steps.last_at))


def run_left_s(loads: Iterable[Load], concurrency: HostConcurrency) -> float | None:
    """Return how long the busiest host will still be at work; ``None`` where that of any device is not known."""
    together: dict[str, float] = {}
    alone: dict[str, float] = {}
    for load in loads:
        if load.left_s is None:
            return None
        if must_be_alone(load.kind, concurrency):
            alone[load.host] = alone.get(load.host, 0.0) + load.left_s
        else:
            together[load.host] = max(together.get(load.host, 0.0), load.left_s)
    return max((together.get(host, 0.0) + alone.get(host, 0.0) for host in {**together, **alone}), default=0.0)
