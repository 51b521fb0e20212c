"""Takes time: warm-up, one timed step after another, and the rule that says when there are enough."""

from __future__ import annotations

import math
import operator
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workers.protocol import Phase, SampleBatch, Sampling, StoppedBy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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

    The interval is ``mean +/- t * s / sqrt(e)`` with Student's t, mean and s from Welford's running update (B. P.
    Welford, Technometrics 4, 1962), and as many independent samples e as the steps are worth, for steps that follow
    each other are not independent (:func:`effective_count`). That takes a while to reckon, so it is done only where the
    steps would be enough if they were independent, and after it has failed not before there are a twentieth more: it
    costs nothing beside the steps, and every further look is one more chance to be content by chance.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._samples_ms: list[float] = []
        self._mean = 0.0
        self._squares = 0.0
        self._total_ms = 0.0
        self._look_at = max(2, sampling.min_steps)

    def add(self, sample_ms: float) -> StoppedBy | None:
        """Take one more sample; return why sampling ends, or ``None`` to go on."""
        self._samples_ms.append(sample_ms)
        self._total_ms += sample_ms
        delta = sample_ms - self._mean
        self._mean += delta / len(self._samples_ms)
        self._squares += delta * (sample_ms - self._mean)
        return self._verdict()

    def _verdict(self) -> StoppedBy | None:
        sampling = self._sampling
        if self._is_precise():
            return StoppedBy.PRECISION
        if len(self._samples_ms) >= sampling.max_steps:
            return StoppedBy.STEPS
        if sampling.max_time_s is not None and self._total_ms >= sampling.max_time_s * 1e3:
            return StoppedBy.TIME
        return None

    def _is_precise(self) -> bool:
        wanted, count = self._sampling.relative_ci, len(self._samples_ms)
        if wanted is None or count < self._look_at:
            return False
        deviation = math.sqrt(max(self._squares, 0.0) / (count - 1))
        if half_width(deviation, count) > wanted * self._mean:
            return False
        if half_width(deviation, effective_count(self._samples_ms)) <= wanted * self._mean:
            return True
        self._look_at = count + max(1, count // 20)
        return False


def half_width(deviation: float, count: float) -> float:
    """Return half the 95 % interval of a mean of ``count`` independent samples with this deviation."""
    return t_quantile(max(round(count) - 1, 1)) * deviation / math.sqrt(count)


def effective_count(samples: Sequence[float]) -> float:
    """Return how many independent samples would know the mean as well as these, from 1 to their number.

    ``n / (1 + 2 * (r1 + r2 + ...))`` with the autocorrelations r, summed in pairs while a pair's sum is positive and
    not allowed to rise: the initial monotone sequence of Geyer, "Practical Markov Chain Monte Carlo", Statistical
    Science 7 (1992), 3.3. The head reckons the same with numpy, which measuring processes may not have.
    """
    count = len(samples)
    if count < 4:
        return float(count)
    mean = math.fsum(samples) / count
    away = [sample - mean for sample in samples]
    variance = math.fsum(value * value for value in away)
    # Rounding alone makes series of one value look correlated.
    if variance <= (1e-9 * max(map(abs, samples))) ** 2 * count:
        return float(count)
    total, least = 0.0, math.inf
    for lag in range(0, count - 1, 2):
        pair = (_at_lag(away, lag) + _at_lag(away, lag + 1)) / variance
        if pair <= 0:
            break
        least = min(least, pair)
        total += least
    return min(max(count / max(2 * total - 1, 1.0), 1.0), float(count))


def _at_lag(away: Sequence[float], lag: int) -> float:
    return math.fsum(map(operator.mul, away, away[lag:]))


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
    on_warm: Callable[[], None] = lambda: None,
) -> Measurement:
    """Warm up, then time one step after another until the stopping rule is content.

    ``clock`` gives seconds and must not go back. ``on_samples`` gets every time once, in order, in batches, and never
    between the two looks at the clock that make a sample; ``on_phase`` hears of warm-up and measuring as they begin.
    ``on_warm`` is called between the two, and measuring waits for it.
    The cap on time counts the samples alone, and wins over ``min_steps``; at least one sample is taken.

    Raises :class:`ClockError`, and whatever ``step`` raises.
    """
    on_phase(Phase.WARMUP)
    warmup = _Timer(step, clock, on_samples, warmup=True)
    for _ in range(sampling.warmup):
        warmup.take()
    warmup.hand_on()
    on_warm()
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
