"""What a series of step times says: its summary, and the rates that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The 0.975 quantile of the standard normal distribution; Abramowitz & Stegun, table 26.1.
_NORMAL_975: Final = 1.959963984540054

#: The 0.975 quantile of Student's t for 1 to 9 degrees of freedom, where the series below is not exact enough;
#: Abramowitz & Stegun, table 26.10, with two more digits from its closed forms 26.7.3 and 26.7.4.
_T_975_OF_FEW: Final = (12.70620, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)


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
    #: The 95 % confidence interval of the mean; ``None`` for a single sample, which says nothing of its spread.
    ci95_low_ms: float | None
    ci95_high_ms: float | None


def summarise(samples_ms: Sequence[float]) -> Summary:
    """Return the summary of at least one sample, milliseconds; every sample counts, outliers too.

    Mean and population standard deviation are those of TensorFlow r0.11's ``alexnet_benchmark.py``
    (``sqrt(sum(d * d) / n - mean * mean)``), in the two-pass form that loses no digits. Percentiles interpolate
    between order statistics: definition 7 of Hyndman & Fan, "Sample Quantiles in Statistical Packages", The American
    Statistician 50 (1996), numpy's default.

    Raises ValueError for no samples, and for one that is not a finite positive number.
    """
    samples = np.asarray(samples_ms, dtype=np.float64)
    if samples.size == 0:
        raise ValueError("no samples to summarise")
    if not bool(np.all(np.isfinite(samples) & (samples > 0))):
        raise ValueError("every sample must be a finite positive number of milliseconds")
    mean, sd = float(samples.mean()), float(samples.std())
    p5, median, p95 = (float(value) for value in np.percentile(samples, (5, 50, 95)))
    half_width = _half_width(sd, samples.size)
    return Summary(
        count=int(samples.size),
        mean_ms=mean,
        sd_ms=sd,
        median_ms=median,
        p5_ms=p5,
        p95_ms=p95,
        min_ms=float(samples.min()),
        ci95_low_ms=None if half_width is None else mean - half_width,
        ci95_high_ms=None if half_width is None else mean + half_width,
    )


def student_t_975(degrees: int) -> float:
    """Return the 0.975 quantile of Student's t distribution, within 0.001 % of its exact value.

    From 10 degrees of freedom on by the asymptotic series of Abramowitz & Stegun, Handbook of Mathematical Functions
    (1964), 26.7.5; below that from their table. Raises ValueError for less than one degree.
    """
    if degrees < 1:
        raise ValueError(f"Student's t needs at least one degree of freedom, not {degrees}")
    if degrees <= len(_T_975_OF_FEW):
        return _T_975_OF_FEW[degrees - 1]
    x = _NORMAL_975
    terms = (
        x,
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))


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


def share_of_peak(flops: float, peak_flops: float) -> float:
    """Return ``flops`` over ``peak_flops``, both FLOP/s: 1.0 is as fast as a large matrix product on that device.

    Raises ValueError where either is not positive.
    """
    _require_positive(flops=flops, peak_flops=peak_flops)
    return flops / peak_flops


def _half_width(population_sd: float, count: int) -> float | None:
    """Half the 95 % interval of a mean: ``t * s / sqrt(n)`` with the sample deviation ``s = sd * sqrt(n / (n - 1))``.

    NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.5.2, Confidence Limits for the Mean.
    """
    if count < 2:
        return None
    return student_t_975(count - 1) * population_sd / math.sqrt(count - 1)


def _require_positive(**given: float) -> None:
    for name, value in given.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite positive number, not {value!r}")
