"""Schedules as they stand in a store: their configs, when each runs next, and what came of its times."""

from __future__ import annotations

import datetime
import functools
import itertools
from typing import TYPE_CHECKING

from typing_extensions import TypedDict

from orchestrator.config.load import load_text
from orchestrator.config.overrides import from_typed
from orchestrator.errors import ConfigError, MusterError, UnknownNameError
from orchestrator.schedules.calendar import begins_at, times

if TYPE_CHECKING:
    from orchestrator.config.load import Loaded
    from orchestrator.config.scheduling import ScheduleConfig
    from orchestrator.results import Firing, Schedule
    from orchestrator.store.schedules import ScheduleBook


def loaded_of(schedule: Schedule) -> Loaded:
    """Return a schedule's config as it was kept. Raises ConfigError where that is none any more."""
    # The scheduler asks every second.
    return _loaded(schedule.config_text, schedule.config_path, schedule.overrides, schedule.simulated)


@functools.lru_cache(maxsize=1024)
def _loaded(text: str, path: str, overrides: tuple[str, ...], simulated: bool) -> Loaded:
    sets, _ = from_typed(overrides)
    return load_text(text, path, overrides=sets, simulate=simulated)


def schedule_of(schedule: Schedule) -> ScheduleConfig:
    """Return when a schedule's runs begin. Raises ConfigError where its config, kept as it was, is none any more."""
    config = loaded_of(schedule).config.schedule
    if config is None:
        raise ConfigError(f"{schedule.config_path}: it has no schedule")
    return config


def next_at(config: ScheduleConfig, name: str) -> datetime.datetime | None:
    """Return when the next run begins, from now on; ``None`` where none does any more."""
    return next(iter(coming(config, name, 1)), None)


def coming(config: ScheduleConfig, name: str, most: int) -> tuple[datetime.datetime, ...]:
    """Return when the next runs begin, from now on, the earliest first."""
    due = itertools.islice(times(config, datetime.datetime.now(datetime.timezone.utc)), most)
    return tuple(begins_at(config, name, time) for time in due)


def require(book: ScheduleBook, name: str) -> Schedule:
    """Return the schedule of that name; raises UnknownNameError with those that there are."""
    every = book.every()
    found = next((each for each in every if each.name == name), None)
    if found is None:
        there = ", ".join(each.name for each in every)
        raise UnknownNameError(f"there is no schedule {name!r}", remedy=f"there are: {there or 'none'}")
    return found


class FiringData(TypedDict):
    """One time of a schedule; times are ISO 8601 with their zone."""

    due_at: str
    cause: str
    state: str
    outcome: str | None
    reason: str | None
    run_id: str | None
    began_at: str | None
    ended_at: str | None
    told: list[str]


class ScheduleData(TypedDict):
    """One line of `muster schedule list`."""

    name: str
    cron: str | None
    timezone: str | None
    #: Why its config cannot be read any more.
    problem: str | None
    is_paused: bool
    added_at: str
    config_path: str
    next_at: str | None
    last: FiringData | None


def schedule_data(book: ScheduleBook, one: Schedule) -> ScheduleData:
    """Return a schedule's line."""
    config, problem = None, None
    try:
        config = schedule_of(one)
    except MusterError as error:
        problem = error.message
    begins = None if config is None or one.is_paused else next_at(config, one.name)
    last = book.history(one.name, 1)
    return {
        "name": one.name,
        "cron": None if config is None else config.cron,
        "timezone": None if config is None else config.timezone,
        "problem": problem,
        "is_paused": one.is_paused,
        "added_at": one.added_at.isoformat(),
        "config_path": one.config_path,
        "next_at": _iso(begins),
        "last": firing_data(last[0]) if last else None,
    }


def firing_data(firing: Firing) -> FiringData:
    """Return the line of one time."""
    return {
        "due_at": firing.due_at.isoformat(),
        "cause": firing.cause.value,
        "state": firing.state.value,
        "outcome": firing.outcome,
        "reason": firing.reason,
        "run_id": firing.run_id,
        "began_at": _iso(firing.began_at),
        "ended_at": _iso(firing.ended_at),
        "told": list(firing.told),
    }


def _iso(when: datetime.datetime | None) -> str | None:
    return None if when is None else when.isoformat()
