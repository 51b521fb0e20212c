"""What a host's processors do while one of its devices is measured, from psutil, ``/proc`` and ``/sys``; no root.

How much others used is what the cores were busy less what the measuring child took, so that processes which come and
go between two looks count as well: the kernel's, Ray's and this agent's too. Of the child's descendants those count as
its own that are its children, or have been waited for.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from workers.condition import parse_available
from workers.telemetry.rapl import Rapl
from workers.telemetry.series import EventKind, ForeignProcess, Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from workers.telemetry.series import Energy

#: Hosts have up to hundreds of cores: of more than these none has a line of its own.
MOST_CORES_ALONE: Final = 64

#: The mean clock is that of so many cores at most, spread over the device's: each may take the kernel a while.
_MOST_CLOCKS: Final = 16

#: Processes that used less, in cores, are not named.
LEAST_CORES: Final = 0.02

_MOST_NAMED: Final = 5

#: Drivers that tell a processor's temperature, by the names that the kernel's hwmon gives them.
_THERMOMETERS: Final = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal"})

_NO_CPUFREQ: Final = "the kernel shows no clock of its cores (cpufreq); a virtual machine's most often does not"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """The counters of one look, seconds of CPU unless said otherwise."""

    at_s: float
    #: By logical CPU: busy, stolen by the hypervisor, and all together.
    cores: Mapping[int, tuple[float, float, float]]
    #: What the child and its children have used so far; ``None`` where it is gone, or not there yet.
    child_s: float | None
    #: Microseconds that something waited, by what for.
    pressure_us: Mapping[str, int]


class CpuGauge:
    """A :class:`~workers.telemetry.base.Gauge` of the cores that a device's case runs on.

    ``cores`` are the logical CPUs of a CPU device, or all that this process may use where the device is a GPU.
    ``with_energy`` where the figure is the processors', so that their energy is its cost.
    """

    def __init__(
        self,
        cores: Sequence[int],
        *,
        with_energy: bool,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._cores = tuple(sorted(cores))
        self._clock = clock
        self._clocks = _clock_files(root, self._cores)
        self._thermometers = _thermometer_files(root)
        self._rapl = Rapl(root) if with_energy else None
        self._before = self._look(None)
        self._others_before = (clock(), _processes())

    def missing(self) -> tuple[Missing, ...]:
        """Return which series this host cannot give, and why."""
        found: list[Missing] = []
        if not self._clocks:
            found.append(Missing(name="cpu.frequency_mhz", reason=_NO_CPUFREQ))
        if not self._thermometers:
            reason = "the kernel shows no thermometer of the processors (hwmon)"
            found.append(Missing(name="cpu.temperature_c", reason=reason))
        if not self._before.pressure_us:
            found.append(Missing(name="cpu.pressure_percent", reason="the kernel keeps no pressure (PSI)"))
        if len(self._cores) > MOST_CORES_ALONE:
            reason = f"{len(self._cores)} cores: a line for each is kept up to {MOST_CORES_ALONE}"
            found.append(Missing(name="core.N.use_percent", reason=reason))
        return tuple(found)

    def read(self, child_pid: int) -> Mapping[str, float | None]:
        """Return shares in percent since the last reading, and what holds now."""
        now = self._look(child_pid)
        values = shares(self._before, now, self._cores)
        self._before = now
        if self._clocks:
            values["cpu.frequency_mhz"] = _mean(_numbers(self._clocks), 1e-3)
        if self._thermometers:
            hottest = max(_numbers(self._thermometers), default=None)
            values["cpu.temperature_c"] = None if hottest is None else hottest * 1e-3
        values["memory.available_bytes"] = self._available()
        return values

    def events(self) -> tuple[tuple[EventKind, str], ...]:
        """Return nothing: processors tell of no events without root."""
        return ()

    def begin_steps(self, child_pid: int) -> None:
        """Note the energy counters."""
        if self._rapl is not None:
            self._rapl.begin()

    def end_steps(self, child_pid: int) -> tuple[Energy | None, tuple[ForeignProcess, ...]]:
        """Return the energy, and who else used the host's cores since this gauge was made, the busiest first.

        Since then, and not since the steps began: looking through all processes would disturb the first ones.
        """
        energy = None if self._rapl is None else self._rapl.taken()
        began_at, before = self._others_before
        return energy, foreign(before, _processes(), ours=family(child_pid), elapsed_s=self._clock() - began_at)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _look(self, child_pid: int | None) -> _Seen:
        cores = {
            number: (
                times.user + times.nice + times.system + times.irq + times.softirq,
                times.steal,
                times.user + times.nice + times.system + times.irq + times.softirq
                + times.steal + times.idle + times.iowait,
            )
            for number, times in enumerate(psutil.cpu_times(percpu=True))
        }  # fmt: skip
        return _Seen(
            at_s=self._clock(),
            cores=cores,
            child_s=None if child_pid is None else _used_s(child_pid),
            pressure_us={
                name: us for name in ("cpu", "memory", "io") if (us := _pressure(self._root, name)) is not None
            },
        )

    def _available(self) -> float | None:
        try:
            return parse_available((self._root / "proc/meminfo").read_text())
        except OSError:
            return None


def shares(before: _Seen, now: _Seen, cores: Sequence[int]) -> dict[str, float | None]:
    """Return what lies between two looks, each as a percentage: of the cores' time, or of the time for pressure."""
    known = [number for number in cores if number in before.cores and number in now.cores]
    gained = {
        number: tuple(b - a for a, b in zip(before.cores[number], now.cores[number], strict=True)) for number in known
    }
    busy_s, stolen_s, all_s = (sum(each[place] for each in gained.values()) for place in range(3))
    child_s = None if now.child_s is None else now.child_s - (before.child_s or 0.0)
    values: dict[str, float | None] = {
        "cpu.use_percent": _percent(busy_s, all_s),
        "cpu.steal_percent": _percent(stolen_s, all_s),
        # The kernel counts in hundredths of a second, and the child's more exactly than the cores'.
        "cpu.others_percent": None if child_s is None else _percent(max(busy_s - child_s, 0.0), all_s),
    }
    for name, since_us in before.pressure_us.items():
        waited_s = None if name not in now.pressure_us else (now.pressure_us[name] - since_us) / 1e6
        values[f"{name}.pressure_percent"] = None if waited_s is None else _percent(waited_s, now.at_s - before.at_s)
    if len(cores) <= MOST_CORES_ALONE:
        for number, (busy, _, total) in gained.items():
            values[f"core.{number}.use_percent"] = _percent(busy, total)
    return values


def _percent(part: float, whole: float) -> float | None:
    """Return the share in percent, at most 100; ``None`` where the clock has not gone on."""
    return None if whole <= 0 else round(min(100.0 * part / whole, 100.0), 2)


# --- processes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Used:
    """What a process has used of the CPUs so far."""

    user: str | None
    name: str | None
    cpu_s: float


def _processes() -> dict[tuple[int, float], _Used]:
    """Return every process of this machine or container, by its id and the time of its start."""
    found = {}
    for process in psutil.process_iter():
        # One that has just ended, or is hidden, is not there.
        with contextlib.suppress(psutil.Error), process.oneshot():
            times = process.cpu_times()
            identity = process.pid, process.create_time()
            found[identity] = _Used(user=_user_of(process), name=process.name(), cpu_s=times.user + times.system)
    return found


def _user_of(process: psutil.Process) -> str | None:
    try:
        return process.username()
    except (psutil.Error, KeyError):
        return None


def foreign(
    before: Mapping[tuple[int, float], _Used],
    now: Mapping[tuple[int, float], _Used],
    *,
    ours: Iterable[int],
    elapsed_s: float,
) -> tuple[ForeignProcess, ...]:
    """Return who used the CPUs between two looks, but for ``ours``; the busiest first, and few of them."""
    if elapsed_s <= 0:
        return ()
    known = frozenset(ours)
    used = [
        (max(0.0, each.cpu_s - (before[identity].cpu_s if identity in before else 0.0)) / elapsed_s, identity[0], each)
        for identity, each in now.items()
        if identity[0] not in known
    ]
    busiest = sorted((one for one in used if one[0] >= LEAST_CORES), key=lambda one: (-one[0], one[1]))
    return tuple(
        ForeignProcess(pid=pid, user=each.user, name=each.name, cores=round(cores, 3))
        for cores, pid, each in busiest[:_MOST_NAMED]
    )


def family(child_pid: int) -> set[int]:
    """Return the child, its descendants, and this process."""
    this = psutil.Process().pid
    try:
        below = psutil.Process(child_pid).children(recursive=True)
    except psutil.Error:
        return {this, child_pid}
    return {this, child_pid, *(process.pid for process in below)}


def _used_s(pid: int) -> float | None:
    """Return the CPU seconds of a process, of its children, and of those that it has waited for."""
    try:
        times = psutil.Process(pid).cpu_times()
        used = times.user + times.system + times.children_user + times.children_system
        for child in _children(pid):
            below = psutil.Process(child).cpu_times()
            used += below.user + below.system + below.children_user + below.children_system
    except psutil.Error:
        return None
    return float(used)


def _children(pid: int) -> list[int]:
    """Return what a process's first thread has started; to look through all processes would take far longer."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []  # the kernel keeps no such list


# --- files -----------------------------------------------------------------------------------------------------


def _clock_files(root: Path, cores: Sequence[int]) -> tuple[Path, ...]:
    stride = max(1, -(-len(cores) // _MOST_CLOCKS))
    files = (root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in cores[::stride])
    return tuple(file for file in files if file.exists())


def _thermometer_files(root: Path) -> tuple[Path, ...]:
    found: list[Path] = []
    for name in sorted((root / "sys/class/hwmon").glob("hwmon*/name")):
        try:
            is_one = name.read_text().strip() in _THERMOMETERS
        except OSError:
            continue
        found += sorted(name.parent.glob("temp*_input")) if is_one else []
    return tuple(found)


def _numbers(files: Iterable[Path]) -> list[float]:
    """Return what stands in those files that can be read."""
    found = []
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            found.append(float(file.read_text()))
    return found


def _mean(values: Sequence[float], factor: float) -> float | None:
    return round(sum(values) / len(values) * factor, 1) if values else None


def _pressure(root: Path, name: str) -> int | None:
    """Return microseconds that some process waited for the CPU, memory or disks; Linux's ``accounting/psi.rst``."""
    try:
        text = (root / "proc/pressure" / name).read_text()
    except OSError:
        return None  # kernels may be built, and started, without
    some = text.partition("\n")[0]
    total = some.rpartition("total=")[2]
    return int(total) if some.startswith("some ") and total.isdecimal() else None
