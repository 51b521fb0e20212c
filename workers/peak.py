"""What a device attains at its best: FLOP/s of large matrix products, bytes a second of a large array."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from workers.measure import ClockError
from workers.protocol import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Callable

#: Rows of square factors: large enough to be bound by arithmetic.
_ROWS: Final = {DeviceKind.CPU: 2048, DeviceKind.GPU: 8192}
#: Where the search begins: a product takes an eighth of the time with half the rows.
_LEAST_ROWS: Final = 256

#: Bytes of the array: larger than any cache that one device has to itself.
_BYTES: Final = {DeviceKind.CPU: 256 * 2**20, DeviceKind.GPU: 2**30}

_MOST_RUNS: Final = 5
#: No further run is begun after this, nor a size tried whose run would take longer.
_TIME_S: Final = 0.5


def best_flops(
    product: Callable[[int], Callable[[], None]], kind: DeviceKind, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the FLOP/s of the best of a few products of square matrices, as large as the device is quick enough for.

    ``product(rows)`` gives what multiplies once and returns when that is done. A type that a device has no arithmetic
    for can take a hundred times as long, so the size doubles only while the next one is done in half a second. Raises
    :class:`ClockError`, and whatever a product raises.
    """
    rows = min(_LEAST_ROWS, _ROWS[kind])
    run = product(rows)
    run()
    taken_s = _seconds(run, clock)
    while rows < _ROWS[kind] and 8 * taken_s < _TIME_S:
        rows *= 2
        run = product(rows)
        run()
        taken_s = _seconds(run, clock)
    return 2 * rows**3 / _best_s(run, taken_s, clock)


def best_bytes_per_s(
    update: Callable[[int], Callable[[], None]], kind: DeviceKind, *, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the bytes per second of the best of a few passes over a large array, each byte read once and written once.

    ``update(count)`` gives what reads and writes so many bytes of float32 in place, and returns when that is done.
    Raises :class:`ClockError`, and whatever an update raises.
    """
    run = update(_BYTES[kind])
    run()
    return 2 * _BYTES[kind] / _best_s(run, _seconds(run, clock), clock)


def _best_s(run: Callable[[], None], best_s: float, clock: Callable[[], float]) -> float:
    end = clock() + _TIME_S
    for _ in range(_MOST_RUNS - 1):
        if clock() >= end:
            break
        best_s = min(best_s, _seconds(run, clock))
    return best_s


def _seconds(run: Callable[[], None], clock: Callable[[], float]) -> float:
    begin = clock()
    run()
    taken_s = clock() - begin
    if not taken_s > 0:
        raise ClockError(f"the clock gave a run {taken_s} s")
    return taken_s
