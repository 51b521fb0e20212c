"""What a GPU does while it is measured, as NVML tells of it, through nvidia-ml-py; no CUDA context, no root."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workers.gpus import asked, processes_on
from workers.telemetry.cpu import family
from workers.telemetry.series import Energy, EventKind, ForeignProcess, Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workers.protocol import GpuProcess

#: Reasons for a clock below the one asked for that speak against a figure, by NVML's bits (nvml.h,
#: ``nvmlClocksEventReasons``). The limit on power is not one of them: it is a property of the card as it is set, and is
#: reached by any good load.
_SLOW_DOWNS: Final = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}

_POWER_CAP: Final = 0x04

#: Series by what NVML answers.
_NAMES: Final = (
    "gpu.clock_mhz", "gpu.memory_clock_mhz", "gpu.temperature_c", "gpu.power_w", "gpu.use_percent",
    "gpu.memory_use_percent", "gpu.memory_used_bytes", "gpu.throttle", "gpu.power_capped",
)  # fmt: skip


class NvmlGauge:
    """A :class:`~workers.telemetry.base.Gauge` of the GPU with that UUID."""

    def __init__(
        self, uuid: str | None, *, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root, self._clock = root, clock
        self._nvml: Any = None
        self._handle: Any = None
        self._events: Any = None
        self._missing: dict[str, str] = {}
        #: Why the clock was low when it was last read, and when events were last told.
        self._reasons, self._told = 0, 0
        self._ecc: dict[str, int | None] = {}
        self._steps_begun = False
        self._seen: dict[int, GpuProcess] = {}
        self._there_before: frozenset[int] = frozenset()
        self._energy_mj: int | None = None
        self._energy_reason: str | None = None
        self._powers: list[tuple[float, float]] = []
        self._open(uuid)

    def missing(self) -> tuple[Missing, ...]:
        """Return which series could never be read, and why."""
        return tuple(Missing(name=name, reason=reason) for name, reason in self._missing.items())

    def read(self, child_pid: int) -> Mapping[str, float | None]:
        """Return what holds now; of utilisation, what NVML says of its own last interval."""
        if self._nvml is None:
            return {}
        nvml, handle = self._nvml, self._handle
        reasons = self._ask("gpu.throttle", lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        use = self._ask("gpu.use_percent", lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        power_mw = self._ask("gpu.power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        values: dict[str, float | None] = {
            "gpu.clock_mhz": self._ask(
                "gpu.clock_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
            ),
            "gpu.memory_clock_mhz": self._ask(
                "gpu.memory_clock_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
            ),
            "gpu.temperature_c": self._ask(
                "gpu.temperature_c", lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            "gpu.power_w": None if power_mw is None else power_mw / 1000,
            "gpu.use_percent": None if use is None else use.gpu,
            "gpu.memory_use_percent": None if use is None else use.memory,
            "gpu.memory_used_bytes": self._ask(
                "gpu.memory_used_bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used
            ),
            "gpu.throttle": None if reasons is None else float(bool(reasons & sum(_SLOW_DOWNS))),
            "gpu.power_capped": None if reasons is None else float(bool(reasons & _POWER_CAP)),
        }
        self._note(reasons, values["gpu.power_w"])
        return {name: value for name, value in values.items() if name not in self._missing}

    def events(self) -> tuple[tuple[EventKind, str], ...]:
        """Return slow-downs that began or ended, errors of the memory, and errors that the driver gave a number."""
        if self._nvml is None:
            return ()
        return (*self._slow_downs(), *self._memory_errors(), *self._driver_errors())

    def begin_steps(self, child_pid: int) -> None:
        """Note the energy counter, and look from now on who computes on the GPU."""
        self._steps_begun = True
        self._powers.clear()
        if self._nvml is not None:
            self._energy_mj, self._energy_reason = asked(self._nvml, self._counted_mj)
            self._look_around()

    def end_steps(self, child_pid: int) -> tuple[Energy | None, tuple[ForeignProcess, ...]]:
        """Return what the whole card took, and who else computed on it meanwhile."""
        if self._nvml is None:
            return Energy(joules=None, reason=next(iter(self._missing.values()))), ()
        self._look_around()
        self._steps_begun = False
        return self._energy(), self._foreign(child_pid)

    def close(self) -> None:
        """Let go of NVML."""
        if self._nvml is not None:
            nvml, self._nvml = self._nvml, None
            with contextlib.suppress(nvml.NVMLError):
                if self._events is not None:
                    nvml.nvmlEventSetFree(self._events)
                nvml.nvmlShutdown()

    # --- opening -----------------------------------------------------------------------------------------------

    def _open(self, uuid: str | None) -> None:
        try:
            import pynvml  # guarded: a host without GPUs need not have it
        except ImportError:
            self._lack("nvidia-ml-py is not installed: pip install nvidia-ml-py")
            return
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self._lack(f"NVML does not answer: {error}")
            return
        try:
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid or "")
        except pynvml.NVMLError as error:
            self._lack(f"NVML knows no GPU {uuid}: {error}")
            pynvml.nvmlShutdown()
            return
        self._nvml = pynvml
        self._watch_driver_errors()
        self._ecc = self._count_errors()
        found, _ = asked(pynvml, lambda: processes_on(pynvml, self._handle, self._root))
        self._there_before = frozenset(process.pid for process in found or ())

    def _lack(self, reason: str) -> None:
        self._missing = dict.fromkeys(_NAMES, reason)

    def _ask(self, name: str, question: Callable[[], Any]) -> Any:
        """Return the answer; ``None`` for one that failed, whose series is missing if the first one did."""
        if name in self._missing:
            return None
        answer, reason = asked(self._nvml, question)
        if reason is not None and not self._steps_begun:
            self._missing[name] = reason
            if name == "gpu.throttle":
                self._missing["gpu.power_capped"] = reason
            elif name == "gpu.use_percent":
                self._missing["gpu.memory_use_percent"] = reason
        return answer

    # --- events ------------------------------------------------------------------------------------------------

    def _note(self, reasons: int | None, power_w: float | None) -> None:
        self._reasons = self._reasons if reasons is None else reasons
        if self._steps_begun:
            self._look_around()
            if power_w is not None:
                self._powers.append((self._clock(), power_w))

    def _slow_downs(self) -> list[tuple[EventKind, str]]:
        now, before = self._reasons, self._told
        self._told = now
        found = []
        for bit, words in _SLOW_DOWNS.items():
            if now & bit and not before & bit:
                found.append((EventKind.THROTTLE, f"{words} began"))
            elif before & bit and not now & bit:
                found.append((EventKind.THROTTLE, f"{words} ended"))
        return found

    def _count_errors(self) -> dict[str, int | None]:
        nvml, kinds = self._nvml, {}
        for words, kind in (
            ("corrected", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ("uncorrected", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        ):
            kinds[words], _ = asked(nvml, lambda kind=kind: self._errors_of(kind))  # type: ignore[misc]
        return kinds

    def _errors_of(self, kind: int) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEccErrors(self._handle, kind, self._nvml.NVML_VOLATILE_ECC))

    def _memory_errors(self) -> list[tuple[EventKind, str]]:
        now, before = self._count_errors(), self._ecc
        self._ecc = now
        found = []
        for words, count in now.items():
            known = before[words]
            if count is not None and known is not None and count > known:
                found.append((EventKind.ECC, f"{count - known} {words} memory errors"))
        return found

    def _watch_driver_errors(self) -> None:
        nvml = self._nvml
        try:
            self._events = nvml.nvmlEventSetCreate()
            nvml.nvmlDeviceRegisterEvents(self._handle, nvml.nvmlEventTypeXidCriticalError, self._events)
        except nvml.NVMLError:
            self._events = None  # not every card and system tells of them

    def _driver_errors(self) -> list[tuple[EventKind, str]]:
        found: list[tuple[EventKind, str]] = []
        while self._events is not None:
            event, _ = asked(self._nvml, lambda: self._nvml.nvmlEventSetWait_v2(self._events, 0))
            if event is None:
                break
            found.append((EventKind.XID, f"Xid {event.eventData}"))
        return found

    # --- energy and company ------------------------------------------------------------------------------------

    def _counted_mj(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def _energy(self) -> Energy:
        """Return the counter's difference; on cards before Volta, which have none, power over time."""
        if self._energy_mj is not None:
            now_mj, reason = asked(self._nvml, self._counted_mj)
            if now_mj is not None:
                return Energy(joules=(now_mj - self._energy_mj) / 1000, source="nvml counter")
            return Energy(joules=None, reason=reason)
        if len(self._powers) < 2:
            few = f"{len(self._powers)} readings of power are too few"
            return Energy(joules=None, reason=f"{self._energy_reason}; {few}")
        joules = sum(
            (later - sooner) * (before + after) / 2
            for (sooner, before), (later, after) in zip(self._powers, self._powers[1:], strict=False)
        )
        return Energy(joules=joules, source="nvml power")

    def _look_around(self) -> None:
        found, _ = asked(self._nvml, lambda: processes_on(self._nvml, self._handle, self._root))
        for process in found or ():
            self._seen[process.pid] = process

    def _foreign(self, child_pid: int) -> tuple[ForeignProcess, ...]:
        """Return who is not of ours; where a container hides our own id, those that had been there before."""
        ours = family(child_pid)
        hides = not ours & self._seen.keys()
        return tuple(
            ForeignProcess(pid=process.pid, user=process.user, name=process.name, gpu_memory_bytes=process.memory_bytes)
            for pid, process in sorted(self._seen.items())
            if (pid in self._there_before if hides else pid not in ours)
        )
