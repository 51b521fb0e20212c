"""The seam between deciding and acting: an engine turns commands into acts and reports what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from orchestrator.dispatch.messages import (
    AcknowledgeResult,
    CancelCase,
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeviceLost,
    DeviceReady,
    HostHeard,
    HostSilent,
    PeerFinished,
    PrepareDevice,
    ReleaseDevice,
    ResultRecovered,
    StartCase,
)
from workers.protocol import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What an engine can be told to do.
Act: TypeAlias = PrepareDevice | StartCase | CancelCase | ReleaseDevice | AcknowledgeResult

#: What an engine can tell of: events for the dispatcher, and progress for people.
Occurrence: TypeAlias = (
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
    | Progress
)


class Engine(Protocol):
    """Carries out commands; every act is answered by an occurrence, sooner or later, or by none if its host is gone.

    ``PrepareDevice`` is answered by ``DeviceReady`` or ``DeviceLost``; ``StartCase`` by ``CaseStarted``, any number of
    ``Progress``, ``CaseMeasured`` and ``CaseFinished``, or by ``DeviceLost``; where somebody else has the device, by
    ``CaseWaiting``, once or more, and ``CaseGranted`` before. A cancelled case still ends with ``CaseFinished``. Events
    are stamped with :meth:`now`.

    Where a case has peers, each of these is answered for by a ``PeerFinished`` as well, once the case's own device has
    ended the attempt or is lost, or by a ``DeviceLost`` of its own.

    A device that was lost may be prepared again, any number of times: the engine finds out whether its host is back and
    brings up another agent. Between ``PrepareDevice`` and ``DeviceReady`` come the results that the host still keeps of
    this run and device, each as ``ResultRecovered``: all that finished and were never acknowledged. Results are kept
    there until ``AcknowledgeResult``, which is answered by nothing. ``HostSilent`` and ``HostHeard`` come by turns, for
    hosts with a prepared device; while a host is silent its acts are still under way. A call that was cut off is taken
    up again by the engine: ``DeviceLost`` means that the agent itself is gone.
    """

    #: True where figures are invented: every row says so.
    simulated: bool

    def now(self) -> float:
        """Return seconds on the engine's clock, which never goes back; virtual where the engine is simulated."""

    async def start(self, act: Act) -> None:
        """Begin ``act``; never waits for its end and never raises for what happens to a case."""

    async def occurrences(self, until: float | None) -> Sequence[Occurrence]:
        """Return what has happened, at least one unless ``until`` (on the engine's clock) came first."""

    async def close(self) -> None:
        """End every agent and child that this engine started; safe to call twice."""
