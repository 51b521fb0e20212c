from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import pytest

from tests.integration.leaks import assert_no_more_than, held
from workers.headwatch import HeadWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 30.0
TIMEOUT_S = 0.2


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    before = held()
    yield
    assert_no_more_than(before)


class Silences:
    """Counts what a watch tells of."""

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __call__(self) -> None:
        self._told.put(None)

    def wait(self) -> None:
        self._told.get(timeout=DEADLINE_S)

    @property
    def count(self) -> int:
        return self._told.qsize()


class Clock:
    """A clock that stands still unless it is moved on, or moves on by itself at each look."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0
        self.jumps: dict[int, float] = {}

    def __call__(self) -> float:
        self.looks += 1
        self.now += self.jumps.get(self.looks, 0.0)
        return self.now


def test_silence_is_told_again_and_again_until_the_head_is_heard() -> None:
    silences = Silences()
    watch = HeadWatch(TIMEOUT_S, silences)
    silent = [watch.is_silent]
    for _ in range(2):
        silences.wait()
        silent.append(watch.is_silent)
    assert watch.silence_s >= 2 * TIMEOUT_S
    watch.heard()
    silent.append(watch.is_silent)
    silences.wait()
    silent.append(watch.is_silent)
    assert silent == [False, True, True, False, True]
    watch.close()


def test_a_head_that_is_heard_is_not_silent() -> None:
    silences, clock = Silences(), Clock()
    watch = HeadWatch(3600.0, silences, clock=clock)
    clock.now = 3599.0
    watch.heard()
    clock.now = 7198.0
    assert watch.silence_s == 3599.0
    assert not watch.is_silent
    watch.close()
    watch.close()
    assert silences.count == 0


def test_the_silence_is_counted_from_the_last_sign() -> None:
    silences, clock = Silences(), Clock()
    watch = HeadWatch(TIMEOUT_S, silences, clock=clock)
    clock.now = 0.9 * TIMEOUT_S
    watch.heard()
    clock.now = 1.8 * TIMEOUT_S
    looks = clock.looks
    while clock.looks < looks + 6:  # it has looked, and is told of nothing
        threading.Event().wait(0.01)
    assert silences.count == 0
    clock.now = 2 * TIMEOUT_S
    silences.wait()
    watch.close()


def test_without_a_timeout_nothing_is_counted() -> None:
    before = threading.active_count()
    watch = HeadWatch(None, lambda: pytest.fail("nobody asked for that"))
    assert threading.active_count() == before
    assert not watch.is_silent
    watch.heard()
    watch.close()


def test_who_was_stopped_itself_listens_first() -> None:
    # Looks at the clock: when it is made, before the first piece (twice), and after it. There an hour has gone by,
    # as when a laptop sleeps or a process is stopped: what the head said meanwhile still waits to be heard.
    silences, clock = Silences(), Clock()
    clock.jumps = {4: 3600.0}
    watch = HeadWatch(TIMEOUT_S, silences, clock=clock)
    while clock.looks < 8:  # it goes on counting, and is told of nothing
        threading.Event().wait(0.01)
    assert silences.count == 0
    assert not watch.is_silent
    clock.now += TIMEOUT_S
    silences.wait()
    watch.close()
