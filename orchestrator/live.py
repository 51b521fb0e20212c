"""Where a run that goes on is: its head says so to the store, and whoever looks takes it from there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveDevice:
    """What a device of a run that goes on is doing."""

    id: str
    host: str
    #: The maker's name.
    name: str
    #: ``measuring``, ``starting``, ``waiting``, ``preparing``, ``queued``, ``away``, ``done``, ``lost``.
    activity: str
    #: Cases of this device: with a verdict, without a figure among them, and all.
    done: int = 0
    failed: int = 0
    total: int = 0
    #: The case that it is busy with, on one short line, and which attempt of it; ``None`` where it is not.
    case: str | None = None
    attempt: int | None = None
    #: In words: ``warming up``, or whom it waits for, or why it is away.
    doing: str | None = None
    #: Counted steps so far, and at most.
    step: int | None = None
    max_steps: int | None = None
    last_ms: float | None = None
    #: Degrees Celsius and watts, as telemetry read them last.
    temperature_c: float | None = None
    power_w: float | None = None
    #: Seconds until its case will have ended.
    left_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveFailure:
    """A case that ended without a figure, or with a doubtful one, while the run goes on."""

    device_id: str
    case: str
    verdict: str
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRun:
    """Where a run that goes on is, as its head said last."""

    run_id: str
    name: str
    simulated: bool
    #: When it was said; with time zone, UTC, ISO 8601.
    at: str
    elapsed_s: float
    #: Seconds until its end; ``None`` where nobody knows.
    left_s: float | None
    #: Cases with a verdict, without a figure among them, and all.
    done: int
    failed: int
    total: int
    #: What goes on around the cases, in words.
    stages: tuple[str, ...] = ()
    #: Hosts that give no sign of life.
    silent: tuple[str, ...] = ()
    #: In the plan's order.
    devices: tuple[LiveDevice, ...] = ()
    #: The latest ones, newest first.
    failures: tuple[LiveFailure, ...] = ()
