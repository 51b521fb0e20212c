"""The times of a schedule, by cron line and time zone. Pure.

Daylight saving is as in Debian's cron, by cronsim: a time that the clocks jump over comes at the end of the jump, one
that they pass twice comes once; lines with ``*`` in minutes or hours come as real time goes.
"""

from __future__ import annotations

import datetime
import hashlib
import zoneinfo
from typing import TYPE_CHECKING, Final

from cronsim import CronSim

from orchestrator.config.scheduling import DAYS, QUIET_FORM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.config.scheduling import ScheduleConfig

_UTC: Final = datetime.timezone.utc

#: Times in quiet windows that are passed over before a schedule counts as one that never comes, and for how long.
_MOST_QUIET: Final = 100_000
_LONGEST_QUIET: Final = datetime.timedelta(days=20 * 366)


def times(schedule: ScheduleConfig, after: datetime.datetime) -> Iterator[datetime.datetime]:
    """Give the times at which runs are due, later than ``after``, in UTC; without end, unless the schedule has one.

    Times in quiet windows are left out. Ends where nothing comes any more, or only in quiet windows.
    """
    zone = zoneinfo.ZoneInfo(schedule.timezone)
    last = None if schedule.ends is None else datetime.date.fromisoformat(schedule.ends)
    comes, since, passed_over = CronSim(schedule.cron, after.astimezone(zone)), after, 0
    while True:
        time = next(comes)
        if (last is not None and time.date() > last) or passed_over > _MOST_QUIET or time - since > _LONGEST_QUIET:
            return
        if is_quiet(schedule.quiet or (), time):
            passed_over += 1
            continue
        since, passed_over = time, 0
        yield time.astimezone(_UTC)


def is_quiet(windows: Sequence[str], time: datetime.datetime) -> bool:
    """Return whether a time, in the schedule's zone, lies in a quiet window; a window's end is outside of it.

    A window whose end is before its beginning goes on into the next day; its weekdays are those of its beginning.
    """
    return any(_lies_in(window, time) for window in windows)


def _lies_in(window: str, time: datetime.datetime) -> bool:
    found = QUIET_FORM.fullmatch(window)
    if found is None:
        raise ValueError(f"{window!r} is no quiet window")
    begin, end = (datetime.time.fromisoformat(found[name]) for name in ("from", "to"))
    days, clock = _days(found["days"]), time.time()
    if begin < end:
        return time.weekday() in days and begin <= clock < end
    return (time.weekday() in days and clock >= begin) or ((time.weekday() - 1) % 7 in days and clock < end)


def _days(text: str | None) -> frozenset[int]:
    """Return weekdays from 0 for Monday; ``fri-mon`` goes over Sunday."""
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return frozenset(found)


def begins_at(schedule: ScheduleConfig, name: str, due_at: datetime.datetime) -> datetime.datetime:
    """Return when the run that is due begins: up to the jitter later, the same for whoever asks."""
    if schedule.jitter_s is None:
        return due_at
    digest = hashlib.sha256(f"{name} {due_at.astimezone(_UTC).isoformat()}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return due_at + datetime.timedelta(seconds=share * schedule.jitter_s)
