from __future__ import annotations

import pytest

from orchestrator.config.schema import HostConfig
from orchestrator.diagnosis import Gap, Level
from orchestrator.inventory import Inventory, device_findings, take_inventory
from tests.builders import a_host_report
from workers.protocol import DeviceKind, GpuReport, HostReport, Verdict


def _take(devices: list[str], report: HostReport | None, host: str = "lab1") -> Inventory:
    config = HostConfig.model_validate({"name": host, "devices": devices})
    return take_inventory([config], [report] if report else [])


def _ids(inventory: Inventory) -> list[str]:
    return [entry.device.id for entry in inventory.declared]


def test_a_cpu_has_all_cores_that_the_host_may_use() -> None:
    (entry,) = _take(["cpu"], a_host_report("lab1", cores=(0, 1, 2, 3))).declared
    assert entry.gap is None
    assert entry.device.kind is DeviceKind.CPU
    assert entry.device.cores == (0, 1, 2, 3)
    assert entry.device.memory == "16 GB"


def test_a_cpu_can_be_a_part_of_the_cores() -> None:
    (entry,) = _take(["cpu:1,3"], a_host_report("lab1", cores=(0, 1, 2, 3))).declared
    assert entry.gap is None
    assert entry.device.cores == (1, 3)
    assert entry.device.id == "lab1/cpu:1,3"


def test_a_cpu_can_be_a_numa_node() -> None:
    report = a_host_report("lab1", cores=(0, 1, 2, 3), numa=((0, (0, 1)), (1, (2, 3))))
    (entry,) = _take(["cpu:numa1"], report).declared
    assert entry.device.cores == (2, 3)


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        ("cpu:2-5", "cores 4-5 are not there; those that may be used are 0-3"),
        ("cpu:numa7", "there is no NUMA node 7; there are: 0"),
        ("gpu:3", "gpu:3 is not there; the host's GPUs are: gpu:0 (GPU-aaaa-0), gpu:1 (GPU-aabb-1)"),
        ("gpu:GPU-ffff", "gpu:GPU-ffff is not there; the host's GPUs are: gpu:0 (GPU-aaaa-0), gpu:1 (GPU-aabb-1)"),
    ],
)
def test_a_declared_device_that_is_not_there_has_an_entry_that_says_so(selector: str, reason: str) -> None:
    report = a_host_report("lab1", cores=(0, 1, 2, 3), gpus=_TWO_GPUS)
    (entry,) = _take([selector], report).declared
    assert entry.device.selector == selector
    assert entry.gap is not None
    assert entry.gap.verdict is Verdict.DEVICE_MISSING
    assert entry.gap.reason == reason


def test_a_uuid_prefix_finds_its_gpu_whatever_the_case() -> None:
    (entry,) = _take(["gpu:GPU-AABB"], a_host_report("lab1", gpus=_TWO_GPUS)).declared
    assert entry.gap is None
    assert (entry.device.index, entry.device.uuid, entry.device.memory) == (1, "GPU-aabb-1", "80GB")


def test_a_uuid_prefix_that_fits_two_gpus_is_a_gap_that_names_both() -> None:
    gpus = (*_TWO_GPUS, GpuReport(index=2, uuid="GPU-aabb-2", name="H100", memory_bytes=None))
    (entry,) = _take(["gpu:GPU-aabb"], a_host_report("lab1", gpus=gpus)).declared
    assert entry.gap is not None
    assert "GPU-aabb-1, GPU-aabb-2" in entry.gap.reason


def test_gpu_all_is_every_gpu_there_is() -> None:
    assert _ids(_take(["gpu:all"], a_host_report("lab1", gpus=_TWO_GPUS))) == ["lab1/gpu:0", "lab1/gpu:1"]


def test_gpu_all_on_a_host_without_gpus_is_a_gap_with_the_reason_of_the_driver() -> None:
    (entry,) = _take(["gpu:all"], a_host_report("lab1", gpu_reason="NVML is not installed")).declared
    assert entry.gap is not None
    assert entry.gap.reason == "no GPU can be seen: NVML is not installed"


def test_gpu_any_on_a_host_without_gpus_is_nothing() -> None:
    assert _take(["gpu:any"], a_host_report("lab1", gpu_reason="NVML is not installed")).declared == ()


def test_a_device_that_two_selectors_name_is_listed_once() -> None:
    assert _ids(_take(["gpu:1", "gpu:all", "gpu:0-1"], a_host_report("lab1", gpus=_TWO_GPUS))) == [
        "lab1/gpu:1",
        "lab1/gpu:0",
    ]


def test_every_device_of_a_host_that_did_not_answer_is_host_down() -> None:
    inventory = _take(["cpu", "gpu:0-3"], None)
    assert [entry.device.selector for entry in inventory.declared] == ["cpu", "gpu:0-3"]
    assert {entry.gap.verdict for entry in inventory.declared if entry.gap} == {Verdict.HOST_DOWN}
    assert inventory.report_of("lab1") is None


def test_a_host_that_was_found_to_be_unusable_has_that_gap_with_a_report_and_without() -> None:
    gap = Gap(verdict=Verdict.UNSUPPORTED, reason="python: 3.10.4, and the head has 3.11.9")
    hosts = [
        HostConfig.model_validate({"name": name, "devices": ["cpu", "gpu:0", "gpu:7"]}) for name in ("a", "b", "c")
    ]
    reports = [a_host_report("a", gpus=_TWO_GPUS), a_host_report("b", gpus=_TWO_GPUS)]
    inventory = take_inventory(hosts, reports, {"b": gap, "c": gap})
    gaps = {entry.device.id: entry.gap for entry in inventory.declared}
    assert gaps["a/cpu"] is None
    assert [gaps[f"{host}/{device}"] for host in "bc" for device in ("cpu", "gpu:0")] == [gap] * 4
    assert gaps["c/gpu:7"] == gap
    # What is known of the device stays known, and what is not there at all is not there whatever mends the host.
    (known,) = [entry.device for entry in inventory.declared if entry.device.id == "b/gpu:0"]
    assert known.uuid == "GPU-aaaa-0"
    missing = gaps["b/gpu:7"]
    assert missing is not None
    assert missing.verdict is Verdict.DEVICE_MISSING


def test_each_missing_device_is_a_finding_and_hosts_that_have_all_are_fine() -> None:
    hosts = [
        HostConfig.model_validate({"name": "a", "devices": ["cpu", "gpu:0"]}),
        HostConfig.model_validate({"name": "b", "devices": ["cpu", "gpu:0", "gpu:5-6"]}),
        HostConfig.model_validate({"name": "down", "devices": ["cpu"]}),
        HostConfig.model_validate({"name": "silent", "devices": ["cpu"]}),
    ]
    inventory = take_inventory(hosts, [a_host_report(name, gpus=_TWO_GPUS) for name in ("a", "b")])
    findings = device_findings(inventory, told=["down"])
    assert [(finding.host, finding.level, finding.text) for finding in findings] == [
        ("a", Level.OK, "cpu, gpu:0"),
        ("b", Level.PROBLEM, "gpu:5 is not there; the host's GPUs are: gpu:0 (GPU-aaaa-0), gpu:1 (GPU-aabb-1)"),
        ("b", Level.PROBLEM, "gpu:6 is not there; the host's GPUs are: gpu:0 (GPU-aaaa-0), gpu:1 (GPU-aabb-1)"),
        ("silent", Level.PROBLEM, "the host did not answer"),
    ]
    assert {finding.check for finding in findings} == {"devices"}
    assert {finding.remedy is None for finding in findings if finding.level is Level.PROBLEM} == {False}


def test_what_a_host_has_and_the_config_does_not_ask_for_is_undeclared() -> None:
    inventory = _take(["gpu:0"], a_host_report("lab1", gpus=_TWO_GPUS))
    assert [device.id for device in inventory.undeclared] == ["lab1/cpu", "lab1/gpu:1"]


def test_a_cpu_that_is_declared_in_part_is_not_undeclared() -> None:
    assert _take(["cpu:0"], a_host_report("lab1", cores=(0, 1))).undeclared == ()


def test_memory_of_a_gpu_that_is_not_known_is_none() -> None:
    gpu = GpuReport(index=0, uuid="GPU-1", name="H100", memory_bytes=None)
    (entry,) = _take(["gpu:0"], a_host_report("lab1", gpus=(gpu,))).declared
    assert (entry.device.memory_bytes, entry.device.memory) == (None, None)


_TWO_GPUS = (
    GpuReport(index=0, uuid="GPU-aaaa-0", name="H100", memory_bytes=80 * 2**30),
    GpuReport(index=1, uuid="GPU-aabb-1", name="H100", memory_bytes=80 * 2**30),
)
