"""Invented figures for the simulated engine: a device's speed, the times of its steps, the result of an attempt. Pure.

The same seed gives the same figures, in every process and on every machine.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workers import works
from workers.protocol import DeviceKind, Environment, Fact, Phase, PhaseTiming, StoppedBy

if TYPE_CHECKING:
    from workers.protocol import Case, Device, Pass, Sampling, Workload

#: FLOP/s between which the speed of an invented device lies, by kind: what AlexNet steps reach in the field.
SPEED_RANGE: Final = {DeviceKind.CPU: (5e10, 5e11), DeviceKind.GPU: (2e12, 2e13)}

#: Devices of one name differ by up to this share, as in the field.
SPREAD: Final = 0.03

#: An invented large matrix product is this many times as fast as an invented step.
PEAK_RATIO: Final = 1.6

#: FLOP for each byte at which arithmetic and memory are equally busy, of the peak of made-up devices: as of real ones.
BALANCE: Final = 10.0

#: Bytes of an invented number.
_ITEMSIZE: Final = 4

#: Seconds that an invented child spends in a phase.
PHASE_S: Final = {Phase.IMPORT: 3.0, Phase.BUILD: 1.0, Phase.PEAK: 0.5}

#: How much longer the first warm-up step takes than a counted one.
FIRST_STEP_RATIO: Final = 5.0

#: No step is faster than this share of the mean, however much noise was asked for.
_FASTEST: Final = 0.1

#: What an image takes of an invented device's memory in a step, and what such a device has if it does not say.
#: More than AlexNet takes, so that invented CPUs come to an end with the largest batch as well.
_IMAGE_BYTES: Final = 32 * 2**20
_MEMORY_BYTES: Final = 16 * 2**30

#: Two-sided 95 % point of the normal distribution.
_Z95: Final = 1.959964

FACTS: Final = (
    ("framework.name", Fact(value="simulated")),
    ("simulated", Fact(value=True)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """The invented steps of one attempt."""

    #: Milliseconds, in the order in which they were taken.
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    stopped_by: StoppedBy

    @property
    def warmup_s(self) -> float:
        """Seconds that the warm-up took."""
        return math.fsum(self.warmup_ms) / 1e3

    @property
    def measure_s(self) -> float:
        """Seconds that the counted steps took."""
        return math.fsum(self.samples_ms) / 1e3

    def until(self, elapsed_s: float) -> Timing:
        """Return the steps that were over ``elapsed_s`` seconds after the warm-up began."""
        ends = itertools.accumulate((*self.warmup_ms, *self.samples_ms))
        over = sum(1 for end in ends if end <= elapsed_s * 1e3)
        warmup = self.warmup_ms[:over]
        samples = self.samples_ms[: max(over - len(self.warmup_ms), 0)]
        return Timing(warmup_ms=warmup, samples_ms=samples, stopped_by=self.stopped_by)


def speed_of(device: Device, seed: int) -> float:
    """Return the invented FLOP/s of a device: its name decides, and a little its id."""
    low, high = SPEED_RANGE[device.kind]
    by_name = _share(f"{seed}/{device.kind.value}/{device.name}")
    by_id = 2 * _share(f"{seed}/{device.id}") - 1
    return float(low * (high / low) ** by_name * (1 + SPREAD * by_id))


def timing_of(case: Case, attempt: int, *, speed: float, noise: float, seed: int) -> Timing:
    """Return invented steps: Gaussian about ``FLOP of a step / speed``, with the standard deviation ``noise`` times it.

    Raises :data:`workers.works.UNKNOWN`.
    """
    mean_ms = flop_of(case.workload) / speed * 1e3
    chance = random.Random(f"{seed}/{case.key}/{attempt}")
    warmup = [_step_ms(chance, mean_ms, noise) for _ in range(case.sampling.warmup)]
    warmup[:1] = [step_ms * FIRST_STEP_RATIO for step_ms in warmup[:1]]
    samples: list[float] = []
    rule = _StoppingRule(case.sampling)
    stopped_by = None
    while stopped_by is None:
        samples.append(_step_ms(chance, mean_ms, noise))
        stopped_by = rule.add(samples[-1])
    return Timing(warmup_ms=tuple(warmup), samples_ms=tuple(samples), stopped_by=stopped_by)


def largest_batch(device: Device) -> int:
    """Return the largest invented batch that fits in a device's memory."""
    return max((device.memory_bytes or _MEMORY_BYTES) // _IMAGE_BYTES, 1)


def flop_of(workload: Workload) -> int:
    """Return the floating-point operations of one step; raises :data:`workers.works.UNKNOWN`."""
    return _flop(workload.model, workload.batch_size, workload.pass_)


def phases_of(timing: Timing) -> tuple[PhaseTiming, ...]:
    """Return how long the invented child spent in each phase."""
    seconds = {**PHASE_S, Phase.WARMUP: timing.warmup_s, Phase.MEASURE: timing.measure_s}
    return tuple(PhaseTiming(phase=phase, seconds=seconds[phase]) for phase in Phase)


def environment_of(device: Device, speed: float) -> Environment:
    """Return facts that say that nothing was measured."""
    given = (("framework.device", Fact(value=device.name)), ("simulated.speed_flops", Fact(value=speed)))
    return Environment(facts=tuple(sorted((*FACTS, *given))))


@functools.cache
def _flop(model: str, batch_size: int, pass_: Pass) -> int:
    work = works.find(model)
    # What only moves numbers, a pool for one, takes the time of that.
    return work.flop(batch_size, pass_) or int(BALANCE * work.bytes(batch_size, pass_, _ITEMSIZE))


def _share(text: str) -> float:
    """Return a number from 0 to 1 that depends on ``text`` alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _step_ms(chance: random.Random, mean_ms: float, noise: float) -> float:
    return max(chance.gauss(mean_ms, noise * mean_ms), _FASTEST * mean_ms)


class _StoppingRule:
    """When the invented sampling ends; normal instead of Student's quantiles, for nobody trusts these figures."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, sample_ms: float) -> StoppedBy | None:
        """Take one more sample; return why sampling ends, or ``None`` to go on. Welford's running update."""
        self._count += 1
        change = sample_ms - self._mean
        self._mean += change / self._count
        self._squares += change * (sample_ms - self._mean)
        if self._is_precise():
            return StoppedBy.PRECISION
        if self._count >= self._sampling.max_steps:
            return StoppedBy.STEPS
        cap_s = self._sampling.max_time_s
        return StoppedBy.TIME if cap_s is not None and self._mean * self._count >= cap_s * 1e3 else None

    def _is_precise(self) -> bool:
        wanted = self._sampling.relative_ci
        if wanted is None or self._count < max(self._sampling.min_steps, 2):
            return False
        half_width = _Z95 * math.sqrt(self._squares / (self._count - 1) / self._count)
        return half_width <= wanted * self._mean
