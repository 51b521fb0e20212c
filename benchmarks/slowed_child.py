"""A measuring child whose every step takes a known share longer: ``python -m benchmarks.slowed_child SHARE ...``.

The product's own child, but for its step: after each it sleeps, and spins for what the sleep leaves over.
"""

from __future__ import annotations

import functools
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.wrapped_child import run

if TYPE_CHECKING:
    from collections.abc import Callable

#: A sleep ends late by about as much; the rest is waited for by looking at the clock.
_SPIN_S = 0.0005


def slowed(step: Callable[[], None], share: float) -> Callable[[], None]:
    def longer() -> None:
        began = time.perf_counter()
        step()
        until = began + (time.perf_counter() - began) * (1 + share)
        left_s = until - time.perf_counter()
        if left_s > _SPIN_S:
            time.sleep(left_s - _SPIN_S)
        while time.perf_counter() < until:
            pass

    return longer


if __name__ == "__main__":
    share = float(sys.argv[1])
    run(functools.partial(slowed, share=share) if share else lambda step: step, sys.argv[2:])
