"""What has been found: runs, their cases and every attempt. The store gives these, analysis and report take them."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workers import codec

if TYPE_CHECKING:
    import datetime

    from workers.protocol import Case, Device, Environment, Result, Verdict, Workload


#: A word that always means the newest run, and so is the name of none.
LATEST: Final = "latest"


def environment_hash(environment: Environment) -> str:
    """Return the name under which an environment is kept: the SHA-256 of its canonical JSON."""
    return hashlib.sha256(codec.to_json(environment).encode()).hexdigest()


class RunState(str, enum.Enum):
    """Where a run is."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try of a case; every one is kept."""

    #: Counts from 1 within its case.
    number: int
    result: Result


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseResult:
    """A case of a run and how it ended."""

    case: Case
    #: Its place in the plan, from 0.
    position: int
    #: ``None`` while the case has not ended.
    verdict: Verdict | None = None
    #: Why there is no figure, or why it is doubtful.
    reason: str | None = None
    attempts: tuple[Attempt, ...] = ()
    #: Results that came after their attempt had been given up or tried again: kept beside, in no figure.
    superseded: tuple[Attempt, ...] = ()

    @property
    def is_open(self) -> bool:
        """True while going on with the run would try it: it has no verdict, or was merely stopped or never begun."""
        return self.verdict is None or not self.verdict.is_final

    @property
    def is_decided(self) -> bool:
        """True where the head ended between the last attempt and the verdict that follows from it."""
        result = self.result
        return (
            self.verdict is None and result is not None and result.verdict.is_final and not result.verdict.is_transient
        )

    @property
    def result(self) -> Result | None:
        """The result that the verdict stands for: the last attempt's, if there was one."""
        return self.attempts[-1].result if self.attempts else None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """What is known of a run before its first case starts."""

    id: str
    name: str
    #: With time zone, UTC.
    created_at: datetime.datetime
    config_text: str
    #: Where the text came from, for messages only.
    config_path: str
    #: ``--set`` and ``--only`` as they were typed, in order.
    overrides: tuple[str, ...]
    simulated: bool
    muster_version: str
    cases: tuple[Case, ...]
    #: The run whose cases it runs again, if it was made so.
    rerun_of: str | None = None
    #: The schedule that began it; ``None`` for a person.
    schedule: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """Where a run came from that was not made here."""

    #: Name of the file.
    source: str
    #: When it was taken in; with time zone, UTC.
    at: datetime.datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """One line of ``muster runs``."""

    id: str
    name: str
    created_at: datetime.datetime
    finished_at: datetime.datetime | None
    state: RunState
    simulated: bool
    cases: int
    #: Cases that ended with a figure.
    figures: int
    rerun_of: str | None = None
    #: ``None`` for a run of this store.
    imported: Imported | None = None
    #: The schedule that began it; ``None`` for a person.
    schedule: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution of a config, whole."""

    id: str
    name: str
    created_at: datetime.datetime
    finished_at: datetime.datetime | None
    state: RunState
    config_text: str
    config_path: str
    overrides: tuple[str, ...]
    simulated: bool
    muster_version: str
    #: In the plan's order.
    cases: tuple[CaseResult, ...]
    rerun_of: str | None = None
    #: ``None`` for a run of this store. Nothing here is estimated from another lab's figures.
    imported: Imported | None = None
    #: The schedule that began it; ``None`` for a person.
    schedule: str | None = None


class FiringState(str, enum.Enum):
    """Where one time of a schedule is."""

    #: It begins when its time has come, and whatever it waits for is over.
    WAITING = "waiting"
    #: Its run is at work, or is to be gone on with.
    RUNNING = "running"
    #: Its run has ended, and whoever is to be told has been, or could not be.
    DONE = "done"
    SKIPPED = "skipped"
    #: Nobody was there to begin it.
    MISSED = "missed"

    @property
    def is_open(self) -> bool:
        """True where something is still to be done."""
        return self in (FiringState.WAITING, FiringState.RUNNING)


class Cause(str, enum.Enum):
    """Why a run begins."""

    TIME = "time"
    CATCH_UP = "catch_up"
    ASKED = "asked"


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A config whose runs begin by themselves."""

    name: str
    #: With time zone, UTC; as are the others.
    added_at: datetime.datetime
    config_text: str
    #: Where the text came from, for messages and relative paths.
    config_path: str
    #: ``--set`` and ``--only`` as they were typed.
    overrides: tuple[str, ...]
    simulated: bool
    is_paused: bool
    #: Until when on the calendar all times have been decided.
    decided_until: datetime.datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class NewFiring:
    """What was decided of one time of a schedule."""

    #: With time zone, UTC.
    due_at: datetime.datetime
    begins_at: datetime.datetime
    cause: Cause
    state: FiringState
    #: Why no run begins; ``None`` where one does.
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Firing:
    """One time of a schedule, and what came of it."""

    id: int
    schedule: str
    due_at: datetime.datetime
    begins_at: datetime.datetime
    cause: Cause
    state: FiringState
    reason: str | None = None
    #: The run's id, from the moment that it is to begin.
    run_id: str | None = None
    began_at: datetime.datetime | None = None
    ended_at: datetime.datetime | None = None
    #: What became of it: ``ok``, ``failure``, ``regression``, ``recovery``; ``None`` before its end.
    outcome: str | None = None
    #: Who was told and how that went, a line each.
    told: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantine:
    """A device or host that is put aside: runs give it no cases until the time is over or somebody releases it."""

    #: ``host/selector`` of a device, or a host's name.
    target: str
    #: With time zone, UTC.
    since: datetime.datetime
    until: datetime.datetime
    #: Cases in a row that failed there.
    failures: int
    #: Why the last of them failed.
    reason: str
    #: The run that put it aside.
    run_id: str

    def covers(self, device_id: str) -> bool:
        """Return whether a device, by its id, is put aside by this: itself or its host."""
        return self.target in (device_id, device_id.partition("/")[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A run that others are compared with, by a name."""

    name: str
    run_id: str
    #: With time zone, UTC.
    set_at: datetime.datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseFloor:
    """How far apart figures of one workload in fresh processes lie on a device, as `muster noise` measured it."""

    device_id: str
    #: A GPU's UUID; ``None`` for a CPU.
    device_uuid: str | None
    workload: Workload
    #: With time zone, UTC.
    measured_at: datetime.datetime
    run_id: str
    #: Fresh processes that it is made of, at least 2.
    processes: int
    #: Standard deviation of the processes' medians, as a share of their mean.
    between_sd: float
    #: Pooled robust standard deviation of the steps within a process, as a share of the mean.
    within_sd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSeen:
    """A device, and when a run of this store last had it."""

    device: Device
    run_id: str
    #: When that run began; with time zone, UTC.
    at: datetime.datetime
    #: How its last case there ended; ``None`` while it goes on.
    verdict: Verdict | None
    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """A workload on a device of which there are figures."""

    #: The latest case with one.
    case: Case
    #: Runs that have one.
    runs: int
    #: When the latest of them began; with time zone, UTC.
    last_at: datetime.datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """What one run has of a workload on a device."""

    run_id: str
    #: With time zone, UTC.
    created_at: datetime.datetime
    cases: tuple[CaseResult, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast a workload went on a device in an earlier run: what time estimates are made of."""

    #: Seconds from the request to the first step.
    startup_s: float
    #: Median of the counted steps, milliseconds.
    step_ms: float
