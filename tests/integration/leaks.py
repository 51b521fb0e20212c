"""Whether a test gave back what it took."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

#: Seconds for threads that are on their way out; Ray, which other tests share this process with, has some too.
PATIENCE_S: Final = 10.0


class Held(NamedTuple):
    """What this process holds."""

    threads: int
    descriptors: int


def held() -> Held:
    return Held(threading.active_count(), len(list(Path("/proc/self/fd").iterdir())))


def assert_no_more_than(before: Held) -> None:
    """What leaks stays; so it is enough that the counts come down again."""
    deadline = time.monotonic() + PATIENCE_S
    now = held()
    while now.threads > before.threads or now.descriptors > before.descriptors:
        assert time.monotonic() < deadline, f"{now} where it was {before}"
        # Nothing tells of a thread's end; look again in a moment.
        time.sleep(0.02)
        now = held()
