"""The clock of a run, which stands while its process does: a laptop that slept has lost no time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two looks at the clock while the process works.
TICK_S: Final = 1.0

#: Seconds between two looks of a process that was stopped meanwhile: by SIGSTOP, by its machine's sleep.
STOPPED_S: Final = 5.0


class RunClock:
    """Seconds that never go back. It has to be looked at every :data:`TICK_S`; a longer gap is no time of the run."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._stood_s = 0.0

    @property
    def stood_s(self) -> float:
        """How long it has stood so far, in seconds."""
        return self._stood_s

    def now(self) -> float:
        """Return the seconds; without those in which nobody could look."""
        at = self._monotonic()
        gap_s = at - self._looked_at
        if gap_s > STOPPED_S:
            # What passes between two looks anyway has passed.
            self._stood_s += gap_s - TICK_S
        self._looked_at = at
        return at - self._stood_s
