"""Whether the head is still there: counts how long nothing has been heard of it. Standard library only."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: The silence is counted in so many pieces. A piece that took too long was not silence: it was us who were stopped.
_PIECES: Final = 4

#: Seconds that a thread may be woken too late on a busy host; more, and this process, or all of the host, stood still.
_LATE_S: Final = 5.0


class HeadWatch:
    """Calls ``on_silence`` when the head was silent for ``timeout_s``, and again for each ``timeout_s`` more.

    ``on_silence`` is called in a thread of this object's own. With no ``timeout_s`` nothing is ever counted. ``clock``
    gives seconds and never goes back.
    """

    def __init__(
        self, timeout_s: float | None, on_silence: Callable[[], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout_s = timeout_s or 0.0
        self._on_silence = on_silence
        self._clock = clock
        self._has_changed = threading.Condition()
        self._heard_at = clock()
        self._until = self._heard_at + self._timeout_s
        self._is_silent = False
        self._is_closed = False
        if timeout_s is not None:
            threading.Thread(target=self._watch, name="head-watch", daemon=True).start()

    @property
    def is_silent(self) -> bool:
        """True once the head was silent for the timeout, until it is heard again."""
        with self._has_changed:
            return self._is_silent

    @property
    def silence_s(self) -> float:
        """Seconds since the head was last heard."""
        with self._has_changed:
            return self._clock() - self._heard_at

    def heard(self) -> None:
        """Note a sign of the head; any thread may call it."""
        with self._has_changed:
            self._is_silent = False
            self._heard_at = self._clock()
            self._until = self._heard_at + self._timeout_s

    def close(self) -> None:
        """Count no more; safe to call twice."""
        with self._has_changed:
            self._is_closed = True
            self._has_changed.notify_all()

    def _watch(self) -> None:
        while self._await_silence():
            self._on_silence()

    def _await_silence(self) -> bool:
        """Return True when the head has been silent for another timeout, False when nobody wants to know any more."""
        with self._has_changed:
            while not self._is_closed and (remaining_s := self._until - self._clock()) > 0:
                self._wait(min(remaining_s, self._timeout_s / _PIECES))
            if self._is_closed:
                return False
            self._is_silent = True
            self._until = self._clock() + self._timeout_s
            return True

    def _wait(self, wait_s: float) -> None:
        before = self._clock()
        self._has_changed.wait(wait_s)
        if self._clock() - before > wait_s + _LATE_S:
            # What the head has said meanwhile still lies before us: listen to it first.
            self._until = self._clock() + self._timeout_s
