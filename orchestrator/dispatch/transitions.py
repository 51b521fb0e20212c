"""How devices, cases and attempts may move: where they can be, and which message moves what.

::

    device    waiting ─► preparing ─► idle ◄─► busy          and from any of the last three ─► released | away
              away ─► preparing | lost                       for its agent, or its host, may come back
    case      queued ◄─► active                              and from queued ─► done
    attempt   starting ─► running ─► collecting ─► done      and from any of them ─► cancelling ─► done
              starting ◄─► waiting                           for another muster to let go of the device
              any of them ─► missing ─► done | lost          with its agent: the host may keep its result

The tables below say which message moves what; a move that they do not hold is a mistake in muster, never in a lab.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, TypeAlias

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
    PeerFinished,
    PrepareDevice,
    RecordAttempt,
    RecordVerdict,
    ReleaseDevice,
    ResultRecovered,
    StartCase,
    StopRequested,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class DeviceState(str, enum.Enum):
    """Where a device is."""

    WAITING = "waiting"
    PREPARING = "preparing"
    IDLE = "idle"
    BUSY = "busy"
    #: Its agent is gone; another one is tried until the host's grace is over.
    AWAY = "away"
    #: It has nothing left to do, and its agent was told to end.
    RELEASED = "released"
    #: Its agent could not be started, did not come back, or does not answer.
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
    #: Its agent is gone, and nobody knows yet whether the host keeps a result of it.
    MISSING = "missing"
    DONE = "done"
    #: Over without a result, for its device was lost.
    LOST = "lost"


#: What moves a device, a case or an attempt: the type of an event or of a command.
Trigger: TypeAlias = type[Event] | type[Command]

#: A released or lost device stays so: its agent may have spoken before it heard of that, and it may be seen to go.
DEVICE_TRANSITIONS: Final[Mapping[tuple[DeviceState, Trigger], DeviceState]] = {
    (DeviceState.WAITING, PrepareDevice): DeviceState.PREPARING,
    (DeviceState.PREPARING, DeviceReady): DeviceState.IDLE,
    (DeviceState.PREPARING, DeviceLost): DeviceState.AWAY,
    (DeviceState.PREPARING, ReleaseDevice): DeviceState.RELEASED,
    (DeviceState.IDLE, StartCase): DeviceState.BUSY,
    (DeviceState.IDLE, DeviceLost): DeviceState.AWAY,
    (DeviceState.IDLE, ReleaseDevice): DeviceState.RELEASED,
    (DeviceState.BUSY, CaseFinished): DeviceState.IDLE,
    (DeviceState.BUSY, PeerFinished): DeviceState.IDLE,
    (DeviceState.BUSY, DeviceLost): DeviceState.AWAY,
    (DeviceState.AWAY, DeviceReady): DeviceState.AWAY,  # said before it went
    (DeviceState.AWAY, DeviceLost): DeviceState.AWAY,  # told twice
    (DeviceState.AWAY, PrepareDevice): DeviceState.PREPARING,
    (DeviceState.AWAY, ReleaseDevice): DeviceState.LOST,
    (DeviceState.RELEASED, DeviceReady): DeviceState.RELEASED,
    (DeviceState.RELEASED, DeviceLost): DeviceState.RELEASED,
    (DeviceState.LOST, DeviceReady): DeviceState.LOST,
    (DeviceState.LOST, DeviceLost): DeviceState.LOST,
}

CASE_TRANSITIONS: Final[Mapping[tuple[CaseState, Trigger], CaseState]] = {
    (CaseState.QUEUED, StartCase): CaseState.ACTIVE,
    (CaseState.ACTIVE, CaseFinished): CaseState.QUEUED,
    (CaseState.ACTIVE, RecordAttempt): CaseState.QUEUED,
    (CaseState.ACTIVE, ResultRecovered): CaseState.QUEUED,
    (CaseState.QUEUED, ResultRecovered): CaseState.QUEUED,  # of an attempt that an earlier head began
    (CaseState.QUEUED, RecordVerdict): CaseState.DONE,
}

_ACTIVE: Final = (
    AttemptState.STARTING,
    AttemptState.WAITING,
    AttemptState.RUNNING,
    AttemptState.COLLECTING,
    AttemptState.CANCELLING,
)

#: What is heard of an attempt while it goes on.
_NEWS: Final[tuple[Trigger, ...]] = (CaseWaiting, CaseGranted, CaseStarted, CaseMeasured)

#: An attempt that is being cancelled or is missing may have spoken before, and one that was given up may still be heard
#: of once its host is reachable again: what they say changes nothing. A stop leaves a measured attempt alone, for its
#: result is on the way. Nothing can follow on a result that was taken.
ATTEMPT_TRANSITIONS: Final[Mapping[tuple[AttemptState, Trigger], AttemptState]] = {
    (AttemptState.STARTING, CaseWaiting): AttemptState.WAITING,
    (AttemptState.STARTING, CaseStarted): AttemptState.RUNNING,
    (AttemptState.STARTING, CaseMeasured): AttemptState.COLLECTING,  # a child may end before it warms up: unsupported
    (AttemptState.STARTING, DeadlinePassed): AttemptState.CANCELLING,
    (AttemptState.STARTING, StopRequested): AttemptState.CANCELLING,
    (AttemptState.WAITING, CaseWaiting): AttemptState.WAITING,  # somebody else has it now
    (AttemptState.WAITING, CaseGranted): AttemptState.STARTING,
    (AttemptState.WAITING, DeadlinePassed): AttemptState.CANCELLING,
    (AttemptState.WAITING, StopRequested): AttemptState.CANCELLING,
    (AttemptState.RUNNING, CaseMeasured): AttemptState.COLLECTING,
    (AttemptState.RUNNING, DeadlinePassed): AttemptState.CANCELLING,
    (AttemptState.RUNNING, StopRequested): AttemptState.CANCELLING,
    (AttemptState.COLLECTING, DeadlinePassed): AttemptState.CANCELLING,
    (AttemptState.COLLECTING, StopRequested): AttemptState.COLLECTING,
    (AttemptState.CANCELLING, StopRequested): AttemptState.CANCELLING,
    (AttemptState.MISSING, ResultRecovered): AttemptState.DONE,
    (AttemptState.MISSING, CaseFinished): AttemptState.DONE,
    (AttemptState.MISSING, RecordAttempt): AttemptState.LOST,
    (AttemptState.LOST, CaseFinished): AttemptState.LOST,
    **{(state, CaseFinished): AttemptState.DONE for state in _ACTIVE},
    **{(state, DeviceLost): AttemptState.MISSING for state in _ACTIVE},
    **{
        (state, trigger): state
        for state in (AttemptState.CANCELLING, AttemptState.MISSING, AttemptState.LOST)
        for trigger in _NEWS
    },
}

#: Attempts in these states have ended.
OVER: Final = frozenset({AttemptState.DONE, AttemptState.LOST})

#: Devices in these states take no more cases.
CLOSED: Final = frozenset({DeviceState.RELEASED, DeviceState.LOST})
