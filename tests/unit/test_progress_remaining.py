from __future__ import annotations

import pytest

from orchestrator.cli.progress.remaining import Load, Pace, Steps, queue_left_s, run_left_s, steps_left_s
from orchestrator.dispatch.settings import HostConcurrency
from tests.builders import a_sampling
from workers.protocol import DeviceKind

CPU, GPU = DeviceKind.CPU, DeviceKind.GPU


def test_a_queue_takes_what_was_estimated_as_long_as_nothing_was_put_to_the_test() -> None:
    assert queue_left_s(60.0, 0, Pace(), None) == 60.0


def test_estimates_are_stretched_by_what_cases_took_in_this_run() -> None:
    pace = Pace().with_case(20.0, 10.0).with_case(10.0, 10.0)
    assert queue_left_s(60.0, 0, pace, pace.mean_s) == 90.0


def test_cases_without_an_estimate_take_the_mean_of_those_that_are_done() -> None:
    pace = Pace().with_case(4.0, None).with_case(8.0, None)
    assert queue_left_s(0.0, 3, pace, pace.mean_s) == 18.0
    # They put no estimate to the test.
    assert queue_left_s(10.0, 0, pace, pace.mean_s) == 10.0


def test_a_queue_of_which_nothing_is_known_has_no_figure() -> None:
    assert queue_left_s(60.0, 1, Pace(), None) is None


def test_an_empty_queue_is_over() -> None:
    assert queue_left_s(0.0, 0, Pace(), None) == 0.0


def test_steps_go_on_at_the_pace_that_they_had() -> None:
    steps = Steps(first_at=10.0, first=10, last_at=14.0, last=50, last_ms=99.0)
    assert steps_left_s(a_sampling(max_steps=100), steps, now=14.0) == pytest.approx(5.0)
    assert steps_left_s(a_sampling(max_steps=100), steps, now=16.0) == pytest.approx(3.0)
    assert steps_left_s(a_sampling(max_steps=100), steps, now=60.0) == 0.0


def test_the_first_word_of_steps_gives_the_last_one_s_time() -> None:
    steps = Steps(first_at=10.0, first=20, last_at=10.0, last=20, last_ms=50.0)
    assert steps_left_s(a_sampling(max_steps=100), steps, now=10.0) == pytest.approx(4.0)
    unknown = Steps(first_at=10.0, first=20, last_at=10.0, last=20, last_ms=None)
    assert steps_left_s(a_sampling(max_steps=100), unknown, now=10.0) is None


def test_sampling_that_may_take_only_so_long_ends_one_step_later_at_most() -> None:
    # 100 ms a step, so the first ten took a second, and four have passed since.
    steps = Steps(first_at=10.0, first=10, last_at=14.0, last=50, last_ms=100.0)
    assert steps_left_s(a_sampling(max_steps=1000, max_time_s=8.0), steps, now=14.0) == pytest.approx(3.1)


def loads(*left: tuple[str, DeviceKind, float | None]) -> list[Load]:
    return [Load(host=host, kind=kind, left_s=left_s) for host, kind, left_s in left]


@pytest.mark.parametrize(
    ("concurrency", "expected_s"),
    [
        (HostConcurrency.CONCURRENT, 30.0 + 10.0),
        (HostConcurrency.EXCLUSIVE, 20.0 + 30.0 + 10.0),
        (HostConcurrency.TOGETHER, 30.0),
    ],
)
def test_devices_of_a_host_take_turns_as_the_policy_says(concurrency: HostConcurrency, expected_s: float) -> None:
    assert run_left_s(loads(("a", GPU, 20.0), ("a", GPU, 30.0), ("a", CPU, 10.0)), concurrency) == expected_s


def test_hosts_are_at_work_side_by_side() -> None:
    left = loads(("a", CPU, 20.0), ("a", CPU, 20.0), ("b", GPU, 35.0))
    assert run_left_s(left, HostConcurrency.CONCURRENT) == 40.0


def test_one_device_that_nobody_knows_of_makes_the_whole_unknown() -> None:
    assert run_left_s(loads(("a", GPU, 20.0), ("b", GPU, None)), HostConcurrency.CONCURRENT) is None


def test_nothing_to_do_is_over() -> None:
    assert run_left_s([], HostConcurrency.CONCURRENT) == 0.0
