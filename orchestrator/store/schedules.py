"""Schedules and their times: each decided once, whoever asks and however often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from orchestrator.results import Cause, Firing, FiringState, NewFiring, Schedule
from orchestrator.store.tables import FIRINGS, SCHEDULES
from workers import codec

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Row

_OPEN: Final = tuple(state.value for state in FiringState if state.is_open)


class ScheduleBook:
    """The schedules of a store. Methods raise what the store's own do.

    ``writing`` and ``reading`` give a connection within a transaction of the store's.
    """

    def __init__(
        self,
        writing: Callable[[], AbstractContextManager[Connection]],
        reading: Callable[[], AbstractContextManager[Connection]],
    ) -> None:
        self._writing = writing
        self._reading = reading

    # --- schedules ---------------------------------------------------------------------------------------------

    def put(self, schedule: Schedule) -> bool:
        """Keep a schedule, in place of one of its name; return whether there was one. Times past stay as they are."""
        values = {
            "added_at": schedule.added_at,
            "config_text": schedule.config_text,
            "config_path": schedule.config_path,
            "overrides": codec.to_json(schedule.overrides),
            "simulated": schedule.simulated,
            "is_paused": schedule.is_paused,
            "decided_until": schedule.decided_until,
        }
        with self._writing() as connection:
            is_this = SCHEDULES.c.name == schedule.name
            if connection.execute(update(SCHEDULES).where(is_this).values(values)).rowcount == 1:
                return True
            connection.execute(insert(SCHEDULES).values(name=schedule.name, **values))
            return False

    def every(self) -> tuple[Schedule, ...]:
        """Return all schedules, by name."""
        with self._reading() as connection:
            return tuple(map(_schedule, connection.execute(select(SCHEDULES).order_by(SCHEDULES.c.name))))

    def remove(self, name: str) -> bool:
        """Forget a schedule and what of its times is still to come; return whether there was one. Its runs stay."""
        with self._writing() as connection:
            waiting = (FIRINGS.c.schedule == name) & (FIRINGS.c.state == FiringState.WAITING.value)
            skipped = {"state": FiringState.SKIPPED.value, "reason": "the schedule was removed"}
            connection.execute(update(FIRINGS).where(waiting).values(skipped))
            return connection.execute(delete(SCHEDULES).where(SCHEDULES.c.name == name)).rowcount == 1

    def pause(self, name: str, is_paused: bool) -> bool:
        """Have a schedule begin no runs, or begin them again; return whether there is one of that name."""
        with self._writing() as connection:
            changed = update(SCHEDULES).where(SCHEDULES.c.name == name).values(is_paused=is_paused)
            return connection.execute(changed).rowcount == 1

    # --- their times -------------------------------------------------------------------------------------------

    def decide(self, schedule: Schedule, firings: Sequence[NewFiring], until: datetime.datetime) -> bool:
        """Keep what was decided of a schedule's times up to ``until``; all of it or nothing.

        Return False, and keep nothing, where somebody else has decided since ``schedule`` was read.
        """
        with self._writing() as connection:
            is_as_it_was = (SCHEDULES.c.name == schedule.name) & (SCHEDULES.c.decided_until == schedule.decided_until)
            moved = connection.execute(update(SCHEDULES).where(is_as_it_was).values(decided_until=until))
            if moved.rowcount != 1:
                return False
            for firing in firings:
                _insert(connection, schedule.name, firing)
            return True

    def ask(self, name: str, at: datetime.datetime) -> Firing:
        """Have a run begin now, whatever the calendar says; return its firing."""
        new = NewFiring(due_at=at, begins_at=at, cause=Cause.ASKED, state=FiringState.WAITING)
        with self._writing() as connection:
            firing_id = connection.execute(insert(FIRINGS).values(_values(name, new)).returning(FIRINGS.c.id))
            return _only(connection, firing_id.scalar_one())

    def open(self) -> tuple[Firing, ...]:
        """Return the times that still wait or run, the earliest first."""
        wanted = select(FIRINGS).where(FIRINGS.c.state.in_(_OPEN)).order_by(FIRINGS.c.due_at, FIRINGS.c.id)
        with self._reading() as connection:
            return tuple(map(_firing, connection.execute(wanted)))

    def firing(self, firing_id: int) -> Firing | None:
        """Return a time by its number."""
        with self._reading() as connection:
            row = connection.execute(select(FIRINGS).where(FIRINGS.c.id == firing_id)).first()
            return None if row is None else _firing(row)

    def history(self, name: str, most: int) -> tuple[Firing, ...]:
        """Return the latest times of a schedule, the newest first."""
        wanted = select(FIRINGS).where(FIRINGS.c.schedule == name).order_by(FIRINGS.c.due_at.desc()).limit(most)
        with self._reading() as connection:
            return tuple(map(_firing, connection.execute(wanted)))

    def change(self, firing_id: int, **values: Any) -> None:
        """Keep something of a time: any of :class:`Firing`'s fields by name."""
        if "state" in values:
            values["state"] = FiringState(values["state"]).value
        if "told" in values:
            values["told"] = codec.to_json(tuple(values["told"]))
        with self._writing() as connection:
            connection.execute(update(FIRINGS).where(FIRINGS.c.id == firing_id).values(values))


def _insert(connection: Connection, schedule: str, firing: NewFiring) -> None:
    # A time that is there already, of a schedule that was taken out and put in again, stays as it is.
    try:
        with connection.begin_nested():
            connection.execute(insert(FIRINGS).values(_values(schedule, firing)))
    except IntegrityError:
        pass


def _only(connection: Connection, firing_id: int) -> Firing:
    return _firing(connection.execute(select(FIRINGS).where(FIRINGS.c.id == firing_id)).one())


def _values(schedule: str, firing: NewFiring) -> dict[str, Any]:
    return {
        "schedule": schedule,
        "due_at": firing.due_at,
        "begins_at": firing.begins_at,
        "cause": firing.cause.value,
        "state": firing.state.value,
        "reason": firing.reason,
        "told": "[]",
    }


def _schedule(row: Row[Any]) -> Schedule:
    return Schedule(
        name=row.name,
        added_at=row.added_at,
        config_text=row.config_text,
        config_path=row.config_path,
        overrides=codec.from_json(tuple[str, ...], row.overrides),
        simulated=row.simulated,
        is_paused=row.is_paused,
        decided_until=row.decided_until,
    )


def _firing(row: Row[Any]) -> Firing:
    return Firing(
        id=row.id,
        schedule=row.schedule,
        due_at=row.due_at,
        begins_at=row.begins_at,
        cause=codec.from_data(Cause, row.cause),
        state=codec.from_data(FiringState, row.state),
        reason=row.reason,
        run_id=row.run_id,
        began_at=row.began_at,
        ended_at=row.ended_at,
        outcome=row.outcome,
        told=codec.from_json(tuple[str, ...], row.told),
    )
