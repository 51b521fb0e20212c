from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.statistics import student_t_975, summarise

times_ms = st.floats(min_value=1e-6, max_value=1e7)
series = st.lists(times_ms, min_size=1, max_size=60)


@given(series)
def test_summary_is_in_order(samples: list[float]) -> None:
    summary = summarise(samples)
    slack = 1e-9 * max(samples)
    assert summary.count == len(samples)
    assert summary.min_ms == min(samples)
    assert summary.min_ms <= summary.p5_ms + slack
    assert summary.p5_ms <= summary.median_ms + slack
    assert summary.median_ms <= summary.p95_ms + slack
    assert summary.p95_ms <= max(samples) + slack
    assert min(samples) - slack <= summary.mean_ms <= max(samples) + slack


@given(series)
def test_mean_and_sd_are_the_original_scripts(samples: list[float]) -> None:
    summary = summarise(samples)
    mean = math.fsum(samples) / len(samples)
    variance = math.fsum(sample * sample for sample in samples) / len(samples) - mean * mean
    assert summary.mean_ms == pytest.approx(mean)
    # The script's own form loses digits where the sd is small beside the mean.
    assert summary.sd_ms**2 == pytest.approx(max(variance, 0.0), abs=1e-9 * mean * mean, rel=1e-6)


@given(series)
def test_summary_does_not_depend_on_the_order(samples: list[float]) -> None:
    shuffled = sorted(samples)
    one, other = summarise(samples), summarise(shuffled)
    assert one.mean_ms == pytest.approx(other.mean_ms)
    assert (one.median_ms, one.p5_ms, one.p95_ms) == (other.median_ms, other.p5_ms, other.p95_ms)


@given(series, st.floats(min_value=0.01, max_value=100))
def test_summary_keeps_the_unit(samples: list[float], factor: float) -> None:
    one, scaled = summarise(samples), summarise([sample * factor for sample in samples])
    assert scaled.mean_ms == pytest.approx(one.mean_ms * factor)
    assert scaled.median_ms == pytest.approx(one.median_ms * factor)
    assert scaled.sd_ms == pytest.approx(one.sd_ms * factor, abs=1e-9 * one.mean_ms * factor)


@given(st.lists(times_ms, min_size=2, max_size=60))
def test_interval_is_about_the_mean(samples: list[float]) -> None:
    summary = summarise(samples)
    assert summary.ci95_low_ms is not None
    assert summary.ci95_high_ms is not None
    assert summary.ci95_low_ms <= summary.mean_ms <= summary.ci95_high_ms


@given(st.integers(min_value=1, max_value=10_000))
def test_t_quantile_falls_with_more_samples(degrees: int) -> None:
    assert student_t_975(degrees) > student_t_975(degrees + 1) > 1.9599
