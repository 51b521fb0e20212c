"""Ctrl-C and SIGTERM as requests to stop a run: the first lets the running cases end, the second does not wait."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.runner import Stopper

#: Seconds from SIGTERM until what still runs is ended: whoever sends it will not wait for long, and sends it once.
TERM_GRACE_S: Final = 10.0

#: SIGTERM that comes again within so long is the same one: `timeout` sends it to its child, and then to the group that
#: the child is in. A finger on Ctrl-C means it each time.
ECHO_S: Final = 1.0

_NAMES: Final = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Signals:
    """Takes SIGINT and SIGTERM while the context lasts; within a running event loop. ``say`` tells the person."""

    def __init__(self, stopper: Stopper, say: Callable[[str], None]) -> None:
        self._stopper = stopper
        self._say = say
        self._impatience: asyncio.TimerHandle | None = None
        self._last_term: float | None = None
        #: What came so far.
        self.came: list[str] = []

    def __enter__(self) -> Signals:
        self.install()
        return self

    def install(self) -> None:
        """Take the signals; once more after Ray has started, which puts handlers of its own in their place."""
        for number in _NAMES:
            asyncio.get_running_loop().add_signal_handler(number, self._ask, number)

    def __exit__(self, *_: object) -> None:
        for number in _NAMES:
            asyncio.get_running_loop().remove_signal_handler(number)
        if self._impatience is not None:
            self._impatience.cancel()

    def _ask(self, number: signal.Signals) -> None:
        now = asyncio.get_running_loop().time()
        if number is signal.SIGTERM and self._last_term is not None and now - self._last_term < ECHO_S:
            return
        if number is signal.SIGTERM:
            self._last_term = now
        self.came.append(_NAMES[number])
        reason = f"stopped by {_NAMES[number]}"
        if len(self.came) > 1:
            self._stopper.ask(f"{reason}, the second time", now=True)
            return
        self._stopper.ask(reason, now=False)
        if number is signal.SIGTERM:
            late = f"{reason}, {TERM_GRACE_S:g} s ago"
            self._impatience = asyncio.get_running_loop().call_later(
                TERM_GRACE_S, lambda: self._stopper.ask(late, now=True)
            )
            self._say(f"{reason}: what runs now has {TERM_GRACE_S:g} s to end")
        else:
            self._say("stopping after the running cases; Ctrl-C again to stop now")
