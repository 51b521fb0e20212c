"""What a device attains, by a clock that the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from workers.measure import ClockError
from workers.peak import best_bytes_per_s, best_flops
from workers.protocol import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Callable


class Machine:
    """Does so many FLOP and moves so many bytes a second; every run after the third of its size is disturbed."""

    def __init__(self, flops: float = 1e12, bytes_per_s: float = 1e10) -> None:
        self.now = 0.0
        self.flops = flops
        self.bytes_per_s = bytes_per_s
        self.rows: list[int] = []

    def clock(self) -> float:
        return self.now

    def product(self, rows: int) -> Callable[[], None]:
        runs = 0

        def run() -> None:
            nonlocal runs
            runs += 1
            self.rows.append(rows)
            self.now += 2 * rows**3 / self.flops * (1 if runs <= 3 else 2)

        return run

    def update(self, count: int) -> Callable[[], None]:
        def run() -> None:
            self.now += 2 * count / self.bytes_per_s

        return run


@pytest.mark.parametrize(("kind", "rows"), [(DeviceKind.CPU, 2048), (DeviceKind.GPU, 8192)])
def test_a_quick_device_is_measured_with_large_factors_and_its_best_run_counts(kind: DeviceKind, rows: int) -> None:
    machine = Machine(flops=1e14)
    assert best_flops(machine.product, kind, clock=machine.clock) == pytest.approx(1e14)
    assert machine.rows[-1] == rows
    # Once to warm up and at most five times by the clock.
    assert machine.rows.count(rows) == 6


def test_a_slow_device_is_measured_with_what_it_does_in_time() -> None:
    machine = Machine(flops=5e8)
    assert best_flops(machine.product, DeviceKind.CPU, clock=machine.clock) == pytest.approx(5e8)
    # 256 rows take 67 ms; 512 would take 0.54 s.
    assert set(machine.rows) == {256}
    assert machine.now < 1.5


def test_no_run_is_begun_after_half_a_second() -> None:
    machine = Machine(bytes_per_s=1e9)
    # 0.54 s a run: one to warm up, one by the clock and one more.
    assert best_bytes_per_s(machine.update, DeviceKind.CPU, clock=machine.clock) == pytest.approx(1e9)
    assert machine.now == pytest.approx(3 * 2 * 2**28 / 1e9)


def test_bytes_are_counted_read_and_written() -> None:
    machine = Machine(bytes_per_s=3e12)
    assert best_bytes_per_s(machine.update, DeviceKind.GPU, clock=machine.clock) == pytest.approx(3e12)


def test_a_clock_that_stands_still_is_no_peak() -> None:
    with pytest.raises(ClockError, match=r"the clock gave a run 0.0 s"):
        best_flops(lambda _: lambda: None, DeviceKind.CPU, clock=lambda: 0.0)
