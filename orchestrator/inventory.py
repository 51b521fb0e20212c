"""What the config declares held against what the probe found, device by device. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from orchestrator.diagnosis import Finding, Gap, Level
from workers.protocol import Device, DeviceKind, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from orchestrator.config.schema import HostConfig
    from orchestrator.config.selectors import DeviceSelector
    from workers.protocol import CpuReport, GpuReport, HostReport


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


#: Of a host that nobody has anything to tell of.
_SILENT: Final = Gap(verdict=Verdict.HOST_DOWN, reason="the host did not answer")


def take_inventory(
    hosts: Sequence[HostConfig], reports: Sequence[HostReport], absences: Mapping[str, Gap] | None = None
) -> Inventory:
    """Return every declared device with the reason for each gap, and every undeclared one.

    A device that several selectors of a host name is listed once, where it is named first. ``absences`` are the hosts
    that cannot be used, with a report or without one: all their devices have that gap, but for those that are not
    there in the first place.
    """
    absences = absences or {}
    by_host = {report.host: report for report in reports}
    declared: dict[str, DeclaredDevice] = {}
    for host in hosts:
        for selector in host.devices:
            for found in _declare(host.name, selector, by_host.get(host.name), absences.get(host.name)):
                declared.setdefault(found.device.id, found)
    undeclared = [
        device
        for report in reports
        for device in _all_devices(report)
        if device.id not in declared and not _is_covered(device, declared.values())
    ]
    return Inventory(declared=tuple(declared.values()), undeclared=tuple(undeclared), reports=tuple(reports))


def device_findings(inventory: Inventory, told: Collection[str] = ()) -> tuple[Finding, ...]:
    """Return, for each host, a problem for each device that is not there, or that all are there.

    ``told`` are hosts that cannot be used at all, which was found already: of those nothing is said.
    """
    found: list[Finding] = []
    for host in dict.fromkeys(entry.device.host for entry in inventory.declared):
        entries = [entry for entry in inventory.declared if entry.device.host == host]
        missing = [entry.gap.reason for entry in entries if entry.gap is not None]
        there = ", ".join(entry.device.selector for entry in entries)
        if host in told:
            continue
        found += [
            Finding(host=host, check="devices", level=Level.PROBLEM, text=reason, remedy=_MEND_DEVICES)
            for reason in missing
        ]
        if not missing:
            found.append(Finding(host=host, check="devices", level=Level.OK, text=there))
    return tuple(found)


_MEND_DEVICES: Final = "mend `devices` of the host in the config; `muster devices` shows what there is"


def _declare(
    host: str, selector: DeviceSelector, report: HostReport | None, absence: Gap | None
) -> tuple[DeclaredDevice, ...]:
    if report is None:
        device = Device(host=host, selector=selector.text, kind=selector.kind, name=selector.text)
        return (DeclaredDevice(device=device, gap=absence or _SILENT),)
    found = (
        (_declare_cpu(host, selector, report.cpu),)
        if selector.kind is DeviceKind.CPU
        else _declare_gpus(host, selector, report)
    )
    return tuple(replace(entry, gap=entry.gap or absence) for entry in found)


def _declare_cpu(host: str, selector: DeviceSelector, cpu: CpuReport) -> DeclaredDevice:
    if selector.numa_node is not None:
        nodes = dict(cpu.numa)
        if selector.numa_node not in nodes:
            there = ", ".join(str(node) for node in nodes) or "none"
            return _missing(
                host,
                selector.text,
                DeviceKind.CPU,
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
            f"cores {spans(absent)} are not there; those that may be used are {spans(cpu.cores)}",
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
        return _missing(host, text, DeviceKind.GPU, f"{text} fits several GPUs: {several}")
    return _missing_gpu(host, text, report)


def _missing_gpu(host: str, text: str, report: HostReport) -> DeclaredDevice:
    if report.gpu_reason is not None:
        reason = f"no GPU can be seen: {report.gpu_reason}"
    else:
        there = ", ".join(f"gpu:{gpu.index} ({gpu.uuid})" for gpu in report.gpus) or "none"
        reason = f"{text} is not there; the host's GPUs are: {there}"
    return _missing(host, text, DeviceKind.GPU, reason)


def _missing(host: str, text: str, kind: DeviceKind, reason: str) -> DeclaredDevice:
    return DeclaredDevice(
        device=Device(host=host, selector=text, kind=kind, name=text),
        gap=Gap(verdict=Verdict.DEVICE_MISSING, reason=reason),
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


def spans(numbers: Sequence[int]) -> str:
    """Return ``0-3,7`` for 0, 1, 2, 3, 7; the numbers ascend."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
