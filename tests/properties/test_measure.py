from __future__ import annotations

import math
import random
import statistics
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.analysis import statistics as on_the_head
from workers.measure import StoppingRule, effective_count, measure, stopped_by, t_quantile
from workers.protocol import SampleBatch, Sampling, StoppedBy

#: Whole milliseconds, so that the fake clock adds them without rounding.
STEP_MS = st.integers(min_value=1, max_value=10_000)


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    min_steps = draw(st.integers(1, 20))
    return Sampling(
        warmup=draw(st.integers(0, 5)),
        min_steps=min_steps,
        max_steps=min_steps + draw(st.integers(0, 30)),
        relative_ci=draw(st.none() | st.floats(0.001, 1.0)),
        max_time_s=draw(st.none() | st.floats(0.001, 100.0)),
    )


@settings(max_examples=100, deadline=None)
@given(sampling=samplings(), steps=st.lists(STEP_MS, min_size=60, max_size=60), pause_ms=st.integers(0, 10_000))
def test_every_time_is_taken_once_handed_on_once_and_free_of_pauses(
    sampling: Sampling, steps: list[int], pause_ms: int
) -> None:
    now_ms, left, batches = 0, iter(steps), list[SampleBatch]()

    def step() -> None:
        nonlocal now_ms
        now_ms += next(left)

    def on_samples(batch: SampleBatch) -> None:
        nonlocal now_ms
        now_ms += pause_ms
        batches.append(batch)

    found = measure(step, sampling, clock=lambda: now_ms / 1000, on_samples=on_samples)

    taken = found.warmup_ms + found.samples_ms
    assert [round(ms) for ms in taken] == steps[: len(taken)]
    assert len(found.warmup_ms) == sampling.warmup
    assert sum((batch.ms for batch in batches if batch.warmup), ()) == found.warmup_ms
    assert sum((batch.ms for batch in batches if not batch.warmup), ()) == found.samples_ms
    assert all(not after.warmup or before.warmup for before, after in pairwise(batches))
    assert all(batch.ms for batch in batches)
    assert found.stopped_by is stopped_by(sampling, found.samples_ms)


@settings(max_examples=200, deadline=None)
@given(sampling=samplings(), steps=st.lists(STEP_MS, min_size=60, max_size=60))
def test_sampling_ends_at_the_first_sample_that_satisfies_the_rule(sampling: Sampling, steps: list[int]) -> None:
    left = iter(steps)
    clock_ms = [0]

    def step() -> None:
        clock_ms[0] += next(left)

    found = measure(step, sampling, clock=lambda: clock_ms[0] / 1000, on_samples=lambda _: None)
    samples = found.samples_ms

    assert 1 <= len(samples) <= sampling.max_steps
    for count in range(1, len(samples)):
        assert stopped_by(sampling, samples[:count]) is None
    if found.stopped_by is StoppedBy.STEPS:
        assert len(samples) == sampling.max_steps
    if found.stopped_by is StoppedBy.TIME:
        assert sampling.max_time_s is not None
        assert sum(samples) >= sampling.max_time_s * 1e3 * (1 - 1e-9)
    if found.stopped_by is StoppedBy.PRECISION:
        assert sampling.relative_ci is not None
        assert len(samples) >= sampling.min_steps
        worth = effective_count(samples)
        half_width = t_quantile(max(round(worth) - 1, 1)) * statistics.stdev(samples) / math.sqrt(worth)
        assert half_width <= sampling.relative_ci * statistics.fmean(samples) * (1 + 1e-6) + 1e-6


@settings(max_examples=100, deadline=None)
@given(freedom=st.integers(1, 10_000))
def test_more_samples_never_need_a_wider_quantile(freedom: int) -> None:
    assert t_quantile(freedom) > t_quantile(freedom + 1) > statistics.NormalDist().inv_cdf(0.975)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=80))
def test_head_and_hosts_agree_on_what_samples_are_worth(samples: list[float]) -> None:
    worth = effective_count(samples)
    assert 1 <= worth <= len(samples)
    assert worth == pytest.approx(on_the_head.effective_count(samples), rel=1e-6)


def memory_of(rho: float, count: int, seed: int) -> list[float]:
    """Return steps of 100 ms with 5 % of noise, each of which remembers that share of the one before."""
    chance, away, found = random.Random(seed), 0.0, []
    for _ in range(count):
        away = rho * away + math.sqrt(1 - rho * rho) * chance.gauss(0, 5)
        found.append(100 + away)
    return found


@pytest.mark.parametrize(("rho", "least"), [(0.0, 0.9), (0.5, 0.88), (0.8, 0.85)])
def test_the_mean_is_known_as_well_as_was_asked_also_of_steps_that_remember_each_other(
    rho: float, least: float
) -> None:
    sampling = Sampling(warmup=0, min_steps=30, max_steps=5000, relative_ci=0.01)
    close = 0
    for seed in range(200):
        left = iter(memory_of(rho, 5000, seed))
        rule = StoppingRule(sampling)
        taken = []
        while True:
            taken.append(next(left))
            if rule.add(taken[-1]) is not None:
                break
        close += abs(statistics.fmean(taken) / 100 - 1) <= 0.01
    assert close / 200 >= least
