from __future__ import annotations

import math
import statistics
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.measure import measure, stopped_by, t_quantile
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
        half_width = t_quantile(len(samples) - 1) * statistics.stdev(samples) / math.sqrt(len(samples))
        assert half_width <= sampling.relative_ci * statistics.fmean(samples) * (1 + 1e-6) + 1e-6


@settings(max_examples=100, deadline=None)
@given(freedom=st.integers(1, 10_000))
def test_more_samples_never_need_a_wider_quantile(freedom: int) -> None:
    assert t_quantile(freedom) > t_quantile(freedom + 1) > statistics.NormalDist().inv_cdf(0.975)
