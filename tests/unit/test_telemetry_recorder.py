"""The recorder, with gauges that say what a test wants; its thread is waited for by events."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from workers.protocol import Phase
from workers.telemetry.recorder import MOST_READINGS, Recorder
from workers.telemetry.series import Energy, EventKind, ForeignProcess, Missing

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE_S = 30.0


class FakeGauge:
    """Counts its readings."""

    def __init__(self) -> None:
        self.readings = 0
        self.enough = threading.Event()
        self.calls: list[str] = []
        self.trouble: Exception | None = None

    def missing(self) -> tuple[Missing, ...]:
        return (Missing(name="fan", reason="there is none"),)

    def read(self, child_pid: int) -> Mapping[str, float | None]:
        if self.trouble is not None:
            raise self.trouble
        self.readings += 1
        if self.readings > 2 * MOST_READINGS:
            self.enough.set()
        self.calls.append("read")
        return {"count": float(self.readings), "pid": float(child_pid)}

    def events(self) -> tuple[tuple[EventKind, str], ...]:
        return ((EventKind.XID, "Xid 79"),) if self.readings == 1 else ()

    def begin_steps(self, child_pid: int) -> None:
        self.calls.append("begin")

    def end_steps(self, child_pid: int) -> tuple[Energy | None, tuple[ForeignProcess, ...]]:
        self.calls.append("end")
        return Energy(joules=12.0, source="rapl"), (ForeignProcess(pid=9, cores=0.5),)

    def close(self) -> None:
        self.calls.append("close")


def test_the_shortest_case_has_a_reading_over_its_counted_steps() -> None:
    gauge = FakeGauge()
    recorder = Recorder([gauge], 3600.0, load_before=0.25)
    recorder.start(42)
    for phase in (None, Phase.IMPORT, Phase.WARMUP, Phase.MEASURE, Phase.MEASURE, Phase.PEAK, Phase.PEAK):
        recorder.entered(phase)
    found = recorder.stop()

    assert gauge.calls == ["read", "begin", "read", "read", "end", "close"]
    assert found.at_s == (found.measure_to_s,)
    assert found.measure_from_s is not None
    assert found.measured("count") == (3.0,)
    assert found.measured("pid") == (42.0,)
    assert found.energy == Energy(joules=12.0, source="rapl")
    assert found.foreign == (ForeignProcess(pid=9, cores=0.5),)
    assert [event.text for event in found.events] == ["Xid 79"]
    assert found.missing == (Missing(name="fan", reason="there is none"),)
    assert (found.load_before, found.interval_s) == (0.25, 3600.0)
    assert found.cost_s is not None


def test_steps_that_never_ended_end_with_the_attempt() -> None:
    gauge = FakeGauge()
    recorder = Recorder([gauge], 3600.0)
    recorder.start(1)
    recorder.entered(Phase.MEASURE)
    found = recorder.stop()
    assert "end" in gauge.calls
    assert found.measure_to_s is not None


def test_a_child_that_never_measured_has_no_window_and_no_energy() -> None:
    recorder = Recorder([FakeGauge()], 3600.0)
    recorder.start(1)
    found = recorder.stop()
    assert (found.measure_from_s, found.measure_to_s, found.measured("count")) == (None, None, ())
    assert found.energy == Energy(joules=None, reason="nothing here counts energy")


def test_a_child_that_could_not_be_started_leaves_nothing_running() -> None:
    assert Recorder([FakeGauge()], 1.0).stop().at_s == ()


def test_very_many_readings_are_thinned_out_and_the_pace_halved() -> None:
    gauge = FakeGauge()
    recorder = Recorder([gauge], 1e-6)
    recorder.start(1)
    assert gauge.enough.wait(PATIENCE_S)
    found = recorder.stop()
    assert len(found.at_s) <= MOST_READINGS + 1
    assert found.interval_s > 1e-6
    assert list(found.at_s) == sorted(found.at_s)
    assert len(found.named("count")) == len(found.at_s)


def test_a_gauge_that_raises_costs_the_readings_and_not_the_attempt() -> None:
    gauge = FakeGauge()
    gauge.trouble = RuntimeError("the driver is gone")
    recorder = Recorder([gauge], 3600.0, lacking=[Missing(name="other", reason="none")])
    recorder.start(1)
    recorder.entered(Phase.MEASURE)
    found = recorder.stop()
    assert [missing.reason for missing in found.missing] == [
        "none",
        "RuntimeError: the driver is gone",
        "there is none",
    ]
    assert gauge.calls == ["close"]


@pytest.mark.parametrize("joules", [None, 5.0])
def test_energy_is_the_first_that_was_counted(joules: float | None) -> None:
    class Other(FakeGauge):
        def end_steps(self, child_pid: int) -> tuple[Energy | None, tuple[ForeignProcess, ...]]:
            return Energy(joules=joules, reason="hidden"), ()

    recorder = Recorder([Other(), FakeGauge()], 3600.0)
    recorder.start(1)
    recorder.entered(Phase.MEASURE)
    found = recorder.stop().energy
    assert found is not None
    assert found.joules == (12.0 if joules is None else 5.0)
