"""What becomes of the times of a schedule: which begin a run, which are left out, and why. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.config.scheduling import CatchUp, Overlap
from orchestrator.results import Cause, FiringState, NewFiring
from orchestrator.schedules.calendar import begins_at, times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.scheduling import ScheduleConfig

#: A scheduler that is late by less has missed nothing: it was busy, or the machine was.
PUNCTUAL: Final = datetime.timedelta(seconds=90)

#: Of times that passed while nobody was at work, so many are written down one by one; older ones only counted.
MOST_TOLD: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of all times up to a moment."""

    firings: tuple[NewFiring, ...]
    #: Until when on the calendar everything is decided.
    decided_until: datetime.datetime


def decide(
    schedule: ScheduleConfig,
    name: str,
    *,
    decided_until: datetime.datetime,
    now: datetime.datetime,
    open_firings: int,
    is_paused: bool,
) -> Decision:
    """Return what becomes of the times after ``decided_until`` up to ``now``, in their order.

    ``open_firings`` counts those of this schedule that wait or run. A time that is past by more than
    :data:`PUNCTUAL` was missed; of several, ``catch_up: one`` makes the last one up. What is due while a run goes on is
    skipped, or queued behind it: one at most waits. While a schedule is paused its times are skipped.
    """
    due = _until(schedule, decided_until, now)
    late = [time for time in due if now - time > PUNCTUAL]
    found: list[NewFiring] = []
    waiting = open_firings
    for time in due[-MOST_TOLD:]:
        is_late = time in late
        is_made_up = is_late and schedule.catch_up is CatchUp.ONE and time == late[-1] and len(late) == len(due)
        firing = _one(schedule, name, time, waiting, is_paused=is_paused, is_missed=is_late and not is_made_up)
        if is_made_up and firing.state is FiringState.WAITING:
            firing = NewFiring(due_at=time, begins_at=now, cause=Cause.CATCH_UP, state=FiringState.WAITING)
        waiting += firing.state is FiringState.WAITING
        found.append(firing)
    return Decision(firings=tuple(found), decided_until=max(now, decided_until))


def _until(schedule: ScheduleConfig, after: datetime.datetime, now: datetime.datetime) -> Sequence[datetime.datetime]:
    found = []
    for time in times(schedule, after):
        if time > now:
            break
        found.append(time)
    return found


def _one(
    schedule: ScheduleConfig,
    name: str,
    time: datetime.datetime,
    waiting: int,
    *,
    is_paused: bool,
    is_missed: bool,
) -> NewFiring:
    state, reason = FiringState.WAITING, None
    if is_paused:
        state, reason = FiringState.SKIPPED, "the schedule was paused"
    elif is_missed:
        state, reason = FiringState.MISSED, "no scheduler was at work"
    elif waiting and schedule.overlap is Overlap.SKIP:
        state, reason = FiringState.SKIPPED, "the run before it still went on"
    elif waiting > 1:
        state, reason = FiringState.SKIPPED, "one was queued already behind a run that still went on"
    return NewFiring(
        due_at=time, begins_at=begins_at(schedule, name, time), cause=Cause.TIME, state=state, reason=reason
    )
