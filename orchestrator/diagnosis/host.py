"""What is right and wrong with one host, from its report."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from orchestrator.diagnosis.findings import Finding, Level
from orchestrator.diagnosis.software import differs, minor, pip, text_fact
from workers.protocol import PROTOCOL_VERSION, DeviceKind, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from orchestrator.diagnosis.software import Software
    from workers.protocol import GpuProcess, GpuReport, HostReport

_GIB: Final = 2**30

#: An environment with Ray and TensorFlow, and the wheels that it is made of: 2.3 GB for CPUs, 10.9 GB with CUDA.
DISK_TO_INSTALL_BYTES: Final = {DeviceKind.CPU: 3 * _GIB, DeviceKind.GPU: 11 * _GIB}
DISK_TO_RUN_BYTES: Final = 5 * _GIB

#: Ray, and TensorFlow with a batch of middle size.
MEMORY_TO_RUN_BYTES: Final = 2 * _GIB

#: Share of the cores that others may keep busy before figures of the CPU are in doubt.
LOAD_SHARE: Final = 0.1
#: On a small machine a tenth is less than what logging in takes.
LEAST_LOAD: Final = 0.5

#: Percent of the time that a GPU may work though nobody can be seen on it.
UTILIZATION_PERCENT: Final = 10

#: Processes of a GPU that are named; the others are counted.
_NAMED_PROCESSES: Final = 3


def diagnose(
    report: HostReport, head: Software, *, frameworks: Collection[str] = (), installs: bool = False
) -> tuple[Finding, ...]:
    """Return what is right and wrong with a host by itself.

    ``frameworks`` are those that the config asks for. ``installs`` says that an environment is still to be made there,
    from the interpreter that was probed: what that one lacks is of no matter. What is held against other hosts is in
    :func:`orchestrator.diagnosis.compare`.
    """
    return (
        _python(report, head.python),
        *(() if installs else _packages(report, head, frameworks)),
        _muster(report, head.muster),
        _load(report),
        _governor(report),
        _memory(report),
        _disk(report, installs=installs),
        _gpus(report),
        *((_persistence(report), _busy(report)) if report.gpus else ()),
    )


def _found(
    report: HostReport,
    check: str,
    level: Level,
    text: str,
    *,
    remedy: str | None = None,
    verdict: Verdict | None = None,
) -> Finding:
    return Finding(host=report.host, check=check, level=level, text=text, remedy=remedy, verdict=verdict)


# --- software --------------------------------------------------------------------------------------------------


def _python(report: HostReport, head: str) -> Finding:
    version = text_fact(report, "python.version")
    if version == head:
        return _found(report, "python", Level.OK, head)
    if version is None:
        reason = report.environment.get("python.version").reason
        return _found(report, "python", Level.WARNING, f"its version is not known: {reason}")
    if minor(version) == minor(head):
        return _found(
            report,
            "python",
            Level.WARNING,
            f"{differs(version, head)}: close enough for most of Ray",
            remedy=f"where Ray fails, name a Python {head} in the config: `python:`",
        )
    python = f"python{minor(head)}"
    return _found(
        report,
        "python",
        Level.PROBLEM,
        f"{differs(version, head)}: Ray takes no host with another Python",
        remedy=(
            f"name one with Ray in the config: `python: ~/muster/bin/python`, made by {python} -m venv ~/muster;"
            f" or let muster make it: `python: {python}`, `install: true`"
        ),
        verdict=Verdict.UNSUPPORTED,
    )


def _packages(report: HostReport, head: Software, frameworks: Collection[str]) -> tuple[Finding, ...]:
    return _ray(report, head.ray), *_frameworks(report, frameworks), _numpy(report, head.numpy)


def _ray(report: HostReport, head: str | None) -> Finding:
    version = text_fact(report, "package.ray")
    if version is not None and head in {version, None}:
        return _found(report, "ray", Level.OK, version)
    return _found(
        report,
        "ray",
        Level.PROBLEM,
        f"{differs(version, head)}: both must be the same",
        remedy=pip(report, "ray", head),
        verdict=Verdict.UNSUPPORTED,
    )


def _frameworks(report: HostReport, wanted: Collection[str]) -> list[Finding]:
    """Return those that are wanted and not there; how the others compare is told beside other hosts."""
    findings = []
    for framework in report.frameworks:
        if framework.name in wanted and framework.reason is not None:
            # A framework's reason ends with the command that mends it.
            text, _, remedy = framework.reason.partition("; type: ")
            text = f"{text}, and the config asks for it"
            findings.append(_found(report, framework.name, Level.PROBLEM, text, remedy=remedy or None))
    return findings


def _numpy(report: HostReport, head: str | None) -> Finding:
    version = text_fact(report, "package.numpy")
    if version is not None and head in {version, None}:
        return _found(report, "numpy", Level.OK, version)
    return _found(report, "numpy", Level.WARNING, differs(version, head), remedy=pip(report, "numpy", head))


def _muster(report: HostReport, head: str) -> Finding:
    version = text_fact(report, "package.muster")
    remedy = pip(report, "muster-bench", head)
    if report.protocol_version != PROTOCOL_VERSION:
        text = f"{version} speaks protocol {report.protocol_version}, and the head {PROTOCOL_VERSION}"
        return _found(report, "muster", Level.PROBLEM, text, remedy=remedy, verdict=Verdict.UNSUPPORTED)
    if version != head:
        return _found(report, "muster", Level.WARNING, differs(version, head), remedy=remedy)
    return _found(report, "muster", Level.OK, head)


# --- how it is doing -------------------------------------------------------------------------------------------


def _load(report: HostReport) -> Finding:
    fact = report.condition.get("cpu.load")
    # Load is of the whole machine, also where we may use a part of it only.
    cores = max(len(report.cpu.cores), sum(len(cores) for _, cores in report.cpu.numa))
    if not isinstance(fact.value, float):
        return _found(report, "load", Level.OK, f"not known: {fact.reason}")
    text = f"{fact.value:.1f} of {cores} cores were busy over the last minute"
    if fact.value <= max(LOAD_SHARE * cores, LEAST_LOAD):
        return _found(report, "load", Level.OK, text)
    return _found(
        report,
        "load",
        Level.WARNING,
        f"{text}: figures of the CPU may be worth less",
        remedy="see who it is: ps -eo pcpu,pid,user,comm --sort=-pcpu | head",
    )


def _governor(report: HostReport) -> Finding:
    fact = report.environment.get("cpu.governor")
    if fact.value is None:
        return _found(report, "governor", Level.OK, f"not known: {fact.reason}")
    if fact.value == "performance":
        return _found(report, "governor", Level.OK, "performance")
    return _found(
        report,
        "governor",
        Level.WARNING,
        f"{fact.value}: the CPU's clock follows its load",
        remedy="sudo cpupower frequency-set -g performance",
    )


def _memory(report: HostReport) -> Finding:
    fact = report.condition.get("memory.available_bytes")
    available, limit = _number(fact.value), _number(report.environment.get("memory.limit_bytes").value)
    if available is None:
        return _found(report, "memory", Level.OK, f"not known: {fact.reason}")
    usable = available if limit is None else min(available, limit)
    total = f" of {_gib(report.cpu.memory_bytes)}" if report.cpu.memory_bytes is not None else ""
    text = f"{_gib(usable)}{total} to be had"
    if usable >= MEMORY_TO_RUN_BYTES:
        return _found(report, "memory", Level.OK, text)
    return _found(
        report,
        "memory",
        Level.WARNING,
        f"{text}: cases may end as oom",
        remedy="see who has it: ps -eo rss,pid,user,comm --sort=-rss | head",
    )


def _disk(report: HostReport, *, installs: bool) -> Finding:
    places = {place: report.condition.get(f"disk.{place}_free_bytes") for place in ("home", "tmp")}
    free = {place: number for place, fact in places.items() if (number := _number(fact.value)) is not None}
    text = ", ".join(
        f"{_gib(free[place])} free in {_FOLDERS[place]}"
        if place in free
        else f"{_FOLDERS[place]} not known: {fact.reason}"
        for place, fact in places.items()
    )
    level = Level.WARNING if any(number < DISK_TO_RUN_BYTES for number in free.values()) else Level.OK
    needed = DISK_TO_INSTALL_BYTES[DeviceKind.GPU if report.gpus else DeviceKind.CPU]
    if installs and free.get("home", needed) < needed:
        level, text = Level.PROBLEM, f"{text}: an environment needs {_gib(needed)}"
    remedy = None if level is Level.OK else "see what takes it: du -xh --max-depth=1 ~ /tmp | sort -h | tail"
    return _found(report, "disk", level, text, remedy=remedy)


_FOLDERS: Final = {"home": "the home", "tmp": "/tmp"}


# --- GPUs ------------------------------------------------------------------------------------------------------


def _gpus(report: HostReport) -> Finding:
    """Return which there are; whether they are those of the config is the inventory's to say."""
    if not report.gpus:
        return _found(report, "gpus", Level.OK, f"none: {report.gpu_reason or 'the driver lists none'}")
    kinds = ", ".join(f"{count} x {name}" for name, count in Counter(gpu.name for gpu in report.gpus).items())
    if report.gpu_reason is None:
        return _found(report, "gpus", Level.OK, kinds)
    return _found(
        report, "gpus", Level.WARNING, f"{kinds}; {report.gpu_reason}", remedy="see what the driver says: nvidia-smi"
    )


def _persistence(report: HostReport) -> Finding:
    states = {gpu.index: gpu.state.persistence for gpu in report.gpus if gpu.state is not None}
    off = [f"gpu:{index}" for index, fact in states.items() if fact.value is False]
    if off:
        return _found(
            report,
            "persistence",
            Level.WARNING,
            f"off on {', '.join(off)}: the driver is loaded anew for each case",
            remedy="sudo nvidia-smi -pm 1",
        )
    reasons = [fact.reason for fact in states.values() if fact.value is None]
    return _found(report, "persistence", Level.OK, f"not known: {reasons[0]}" if reasons else "on")


def _busy(report: HostReport) -> Finding:
    uses = [text for gpu in report.gpus if (text := _use(gpu)) is not None]
    if not uses:
        return _found(report, "busy", Level.OK, "nobody is seen on a GPU")
    return _found(
        report,
        "busy",
        Level.WARNING,
        "; ".join(uses),
        remedy="see what they do: nvidia-smi; then wait for them, or ask",
    )


def _use(gpu: GpuReport) -> str | None:
    """Return who uses a GPU; ``None`` where nobody does, or nobody knows."""
    if gpu.state is None:
        return None
    if gpu.state.processes:
        return f"gpu:{gpu.index} is used by {_named(gpu.state.processes)}"
    percent = _number(gpu.state.utilization.value)
    if percent is not None and percent >= UTILIZATION_PERCENT:
        return f"gpu:{gpu.index} is used {percent} % of the time, by whom cannot be seen"
    return None


def _named(processes: Sequence[GpuProcess]) -> str:
    named = [_process(process) for process in processes[:_NAMED_PROCESSES]]
    others = len(processes) - len(named)
    return ", ".join([*named, *([f"{others} more"] if others else [])])


def _process(process: GpuProcess) -> str:
    memory = None if process.memory_bytes is None else _gib(process.memory_bytes)
    known = (part for part in (f"pid {process.pid}", process.user, memory) if part is not None)
    return f"{process.name or 'a process'} ({', '.join(known)})"


def _number(value: object) -> int | None:
    return value if type(value) is int else None


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
