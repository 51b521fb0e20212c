"""Events that the dispatcher takes, and commands that it gives. Events are past tense, commands imperative.

Every event carries ``at``: seconds on the run's clock, stamped by whoever saw it happen. The dispatcher has no other
notion of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from workers.protocol import Case, Device, Result, Together, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceReady:
    """The agent of a device is up and waits for a case."""

    at: float
    device_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceLost:
    """The agent of a device could not be started, or is gone with whatever it was doing."""

    at: float
    device_id: str
    reason: str
    #: Another agent would fare no better: its host never came into the cluster, and will not.
    is_final: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseWaiting:
    """Another case, most likely of another muster, has the device or its host: the agent waits for it to end.

    Or the agent looks for the largest batch that fits, and tells how far it has come.
    """

    at: float
    case_key: str
    attempt: int
    #: Who has it, and since when, or what has fitted; told again whenever that changes.
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseGranted:
    """The wait is over and the device is ours: the child is being started."""

    at: float
    case_key: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseStarted:
    """The child has built its step and begins to warm up."""

    at: float
    case_key: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseMeasured:
    """The child has said its last word; its result is being collected."""

    at: float
    case_key: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseFinished:
    """An attempt has ended and its result is on the head."""

    at: float
    case_key: str
    attempt: int
    result: Result


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerFinished:
    """A device that an attempt held beside the one which times it has ended its part, in whatever way."""

    at: float
    device_id: str
    case_key: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRecovered:
    """An agent that has just come up found the result of an attempt on its host that the head never acknowledged."""

    at: float
    case_key: str
    attempt: int
    result: Result


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSilent:
    """A host has given no sign of life for longer than our heartbeat allows; it may come back."""

    at: float
    host: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HostHeard:
    """A host that was silent gives signs of life again."""

    at: float
    host: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadlinePassed:
    """The time that :attr:`Dispatcher.next_deadline` named has come."""

    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRequested:
    """Somebody wants the run to end: no new case; with ``now``, running ones are cancelled as well."""

    at: float
    now: bool
    reason: str


Event: TypeAlias = (
    DeviceReady
    | DeviceLost
    | CaseWaiting
    | CaseGranted
    | CaseStarted
    | CaseMeasured
    | CaseFinished
    | PeerFinished
    | ResultRecovered
    | HostSilent
    | HostHeard
    | DeadlinePassed
    | StopRequested
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareDevice:
    """Start the agent of a device."""

    device: Device


@dataclass(frozen=True, kw_only=True, slots=True)
class StartCase:
    """Give a case to its device's agent, and to those of its peers, where it has any."""

    case: Case
    #: Counts from 1 within the case.
    attempt: int
    #: The cases that are begun with it, and that it waits for before it counts steps.
    together: Together | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelCase:
    """End an attempt: kill its child. It still answers with ``CaseFinished``, or its device is lost."""

    case_key: str
    attempt: int
    #: What its result will say.
    verdict: Verdict
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseDevice:
    """Nothing is left for a device: end its agent."""

    device_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordAttempt:
    """An attempt ended without a result of its own, for its device was lost: write down why."""

    case_key: str
    attempt: int
    verdict: Verdict
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordVerdict:
    """A case has its final verdict: write it down."""

    case_key: str
    verdict: Verdict
    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AcknowledgeResult:
    """The store has the result of an attempt: its agent may forget it. Given by the runner, not by the dispatcher."""

    device_id: str
    case_key: str
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PutAside:
    """A device or a host has failed too often in a row: it gets no more cases, in this run and for a while after."""

    #: ``host/selector`` of a device, or a host's name.
    target: str
    failures: int
    #: Why the last of them failed.
    reason: str


Command: TypeAlias = (
    PrepareDevice
    | StartCase
    | CancelCase
    | ReleaseDevice
    | RecordAttempt
    | RecordVerdict
    | AcknowledgeResult
    | PutAside
)
