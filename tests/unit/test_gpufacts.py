"""A card's settings over a stand-in for NVIDIA's library, and versions of libraries that this process has loaded."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.nvml import uuid_of
from workers.gpufacts import NAMES, gpu_facts, library_facts, loaded_libraries
from workers.protocol import Fact

if TYPE_CHECKING:
    from pathlib import Path

    from tests.nvml import StubNvml


def test_a_card_tells_how_it_is_made_and_set(stub_nvml: StubNvml, tmp_path: Path) -> None:
    slot = tmp_path / "sys/bus/pci/devices/0000:02:00.0"
    slot.mkdir(parents=True)
    (slot / "numa_node").write_text("1\n")
    stub_nvml.set(1, power_limit_mw=300_000, ecc=0, pcie_width=8)
    found = gpu_facts(uuid_of(1), root=tmp_path)
    assert {name: fact.value for name, fact in found.items()} == {
        "gpu.name": "NVIDIA STUB 100",
        "gpu.uuid": uuid_of(1),
        "gpu.vbios": "96.00.74.00.01",
        "gpu.memory_bytes": 80 * 2**30,
        "gpu.compute_capability": "9.0",
        "gpu.cuda_of_driver": "12.8",
        "gpu.power_limit_w": 300.0,
        "gpu.power_limit_default_w": 700.0,
        "gpu.clock_max_mhz": 1980,
        "gpu.clock_application_mhz": 1980,
        "gpu.memory_clock_max_mhz": 2619,
        "gpu.memory_clock_application_mhz": 2619,
        "gpu.persistence": True,
        "gpu.ecc": False,
        "gpu.mig": False,
        "gpu.pcie_generation_max": 5,
        "gpu.pcie_width_max": 8,
        "gpu.numa_node": 1,
    }
    assert set(found) == set(NAMES)


def test_what_a_card_does_not_tell_has_a_reason_and_the_rest_is_there(stub_nvml: StubNvml) -> None:
    stub_nvml.set(1, mig=None)
    stub_nvml.fail("nvmlDeviceGetVbiosVersion")
    found = gpu_facts(uuid_of(1))
    assert found["gpu.mig"] == Fact(value=None, reason="Not Supported")
    assert found["gpu.vbios"] == Fact(value=None, reason="Unknown Error")
    assert found["gpu.name"].value == "NVIDIA STUB 100"


def test_facts_of_a_moment_are_not_among_them(stub_nvml: StubNvml) -> None:
    before = gpu_facts(uuid_of(1))
    stub_nvml.set(1, temperature=90, clock=300, power_mw=1, use=99, memory_used=5, computing="1:100", energy_mj=7)
    assert gpu_facts(uuid_of(1)) == before


@pytest.mark.parametrize(("function", "reason"), [
    ("nvmlInitWithFlags", "NVML does not answer: Unknown Error"),
    ("nvmlDeviceGetHandleByUUID", f"NVML knows no GPU {uuid_of(1)}: Unknown Error"),
])  # fmt: skip
def test_without_an_answer_every_fact_has_the_reason(stub_nvml: StubNvml, function: str, reason: str) -> None:
    stub_nvml.fail(function)
    assert gpu_facts(uuid_of(1)) == dict.fromkeys(NAMES, Fact(value=None, reason=reason))


def test_without_the_bindings_every_fact_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_facts("GPU-1")["gpu.name"].reason == "nvidia-ml-py is not installed: pip install nvidia-ml-py"


# --- libraries ---------------------------------------------------------------------------------------------------

#: What NVIDIA's libraries tell of their versions by, each with the function that it really has.
LIBRARIES = {
    "cudart": "int cudaRuntimeGetVersion(int *v) { *v = 12050; return 0; }",
    "cublas": "int cublasGetProperty(int k, int *v) { int a[] = {12, 5, 3}; *v = a[k]; return 0; }",
    "cudnn": "#include <stddef.h>\nsize_t cudnnGetVersion(void) { return 90300; }",
    "cufft": "int nothing(void) { return 0; }",
}


def test_loaded_libraries_tell_their_versions_and_others_are_not_loaded(tmp_path: Path) -> None:
    lines = []
    for name, source in LIBRARIES.items():
        path = tmp_path / f"lib{name}.so.12"
        (tmp_path / f"{name}.c").write_text(source)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(path), str(tmp_path / f"{name}.c")], check=True, timeout=60)
        ctypes.CDLL(str(path))
        lines.append(f"7f00-7f01 r-xp 00000000 00:00 1    {path}\n")
    maps = tmp_path / "maps"
    maps.write_text("".join(lines) + "7f02-7f03 rw-p 00000000 00:00 0    [heap]\n")

    found = library_facts(maps)

    assert found["library.cudart"].value == "12.5"
    assert found["library.cublas"].value == "12.5.3"
    assert found["library.cudnn"].value == "9.3.0"
    assert found["library.nccl"] == Fact(value=None, reason="not loaded")
    assert found["library.cufft"].value is None
    assert "libcufft.so.12 does not tell" in str(found["library.cufft"].reason)


def test_a_process_that_hides_what_it_has_loaded_has_loaded_nothing(tmp_path: Path) -> None:
    assert loaded_libraries(tmp_path / "nowhere") == ()
    assert {fact.reason for fact in library_facts(tmp_path / "nowhere").values()} == {"not loaded"}
