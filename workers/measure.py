"""Takes time: warm-up, one timed step after another, and the rule that says when there are enough."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workers.protocol import Phase, SampleBatch, Sampling, StoppedBy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Samples are handed on about four times a second: often enough for people to watch, too rarely to disturb.
HAND_ON_S: Final = 0.25

#: Two-sided confidence of the interval that ``relative_ci`` is about.
CONFIDENCE: Final = 0.95


class ClockError(RuntimeError):
    """The clock gave a step no time or less than none, so that nothing it says can be believed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What was timed, one figure a step, milliseconds."""

    warmup_ms: tuple[float, ...]
    samples_ms: tuple[float, ...]
    stopped_by: StoppedBy


class StoppingRule:
    """Says after each sample whether sampling ends, and why.

    The interval is ``mean +/- t * s / sqrt(n)`` with Student's t, and mean and s from Welford's running update
    (B. P. Welford, Technometrics 4, 1962). It takes steps as independent, which consecutive steps are not, and
    looking after every step is optimistic: the interval is narrower than one from as many fresh processes.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._total_ms = 0.0

    def add(self, sample_ms: float) -> StoppedBy | None:
        """Take one more sample; return why sampling ends, or ``None`` to go on."""
        self._count += 1
        self._total_ms += sample_ms
        delta = sample_ms - self._mean
        self._mean += delta / self._count
        self._squares += delta * (sample_ms - self._mean)
        return self._verdict()

    def _verdict(self) -> StoppedBy | None:
        sampling = self._sampling
        if self._is_precise():
            return StoppedBy.PRECISION
        if self._count >= sampling.max_steps:
            return StoppedBy.STEPS
        if sampling.max_time_s is not None and self._total_ms >= sampling.max_time_s * 1e3:
            return StoppedBy.TIME
        return None

    def _is_precise(self) -> bool:
        wanted = self._sampling.relative_ci
        if wanted is None or self._count < max(2, self._sampling.min_steps):
            return False
        deviation = math.sqrt(max(self._squares, 0.0) / (self._count - 1))
        half_width = t_quantile(self._count - 1) * deviation / math.sqrt(self._count)
        return half_width <= wanted * self._mean


def t_quantile(freedom: int) -> float:
    """Return Student's t for a two-sided interval of :data:`CONFIDENCE` with ``freedom`` degrees of freedom, >= 1.

    Exact for one and two degrees; above, the expansion in Abramowitz and Stegun, Handbook of Mathematical Functions,
    26.7.5, whose error is below 0.2 % from three degrees on.
    """
    p = (1 + CONFIDENCE) / 2
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    x = statistics.NormalDist().inv_cdf(p)
    terms: tuple[float, ...] = (
        x,
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


def stopped_by(sampling: Sampling, samples_ms: Iterable[float]) -> StoppedBy | None:
    """Return why sampling ended after exactly these samples; ``None`` where the rule would have gone on."""
    rule, reason = StoppingRule(sampling), None
    for sample_ms in samples_ms:
        reason = rule.add(sample_ms)
    return reason


def measure(
    step: Callable[[], None],
    sampling: Sampling,
    *,
    clock: Callable[[], float],
    on_samples: Callable[[SampleBatch], None],
    on_phase: Callable[[Phase], None] = lambda _: None,
) -> Measurement:
    """Warm up, then time one step after another until the stopping rule is content.

    ``clock`` gives seconds and must not go back. ``on_samples`` gets every time once, in order, in batches, and never
    between the two looks at the clock that make a sample; ``on_phase`` hears of warm-up and measuring as they begin.
    The cap on time counts the samples alone, and wins over ``min_steps``; at least one sample is taken.

    Raises :class:`ClockError`, and whatever ``step`` raises.
    """
    on_phase(Phase.WARMUP)
    warmup = _Timer(step, clock, on_samples, warmup=True)
    for _ in range(sampling.warmup):
        warmup.take()
    warmup.hand_on()
    on_phase(Phase.MEASURE)
    counted = _Timer(step, clock, on_samples, warmup=False)
    rule, reason = StoppingRule(sampling), None
    while reason is None:
        reason = rule.add(counted.take())
    counted.hand_on()
    return Measurement(warmup_ms=tuple(warmup.taken_ms), samples_ms=tuple(counted.taken_ms), stopped_by=reason)


class _Timer:
    """Times steps and hands their times on in batches."""

    def __init__(
        self,
        step: Callable[[], None],
        clock: Callable[[], float],
        on_samples: Callable[[SampleBatch], None],
        *,
        warmup: bool,
    ) -> None:
        self._step = step
        self._clock = clock
        self._on_samples = on_samples
        self._warmup = warmup
        self._handed_on = 0
        self._handed_on_at = clock()
        self.taken_ms: list[float] = []

    def take(self) -> float:
        """Run one step and return its time in milliseconds."""
        begin = self._clock()
        self._step()
        end = self._clock()
        sample_ms = (end - begin) * 1e3
        if not (math.isfinite(sample_ms) and sample_ms > 0):
            raise ClockError(f"the clock gave a step {sample_ms} ms")
        self.taken_ms.append(sample_ms)
        if end - self._handed_on_at >= HAND_ON_S:
            self.hand_on()
            self._handed_on_at = end
        return sample_ms

    def hand_on(self) -> None:
        """Give away the times that were not given yet."""
        batch = tuple(self.taken_ms[self._handed_on :])
        if batch:
            self._handed_on = len(self.taken_ms)
            self._on_samples(SampleBatch(warmup=self._warmup, ms=batch))
