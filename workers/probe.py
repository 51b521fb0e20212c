"""What this host has: ``python -m workers.probe --host NAME`` prints a HostReport as one line of JSON.

Imports no framework and no Ray, needs no root and takes about a tenth of a second. What cannot be found is ``None``
with the reason beside it. Besides the standard library it asks NVML, through nvidia-ml-py, if that is installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workers import frameworks
from workers.codec import to_json
from workers.condition import condition_facts
from workers.cpufacts import cpu_setting_facts
from workers.cpulist import format_cpulist, parse_cpulist
from workers.gpus import gpus_by_nvml
from workers.memory import MemoryModule, installed_memory, memory_text, parse_modules
from workers.protocol import CpuReport, Environment, Fact, FrameworkReport, HostReport
from workers.version import VERSION, commit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Distributions whose versions belong to a figure; a host has one of the two TensorFlows.
PACKAGES: Final = ("tensorflow", "tensorflow-cpu", "torch", "jax", "jaxlib", "numpy", "ray", "nvidia-ml-py")

#: Variables that change how fast or where a framework runs. Narrow on purpose: ``TF_`` is Terraform's prefix too, and
#: ``NVIDIA_`` that of an API key, and neither belongs in a result.
VARIABLE_PREFIXES: Final = (
    "CUDA_", "DNNL_", "GOMP_", "KMP_", "LD_PRELOAD", "MALLOC_", "MKL_", "NVIDIA_TF32_OVERRIDE",
    "NVIDIA_VISIBLE_DEVICES", "OMP_", "ONEDNN_", "OPENBLAS_", "TF_AUTOTUNE_", "TF_CPP_", "TF_CPU_", "TF_CUDNN_",
    "TF_DETERMINISTIC_", "TF_DISABLE_", "TF_ENABLE_", "TF_FORCE_", "TF_GPU_", "TF_NUM_", "TF_SYNC_", "TF_USE_",
    "TF_XLA_", "XLA_",
)  # fmt: skip

#: Control groups without a limit hold a number near 2**63 (version 1) or the word "max" (version 2).
_NO_LIMIT_BYTES: Final = 2**60


def main(arguments: Sequence[str]) -> int:
    """Print this host's report."""
    parser = argparse.ArgumentParser(prog="python -m workers.probe", description="Print what this host has, as JSON.")
    parser.add_argument("--host", default=socket.gethostname(), help="the host's name in the config")
    print(to_json(host_report(parser.parse_args(arguments).host)))
    return 0


def host_report(host: str, root: Path = Path("/")) -> HostReport:
    """Return what the host has; ``root`` is where ``/proc`` and ``/sys`` are, for captured ones."""
    cpu, facts = _cpu(root)
    gpus, gpu_reason, driver = gpus_by_nvml(root)
    return HostReport(
        host=host,
        cpu=cpu,
        gpus=gpus,
        gpu_reason=gpu_reason,
        frameworks=framework_reports(),
        environment=Environment(
            facts=tuple(
                sorted({**facts, **_system_facts(root), **software_facts(os.environ), "gpu.driver": driver}.items())
            )
        ),
        condition=Environment(facts=tuple(sorted(condition_facts(root).items()))),
    )


# --- processors and memory -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuInfo:
    """What ``/proc/cpuinfo`` says."""

    model: str | None
    sockets: int | None
    is_virtual: bool


def parse_cpuinfo(text: str) -> CpuInfo:
    """Return the model, the number of sockets and whether a hypervisor is below; machines without x86's keys differ."""
    entries: dict[str, set[str]] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            entries.setdefault(key.strip(), set()).add(value.strip())
    models = sorted(set().union(*(entries.get(key, set()) for key in ("model name", "Model", "cpu model"))) - {""})
    flags = {flag for value in entries.get("flags", ()) for flag in value.split()}
    return CpuInfo(
        model=re.sub(r"\s+", " ", models[0]) if models else None,
        sockets=len(entries.get("physical id", ())) or None,
        is_virtual="hypervisor" in flags,
    )


def parse_meminfo(text: str) -> int | None:
    """Return the bytes of memory that the kernel manages, from ``/proc/meminfo``."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _cpu(root: Path) -> tuple[CpuReport, dict[str, Fact]]:
    info = parse_cpuinfo(_read(root / "proc/cpuinfo") or "")
    cores = tuple(sorted(os.sched_getaffinity(0)))
    numa = _numa(root)
    kernel_bytes = parse_meminfo(_read(root / "proc/meminfo") or "")
    modules, modules_reason = _modules(root)
    memory_bytes = sum(module.size_bytes for module in modules) or installed_memory(kernel_bytes)
    kind = _shared(modules, "kind")
    speed = _shared(modules, "speed_mts")
    limit = _memory_limit(root)
    report = CpuReport(
        model=info.model or platform.machine(),
        cores=cores,
        sockets=info.sockets,
        numa=numa,
        memory_bytes=kernel_bytes,
        memory=memory_text(memory_bytes, kind=kind, speed_mts=speed),
    )
    modules_reason = modules_reason or "the modules do not say, or differ"
    return report, {
        "cpu.model": _fact(info.model, "/proc/cpuinfo has no model"),
        "cpu.cores": Fact(value=format_cpulist(cores)),
        "cpu.sockets": _fact(info.sockets, "/proc/cpuinfo has no physical ids"),
        "cpu.numa_nodes": _fact(len(numa) or None, "/sys/devices/system/node has none"),
        **cpu_setting_facts(root),
        "memory.bytes": _fact(kernel_bytes, "/proc/meminfo has no MemTotal"),
        "memory.limit_bytes": _fact(limit, "no limit"),
        "memory.type": _fact(kind, modules_reason),
        "memory.speed_mts": _fact(speed, modules_reason),
        "host.virtual": Fact(value=info.is_virtual),
    }


def _numa(root: Path) -> tuple[tuple[int, tuple[int, ...]], ...]:
    nodes = {}
    for folder in (root / "sys/devices/system/node").glob("node[0-9]*"):
        cpus = _read(folder / "cpulist")
        if cpus is not None:
            nodes[int(folder.name.removeprefix("node"))] = parse_cpulist(cpus)
    return tuple(sorted(nodes.items()))


def _modules(root: Path) -> tuple[tuple[MemoryModule, ...], str | None]:
    """Return the memory modules that the firmware tells of, or why there are none to see."""
    path = root / "sys/firmware/dmi/tables/DMI"
    try:
        modules = parse_modules(path.read_bytes())
    except FileNotFoundError:
        return (), "the firmware has no DMI table"
    except PermissionError:
        return (), "needs root"
    except OSError as error:
        return (), f"the DMI table cannot be read: {error.strerror}"
    return modules, None if modules else "the DMI table lists no memory modules"


def _shared(modules: tuple[MemoryModule, ...], name: str) -> Any:
    """Return what all modules have in common under ``name``, or ``None``."""
    values = {getattr(module, name) for module in modules}
    return values.pop() if len(values) == 1 else None


def _memory_limit(root: Path) -> int | None:
    """Return the limit of the control group that this process sees at the root of its mount, if it has one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(root / "sys/fs/cgroup" / name)
        if text is not None and text.isdecimal() and int(text) < _NO_LIMIT_BYTES:
            return int(text)
    return None


# --- software --------------------------------------------------------------------------------------------------


def framework_reports() -> tuple[FrameworkReport, ...]:
    """Return what each framework says of itself, without importing any."""
    return tuple(
        FrameworkReport(name=name, version=_framework_version(name), reason=frameworks.load(name).available())
        for name in frameworks.names()
    )


def _framework_version(name: str) -> str | None:
    return next((found for each in (name, f"{name}-cpu") if (found := package_version(each)) is not None), None)


def package_version(name: str) -> str | None:
    """Return the version of an installed distribution, found without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def software_facts(variables: Mapping[str, str]) -> dict[str, Fact]:
    """Return Python's, the packages' and our own versions, and the variables that matter to a figure."""
    return {
        "python.version": Fact(value=platform.python_version()),
        "package.muster": Fact(value=VERSION),
        "muster.commit": _fact(commit(), "muster was not installed from a commit, and does not run from a checkout"),
        **{f"package.{name}": _fact(package_version(name), "not installed") for name in PACKAGES},
        **{f"env.{name}": Fact(value=value) for name, value in variables.items() if name.startswith(VARIABLE_PREFIXES)},
    }


def parse_os_release(text: str) -> str | None:
    """Return the name for people in ``/etc/os-release``."""
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', text, re.MULTILINE)
    return found[1] if found and found[1] else None


def _system_facts(root: Path) -> dict[str, Fact]:
    release = _read(root / "etc/os-release") or _read(root / "usr/lib/os-release") or ""
    return {
        "host.os": _fact(parse_os_release(release), "there is no os-release"),
        "host.kernel": Fact(value=platform.release()),
        "host.name": Fact(value=socket.gethostname()),
        "host.container": _fact(_container(root), "no sign of one"),
    }


def _container(root: Path) -> str | None:
    """Return what kind of container this seems to be, by the marks that engines leave."""
    marks = {".dockerenv": "docker", "run/.containerenv": "podman", "var/run/secrets/kubernetes.io": "kubernetes"}
    return next((kind for path, kind in marks.items() if (root / path).exists()), None)


def _fact(value: str | int | None, reason: str) -> Fact:
    return Fact(value=None, reason=reason) if value is None else Fact(value=value)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
