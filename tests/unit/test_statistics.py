from __future__ import annotations

import math

import pytest

from orchestrator.analysis.statistics import (
    effective_flops,
    images_per_s,
    middle,
    roof_flops,
    share_of_peak,
    student_t_975,
    summarise,
)


def test_summary_of_samples_that_can_be_done_by_hand() -> None:
    summary = summarise((1.0, 2.0, 3.0, 4.0))
    assert summary.count == 4
    assert summary.mean_ms == 2.5
    assert summary.sd_ms == pytest.approx(math.sqrt(1.25))
    assert summary.median_ms == 2.5
    assert summary.min_ms == 1.0
    # Between the order statistics at (n - 1) * p = 0.15 and 2.85.
    assert summary.p5_ms == pytest.approx(1.15)
    assert summary.p95_ms == pytest.approx(3.85)


def test_interval_is_students() -> None:
    # NIST/SEMATECH e-Handbook 1.3.5.2, ZARR13.DAT: 195 samples, mean 9.261460, sample sd 0.022789, t 1.9723, 95 %
    # limits 9.258242 and 9.264679. As many samples at mean - sd as at mean + sd, and one at the mean, have them.
    distance = 0.022789
    # In turns, so that no sample remembers the one before.
    samples = [9.261460 - distance, 9.261460 + distance] * 97 + [9.261460]
    summary = summarise(samples)
    assert summary.mean_ms == pytest.approx(9.261460)
    assert summary.ci95_low_ms == pytest.approx(9.258242, abs=1e-6)
    assert summary.ci95_high_ms == pytest.approx(9.264679, abs=1e-6)


def test_a_single_sample_has_no_interval() -> None:
    summary = summarise((5.0,))
    assert (summary.mean_ms, summary.sd_ms, summary.median_ms, summary.p5_ms) == (5.0, 0.0, 5.0, 5.0)
    assert summary.ci95_low_ms is None
    assert summary.ci95_high_ms is None


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise(())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 0.0])
def test_a_failure_is_never_summarised_as_a_number(bad: float) -> None:
    with pytest.raises(ValueError, match="finite positive"):
        summarise((1.0, bad))


@pytest.mark.parametrize(
    ("degrees", "published"),
    # NIST/SEMATECH e-Handbook 1.3.6.7.2, column 0.975.
    [(1, 12.706), (2, 4.303), (5, 2.571), (9, 2.262), (10, 2.228), (20, 2.086), (30, 2.042), (60, 2.000), (99, 1.984)],
)
def test_t_quantile_agrees_with_the_published_table(degrees: int, published: float) -> None:
    assert student_t_975(degrees) == pytest.approx(published, abs=0.0005)


@pytest.mark.parametrize("degrees", [*range(1, 40), 99, 500, 999])
def test_t_quantile_holds_95_percent_in_the_exact_distribution(degrees: int) -> None:
    # A relative error e of the quantile moves the probability by at most about 0.1 * e.
    assert _within(student_t_975(degrees), degrees) == pytest.approx(0.95, abs=1e-6)


def test_t_quantile_becomes_normal() -> None:
    assert student_t_975(10**9) == pytest.approx(1.959964, abs=1e-6)


def test_t_quantile_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="at least one degree"):
        student_t_975(0)


def test_rates() -> None:
    assert images_per_s(128, 64.0) == 2000.0
    assert effective_flops(3_000_000, 1.5) == 2e9
    assert share_of_peak(2e9, 8e9) == 0.25


def test_a_roof_is_the_lesser_of_what_memory_and_arithmetic_allow() -> None:
    assert roof_flops(2.0, 1e12, 1e10) == 2e10
    assert roof_flops(1e6, 1e12, 1e10) == 1e12
    with pytest.raises(ValueError, match="intensity"):
        roof_flops(0.0, 1e12, 1e10)


def test_the_middle_is_of_what_is_known() -> None:
    assert middle([None, 3.0, 1.0, 2.0]) == 2.0
    assert middle([4.0, 1.0]) == 1.0
    assert middle([None]) is None


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_rates_refuse_what_is_no_time(bad: float) -> None:
    with pytest.raises(ValueError, match="step_ms"):
        images_per_s(128, bad)
    with pytest.raises(ValueError, match="step_ms"):
        effective_flops(10, bad)
    with pytest.raises(ValueError, match="peak_flops"):
        share_of_peak(1.0, bad)


def _within(t: float, degrees: int) -> float:
    """P(-t < T < t) by the finite series that are exact: Abramowitz & Stegun 26.7.3 (odd) and 26.7.4 (even)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2 == 1
    term = cosine if is_odd else 1.0
    total = 0.0 if degrees == 1 else term
    for power in range(3 if is_odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + sine * total) if is_odd else sine * total
