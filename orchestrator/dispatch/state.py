"""Where every device, case and attempt of a run is, and what is known of it."""

from __future__ import annotations

import bisect
import heapq
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.dispatch.deadlines import Deadlines
from orchestrator.dispatch.messages import CaseFinished
from orchestrator.dispatch.policies import HostLoad
from orchestrator.dispatch.transitions import (
    ATTEMPT_TRANSITIONS,
    CASE_TRANSITIONS,
    CLOSED,
    DEVICE_TRANSITIONS,
    AttemptState,
    CaseState,
    DeviceState,
)
from orchestrator.planning import company_key
from workers.protocol import Company, DeviceKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.dispatch.transitions import Trigger
    from workers.protocol import Case, Device, Verdict


class ImpossibleTransitionError(Exception):
    """An event came that cannot follow on what came before; the message tells the story of the case or device."""

    def __init__(self, subject: str, state: str, trigger: str, story: Sequence[StoryLine]) -> None:
        lines = "".join(f"\n  {at:12.3f}  {what}" for at, what in story) or "\n  nothing yet"
        super().__init__(f"{trigger} cannot come while {subject} is {state}; its story so far:{lines}")


#: Whose turn it is among the idle devices of a host, the smallest first: see :func:`policies.turn`; then the device's
#: own place, for several may wait for one case.
Turn: TypeAlias = tuple[int, int, int]

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
    #: The latest one; ``None`` before the first of this dispatcher.
    attempt: AttemptRecord | None = None
    #: Attempts that were made before this dispatcher, when the run was begun.
    made_before: int = 0
    #: Attempts that were given up with their device: late words of theirs change nothing.
    given_up: set[int] = field(default_factory=set)
    #: When its next attempt may begin.
    not_before: float = -math.inf
    verdict: Verdict | None = None
    reason: str | None = None
    story: list[StoryLine] = field(default_factory=list)

    @property
    def group(self) -> tuple[object, ...]:
        """What it has in common with those that it may be measured together with."""
        return company_key(self.case)

    @property
    def is_shared(self) -> bool:
        """True where it holds several devices at once."""
        return bool(self.case.peers)

    def is_led_by(self, device: Device) -> bool:
        """Return whether a device is the one that times it, and whose agent tells of it."""
        return self.case.device.id == device.id

    @property
    def made(self) -> int:
        """Attempts begun so far, earlier ones counted."""
        return self.attempt.number if self.attempt else self.made_before

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
    #: Since when it has given no sign of life; ``None`` while it does.
    silent_since: float | None = None
    #: Cases in a row that failed on its devices, and on which of them.
    failures: int = 0
    failed_on: set[str] = field(default_factory=set)
    devices: list[DeviceRecord] = field(default_factory=list)
    #: A heap of idle devices by whose turn it is; a device that has stopped being idle is dropped when it comes up.
    idle: list[tuple[Turn, DeviceRecord]] = field(default_factory=list)

    @property
    def load(self) -> HostLoad:
        """What its devices are doing."""
        return HostLoad(preparing=self.preparing, active_cpus=self.busy_cpus, active_gpus=self.busy_gpus)

    @property
    def is_mute(self) -> bool:
        """True where no device has an agent, or gets one: there is nobody who could speak."""
        return all(device.state in CLOSED or device.state is DeviceState.AWAY for device in self.devices)

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
    #: Its place among the devices of its host, from 0.
    position: int
    state: DeviceState = DeviceState.WAITING
    #: Cases still to be begun, in the plan's order; one of several devices stands in the queue of each.
    queue: list[CaseRecord] = field(default_factory=list)
    #: What it is at work on, or misses; a peer's part in an attempt may last a moment longer than the attempt.
    active: AttemptRecord | None = None
    #: Cases that hold it beside other devices and have not ended: it stays for them, should they be tried again.
    shared: list[CaseRecord] = field(default_factory=list)
    done: int = 0
    #: Whether it stands in its host's line of idle devices.
    is_in_line: bool = False
    #: Since when it has had no agent; ``None`` where it has one, or is not missed.
    away_since: float | None = None
    #: How often its agent was lost, or could not be brought up, since a case last began on it.
    losses: int = 0
    #: How often its agent has come back since then.
    returns: int = 0
    #: Cases in a row that failed on it.
    failures: int = 0
    #: It failed too often: no case begins on it any more, not even another attempt.
    is_put_aside: bool = False
    #: Why it is away or lost.
    reason: str | None = None
    story: list[StoryLine] = field(default_factory=list)

    def __str__(self) -> str:
        return f"device {self.device.id}"

    def due(self, at: float) -> CaseRecord | None:
        """Return the first case of the queue that may begin at ``at``."""
        return next((record for record in self.queue if record.not_before <= at), None)

    @property
    def is_wanted(self) -> bool:
        """True where a case is still to begin on it, or an attempt to end."""
        return self.active is not None or bool(self.queue or self.shared)

    @property
    def is_peer(self) -> bool:
        """True where it is at work for a case that another device times."""
        return self.active is not None and not self.active.case.is_led_by(self.device)

    def step_out(self) -> None:
        """Leave the line of idle devices."""
        if self.is_in_line:
            self.is_in_line = False
            self.host.idle = [entry for entry in self.host.idle if entry[1] is not self]
            heapq.heapify(self.host.idle)

    def put_back(self, record: CaseRecord) -> None:
        """Put a case back into the queue, at its place in the plan's order."""
        bisect.insort(self.queue, record, key=lambda each: each.position)


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
    #: Cases of one host that may be measured together, in the plan's order.
    groups: dict[tuple[object, ...], list[CaseRecord]] = field(default_factory=dict)

    @classmethod
    def of(cls, cases: Sequence[Case], attempts_before: Mapping[str, int] | None = None) -> Board:
        """Return the board of a run before it begins; ``attempts_before`` counts those made already, by case key.

        Raises ValueError where two cases have one key, one device id stands for two devices, or a case holds one twice.
        """
        board = cls()
        for position, case in enumerate(cases):
            if case.key in board.cases:
                raise ValueError(f"two cases of the plan have the key {case.key}")
            if len({device.id for device in case.devices}) < len(case.devices):
                raise ValueError(f"case {case.key} holds a device twice")
            made_before = (attempts_before or {}).get(case.key, 0)
            record = CaseRecord(case=case, position=position, made_before=made_before)
            board.cases[case.key] = record
            for device in map(board._device_of, case.devices):
                device.queue.append(record)
                device.shared += [record] if record.is_shared else []
            if case.company is Company.TOGETHER:
                board.groups.setdefault(record.group, []).append(record)
        board.counts[CaseState.QUEUED] = len(board.cases)
        board.open_devices = len(board.devices)
        return board

    def devices_of(self, record: CaseRecord) -> tuple[DeviceRecord, ...]:
        """Return the devices that a case holds, by rank."""
        return tuple(self.devices[device.id] for device in record.case.devices)

    def take_out(self, record: CaseRecord) -> None:
        """Take a case out of the queue of each of its devices."""
        for device in self.devices_of(record):
            device.queue.remove(record)

    def put_back(self, record: CaseRecord) -> None:
        """Put a case back into the queue of each of its devices, at its place in the plan's order."""
        for device in self.devices_of(record):
            device.put_back(record)

    def _device_of(self, device: Device) -> DeviceRecord:
        known = self.devices.get(device.id)
        if known is None:
            host = self.hosts.setdefault(device.host, HostRecord(name=device.host))
            known = self.devices[device.id] = DeviceRecord(device=device, host=host, position=len(host.devices))
            host.devices.append(known)
        elif known.device != device:
            raise ValueError(f"two devices of the plan are called {device.id}")
        return known

    def move_device(self, record: DeviceRecord, trigger: Trigger, at: float) -> bool:
        """Move a device as ``trigger`` says; return False where that leaves it as it is, for it came too late.

        Raises :class:`ImpossibleTransitionError`.
        """
        state = DEVICE_TRANSITIONS.get((record.state, trigger))
        if state is None:
            raise ImpossibleTransitionError(str(record), record.state.value, trigger.__name__, record.story)
        record.story.append((at, trigger.__name__))
        if state is record.state:
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
        if trigger is not CaseFinished:  # which its attempt has told
            record.tell(at, trigger)
        self.counts[record.state] -= 1
        self.counts[state] += 1
        record.state = state

    def move_attempt(self, record: CaseRecord, number: int, trigger: Trigger, at: float) -> AttemptState | None:
        """Move attempt ``number`` of a case as ``trigger`` says; return its new state, or ``None`` if it stays.

        What is heard of an attempt that was given up changes nothing, also while a later one goes on. Raises
        :class:`ImpossibleTransitionError`, also where the case's latest attempt has another number: an attempt begins
        only after the one before it has ended.
        """
        if number in record.given_up:
            return None
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
