from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.statistics import (
    block_length,
    effective_count,
    mean_interval,
    median_interval,
    resampled,
    robust_sd,
    samples_needed,
    student_t_975,
    summarise,
)

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


def memory_of(rho: float, count: int, seed: int) -> list[float]:
    """Return steps of 100 ms with a deviation of 5 ms, each of which remembers that share of the one before."""
    chance, away, found = np.random.default_rng(seed), 0.0, []
    for _ in range(count):
        away = rho * away + math.sqrt(1 - rho * rho) * float(chance.normal(0, 5))
        found.append(100 + away)
    return found


@given(series)
def test_samples_are_worth_no_more_than_they_are(samples: list[float]) -> None:
    assert 1 <= effective_count(samples) <= len(samples)


@pytest.mark.parametrize(("rho", "worth"), [(0.0, 1.0), (0.5, 1 / 3), (0.8, 1 / 9)])
def test_samples_that_remember_are_worth_what_theory_says(rho: float, worth: float) -> None:
    # Of a first-order autoregressive series: (1 - rho) / (1 + rho).
    found = [effective_count(memory_of(rho, 4000, seed)) / 4000 for seed in range(20)]
    assert np.mean(found) == pytest.approx(worth, rel=0.15)


@pytest.mark.parametrize("rho", [0.0, 0.6])
@pytest.mark.parametrize("interval", [mean_interval, median_interval])
def test_intervals_hold_the_truth_about_as_often_as_they_say(rho: float, interval: Any) -> None:
    held = 0
    for seed in range(200):
        found = interval(memory_of(rho, 200, seed), seed=seed)
        held += found.low <= 100 <= found.high
    assert held / 200 >= 0.82  # of 95 %: blocks of a short series know a little less than all


def test_the_interval_of_the_summary_holds_the_truth_where_the_naive_one_does_not() -> None:
    held = naive = 0
    for seed in range(200):
        samples = memory_of(0.8, 300, seed)
        summary = summarise(samples)
        assert summary.ci95_low_ms is not None
        assert summary.ci95_high_ms is not None
        held += summary.ci95_low_ms <= 100 <= summary.ci95_high_ms
        half = 1.96 * summary.sd_ms / math.sqrt(len(samples))
        naive += abs(summary.mean_ms - 100) <= half
    assert held / 200 >= 0.88
    assert naive / 200 < 0.6


@given(series, st.integers(0, 5))
def test_the_same_seed_draws_the_same(samples: list[float], seed: int) -> None:
    def means() -> list[float]:
        return [float(mean) for mean in resampled(samples, lambda rows: rows.mean(axis=1), seed=seed, resamples=20)]

    assert means() == means()
    assert all(min(samples) * (1 - 1e-9) <= mean <= max(samples) * (1 + 1e-9) for mean in means())


def test_long_series_are_drawn_in_parts() -> None:
    samples = [100.0 + i % 7 for i in range(3_000)]
    assert len(resampled(samples, lambda rows: rows.mean(axis=1), resamples=1500)) == 1500


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_block_is_a_part_of_the_series(count: int, share: float) -> None:
    assert 1 <= block_length(count, max(1.0, share * count)) <= count


@given(st.lists(times_ms, min_size=2, max_size=60), st.floats(0.001, 0.5))
def test_a_tighter_target_never_needs_fewer_samples(samples: list[float], relative_ci: float) -> None:
    loose, tight = samples_needed(samples, relative_ci), samples_needed(samples, relative_ci / 2)
    assert loose is not None
    assert tight is not None
    assert 2 <= loose <= tight


def test_as_many_samples_as_are_needed_know_the_mean_as_well_as_was_asked() -> None:
    # sd 5 % and independent: (1.96 * 0.05 / 0.01) ** 2 is 96.
    assert samples_needed(memory_of(0.0, 5000, 1), 0.01) == pytest.approx(96, rel=0.1)
    assert samples_needed(memory_of(0.5, 5000, 1), 0.01) == pytest.approx(288, rel=0.2)


def test_one_sample_has_no_interval_and_says_nothing_of_how_many_are_needed() -> None:
    assert mean_interval([5.0]) is None
    assert median_interval([5.0]) is None
    assert samples_needed([5.0], 0.01) is None
    with pytest.raises(ValueError, match="relative_ci"):
        samples_needed([5.0, 6.0], 0.0)


def test_a_robust_deviation_is_that_of_a_normal_distribution_and_heeds_no_outlier() -> None:
    samples = memory_of(0.0, 20_000, 3)
    assert robust_sd(samples) == pytest.approx(5.0, rel=0.03)
    assert robust_sd([*samples, *[1e6] * 20]) == pytest.approx(5.0, rel=0.03)
