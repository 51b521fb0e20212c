"""A host's NVIDIA GPUs as NVML tells of them: which there are, how they are set, and who is using them.

Makes no CUDA context and needs no root. Besides the standard library it asks NVML, through nvidia-ml-py, if that is
installed. Drivers and cards answer some questions and not others: each answer that fails is ``None`` with a reason.
"""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from workers.protocol import Fact, GpuProcess, GpuReport, GpuState

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: How the kernel writes a PCI domain, ``0000``; NVML writes four digits more.
_DOMAIN_DIGITS: Final = 4


def gpus_by_nvml(root: Path = Path("/")) -> tuple[tuple[GpuReport, ...], str | None, Fact]:
    """Return the GPUs, why there are none or fewer, and the driver's version.

    ``root`` is where ``/proc`` and ``/sys`` are, for captured ones.
    """
    try:
        import pynvml  # guarded: a host without GPUs need not have it
    except ImportError:
        reason = "nvidia-ml-py is not installed: pip install nvidia-ml-py"
        return (), reason, Fact(value=None, reason=reason)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        reason = f"NVML does not answer: {error}"
        return (), reason, Fact(value=None, reason=reason)
    try:
        found = [_gpu(pynvml, index, root) for index in range(pynvml.nvmlDeviceGetCount())]
        driver = Fact(value=text(pynvml.nvmlSystemGetDriverVersion()))
    except pynvml.NVMLError as error:
        return (), f"NVML failed: {error}", Fact(value=None, reason=str(error))
    finally:
        pynvml.nvmlShutdown()
    problems = [each for each in found if isinstance(each, str)]
    return tuple(each for each in found if isinstance(each, GpuReport)), "; ".join(problems) or None, driver


def _gpu(nvml: Any, index: int, root: Path) -> GpuReport | str:
    """Return the GPU of that index, or why it cannot be used."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = text(nvml.nvmlDeviceGetUUID(handle)), text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError as error:
        return f"GPU {index}: {error}"
    # Devices that share the host's memory have none of their own to tell of.
    memory_bytes, _ = asked(nvml, lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total))
    return GpuReport(index=index, uuid=uuid, name=name, memory_bytes=memory_bytes, state=_state(nvml, handle, root))


def _state(nvml: Any, handle: Any, root: Path) -> GpuState:
    processes, processes_reason = asked(nvml, lambda: processes_on(nvml, handle, root))
    return GpuState(
        persistence=_fact(*asked(nvml, lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle)))),
        ecc=_fact(*asked(nvml, lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]))),
        utilization=_fact(*asked(nvml, lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu))),
        numa_node=numa_node(nvml, handle, root),
        processes=processes,
        processes_reason=processes_reason,
    )


def asked(nvml: Any, question: Callable[[], T]) -> tuple[T | None, str | None]:
    """Return the answer, or why there is none; a driver that is older than the bindings lacks whole functions."""
    try:
        return question(), None
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError) as error:
        return None, str(error)


def _fact(value: bool | int | None, reason: str | None) -> Fact:
    return Fact(value=value, reason=reason)


def numa_node(nvml: Any, handle: Any, root: Path) -> Fact:
    """Return the node that the kernel puts the GPU's slot in; it says -1 on machines that have but one."""
    slot, reason = asked(nvml, lambda: text(nvml.nvmlDeviceGetPciInfo(handle).busId))
    if slot is None:
        return Fact(value=None, reason=reason)
    domain, _, rest = slot.lower().partition(":")
    try:
        found = (root / "sys/bus/pci/devices" / f"{domain[-_DOMAIN_DIGITS:]}:{rest}" / "numa_node").read_text()
    except OSError as error:
        return Fact(value=None, reason=f"the kernel does not tell: {error.strerror}")
    node = found.strip()
    return Fact(value=int(node)) if node.isdecimal() else Fact(value=None, reason="the kernel knows of no NUMA node")


# --- who is using it -------------------------------------------------------------------------------------------


def processes_on(
    nvml: Any, handle: Any, root: Path = Path("/"), *, only_computing: bool = False
) -> tuple[GpuProcess, ...]:
    """Return who computes or draws on the GPU, each process once."""
    running = list(nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    if not only_computing:
        running += nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)
    return tuple(_process(each, root) for _, each in sorted({each.pid: each for each in running}.items()))


def _process(running: Any, root: Path) -> GpuProcess:
    """Return what ``/proc`` tells of a process; nothing where it lives in another container, or is gone already."""
    folder = root / "proc" / str(running.pid)
    memory: int | None = running.usedGpuMemory
    try:
        name, user = (folder / "comm").read_text(errors="replace").strip(), _user(folder.stat().st_uid)
    except OSError:
        name, user = None, None
    return GpuProcess(pid=int(running.pid), user=user, name=name, memory_bytes=memory)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def text(value: str | bytes) -> str:
    """Old NVML bindings answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value
