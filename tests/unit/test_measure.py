from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from tests.builders import a_sampling
from workers.measure import HAND_ON_S, ClockError, measure, stopped_by, t_quantile
from workers.protocol import Phase, SampleBatch, Sampling, StoppedBy

if TYPE_CHECKING:
    from workers.measure import Measurement


class FakeDevice:
    """A clock, and a step that makes it go forward by the given seconds, the last of them for ever."""

    def __init__(self, *step_s: float) -> None:
        self._left = list(step_s)
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        self.now += self._left.pop(0) if len(self._left) > 1 else self._left[0]


def run(device: FakeDevice, sampling: Sampling) -> tuple[Measurement, list[SampleBatch | Phase]]:
    heard: list[SampleBatch | Phase] = []
    return measure(device.step, sampling, clock=device.clock, on_samples=heard.append, on_phase=heard.append), heard


def test_warm_up_steps_come_first_and_are_not_counted() -> None:
    measurement, heard = run(FakeDevice(9.0, 8.0, 1.0, 2.0, 3.0), a_sampling(warmup=2, min_steps=3, max_steps=3))
    assert measurement.warmup_ms == (9000.0, 8000.0)
    assert measurement.samples_ms == (1000.0, 2000.0, 3000.0)
    assert measurement.stopped_by is StoppedBy.STEPS
    assert [event for event in heard if isinstance(event, Phase)] == [Phase.WARMUP, Phase.MEASURE]


def test_phases_are_told_in_time_and_batches_say_which_they_are_of() -> None:
    _, heard = run(FakeDevice(1.0), a_sampling(warmup=1, min_steps=1, max_steps=1))
    assert heard == [
        Phase.WARMUP,
        SampleBatch(warmup=True, ms=(1000.0,)),
        Phase.MEASURE,
        SampleBatch(warmup=False, ms=(1000.0,)),
    ]


def test_no_warm_up_means_no_warm_up_samples() -> None:
    measurement, heard = run(FakeDevice(1.0), a_sampling(warmup=0, min_steps=1, max_steps=1))
    assert measurement.warmup_ms == ()
    assert heard[:2] == [Phase.WARMUP, Phase.MEASURE]


def test_fast_steps_are_handed_on_by_the_clock_and_not_one_by_one() -> None:
    step_s = HAND_ON_S / 10
    _, heard = run(FakeDevice(step_s), a_sampling(warmup=0, min_steps=25, max_steps=25))
    sizes = [len(event.ms) for event in heard if isinstance(event, SampleBatch)]
    assert sum(sizes) == 25
    assert all(size in (10, 11) for size in sizes[:-1])


def test_time_spent_handing_on_is_in_no_sample() -> None:
    device = FakeDevice(HAND_ON_S)

    def slow(_: SampleBatch) -> None:
        device.now += 100.0

    measurement = measure(
        device.step, a_sampling(warmup=3, min_steps=5, max_steps=5), clock=device.clock, on_samples=slow
    )
    assert set(measurement.warmup_ms + measurement.samples_ms) == {HAND_ON_S * 1e3}


def test_steps_that_agree_end_at_the_least_number() -> None:
    sampling = a_sampling(warmup=0, min_steps=7, max_steps=500, relative_ci=0.01)
    measurement, _ = run(FakeDevice(0.1), sampling)
    assert len(measurement.samples_ms) == 7
    assert measurement.stopped_by is StoppedBy.PRECISION


def test_precision_is_looked_for_with_two_samples_at_least() -> None:
    measurement, _ = run(FakeDevice(0.5), a_sampling(warmup=0, min_steps=1, max_steps=9, relative_ci=0.01))
    assert len(measurement.samples_ms) == 2


def test_the_half_width_is_that_of_the_textbook() -> None:
    # 10, 12, 14 ms: mean 12, s = 2, half width 4.3027 * 2 / sqrt(3) = 4.968 = 41.4 % of the mean.
    samples = (10.0, 12.0, 14.0)
    assert stopped_by(a_sampling(min_steps=3, max_steps=9, relative_ci=0.4141), samples) is StoppedBy.PRECISION
    assert stopped_by(a_sampling(min_steps=3, max_steps=9, relative_ci=0.4139), samples) is None


def test_steps_that_never_agree_end_at_the_most() -> None:
    sampling = a_sampling(warmup=0, min_steps=2, max_steps=6, relative_ci=0.001)
    measurement, _ = run(FakeDevice(1.0, 2.0, 1.0, 2.0, 1.0, 2.0), sampling)
    assert len(measurement.samples_ms) == 6
    assert measurement.stopped_by is StoppedBy.STEPS


def test_the_cap_on_time_ends_sampling_even_before_the_least_number() -> None:
    measurement, _ = run(FakeDevice(1.0), a_sampling(warmup=4, min_steps=100, max_steps=100, max_time_s=3.0))
    assert len(measurement.samples_ms) == 3
    assert measurement.stopped_by is StoppedBy.TIME


def test_one_sample_is_taken_however_short_the_time() -> None:
    measurement, _ = run(FakeDevice(9.0), a_sampling(warmup=0, max_time_s=0.001))
    assert measurement.samples_ms == (9000.0,)


@pytest.mark.parametrize("step_s", [0.0, -1.0, math.nan, math.inf])
def test_a_step_without_a_believable_time_is_an_error_and_no_figure(step_s: float) -> None:
    with pytest.raises(ClockError):
        run(FakeDevice(step_s), a_sampling(warmup=0))


def test_what_a_step_raises_passes_through() -> None:
    def step() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure(step, a_sampling(), clock=lambda: 0.0, on_samples=lambda _: None)


@pytest.mark.parametrize(
    ("freedom", "table"),  # the 0.975 column that every textbook prints
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (100, 1.984)],
)
def test_t_quantiles_are_those_of_the_tables(freedom: int, table: float) -> None:
    assert t_quantile(freedom) == pytest.approx(table, rel=0.0015)
