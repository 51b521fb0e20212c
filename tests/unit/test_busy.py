"""Who is using a device: real processes on real cores, and a stand-in for NVIDIA's library for GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.builders import a_device
from tests.nvml import uuid_of
from tests.unit.test_telemetry_cpu import SPIN, wait_for_cpu
from workers.busy import occupied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.nvml import StubNvml

CORE = min(os.sched_getaffinity(0))
ONE_CORE = a_device("h", f"cpu:{CORE}", cores=(CORE,))
GPU = a_device("h", "gpu:1", uuid=uuid_of(1), index=1)


@pytest.fixture
def on_the_core(request: pytest.FixtureRequest) -> Iterator[int]:
    """A process that takes one core, and nothing else of the machine; ``request.param`` is more of its command."""
    more = getattr(request, "param", [])
    spin = f"import os; os.sched_setaffinity(0, [{CORE}])\n{SPIN}"
    with subprocess.Popen([sys.executable, "-c", spin, *more], stdin=subprocess.PIPE) as process:
        wait_for_cpu(process.pid, 0.02)
        yield process.pid
        process.communicate(timeout=30)


def until_used(pid: int) -> None:
    wait_for_cpu(pid, 0.2)


def test_a_core_that_somebody_works_on_is_occupied_and_they_are_named(on_the_core: int) -> None:
    found = occupied(ONE_CORE, above=0.5, pause=lambda _: until_used(on_the_core))
    assert found is not None
    assert found.startswith("others use 50 % of its cores or more, most of all python")
    assert f"(pid {on_the_core}, {psutil.Process().username()})" in found


@pytest.mark.parametrize("on_the_core", [["workers.child"]], indirect=True)
def test_the_measuring_child_of_another_case_does_not_count(on_the_core: int) -> None:
    assert occupied(ONE_CORE, above=0.5, pause=lambda _: until_used(on_the_core)) is None


def test_cores_that_nobody_looked_at_for_any_time_are_free() -> None:
    assert occupied(ONE_CORE, above=1.1, pause=lambda _: None) is None


def test_another_program_that_computes_on_a_gpu_occupies_it(stub_nvml: StubNvml) -> None:
    stub_nvml.set(0, computing="1:100", use=99)
    assert occupied(GPU, above=0.5, pause=lambda _: None) is None

    stub_nvml.set(1, computing="1:100,4000001:100")
    name = psutil.Process(1).name()
    assert occupied(GPU, above=0.5, pause=lambda _: None) == (
        f"{name} (pid 1, root), a process that cannot be seen from here (pid 4000001) compute on it"
    )


def test_a_display_on_a_gpu_does_not_occupy_it(stub_nvml: StubNvml) -> None:
    stub_nvml.set(1, drawing="1:100", use=10)
    assert occupied(GPU, above=0.5, pause=lambda _: None) is None


def test_a_gpu_that_works_for_nobody_in_sight_is_occupied(stub_nvml: StubNvml) -> None:
    stub_nvml.set(1, use=50)
    assert occupied(GPU, above=0.5, pause=lambda _: None) == (
        "somebody who cannot be seen from here uses 50 % of it or more"
    )


def test_a_gpu_that_has_only_just_ended_its_work_is_free(stub_nvml: StubNvml) -> None:
    stub_nvml.set(1, use=100)
    assert occupied(GPU, above=0.5, pause=lambda _: stub_nvml.set(1, use=0)) is None


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetHandleByUUID"])
def test_a_gpu_that_cannot_be_asked_is_not_taken_for_occupied(stub_nvml: StubNvml, function: str) -> None:
    stub_nvml.set(1, computing="1:100")
    stub_nvml.fail(function)
    assert occupied(GPU, above=0.5, pause=lambda _: None) is None
