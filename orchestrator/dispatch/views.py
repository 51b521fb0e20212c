"""What the dispatcher shows of itself to the progress display and to tests: snapshots that nobody can change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.dispatch.transitions import AttemptState

if TYPE_CHECKING:
    from orchestrator.dispatch.state import CaseRecord, DeviceRecord
    from orchestrator.dispatch.transitions import CaseState, DeviceState
    from workers.protocol import Case, Device, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseCounts:
    """How many cases are in which state."""

    queued: int
    active: int
    done: int

    @property
    def total(self) -> int:
        """All cases of the plan."""
        return self.queued + self.active + self.done


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseView:
    """A case at one moment."""

    case: Case
    state: CaseState
    #: Attempts begun so far.
    attempts: int
    #: Where the latest attempt is; ``None`` before the first.
    attempt_state: AttemptState | None
    #: Who has the device, and since when, while the latest attempt waits for it.
    waits_for: str | None
    #: ``None`` while the case is not done.
    verdict: Verdict | None
    #: Why there is no figure, or why it is doubtful.
    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceView:
    """A device at one moment."""

    device: Device
    state: DeviceState
    #: The case that it works on; ``None`` where it works on none.
    active: CaseView | None
    #: Cases that it has still to begin, and that have ended.
    queued: int
    done: int
    #: Why it is away or lost; ``None`` where it is neither.
    reason: str | None


def view_of_case(record: CaseRecord) -> CaseView:
    """Return a case as it is now."""
    return CaseView(
        case=record.case,
        state=record.state,
        attempts=record.attempt.number if record.attempt else 0,
        attempt_state=record.attempt.state if record.attempt else None,
        waits_for=_waits_for(record),
        verdict=record.verdict,
        reason=record.reason,
    )


def _waits_for(record: CaseRecord) -> str | None:
    attempt = record.attempt
    return attempt.waits_for if attempt is not None and attempt.state is AttemptState.WAITING else None


def view_of_device(record: DeviceRecord) -> DeviceView:
    """Return a device as it is now."""
    return DeviceView(
        device=record.device,
        state=record.state,
        active=view_of_case(record.active.case) if record.active else None,
        queued=len(record.queue),
        done=record.done,
        reason=record.reason,
    )
