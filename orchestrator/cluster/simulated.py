"""A made-up lab that has whatever its config declares: what the probe would have found there.

Nobody is contacted. Every name says that it is simulated; the same host gets the same devices in every process.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from workers.protocol import CpuReport, DeviceKind, Environment, Fact, FrameworkReport, GpuReport, HostReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.schema import HostConfig
    from orchestrator.config.selectors import DeviceSelector

#: GPUs of a host that declares ``gpu:all``.
ALL_GPUS: Final = 4
#: Logical CPUs of a host, unless it declares CPUs by higher numbers.
CORES: Final = 16
#: NUMA nodes of a host that declares a CPU device by its node, unless it declares a higher one.
NUMA_NODES: Final = 2

#: Makes of devices: which one a host has depends on its name.
_MAKES: Final = "ABCD"
_GPU_MEMORY_BYTES: Final = 24 * 2**30
_CPU_MEMORY_BYTES: Final = 64 * 2**30
#: How long a GPU's UUID is as NVML writes it, ``GPU-`` included.
_UUID_LENGTH: Final = 40


def reports(hosts: Sequence[HostConfig], frameworks: Sequence[str] = ("tensorflow",)) -> tuple[HostReport, ...]:
    """Return what the probe would have found on each host, had it all that its config asks for."""
    return tuple(_report(host.name, host.devices, frameworks) for host in hosts)


def _report(host: str, selectors: Sequence[DeviceSelector], frameworks: Sequence[str]) -> HostReport:
    gpus = [selector for selector in selectors if selector.kind is DeviceKind.GPU]
    cpus = [selector for selector in selectors if selector.kind is DeviceKind.CPU]
    return HostReport(
        host=host,
        cpu=_cpu(host, cpus),
        gpus=_gpus(host, gpus),
        gpu_reason=None,
        frameworks=tuple(FrameworkReport(name=name, version="simulated") for name in frameworks),
        environment=Environment(facts=(("simulated", Fact(value=True)),)),
    )


def _gpus(host: str, selectors: Sequence[DeviceSelector]) -> tuple[GpuReport, ...]:
    """Return the GPUs that are asked for by number, then one for each UUID that is asked for."""
    numbers = {index for selector in selectors for index in selector.indices}
    if any(selector.every and not selector.may_be_none for selector in selectors):
        numbers.update(range(ALL_GPUS))
    found = {index: _uuid(f"{host}/{index}", "GPU-") for index in sorted(numbers)}
    for selector in selectors:
        if selector.uuid_prefix is not None:
            index = max(found, default=-1) + 1
            found[index] = _uuid(f"{host}/{index}", selector.uuid_prefix)
    name = f"Simulated GPU {_make(host)}"
    return tuple(
        GpuReport(index=index, uuid=uuid, name=name, memory_bytes=_GPU_MEMORY_BYTES) for index, uuid in found.items()
    )


def _cpu(host: str, selectors: Sequence[DeviceSelector]) -> CpuReport:
    """Return a processor with the CPUs and the NUMA nodes that are asked for; nodes share the CPUs in equal parts."""
    highest = max((core for selector in selectors for core in selector.cores), default=0)
    nodes = [selector.numa_node for selector in selectors if selector.numa_node is not None]
    sockets = max(NUMA_NODES, max(nodes) + 1) if nodes else 1
    cores = range(max(CORES, highest + 1, sockets))
    size = len(cores) // sockets
    return CpuReport(
        model=f"Simulated CPU {_make(host)}",
        cores=tuple(cores),
        sockets=sockets,
        numa=tuple((node, tuple(cores[node * size : (node + 1) * size])) for node in range(sockets)),
        memory_bytes=_CPU_MEMORY_BYTES,
        memory="64 GB simulated",
    )


def _make(host: str) -> str:
    return _MAKES[_digest(host)[0] % len(_MAKES)]


def _uuid(seed: str, prefix: str) -> str:
    """Return a made-up UUID of the usual length that begins with ``prefix``."""
    digits = _digest(seed).hex()
    usual = f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
    return prefix + usual[len(prefix) : _UUID_LENGTH]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
