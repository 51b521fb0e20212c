"""The gauge of a GPU, over nvidia-ml-py and a stand-in for NVIDIA's library (tests/nvml)."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.nvml import uuid_of
from workers.telemetry.nvml import NvmlGauge
from workers.telemetry.series import Energy, EventKind, Missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.nvml import StubNvml

#: The measuring child, as far as these tests go.
CHILD = os.getpid()


@pytest.fixture
def gauge(stub_nvml: StubNvml) -> Iterator[NvmlGauge]:
    gauge = NvmlGauge(uuid_of(1))
    yield gauge
    gauge.close()
    gauge.close()


def test_a_card_is_found_by_its_uuid_and_tells_what_it_does(gauge: NvmlGauge, stub_nvml: StubNvml) -> None:
    stub_nvml.set(0, temperature=90, clock=210)
    stub_nvml.set(1, temperature=61, clock=1755, power_mw=412_500, use=98, memory_use=55, memory_used=3 * 2**30)

    assert gauge.read(CHILD) == {
        "gpu.clock_mhz": 1755,
        "gpu.memory_clock_mhz": 2619,
        "gpu.temperature_c": 61,
        "gpu.power_w": 412.5,
        "gpu.use_percent": 98,
        "gpu.memory_use_percent": 55,
        "gpu.memory_used_bytes": 3 * 2**30,
        "gpu.throttle": 0,
        "gpu.power_capped": 0,
    }
    assert gauge.missing() == ()


def test_a_slow_down_is_told_when_it_begins_and_when_it_ends(gauge: NvmlGauge, stub_nvml: StubNvml) -> None:
    gauge.read(CHILD)
    assert gauge.events() == ()

    stub_nvml.set(1, reasons=0x20 | 0x08)
    assert gauge.read(CHILD)["gpu.throttle"] == 1
    assert gauge.events() == (
        (EventKind.THROTTLE, "hardware slowdown began"),
        (EventKind.THROTTLE, "software thermal slowdown began"),
    )
    assert gauge.events() == ()

    stub_nvml.set(1, reasons=0)
    gauge.read(CHILD)
    assert (EventKind.THROTTLE, "hardware slowdown ended") in gauge.events()


def test_a_card_at_its_power_limit_is_capped_and_not_slowed_down(gauge: NvmlGauge, stub_nvml: StubNvml) -> None:
    stub_nvml.set(1, reasons=0x04)
    read = gauge.read(CHILD)
    assert (read["gpu.power_capped"], read["gpu.throttle"]) == (1, 0)
    assert gauge.events() == ()


def test_errors_of_memory_and_driver_are_events(gauge: NvmlGauge, stub_nvml: StubNvml) -> None:
    gauge.events()
    stub_nvml.set(1, ecc_corrected=3, ecc_uncorrected=1, xid=79)
    assert gauge.events() == (
        (EventKind.ECC, "3 corrected memory errors"),
        (EventKind.ECC, "1 uncorrected memory errors"),
        (EventKind.XID, "Xid 79"),
    )
    assert gauge.events() == ()


def test_energy_is_the_difference_of_the_cards_counter(gauge: NvmlGauge, stub_nvml: StubNvml) -> None:
    stub_nvml.set(1, energy_mj=5_000_000)
    gauge.begin_steps(CHILD)
    stub_nvml.set(1, energy_mj=5_123_500)
    assert gauge.end_steps(CHILD)[0] == Energy(joules=123.5, source="nvml counter")


def test_without_a_counter_energy_is_power_over_time(stub_nvml: StubNvml) -> None:
    stub_nvml.set(1, energy_mj=None, power_mw=100_000)
    now = iter([0.0, 2.0, 3.0])
    gauge = NvmlGauge(uuid_of(1), clock=lambda: next(now))
    gauge.begin_steps(CHILD)
    gauge.read(CHILD)
    stub_nvml.set(1, power_mw=300_000)
    gauge.read(CHILD)
    gauge.read(CHILD)
    assert gauge.end_steps(CHILD)[0] == Energy(joules=2 * 200.0 + 300.0, source="nvml power")


def test_without_counter_and_power_there_is_no_energy_and_a_reason(stub_nvml: StubNvml) -> None:
    stub_nvml.set(1, energy_mj=None, power_mw=None)
    gauge = NvmlGauge(uuid_of(1))
    gauge.begin_steps(CHILD)
    gauge.read(CHILD)
    energy, _ = gauge.end_steps(CHILD)
    assert energy is not None
    assert energy.joules is None
    assert energy.reason == "Not Supported; 0 readings of power are too few"


def test_who_else_computes_on_the_card_is_named_and_the_child_is_not(gauge: NvmlGauge, stub_nvml: StubNvml) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    ) as neighbour:
        stub_nvml.set(1, computing=f"{CHILD}:100,{neighbour.pid}:2147483648,1:500")
        gauge.begin_steps(CHILD)
        stub_nvml.set(1, computing=f"{CHILD}:100")
        _, foreign = gauge.end_steps(CHILD)
        neighbour.communicate(b"\n", timeout=30)

    # The neighbour is a child of this process, which is the measuring one here: its family does not count.
    assert [(each.pid, each.gpu_memory_bytes) for each in foreign] == [(1, 500)]
    assert foreign[0].name
    assert foreign[0].user == "root"


def test_where_a_container_hides_the_child_only_who_was_there_before_is_foreign(stub_nvml: StubNvml) -> None:
    hidden, before = 4_000_001, 4_000_002
    stub_nvml.set(1, computing=f"{before}:700")
    gauge = NvmlGauge(uuid_of(1))
    stub_nvml.set(1, computing=f"{before}:700,{hidden}:900")
    gauge.begin_steps(CHILD)
    _, foreign = gauge.end_steps(CHILD)
    assert [(each.pid, each.name) for each in foreign] == [(before, None)]


def test_what_a_card_does_not_tell_is_missing_with_the_reason(stub_nvml: StubNvml) -> None:
    stub_nvml.set(1, use=None, reasons=None, ecc_corrected=None)
    gauge = NvmlGauge(uuid_of(1))
    read = gauge.read(CHILD)
    assert {missing.name for missing in gauge.missing()} == {
        "gpu.use_percent", "gpu.memory_use_percent", "gpu.throttle", "gpu.power_capped",
    }  # fmt: skip
    assert {missing.reason for missing in gauge.missing()} == {"Not Supported"}
    assert "gpu.use_percent" not in read
    assert read["gpu.clock_mhz"] == 1980


def test_a_reading_that_fails_in_the_middle_is_none_and_the_others_go_on(gauge: NvmlGauge, stub_nvml: StubNvml) -> None:
    gauge.read(CHILD)
    gauge.begin_steps(CHILD)
    stub_nvml.fail("nvmlDeviceGetTemperature", 15)
    read = gauge.read(CHILD)
    assert read["gpu.temperature_c"] is None
    assert read["gpu.clock_mhz"] == 1980
    assert gauge.missing() == ()


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetHandleByUUID"])
def test_a_driver_that_does_not_answer_costs_no_attempt(stub_nvml: StubNvml, function: str) -> None:
    stub_nvml.fail(function)
    gauge = NvmlGauge(uuid_of(1))
    gauge.begin_steps(CHILD)
    assert gauge.read(CHILD) == {}
    assert gauge.events() == ()
    energy, foreign = gauge.end_steps(CHILD)
    gauge.close()
    assert foreign == ()
    assert energy is not None
    assert energy.joules is None
    assert energy.reason is not None
    assert "Unknown Error" in energy.reason
    assert Missing(name="gpu.clock_mhz", reason=energy.reason) in gauge.missing()


def test_without_the_bindings_everything_is_missing_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gauge = NvmlGauge("GPU-1")
    assert {missing.reason for missing in gauge.missing()} == {
        "nvidia-ml-py is not installed: pip install nvidia-ml-py"
    }
