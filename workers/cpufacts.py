"""How a host's processors are set, and what its control group lets us have of them: facts of each figure."""

from __future__ import annotations

import re
from pathlib import Path

from workers.protocol import Fact

_CPUS = "sys/devices/system/cpu"


def cpu_setting_facts(root: Path = Path("/")) -> dict[str, Fact]:
    """Return governor, boost, microcode, SMT, isolated cores, and the control group's limits."""
    return {
        "cpu.governor": _fact(_read(root / _CPUS / "cpu0/cpufreq/scaling_governor"), "the kernel offers no governor"),
        "cpu.driver": _fact(_read(root / _CPUS / "cpu0/cpufreq/scaling_driver"), "the kernel sets no clocks (cpufreq)"),
        "cpu.boost": _boost(root),
        "cpu.microcode": _fact(_microcode(root), "/proc/cpuinfo has no microcode"),
        "cpu.smt": _fact(_read(root / _CPUS / "smt/control"), "the kernel does not tell (smt/control)"),
        "cpu.isolated": _fact(_read(root / _CPUS / "isolated"), "no core is isolated, or the kernel does not tell"),
        "cgroup.cpu_max": _fact(_cgroup(root, "cpu.max", "cpu/cpu.cfs_quota_us", "max", "-1"), "no limit"),
        "cgroup.cpuset": _fact(_cgroup(root, "cpuset.cpus", "cpuset/cpuset.cpus"), "no limit"),
    }


def _boost(root: Path) -> Fact:
    """Return whether clocks may rise above the nominal one; Intel's driver says the opposite, and per machine."""
    turbo_is_off = _read(root / _CPUS / "intel_pstate/no_turbo")
    if turbo_is_off is not None:
        return Fact(value=turbo_is_off == "0")
    boost = _read(root / _CPUS / "cpufreq/boost") or _read(root / _CPUS / "cpu0/cpufreq/boost")
    return Fact(value=None, reason="the kernel does not tell") if boost is None else Fact(value=boost == "1")


def _microcode(root: Path) -> str | None:
    found = re.search(r"^microcode\s*: (\S+)$", _read(root / "proc/cpuinfo") or "", re.MULTILINE)
    return found[1] if found else None


def _cgroup(root: Path, second: str, first: str, *unlimited: str) -> str | None:
    """Return a limit of the control group at the root of its mount, of version 2 or 1; ``None`` for none."""
    for name in (second, first):
        text = _read(root / "sys/fs/cgroup" / name)
        if text is not None and text.split()[0] not in unlimited:
            return text
    return None


def _fact(value: str | None, reason: str) -> Fact:
    return Fact(value=None, reason=reason) if value is None else Fact(value=value)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None
