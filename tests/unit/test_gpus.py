from __future__ import annotations

import os
import pwd
import sys
import types
from typing import TYPE_CHECKING

import pytest

from workers.codec import from_json, to_json
from workers.gpus import gpus_by_nvml
from workers.protocol import Fact, GpuProcess, GpuReport, GpuState

if TYPE_CHECKING:
    from pathlib import Path


class FakeNvml(types.ModuleType):
    """A driver with two good GPUs, the second of them in use, and as much trouble as it is given."""

    class NVMLError(Exception):
        pass

    class NVMLLibraryMismatchError(Exception):
        pass

    def __init__(self, *trouble: str) -> None:
        super().__init__("pynvml")
        self.trouble = trouble
        self.is_open = False

    def _may(self, call: str) -> None:
        if call in self.trouble:
            raise self.NVMLError(f"{call} failed")

    def nvmlInit(self) -> None:
        self._may("init")
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        self._may("count")
        return 2

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"570.133.20"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._may(f"handle {index}")
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"NVIDIA TITAN X"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> types.SimpleNamespace:
        self._may(f"memory {handle}")
        return types.SimpleNamespace(total=12 * 2**30)

    def nvmlDeviceGetPersistenceMode(self, handle: int) -> int:
        self._may(f"persistence {handle}")
        return handle

    def nvmlDeviceGetEccMode(self, handle: int) -> list[int]:
        self._may(f"ecc {handle}")
        return [handle, 1]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> types.SimpleNamespace:
        self._may(f"utilization {handle}")
        return types.SimpleNamespace(gpu=90 * handle, memory=5)

    def nvmlDeviceGetPciInfo(self, handle: int) -> types.SimpleNamespace:
        self._may(f"slot {handle}")
        return types.SimpleNamespace(busId=f"00000000:{handle}A:00.0".encode())

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[types.SimpleNamespace]:
        self._may(f"processes {handle}")
        return [self._process(77, 3 * 2**30), self._process(12, None)] if handle else []

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[types.SimpleNamespace]:
        if f"old driver {handle}" in self.trouble:
            raise self.NVMLLibraryMismatchError("the driver is older than the bindings")
        return [self._process(12, None)] if handle else []

    def _process(self, pid: int, memory: int | None) -> types.SimpleNamespace:
        return types.SimpleNamespace(pid=pid, usedGpuMemory=memory)


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    """The kernel's files of a host whose first GPU hangs on node 1, and whose second one's node it does not know."""
    for name, content in {
        "sys/bus/pci/devices/0000:0a:00.0/numa_node": "1\n",
        "sys/bus/pci/devices/0000:1a:00.0/numa_node": "-1\n",
        "proc/77/comm": "python3\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def found(monkeypatch: pytest.MonkeyPatch, root: Path, *trouble: str) -> tuple[tuple[GpuReport, ...], str | None, Fact]:
    nvml = FakeNvml(*trouble)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    answer = gpus_by_nvml(root)
    assert not nvml.is_open
    return answer


def state(monkeypatch: pytest.MonkeyPatch, root: Path, index: int, *trouble: str) -> GpuState:
    told = found(monkeypatch, root, *trouble)[0][index].state
    assert told is not None
    return told


@pytest.mark.parametrize(
    ("trouble", "gpus", "reason", "driver"),
    [
        ((), {0: 12 * 2**30, 1: 12 * 2**30}, None, "570.133.20"),
        (("init",), {}, "NVML does not answer: init failed", None),
        (("count",), {}, "NVML failed: count failed", None),
        (("handle 0",), {1: 12 * 2**30}, "GPU 0: handle 0 failed", "570.133.20"),
        (("memory 1",), {0: 12 * 2**30, 1: None}, None, "570.133.20"),
    ],
)
def test_every_trouble_with_a_driver_is_a_reason(
    monkeypatch: pytest.MonkeyPatch,
    captured: Path,
    trouble: tuple[str, ...],
    gpus: dict[int, int | None],
    reason: str | None,
    driver: str | None,
) -> None:
    found_gpus, found_reason, found_driver = found(monkeypatch, captured, *trouble)
    assert {gpu.index: gpu.memory_bytes for gpu in found_gpus} == gpus
    assert {(gpu.uuid, gpu.name) for gpu in found_gpus} == {(f"GPU-{index}", "NVIDIA TITAN X") for index in gpus}
    assert (found_reason, found_driver.value) == (reason, driver)
    assert (found_driver.value is None) == (found_driver.reason is not None)


def test_without_the_bindings_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus_by_nvml()[1] == "nvidia-ml-py is not installed: pip install nvidia-ml-py"


def test_how_a_gpu_is_set_is_found(monkeypatch: pytest.MonkeyPatch, captured: Path) -> None:
    first, second = (state(monkeypatch, captured, index) for index in (0, 1))
    assert (first.persistence.value, first.ecc.value, first.utilization.value) == (False, False, 0)
    assert (second.persistence.value, second.ecc.value, second.utilization.value) == (True, True, 90)
    assert first.numa_node == Fact(value=1)
    assert second.numa_node == Fact(value=None, reason="the kernel knows of no NUMA node")


def test_everybody_on_a_gpu_is_found_once(monkeypatch: pytest.MonkeyPatch, captured: Path) -> None:
    assert state(monkeypatch, captured, 0).processes == ()
    assert state(monkeypatch, captured, 1).processes == (
        GpuProcess(pid=12),  # of another container: nothing under /proc
        GpuProcess(pid=77, user=pwd.getpwuid(os.getuid()).pw_name, name="python3", memory_bytes=3 * 2**30),
    )


@pytest.mark.parametrize("question", ["persistence", "ecc", "utilization", "slot"])
def test_what_a_card_does_not_tell_is_none_with_the_drivers_reason(
    monkeypatch: pytest.MonkeyPatch, captured: Path, question: str
) -> None:
    told = state(monkeypatch, captured, 0, f"{question} 0")
    fact = getattr(told, {"slot": "numa_node"}.get(question, question))
    assert fact == Fact(value=None, reason=f"{question} 0 failed")
    assert told.processes == ()


def test_a_slot_that_the_kernel_does_not_show_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "No such file" in (state(monkeypatch, tmp_path, 0).numa_node.reason or "")


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("processes 1", "processes 1 failed"), ("old driver 1", "the driver is older than the bindings")],
)
def test_processes_that_are_not_told_are_not_nobody(
    monkeypatch: pytest.MonkeyPatch, captured: Path, trouble: str, reason: str
) -> None:
    told = state(monkeypatch, captured, 1, trouble)
    assert (told.processes, told.processes_reason) == (None, reason)


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch, captured: Path) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    processes = state(monkeypatch, captured, 1).processes or ()
    assert [process.user for process in processes] == [None, str(os.getuid())]


def test_a_gpu_goes_over_the_wire_whole(monkeypatch: pytest.MonkeyPatch, captured: Path) -> None:
    for gpu in found(monkeypatch, captured, "ecc 0", "processes 0")[0]:
        assert from_json(GpuReport, to_json(gpu)) == gpu
