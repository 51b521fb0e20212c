"""Where devices, cases and attempts are, how they may move, and what must hold after every event.

::

    device    waiting ─► preparing ─► idle ◄─► busy          and from any of the last three ─► released | lost
    case      queued ◄─► active                              and from queued ─► done
    attempt   starting ─► running ─► collecting ─► done      and from any of them ─► cancelling ─► done | lost
              starting ◄─► waiting                           for another muster to let go of the device

The tables below say which message moves what; a move that they do not hold is a mistake in muster, never in a lab.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from orchestrator.dispatch.deadlines import Deadlines
from orchestrator.dispatch.messages import (
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    Command,
    DeadlinePassed,
    DeviceLost,
    DeviceReady,
    Event,
    PrepareDevice,
    RecordAttempt,
    RecordVerdict,
    ReleaseDevice,
    StartCase,
    StopRequested,
)
from orchestrator.dispatch.policies import HostLoad
from workers.protocol import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workers.protocol import Case, Device, Verdict


class DeviceState(str, enum.Enum):
    """Where a device is."""

    WAITING = "waiting"
    PREPARING = "preparing"
    IDLE = "idle"
    BUSY = "busy"
    #: It has nothing left to do, and its agent was told to end.
    RELEASED = "released"
    #: Its agent could not be started, is gone, or does not answer.
    LOST = "lost"


class CaseState(str, enum.Enum):
    """Where a case is; a case between two attempts is queued again."""

    QUEUED = "queued"
    ACTIVE = "active"
    DONE = "done"


class AttemptState(str, enum.Enum):
    """Where an attempt is."""

    STARTING = "starting"
    #: Another case, most likely of another muster, has the device or its host.
    WAITING = "waiting"
    RUNNING = "running"
    #: Measured; its result is on the way to the head.
    COLLECTING = "collecting"
    #: Its agent was told to end it.
    CANCELLING = "cancelling"
    DONE = "done"
    #: Over without a result, for its device was lost.
    LOST = "lost"


#: What moves a device, a case or an attempt: the type of an event or of a command.
Trigger: TypeAlias = type[Event] | type[Command]

#: A released or lost device stays so: its agent may have spoken before it heard of that, and it may be seen to go.
DEVICE_TRANSITIONS: Final[Mapping[tuple[DeviceState, Trigger], DeviceState]] = {
    (DeviceState.WAITING, PrepareDevice): DeviceState.PREPARING,
    (DeviceState.PREPARING, DeviceReady): DeviceState.IDLE,
    (DeviceState.PREPARING, DeviceLost): DeviceState.LOST,
    (DeviceState.PREPARING, ReleaseDevice): DeviceState.RELEASED,
    (DeviceState.IDLE, StartCase): DeviceState.BUSY,
    (DeviceState.IDLE, DeviceLost): DeviceState.LOST,
    (DeviceState.IDLE, ReleaseDevice): DeviceState.RELEASED,
    (DeviceState.BUSY, CaseFinished): DeviceState.IDLE,
    (DeviceState.BUSY, DeviceLost): DeviceState.LOST,
    (DeviceState.RELEASED, DeviceReady): DeviceState.RELEASED,
    (DeviceState.RELEASED, DeviceLost): DeviceState.RELEASED,
    (DeviceState.LOST, DeviceReady): DeviceState.LOST,
    (DeviceState.LOST, DeviceLost): DeviceState.LOST,
}

CASE_TRANSITIONS: Final[Mapping[tuple[CaseState, Trigger], CaseState]] = {
    (CaseState.QUEUED, StartCase): CaseState.ACTIVE,
    (CaseState.ACTIVE, CaseFinished): CaseState.QUEUED,
    (CaseState.ACTIVE, RecordAttempt): CaseState.QUEUED,
    (CaseState.QUEUED, RecordVerdict): CaseState.DONE,
}

#: An attempt that is being cancelled may have spoken before its agent heard of it, and one that was given up may still
#: be heard of once its host is reachable again: what they say changes nothing. A stop leaves a measured attempt alone,
#: for its result is on the way. Nothing can follow on a ``CaseFinished`` that was taken.
ATTEMPT_TRANSITIONS: Final[Mapping[tuple[AttemptState, Trigger], AttemptState]] = {
    (AttemptState.STARTING, CaseWaiting): AttemptState.WAITING,
    (AttemptState.STARTING, CaseStarted): AttemptState.RUNNING,
    (AttemptState.STARTING, CaseMeasured): AttemptState.COLLECTING,  # a child may end before it warms up: unsupported
    (AttemptState.STARTING, CaseFinished): AttemptState.DONE,
    (AttemptState.STARTING, DeadlinePassed): AttemptState.CANCELLING,
    (AttemptState.STARTING, StopRequested): AttemptState.CANCELLING,
    (AttemptState.STARTING, DeviceLost): AttemptState.LOST,
    (AttemptState.WAITING, CaseWaiting): AttemptState.WAITING,  # somebody else has it now
    (AttemptState.WAITING, CaseGranted): AttemptState.STARTING,
    (AttemptState.WAITING, CaseFinished): AttemptState.DONE,  # waited long enough
    (AttemptState.WAITING, DeadlinePassed): AttemptState.CANCELLING,
    (AttemptState.WAITING, StopRequested): AttemptState.CANCELLING,
    (AttemptState.WAITING, DeviceLost): AttemptState.LOST,
    (AttemptState.RUNNING, CaseMeasured): AttemptState.COLLECTING,
    (AttemptState.RUNNING, CaseFinished): AttemptState.DONE,  # a child that crashed has no last word
    (AttemptState.RUNNING, DeadlinePassed): AttemptState.CANCELLING,
    (AttemptState.RUNNING, StopRequested): AttemptState.CANCELLING,
    (AttemptState.RUNNING, DeviceLost): AttemptState.LOST,
    (AttemptState.COLLECTING, CaseFinished): AttemptState.DONE,
    (AttemptState.COLLECTING, DeadlinePassed): AttemptState.CANCELLING,
    (AttemptState.COLLECTING, StopRequested): AttemptState.COLLECTING,
    (AttemptState.COLLECTING, DeviceLost): AttemptState.LOST,
    (AttemptState.CANCELLING, CaseWaiting): AttemptState.CANCELLING,
    (AttemptState.CANCELLING, CaseGranted): AttemptState.CANCELLING,
    (AttemptState.CANCELLING, CaseStarted): AttemptState.CANCELLING,
    (AttemptState.CANCELLING, CaseMeasured): AttemptState.CANCELLING,
    (AttemptState.CANCELLING, CaseFinished): AttemptState.DONE,
    (AttemptState.CANCELLING, StopRequested): AttemptState.CANCELLING,
    (AttemptState.CANCELLING, DeviceLost): AttemptState.LOST,
    (AttemptState.LOST, CaseWaiting): AttemptState.LOST,
    (AttemptState.LOST, CaseGranted): AttemptState.LOST,
    (AttemptState.LOST, CaseStarted): AttemptState.LOST,
    (AttemptState.LOST, CaseMeasured): AttemptState.LOST,
    (AttemptState.LOST, CaseFinished): AttemptState.LOST,
}

#: Attempts in these states have ended.
OVER: Final = frozenset({AttemptState.DONE, AttemptState.LOST})

#: Devices in these states take no more cases.
CLOSED: Final = frozenset({DeviceState.RELEASED, DeviceState.LOST})


class ImpossibleTransitionError(Exception):
    """An event came that cannot follow on what came before; the message tells the story of the case or device."""

    def __init__(self, subject: str, state: str, trigger: str, story: Sequence[StoryLine]) -> None:
        lines = "".join(f"\n  {at:12.3f}  {what}" for at, what in story) or "\n  nothing yet"
        super().__init__(f"{trigger} cannot come while {subject} is {state}; its story so far:{lines}")


#: When something happened, in seconds on the run's clock, and what.
StoryLine: TypeAlias = tuple[float, str]


@dataclass(kw_only=True, slots=True, eq=False)
class AttemptRecord:
    """One try of a case, as it goes on."""

    case: CaseRecord
    number: int
    state: AttemptState = AttemptState.STARTING
    #: Who has the device, and since when, as it was last told.
    waits_for: str | None = None
    #: Why it was told to end, once it was.
    cancel_reason: str | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class CaseRecord:
    """A case, as it goes on."""

    case: Case
    #: Its place in the plan, from 0.
    position: int
    state: CaseState = CaseState.QUEUED
    #: The latest one; ``None`` before the first.
    attempt: AttemptRecord | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    story: list[StoryLine] = field(default_factory=list)

    def tell(self, at: float, trigger: Trigger) -> None:
        """Add a line to the story."""
        tried = f" (attempt {self.attempt.number})" if self.attempt else ""
        self.story.append((at, trigger.__name__ + tried))

    def __str__(self) -> str:
        tried = f"attempt {self.attempt.number} of " if self.attempt else ""
        return f"{tried}case {self.case.key} on {self.case.device.id}"


@dataclass(kw_only=True, slots=True, eq=False)
class HostRecord:
    """What is going on at a host."""

    name: str
    preparing: int = 0
    busy_cpus: int = 0
    busy_gpus: int = 0
    #: A heap of idle devices by whose turn it is; a device that has stopped being idle is dropped when it comes up.
    idle: list[tuple[tuple[int, int], DeviceRecord]] = field(default_factory=list)

    @property
    def load(self) -> HostLoad:
        """What its devices are doing."""
        return HostLoad(preparing=self.preparing, active_cpus=self.busy_cpus, active_gpus=self.busy_gpus)

    def count(self, device: DeviceRecord, change: int) -> None:
        """Count a device in (+1) or out (-1), by its state."""
        if device.state is DeviceState.PREPARING:
            self.preparing += change
        elif device.state is DeviceState.BUSY and device.device.kind is DeviceKind.CPU:
            self.busy_cpus += change
        elif device.state is DeviceState.BUSY:
            self.busy_gpus += change


@dataclass(kw_only=True, slots=True, eq=False)
class DeviceRecord:
    """A device, as it goes on."""

    device: Device
    host: HostRecord
    state: DeviceState = DeviceState.WAITING
    #: Cases still to be begun, in the plan's order.
    queue: deque[CaseRecord] = field(default_factory=deque)
    active: AttemptRecord | None = None
    done: int = 0
    #: Why it was lost.
    reason: str | None = None
    story: list[StoryLine] = field(default_factory=list)

    def __str__(self) -> str:
        return f"device {self.device.id}"


@dataclass(kw_only=True, slots=True, eq=False)
class Board:
    """Everything that the dispatcher knows of a run."""

    cases: dict[str, CaseRecord] = field(default_factory=dict)
    devices: dict[str, DeviceRecord] = field(default_factory=dict)
    hosts: dict[str, HostRecord] = field(default_factory=dict)
    deadlines: Deadlines = field(default_factory=Deadlines)
    #: How many cases are in each state.
    counts: dict[CaseState, int] = field(default_factory=lambda: dict.fromkeys(CaseState, 0))
    open_devices: int = 0

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Board:
        """Return the board of a run before it begins.

        Raises ValueError where two cases have one key, or one device id stands for two devices.
        """
        board = cls()
        for position, case in enumerate(cases):
            if case.key in board.cases:
                raise ValueError(f"two cases of the plan have the key {case.key}")
            record = CaseRecord(case=case, position=position)
            board.cases[case.key] = record
            board._device_of(case.device).queue.append(record)
        board.counts[CaseState.QUEUED] = len(board.cases)
        board.open_devices = len(board.devices)
        return board

    def _device_of(self, device: Device) -> DeviceRecord:
        known = self.devices.get(device.id)
        if known is None:
            host = self.hosts.setdefault(device.host, HostRecord(name=device.host))
            known = self.devices[device.id] = DeviceRecord(device=device, host=host)
        elif known.device != device:
            raise ValueError(f"two devices of the plan are called {device.id}")
        return known

    def move_device(self, record: DeviceRecord, trigger: Trigger, at: float) -> bool:
        """Move a device as ``trigger`` says; return False where it is closed already and the trigger came too late.

        Raises :class:`ImpossibleTransitionError`.
        """
        state = DEVICE_TRANSITIONS.get((record.state, trigger))
        if state is None:
            raise ImpossibleTransitionError(str(record), record.state.value, trigger.__name__, record.story)
        record.story.append((at, trigger.__name__))
        if record.state in CLOSED:
            return False
        record.host.count(record, -1)
        record.state = state
        record.host.count(record, +1)
        self.deadlines.clear(record.device.id)
        self.open_devices -= state in CLOSED
        return True

    def move_case(self, record: CaseRecord, trigger: Trigger, at: float) -> None:
        """Move a case as ``trigger`` says; raises :class:`ImpossibleTransitionError`."""
        state = CASE_TRANSITIONS.get((record.state, trigger))
        if state is None:
            raise ImpossibleTransitionError(str(record), record.state.value, trigger.__name__, record.story)
        if trigger is not CaseFinished:  # which its attempt has told already
            record.tell(at, trigger)
        self.counts[record.state] -= 1
        self.counts[state] += 1
        record.state = state

    def move_attempt(self, record: CaseRecord, number: int, trigger: Trigger, at: float) -> AttemptState | None:
        """Move attempt ``number`` of a case as ``trigger`` says; return its new state, or ``None`` if it stays.

        Raises :class:`ImpossibleTransitionError`, also where the case's latest attempt has another number: an attempt
        begins only after the one before it has ended with its ``CaseFinished``.
        """
        attempt = record.attempt
        state = ATTEMPT_TRANSITIONS.get((attempt.state, trigger)) if attempt and attempt.number == number else None
        if attempt is None or state is None:
            now = attempt.state.value if attempt else record.state.value
            raise ImpossibleTransitionError(str(record), now, f"{trigger.__name__} of attempt {number}", record.story)
        record.tell(at, trigger)
        if state is attempt.state:
            return None
        attempt.state = state
        return state
