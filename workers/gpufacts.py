"""How a GPU is made and set, as facts of each figure that was taken on it; and the libraries that serve it.

Only what does not change while nobody changes it: clocks and temperatures of the moment are telemetry.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workers.gpus import asked, numa_node, text
from workers.protocol import Fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from workers.protocol import FactValue

#: ``RTLD_NOLOAD`` of dlfcn.h: a library that is not loaded stays so.
_RTLD_NOLOAD: Final = 0x4


def gpu_facts(uuid: str | None, root: Path = Path("/")) -> dict[str, Fact]:
    """Return what NVML tells of the GPU with that UUID; each answer that fails is ``None`` with the reason."""
    try:
        import pynvml  # guarded: a host without GPUs need not have it
    except ImportError:
        return _lacking("nvidia-ml-py is not installed: pip install nvidia-ml-py")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return _lacking(f"NVML does not answer: {error}")
    try:
        handle, reason = asked(pynvml, lambda: pynvml.nvmlDeviceGetHandleByUUID(uuid or ""))
        if reason is not None:
            return _lacking(f"NVML knows no GPU {uuid}: {reason}")
        found = {name: _fact(pynvml, ask, handle) for name, ask in _questions(pynvml).items()}
        return {**found, "gpu.numa_node": numa_node(pynvml, handle, root)}
    finally:
        pynvml.nvmlShutdown()


def _questions(nvml: Any) -> dict[str, Callable[[Any], FactValue]]:
    """Return what is asked of a card, by the fact's name; units are in the names."""
    core, memory = nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM
    return {
        "gpu.name": lambda card: text(nvml.nvmlDeviceGetName(card)),
        "gpu.uuid": lambda card: text(nvml.nvmlDeviceGetUUID(card)),
        "gpu.vbios": lambda card: text(nvml.nvmlDeviceGetVbiosVersion(card)),
        "gpu.memory_bytes": lambda card: int(nvml.nvmlDeviceGetMemoryInfo(card).total),
        "gpu.compute_capability": lambda card: ".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(card))),
        "gpu.cuda_of_driver": lambda _: _cuda_version(int(nvml.nvmlSystemGetCudaDriverVersion_v2())),
        "gpu.power_limit_w": lambda card: nvml.nvmlDeviceGetPowerManagementLimit(card) / 1000,
        "gpu.power_limit_default_w": lambda card: nvml.nvmlDeviceGetPowerManagementDefaultLimit(card) / 1000,
        "gpu.clock_max_mhz": lambda card: int(nvml.nvmlDeviceGetMaxClockInfo(card, core)),
        "gpu.clock_application_mhz": lambda card: int(nvml.nvmlDeviceGetApplicationsClock(card, core)),
        "gpu.memory_clock_max_mhz": lambda card: int(nvml.nvmlDeviceGetMaxClockInfo(card, memory)),
        "gpu.memory_clock_application_mhz": lambda card: int(nvml.nvmlDeviceGetApplicationsClock(card, memory)),
        "gpu.persistence": lambda card: bool(nvml.nvmlDeviceGetPersistenceMode(card)),
        "gpu.ecc": lambda card: bool(nvml.nvmlDeviceGetEccMode(card)[0]),
        "gpu.mig": lambda card: bool(nvml.nvmlDeviceGetMigMode(card)[0]),
        "gpu.pcie_generation_max": lambda card: int(nvml.nvmlDeviceGetMaxPcieLinkGeneration(card)),
        "gpu.pcie_width_max": lambda card: int(nvml.nvmlDeviceGetMaxPcieLinkWidth(card)),
    }


#: Every fact that :func:`gpu_facts` has an answer or a reason for.
NAMES: Final = (
    "gpu.name", "gpu.uuid", "gpu.vbios", "gpu.memory_bytes", "gpu.compute_capability", "gpu.cuda_of_driver",
    "gpu.power_limit_w", "gpu.power_limit_default_w", "gpu.clock_max_mhz", "gpu.clock_application_mhz",
    "gpu.memory_clock_max_mhz", "gpu.memory_clock_application_mhz", "gpu.persistence", "gpu.ecc", "gpu.mig",
    "gpu.pcie_generation_max", "gpu.pcie_width_max", "gpu.numa_node",
)  # fmt: skip


def _lacking(reason: str) -> dict[str, Fact]:
    return dict.fromkeys(NAMES, Fact(value=None, reason=reason))


def _fact(nvml: Any, ask: Callable[[Any], FactValue], card: Any) -> Fact:
    value, reason = asked(nvml, lambda: ask(card))
    return Fact(value=value, reason=reason)


def _cuda_version(number: int) -> str:
    """Return CUDA's version as people write it: 12080 is 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"


# --- libraries -------------------------------------------------------------------------------------------------


def library_facts(maps: Path = Path("/proc/self/maps")) -> dict[str, Fact]:
    """Return the versions of NVIDIA's libraries that this process has loaded, as the libraries tell them."""
    paths = loaded_libraries(maps)
    facts = {}
    for name, ask in _VERSIONS.items():
        path = next((path for path in paths if os.path.basename(path).startswith(f"lib{name}.so")), None)  # noqa: PTH119
        facts[f"library.{name}"] = Fact(value=None, reason="not loaded") if path is None else _version(path, ask)
    return facts


def loaded_libraries(maps: Path) -> tuple[str, ...]:
    """Return the shared libraries that a process has mapped, from its ``maps`` (proc(5)); none where it is hidden."""
    try:
        lines = maps.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(dict.fromkeys(line[line.index("/") :] for line in lines if ".so" in line and "/" in line))


def _version(path: str, ask: Callable[[ctypes.CDLL], str]) -> Fact:
    try:
        return Fact(value=ask(ctypes.CDLL(path, mode=_RTLD_NOLOAD)))
    except (OSError, AttributeError) as error:
        return Fact(value=None, reason=f"{os.path.basename(path)} does not tell: {error}")  # noqa: PTH119


def _cudart(library: ctypes.CDLL) -> str:
    found = ctypes.c_int()
    library.cudaRuntimeGetVersion(ctypes.byref(found))
    return _cuda_version(found.value)


def _cudnn(library: ctypes.CDLL) -> str:
    """Return cuDNN's version: 90300 is 9.3.0 (from 9.0 on; before it was 8907 for 8.9.7)."""
    library.cudnnGetVersion.restype = ctypes.c_size_t
    number = int(library.cudnnGetVersion())
    scale = 10_000 if number >= 90_000 else 1000
    return f"{number // scale}.{number % scale // 100}.{number % 100}"


def _nccl(library: ctypes.CDLL) -> str:
    """Return NCCL's version: 22703 is 2.27.3 (from 2.9 on)."""
    found = ctypes.c_int()
    library.ncclGetVersion(ctypes.byref(found))
    return f"{found.value // 10_000}.{found.value % 10_000 // 100}.{found.value % 100}"


def _property(function: str) -> Callable[[ctypes.CDLL], str]:
    """Return the question for libraries that tell major, minor and patch level one by one (library_types.h)."""

    def ask(library: ctypes.CDLL) -> str:
        return ".".join(map(str, _three(getattr(library, function))))

    return ask


def _three(function: Callable[[int, Any], int]) -> Iterable[int]:
    for kind in range(3):
        found = ctypes.c_int()
        function(kind, ctypes.byref(found))
        yield found.value


_VERSIONS: Final[dict[str, Callable[[ctypes.CDLL], str]]] = {
    "cudart": _cudart,
    "cublas": _property("cublasGetProperty"),
    "cudnn": _cudnn,
    "cufft": _property("cufftGetProperty"),
    "nccl": _nccl,
}
