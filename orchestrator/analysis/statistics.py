"""What a series of step times says: its summary, how well it is known, and the rates that follow from it.

Steps that follow each other share caches, clocks and temperature: they are not independent, and intervals made as if
they were are too narrow. So every interval here counts the samples for as many as they are worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

#: What makes the median absolute deviation an estimate of a normal distribution's standard deviation: one over its
#: 0.75 quantile. Rousseeuw & Croux, "Alternatives to the Median Absolute Deviation", JASA 88 (1993).
MAD_TO_SD: Final = 1.482602218505602

#: Resampled series that an interval is made of; Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), 14.3,
#: ask for at least 1000.
RESAMPLES: Final = 2000

#: Numbers that are resampled at once, so that a long series does not fill the memory.
_MOST_AT_ONCE: Final = 2_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a series of samples says. Times are milliseconds."""

    #: How many samples there are.
    count: int
    mean_ms: float
    #: Population standard deviation, as the original script prints it behind its ``+/-``.
    sd_ms: float
    median_ms: float
    p5_ms: float
    p95_ms: float
    min_ms: float
    #: The median distance from the median.
    mad_ms: float
    #: How many independent samples would know the mean as well, from 1 to ``count``.
    effective_count: float
    #: The 95 % confidence interval of the mean; ``None`` for a single sample, which says nothing of its spread.
    ci95_low_ms: float | None
    ci95_high_ms: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def summarise(samples_ms: Sequence[float]) -> Summary:
    """Return the summary of at least one sample, milliseconds; every sample counts, outliers too.

    Mean and population standard deviation are those of TensorFlow r0.11's ``alexnet_benchmark.py``
    (``sqrt(sum(d * d) / n - mean * mean)``), in the two-pass form that loses no digits. Percentiles interpolate
    between order statistics: definition 7 of Hyndman & Fan, "Sample Quantiles in Statistical Packages", The American
    Statistician 50 (1996), numpy's default. The interval is ``mean +/- t * s / sqrt(e)`` with the sample deviation s
    and the effective count e in place of the count: NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.5.2, and
    :func:`effective_count`.

    Raises ValueError for no samples, and for one that is not a finite positive number.
    """
    samples = np.asarray(samples_ms, dtype=np.float64)
    if samples.size == 0:
        raise ValueError("no samples to summarise")
    if not bool(np.all(np.isfinite(samples) & (samples > 0))):
        raise ValueError("every sample must be a finite positive number of milliseconds")
    mean, sd = float(samples.mean()), float(samples.std())
    p5, median, p95 = (float(value) for value in np.percentile(samples, (5, 50, 95)))
    effective = effective_count(samples_ms)
    half_width = _half_width(sd, samples.size, effective)
    return Summary(
        count=int(samples.size),
        mean_ms=mean,
        sd_ms=sd,
        median_ms=median,
        p5_ms=p5,
        p95_ms=p95,
        min_ms=float(samples.min()),
        mad_ms=float(np.median(np.abs(samples - median))),
        effective_count=effective,
        ci95_low_ms=None if half_width is None else mean - half_width,
        ci95_high_ms=None if half_width is None else mean + half_width,
    )


def robust_sd(samples: Sequence[float]) -> float:
    """Return the standard deviation that a normal distribution with this median absolute deviation has."""
    values = np.asarray(samples, dtype=np.float64)
    return MAD_TO_SD * float(np.median(np.abs(values - np.median(values))))


def effective_count(samples: Sequence[float]) -> float:
    """Return how many independent samples would know the mean as well as these, from 1 to their number.

    ``n / (1 + 2 * (r1 + r2 + ...))`` with the autocorrelations r, summed in pairs while a pair's sum is positive and
    not allowed to rise: the initial monotone sequence of Geyer, "Practical Markov Chain Monte Carlo", Statistical
    Science 7 (1992), 3.3. Steps that avoid each other (r1 < 0) count for no more than they are.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.size < 4:
        return float(values.size)
    away = values - values.mean()
    variance = float(away @ away)
    # Rounding alone makes series of one value look correlated.
    if variance <= (1e-9 * float(np.abs(values).max())) ** 2 * values.size:
        return float(values.size)
    spectrum = np.fft.rfft(away, 2 * values.size)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum))[: values.size] / variance
    pairs = correlation[: values.size // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    kept = np.minimum.accumulate(pairs[: ends[0] if ends.size else pairs.size])
    return float(np.clip(values.size / max(2 * float(kept.sum()) - 1, 1.0), 1.0, values.size))


def block_length(count: int, effective: float) -> int:
    """Return how many consecutive samples a bootstrap keeps together, of ``count`` that are worth ``effective``.

    Twice the length over which samples remember each other, and ``count ** (1/3)`` at least, the order that is best for
    a mean (Hall, Horowitz & Jing, "On blocking rules for the bootstrap with dependent data", Biometrika 82, 1995).
    """
    return max(1, min(count, max(math.ceil(2 * count / effective), round(math.pow(count, 1 / 3)))))


def resampled(
    samples: Sequence[float],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> NDArray[np.float64]:
    """Return ``statistic`` of ``resamples`` series drawn from ``samples`` in blocks, the same ones for the same seed.

    The circular block bootstrap: Politis & Romano, "A circular block-resampling procedure for stationary data" (1992).
    ``statistic`` takes an array of series, one a row, and gives one value a row.
    """
    values = np.asarray(samples, dtype=np.float64)
    length = 1 if values.size < 4 else block_length(values.size, effective_count(samples))
    blocks = -(-values.size // length)
    random = np.random.default_rng(seed)
    at_once = max(1, _MOST_AT_ONCE // values.size)
    found = []
    for begin in range(0, resamples, at_once):
        rows = min(at_once, resamples - begin)
        starts = random.integers(0, values.size, size=(rows, blocks, 1))
        places = (starts + np.arange(length)) % values.size
        found.append(statistic(values[places.reshape(rows, -1)[:, : values.size]]))
    return np.concatenate(found)


def median_interval(samples_ms: Sequence[float], *, seed: int = 0) -> Interval | None:
    """Return the 95 % interval of the median, by percentiles of :func:`resampled`; ``None`` for a single sample."""
    return _interval(samples_ms, lambda rows: np.median(rows, axis=1), seed)


def mean_interval(samples_ms: Sequence[float], *, seed: int = 0) -> Interval | None:
    """Return the 95 % interval of the mean, by percentiles of :func:`resampled`; ``None`` for a single sample."""
    return _interval(samples_ms, lambda rows: rows.mean(axis=1), seed)


def _interval(
    samples_ms: Sequence[float], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], seed: int
) -> Interval | None:
    if len(samples_ms) < 2:
        return None
    low, high = np.percentile(resampled(samples_ms, statistic, seed=seed), (2.5, 97.5))
    return Interval(low=float(low), high=float(high))


def samples_needed(samples_ms: Sequence[float], relative_ci: float) -> int | None:
    """Return how many samples like these know the mean to ``relative_ci`` of it (half its 95 % interval).

    ``(1.96 * s / (relative_ci * mean)) ** 2`` independent ones (NIST/SEMATECH e-Handbook, 7.2.2.2), times what each of
    these is worth less. ``None`` for a single sample. Raises ValueError where ``relative_ci`` is not positive.
    """
    _require_positive(relative_ci=relative_ci)
    if len(samples_ms) < 2:
        return None
    values = np.asarray(samples_ms, dtype=np.float64)
    independent = (student_t_975(10**9) * float(values.std(ddof=1)) / (relative_ci * float(values.mean()))) ** 2
    return max(2, math.ceil(independent * values.size / effective_count(samples_ms)))


def student_t_975(degrees: float) -> float:
    """Return the 0.975 quantile of Student's t distribution; raises ValueError for less than one degree of freedom."""
    if degrees < 1:
        raise ValueError(f"Student's t needs at least one degree of freedom, not {degrees}")
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


def images_per_s(batch_size: int, step_ms: float) -> float:
    """Return how many images a second go through at ``step_ms`` milliseconds a batch: ``batch / time``.

    With the mean step time this is the images of all counted steps over their whole time. Raises ValueError where
    either is not positive.
    """
    _require_positive(batch_size=batch_size, step_ms=step_ms)
    return batch_size * 1000.0 / step_ms


def effective_flops(flop: int, step_ms: float) -> float:
    """Return the FLOP/s that a step of ``flop`` operations reaches in ``step_ms`` milliseconds.

    The operations are counted from the layers' shapes, a multiply-add as two, so the rate says what the model needed
    and not what the kernels did (Winograd needs fewer). Raises ValueError where either is not positive.
    """
    _require_positive(flop=flop, step_ms=step_ms)
    return flop * 1000.0 / step_ms


def middle(values: Iterable[float | None]) -> float | None:
    """Return the lower middle one of those that are known; ``None`` where none is."""
    known = sorted(value for value in values if value is not None)
    return known[(len(known) - 1) // 2] if known else None


def roof_flops(intensity: float, peak_flops: float, bytes_per_s: float) -> float:
    """Return the FLOP/s that a device attains at ``intensity`` FLOP for each byte moved: the roof of a roofline.

    The lesser of what its arithmetic and its memory allow. Williams, Waterman, Patterson, "Roofline", CACM 52 (2009).
    Raises ValueError where one of them is not positive.
    """
    _require_positive(intensity=intensity, peak_flops=peak_flops, bytes_per_s=bytes_per_s)
    return min(peak_flops, intensity * bytes_per_s)


def share_of_peak(flops: float, peak_flops: float) -> float:
    """Return ``flops`` over ``peak_flops``, both FLOP/s: 1.0 is as fast as a large matrix product on that device.

    Raises ValueError where either is not positive.
    """
    _require_positive(flops=flops, peak_flops=peak_flops)
    return flops / peak_flops


def _half_width(population_sd: float, count: int, effective: float) -> float | None:
    """Half the 95 % interval of a mean of ``count`` samples that are worth ``effective``."""
    if count < 2:
        return None
    sample_sd = population_sd * math.sqrt(count / (count - 1))
    return student_t_975(max(effective - 1, 1.0)) * sample_sd / math.sqrt(effective)


def _require_positive(**given: float) -> None:
    for name, value in given.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite positive number, not {value!r}")
