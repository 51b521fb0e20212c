from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.clock import STOPPED_S, TICK_S, RunClock


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_it_runs_while_it_is_looked_at() -> None:
    watch = Watch()
    clock = RunClock(watch)
    before = clock.now()
    for _ in range(100):
        watch.at += STOPPED_S
        clock.now()

    assert clock.now() - before == 100 * STOPPED_S
    assert clock.stood_s == 0.0


def test_a_gap_is_no_time_of_the_run() -> None:
    watch = Watch()
    clock = RunClock(watch)
    before = clock.now()
    watch.at += 60.0

    assert clock.now() - before == TICK_S
    assert clock.now() - before == TICK_S
    assert clock.stood_s == 60.0 - TICK_S


@given(st.lists(st.floats(0.0, 1000.0), max_size=30))
def test_it_never_goes_back(steps: list[float]) -> None:
    watch = Watch()
    clock = RunClock(watch)
    stamps = [clock.now()]
    for step in steps:
        watch.at += step
        stamps.append(clock.now())

    assert stamps == sorted(stamps)
