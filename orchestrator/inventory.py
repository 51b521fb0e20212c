"""What the config declares held against what the probe found, device by device. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.protocol import Device, DeviceKind, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.config.schema import HostConfig
    from orchestrator.config.selectors import DeviceSelector
    from workers.protocol import CpuReport, GpuReport, HostReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Why a declared device cannot be measured."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredDevice:
    """A device that the config asks for; where there is a gap it stands in for what was not found."""

    device: Device
    gap: Gap | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """Every declared device, in the config's order, and what else was found."""

    declared: tuple[DeclaredDevice, ...]
    #: Devices that a host has and the config does not ask for.
    undeclared: tuple[Device, ...]
    #: By host name, of the hosts that answered.
    reports: tuple[HostReport, ...]

    def report_of(self, host: str) -> HostReport | None:
        """Return what the probe found on a host, or ``None`` where it did not answer."""
        return next((report for report in self.reports if report.host == host), None)


def take_inventory(hosts: Sequence[HostConfig], reports: Sequence[HostReport]) -> Inventory:
    """Return every declared device with the reason for each gap, and every undeclared one.

    A device that several selectors of a host name is listed once, where it is named first.
    """
    by_host = {report.host: report for report in reports}
    declared: dict[str, DeclaredDevice] = {}
    for host in hosts:
        for selector in host.devices:
            for found in _declare(host.name, selector, by_host.get(host.name)):
                declared.setdefault(found.device.id, found)
    undeclared = [
        device
        for report in reports
        for device in _all_devices(report)
        if device.id not in declared and not _is_covered(device, declared.values())
    ]
    return Inventory(declared=tuple(declared.values()), undeclared=tuple(undeclared), reports=tuple(reports))


def resource_of(device_id: str) -> str:
    """Return the name of the Ray resource, of which there is exactly one, that stands for a device.

    Ray cannot be told which GPU an actor gets (its ``num_gpus`` picks any), so each device is a resource of its own.
    """
    return f"muster:{device_id}"


def _declare(host: str, selector: DeviceSelector, report: HostReport | None) -> tuple[DeclaredDevice, ...]:
    if report is None:
        return (_missing(host, selector.text, selector.kind, Verdict.HOST_DOWN, "the host did not answer"),)
    if selector.kind is DeviceKind.CPU:
        return (_declare_cpu(host, selector, report.cpu),)
    return _declare_gpus(host, selector, report)


def _declare_cpu(host: str, selector: DeviceSelector, cpu: CpuReport) -> DeclaredDevice:
    if selector.numa_node is not None:
        nodes = dict(cpu.numa)
        if selector.numa_node not in nodes:
            there = ", ".join(str(node) for node in nodes) or "none"
            return _missing(
                host,
                selector.text,
                DeviceKind.CPU,
                Verdict.DEVICE_MISSING,
                f"there is no NUMA node {selector.numa_node}; there are: {there}",
            )
        wanted = nodes[selector.numa_node]
    else:
        wanted = selector.cores or cpu.cores
    absent = [core for core in wanted if core not in cpu.cores]
    if absent:
        return _missing(
            host,
            selector.text,
            DeviceKind.CPU,
            Verdict.DEVICE_MISSING,
            f"cores {_spans(absent)} are not there; those that may be used are {_spans(cpu.cores)}",
        )
    return DeclaredDevice(device=_cpu_device(host, selector.text, cpu, wanted))


def _declare_gpus(host: str, selector: DeviceSelector, report: HostReport) -> tuple[DeclaredDevice, ...]:
    there = {gpu.index: gpu for gpu in report.gpus}
    if selector.every:
        if there or selector.may_be_none:
            return tuple(DeclaredDevice(device=_gpu_device(host, gpu)) for gpu in report.gpus)
        return (_missing_gpu(host, selector.text, report),)
    if selector.uuid_prefix is not None:
        return (_declare_by_uuid(host, selector.text, selector.uuid_prefix, report),)
    return tuple(
        DeclaredDevice(device=_gpu_device(host, there[index]))
        if index in there
        else _missing_gpu(host, f"gpu:{index}", report)
        for index in selector.indices
    )


def _declare_by_uuid(host: str, text: str, prefix: str, report: HostReport) -> DeclaredDevice:
    matching = [gpu for gpu in report.gpus if gpu.uuid.lower().startswith(prefix.lower())]
    if len(matching) == 1:
        return DeclaredDevice(device=_gpu_device(host, matching[0]))
    if matching:
        several = ", ".join(gpu.uuid for gpu in matching)
        return _missing(host, text, DeviceKind.GPU, Verdict.DEVICE_MISSING, f"{text} fits several GPUs: {several}")
    return _missing_gpu(host, text, report)


def _missing_gpu(host: str, text: str, report: HostReport) -> DeclaredDevice:
    if report.gpu_reason is not None:
        reason = f"no GPU can be seen: {report.gpu_reason}"
    else:
        there = ", ".join(f"gpu:{gpu.index} ({gpu.uuid})" for gpu in report.gpus) or "none"
        reason = f"{text} is not there; the host's GPUs are: {there}"
    return _missing(host, text, DeviceKind.GPU, Verdict.DEVICE_MISSING, reason)


def _missing(host: str, text: str, kind: DeviceKind, verdict: Verdict, reason: str) -> DeclaredDevice:
    return DeclaredDevice(
        device=Device(host=host, selector=text, kind=kind, name=text), gap=Gap(verdict=verdict, reason=reason)
    )


def _cpu_device(host: str, text: str, cpu: CpuReport, cores: tuple[int, ...]) -> Device:
    return Device(
        host=host,
        selector=text,
        kind=DeviceKind.CPU,
        name=cpu.model,
        memory_bytes=cpu.memory_bytes,
        memory=cpu.memory,
        cores=cores,
    )


def _gpu_device(host: str, gpu: GpuReport) -> Device:
    return Device(
        host=host,
        selector=f"gpu:{gpu.index}",
        kind=DeviceKind.GPU,
        name=gpu.name,
        index=gpu.index,
        uuid=gpu.uuid,
        memory_bytes=gpu.memory_bytes,
        memory=None if gpu.memory_bytes is None else f"{round(gpu.memory_bytes / 2**30)}GB",
    )


def _all_devices(report: HostReport) -> tuple[Device, ...]:
    cpu = _cpu_device(report.host, "cpu", report.cpu, report.cpu.cores)
    return (cpu, *(_gpu_device(report.host, gpu) for gpu in report.gpus))


def _is_covered(device: Device, declared: Iterable[DeclaredDevice]) -> bool:
    """Return whether a CPU is declared in part; part of it is enough not to call it undeclared."""
    return device.kind is DeviceKind.CPU and any(
        entry.device.host == device.host and entry.device.kind is DeviceKind.CPU for entry in declared
    )


def _spans(numbers: Sequence[int]) -> str:
    """Return ``0-3,7`` for 0, 1, 2, 3, 7; the numbers ascend."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
