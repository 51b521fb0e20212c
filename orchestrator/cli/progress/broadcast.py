"""Where a run is, said to the store now and then, for whoever looks at it from elsewhere.

A thread of its own writes, at most once a second: the head's loop hears events and does no more. A store that fails is
the recorder's to tell of; here it only ends the broadcast.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.cli.progress.news import label
from orchestrator.cli.progress.picture import Picture
from orchestrator.dispatch.messages import RecordVerdict
from orchestrator.errors import StoreError
from orchestrator.live import LiveDevice, LiveFailure, LiveRun
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.cli.progress.picture import Seen
    from orchestrator.dispatch.messages import Command, Event
    from orchestrator.dispatch.settings import HostConcurrency
    from orchestrator.results import NewRun
    from workers.protocol import Case, Progress

#: Seconds between two words.
EVERY_S: Final = 1.0

#: Seconds after which a word is said without news.
_SIGN_OF_LIFE_S: Final = 5.0

#: Failures that are told; all of them are in the run's table.
_MOST_FAILURES: Final = 20

#: Seconds that the last word may take.
_LAST_S: Final = 5.0


class Board(Protocol):
    """Where it is said: the store."""

    def put_live(self, state: LiveRun) -> None:
        """Keep where a run is."""

    def drop_live(self, run_id: str) -> None:
        """Forget where a run was."""


class Broadcast:
    """A listener of a run, to be entered before its first event and left after the last one."""

    def __init__(self, board: Board, new: NewRun, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._new = new
        self._picture = Picture(clock)
        self._failures: deque[LiveFailure] = deque(maxlen=_MOST_FAILURES)
        #: Guards all of the above, which two threads use. Never held while writing.
        self._lock = threading.Lock()
        self._has_news = threading.Event()
        self._is_over = threading.Event()
        self._writer = threading.Thread(target=self._write_until_over, name="muster-broadcast", daemon=True)

    def __enter__(self) -> Broadcast:
        """Begin to tell."""
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and forget where the run was."""
        self._is_over.set()
        self._has_news.set()
        self._writer.join(_LAST_S)
        with contextlib.suppress(StoreError):
            self._board.drop_live(self._new.id)

    def expect(self, cases: Sequence[Case], *, estimates: Mapping[str, float], concurrency: HostConcurrency) -> None:
        """Learn which cases will be run, once, before any event."""
        with self._lock:
            self._picture.expect(cases, estimates, concurrency)
        self._has_news.set()

    def heard(self, news: Event | Progress | Command) -> None:
        """Take note of ``news`` for the next word."""
        with self._lock:
            self._picture.heard(news)
            if isinstance(news, RecordVerdict) and news.verdict is not Verdict.OK:
                self._keep(news)
        self._has_news.set()

    def state(self) -> LiveRun:
        """Return where the run is now."""
        with self._lock:
            picture = self._picture
            return LiveRun(
                run_id=self._new.id,
                name=self._new.name,
                simulated=self._new.simulated,
                at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
                elapsed_s=round(picture.elapsed_s, 1),
                left_s=_rounded(picture.left_s),
                done=picture.done,
                failed=picture.failed,
                total=picture.total,
                stages=tuple(picture.stages),
                silent=tuple(sorted(picture.silent)),
                devices=tuple(self._device(seen) for seen in picture.devices.values()),
                failures=tuple(reversed(self._failures)),
            )

    def _keep(self, news: RecordVerdict) -> None:
        case = self._picture.cases.get(news.case_key)
        if case is not None:
            self._failures.append(
                LiveFailure(device_id=case.device.id, case=label(case), verdict=news.verdict.value, reason=news.reason)
            )

    def _device(self, seen: Seen) -> LiveDevice:
        active = seen.active
        return LiveDevice(
            id=seen.device.id,
            host=seen.device.host,
            name=seen.device.name,
            activity=seen.activity.value,
            done=seen.done,
            failed=seen.failed,
            total=seen.total,
            doing=seen.reason if active is None else active.doing,
            case=None if active is None else active.label,
            attempt=None if active is None else active.number,
            step=None if active is None or active.steps is None else active.steps.last,
            max_steps=None if active is None else active.case.sampling.max_steps,
            last_ms=None if active is None else active.last_ms,
            temperature_c=None if active is None else active.temperature_c,
            power_w=None if active is None else active.power_w,
            left_s=_rounded(self._picture.case_left_s(seen)),
        )

    def _write_until_over(self) -> None:
        while not self._is_over.is_set():
            # Also without news: whoever looks sees that somebody is there.
            self._has_news.wait(_SIGN_OF_LIFE_S)
            self._has_news.clear()
            if self._is_over.is_set():
                return
            try:
                self._board.put_live(self.state())
            except StoreError:
                return
            self._is_over.wait(EVERY_S)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
