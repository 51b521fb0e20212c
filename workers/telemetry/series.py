"""What was seen of a device and its host while a case was measured, and what speaks against the figure.

Part of the words that cross the process boundary, as :mod:`workers.protocol`. Standard library only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from workers.codec import UNSAID

#: The series that tell how warm a device is, and what it draws; the first that has a value counts.
TEMPERATURES: Final = ("gpu.temperature_c", "cpu.temperature_c")
POWERS: Final = ("gpu.power_w",)


class EventKind(str, enum.Enum):
    """What kind of thing happened to a device."""

    #: The device slowed itself down, or stopped doing so; the text names the reasons.
    THROTTLE = "throttle"
    #: An error that NVIDIA's driver reported by number.
    XID = "xid"
    #: Errors in the device's memory.
    ECC = "ecc"


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One thing that was read again and again."""

    #: A dotted name with its unit, such as ``gpu.temperature_c``.
    name: str
    #: One value for each of :attr:`Telemetry.at_s`; ``None`` where that reading failed.
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """One thing that could not be read at all."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceEvent:
    """Something that happened to a device at one moment."""

    #: Seconds since the child was started.
    at_s: float
    kind: EventKind
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignProcess:
    """Somebody else's process that used the device or its host's CPUs meanwhile."""

    pid: int
    #: ``None`` where another container or user hides it.
    user: str | None = None
    name: str | None = None
    #: How many cores it used on average; ``None`` where it was seen on the GPU alone.
    cores: float | None = None
    #: Of the GPU's memory; ``None`` where it was seen on the CPUs alone, or the driver does not tell.
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """What the device took while the counted steps ran."""

    #: ``None`` with a reason where no counter and no power could be read.
    joules: float | None
    #: ``nvml counter``, ``nvml power``, ``rapl``.
    source: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Telemetry:
    """What an agent saw of a device and its host, from the start of the child to its last word."""

    #: Seconds between two readings.
    interval_s: float
    #: When each reading was taken: seconds since the child was started.
    at_s: tuple[float, ...] = ()
    series: tuple[Series, ...] = ()
    missing: tuple[Missing, ...] = ()
    #: When the counted steps began and ended: seconds since the child was started; ``None`` where they did not.
    measure_from_s: float | None = None
    measure_to_s: float | None = None
    energy: Energy | None = None
    events: tuple[DeviceEvent, ...] = ()
    #: Those that used most, the busiest first.
    foreign: tuple[ForeignProcess, ...] = ()
    #: How many processes ran or wanted to, on average over the minute before the child was started.
    load_before: float | None = None
    #: CPU seconds that the readings themselves took.
    cost_s: float | None = None

    def named(self, name: str) -> tuple[float | None, ...]:
        """Return the values of the series of that name; empty where there is none."""
        return next((series.values for series in self.series if series.name == name), ())

    def measured(self, name: str) -> tuple[float, ...]:
        """Return what was read under that name while the counted steps ran."""
        if self.measure_from_s is None or self.measure_to_s is None:
            return ()
        values = zip(self.at_s, self.named(name), strict=False)
        return tuple(
            value for at_s, value in values if value is not None and self.measure_from_s <= at_s <= self.measure_to_s
        )


class DoubtKind(str, enum.Enum):
    """What speaks against a figure."""

    #: Somebody else used the device, its cores, or the machine below.
    CONTENDED = "contended"
    #: The device slowed itself down.
    THROTTLED = "throttled"
    #: The steps vary too much.
    NOISY = "noisy"
    #: The steps became slower or faster all the time.
    DRIFTING = "drifting"
    #: The first counted steps were still slower than the others.
    WARMING_UP = "warming_up"
    #: The device's clock is not what it was in another process of the same case.
    CLOCK_CHANGED = "clock_changed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """One thing that speaks against a figure, with its evidence."""

    kind: DoubtKind
    #: For people, whole: ``others used 38 % of the cores, mostly python (pid 4242, alice)``.
    text: str
    #: What was found and what was still allowed, in the same unit; ``None`` where the evidence is no number.
    value: float | None = None
    limit: float | None = field(default=None, metadata=UNSAID)
