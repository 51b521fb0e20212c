"""What the store keeps and gives: typed in, typed out, one durable transaction a result."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from orchestrator.errors import RunNotFoundError, StoreError
from orchestrator.live import LiveRun
from orchestrator.results import LATEST, Attempt, Baseline, Past, RunState
from orchestrator.store import baselines, histories, noise_floors, removal, rows, sqlite
from orchestrator.store.lock import this_process
from orchestrator.store.queries import ATTEMPTS_WHOLE, LATE_IN_ORDER, NEWEST_FIRST, SUMMARIES, latest_figures
from orchestrator.store.schedules import ScheduleBook
from orchestrator.store.tables import ATTEMPTS, CASES, ENVIRONMENTS, LATE_RESULTS, LIVE, QUARANTINES, RUNS, SAMPLES
from orchestrator.store.translation import corrupt, gone, store_error
from workers import codec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from sqlalchemy import ColumnElement, Connection, Engine

    from orchestrator.results import (
        CaseResult,
        DeviceSeen,
        History,
        Imported,
        NewRun,
        NoiseFloor,
        Pace,
        Quarantine,
        Run,
        RunSummary,
    )
    from orchestrator.store.location import Presence
    from orchestrator.store.lock import WriterLock
    from workers.protocol import Case, Result, Verdict, Workload

#: Databases bound the number of values in one question; the oldest SQLite in use takes 999.
_DEVICES_AT_ONCE: Final = 500


class Store:
    """Runs and their results. Every method raises a :class:`StoreError` where the database cannot do its part.

    Reading may happen at any time and in any process; a run that writes is within :meth:`written_by` meanwhile, beside
    others. What a method was given is on the disk when it returns.
    """

    def __init__(self, engine: Engine, *, place: str, lock: WriterLock, presence: Presence) -> None:
        self._engine = engine
        self._writing_engine = sqlite.for_writing(engine)
        #: The store's name in messages.
        self.place = place
        self._lock = lock
        self._presence = presence

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database; safe to call twice."""
        self._engine.dispose()

    def written_by(self, run_id: str) -> AbstractContextManager[None]:
        """Say that a run writes here, beside others.

        The kernel takes that back when the process ends, however it ends: then the run is interrupted. Raises
        StoreBusyError while the store is being migrated, and where that very run is at work already, here or in
        another process: of two that want to go on with it, one does.
        """
        return self._lock.held(this_process(run_id))

    def begin_run(self, new: NewRun) -> None:
        """Keep a run and its cases, in their order; raises StoreError if there is a run of that id."""
        with self._writing() as connection:
            if connection.execute(select(RUNS.c.id).where(RUNS.c.id == new.id)).first():
                raise StoreError(f"{self.place}: run {new.id} is there already", remedy="Give the new run another id.")
            connection.execute(insert(RUNS).values(rows.run_values(new)))
            if new.cases:
                cases = [rows.case_values(new.id, position, case) for position, case in enumerate(new.cases)]
                connection.execute(insert(CASES), cases)

    def import_run(self, run: Run, imported: Imported) -> bool:
        """Keep a run that was made elsewhere, whole, and where it came from; return whether it was new.

        All of it or nothing. To be called within :meth:`written_by`. Raises StoreError where there is another run of
        that id, and what :meth:`save_attempt` raises for a result.
        """
        run = _storable(run)
        with self._writing() as connection:
            if connection.execute(select(RUNS.c.id).where(RUNS.c.id == run.id)).first():
                if _is_same(self._whole(connection, run.id, frozenset()), run):
                    return False
                raise StoreError(
                    f"{self.place}: run {run.id} is there already, and is another one",
                    remedy="Nothing was changed. Import it into a store of its own: --store sqlite:///other.db",
                )
            connection.execute(insert(RUNS).values(rows.imported_values(run, imported)))
            for each in run.cases:
                _insert_case(connection, run.id, each, imported.at)
            return True

    def resume_run(self, run_id: str) -> None:
        """Keep that a run goes on: it is running again, and has not finished. What it has is not touched.

        To be called within :meth:`written_by`, which sees to it that nobody else is at work on the run. Raises
        RunNotFoundError.
        """
        self._set_state(run_id, RunState.RUNNING, None)

    def save_attempt(self, run_id: str, result: Result) -> None:
        """Keep what an attempt gave; the same result again changes nothing.

        Raises StoreError for a different result of the same attempt, RunNotFoundError and StoreError for an unknown
        run and case, and ValueError for a figure that is not a finite number. Text that is not Unicode (half of a
        surrogate pair, from a file name) is kept as its escape.
        """
        result = rows.storable(result)
        with self._writing() as connection:
            case_id = self._case_id(connection, run_id, result.case_key)
            is_this = and_(ATTEMPTS.c.case_id == case_id, ATTEMPTS.c.number == result.attempt)
            stored = self._attempts(connection, is_this)[case_id]
            if not stored:
                _insert_attempt(connection, case_id, result)
            elif stored[0].result != result:
                raise StoreError(
                    f"{self.place}: attempt {result.attempt} of case {result.case_key} has another result already",
                    remedy="Nothing was changed. A new try needs a new attempt number.",
                )

    def save_late(self, run_id: str, result: Result) -> bool:
        """Keep a result whose attempt had been given up or tried again before it came; return whether it was new.

        It stands beside the attempts (:attr:`CaseResult.superseded`) and is in no figure. What is stored already, as
        the attempt's own result or as a late one, is not kept again. Raises what :meth:`save_attempt` raises, but for
        a different result.
        """
        result = rows.storable(result)
        with self._writing() as connection:
            case_id = self._case_id(connection, run_id, result.case_key)
            is_this = and_(ATTEMPTS.c.case_id == case_id, ATTEMPTS.c.number == result.attempt)
            late = self._late(connection, CASES.c.id == case_id)[case_id]
            if any(kept.result == result for kept in (*self._attempts(connection, is_this)[case_id], *late)):
                return False
            now = datetime.datetime.now(datetime.timezone.utc)
            connection.execute(insert(LATE_RESULTS).values(received_at=now, **rows.late_values(case_id, result)))
            return True

    def save_verdict(self, run_id: str, case_key: str, verdict: Verdict, reason: str | None) -> None:
        """Keep how a case ended; raises RunNotFoundError and StoreError for an unknown run and case."""
        with self._writing() as connection:
            is_this = CASES.c.id == self._case_id(connection, run_id, case_key)
            ending = {"verdict": verdict.value, "reason": rows.legible(reason)}
            connection.execute(update(CASES).where(is_this).values(ending))

    def finish_run(self, run_id: str, state: RunState, at: datetime.datetime) -> None:
        """Keep how and when a run ended; raises RunNotFoundError."""
        self._set_state(run_id, state, at)

    def put_aside(self, quarantine: Quarantine, *, simulated: bool) -> None:
        """Keep that a device or a host gets no cases for a while; an older word about it is replaced."""
        with self._writing() as connection:
            connection.execute(delete(QUARANTINES).where(_is_target(quarantine.target, simulated=simulated)))
            connection.execute(insert(QUARANTINES).values(rows.quarantine_values(quarantine, simulated=simulated)))

    def release(self, target: str, *, simulated: bool) -> bool:
        """Let a device or a host have cases again; return whether it was put aside."""
        with self._writing() as connection:
            gone = connection.execute(delete(QUARANTINES).where(_is_target(target, simulated=simulated)))
            return gone.rowcount == 1

    def quarantines(self, at: datetime.datetime, *, simulated: bool) -> tuple[Quarantine, ...]:
        """Return what is put aside at a time, by name. Simulated labs and real ones never mix."""
        lasting = select(QUARANTINES).where(QUARANTINES.c.until > at, QUARANTINES.c.simulated == simulated)
        with self._reading() as connection:
            return tuple(map(rows.quarantine, connection.execute(lasting.order_by(QUARANTINES.c.target))))

    def all_quarantines(self, at: datetime.datetime) -> tuple[tuple[Quarantine, bool], ...]:
        """Return what is put aside at a time, and whether that is in a made-up lab; real ones first."""
        kinds = (False, True)
        return tuple((one, simulated) for simulated in kinds for one in self.quarantines(at, simulated=simulated))

    def save_noise_floors(self, floors: Sequence[NoiseFloor], *, simulated: bool) -> None:
        """Keep how far apart figures lie on devices; the newest one of a device and workload counts."""
        with self._writing() as connection:
            noise_floors.save(connection, floors, simulated=simulated)

    def noise_floors(self, *, simulated: bool) -> tuple[NoiseFloor, ...]:
        """Return the newest floor of each workload on each device. Simulated labs and real ones never mix."""
        with self._reading() as connection:
            return noise_floors.newest(connection, simulated=simulated)

    def set_baseline(self, name: str, run: str, at: datetime.datetime) -> Baseline:
        """Keep a run, named as for :meth:`run`, under a name of its own, which may have stood for another one before.

        Raises RunNotFoundError.
        """
        with self._writing() as connection:
            baseline = Baseline(name=name, run_id=self._resolved(connection, run), set_at=at)
            baselines.put(connection, baseline)
            return baseline

    def baselines(self) -> tuple[Baseline, ...]:
        """Return all baselines, by name."""
        with self._reading() as connection:
            return baselines.every(connection)

    def remove_baseline(self, name: str) -> bool:
        """Forget a baseline's name, and nothing of its run; return whether there was one."""
        with self._writing() as connection:
            return baselines.remove(connection, name)

    def put_live(self, state: LiveRun) -> None:
        """Keep where a run that goes on is, in place of what was said of it before."""
        values = {"state": codec.to_json(state)}
        with self._writing() as connection:
            is_this = LIVE.c.run_id == state.run_id
            if connection.execute(update(LIVE).where(is_this).values(values)).rowcount != 1:
                connection.execute(insert(LIVE).values(run_id=state.run_id, **values))

    def drop_live(self, run_id: str) -> None:
        """Forget where a run was, for it has ended; also of those whose heads were killed."""
        at_work = self._running_ids() - {run_id}
        with self._writing() as connection:
            connection.execute(delete(LIVE).where(LIVE.c.run_id.not_in(at_work)))

    def live(self) -> tuple[LiveRun, ...]:
        """Return where the runs are that somebody is at work on now, by id."""
        before = self._running_ids()
        with self._reading() as connection:
            found = connection.execute(select(LIVE).order_by(LIVE.c.run_id)).all()
            return tuple(codec.from_json(LiveRun, row.state) for row in found if row.run_id in before)

    def devices_seen(self, *, simulated: bool) -> tuple[DeviceSeen, ...]:
        """Return every device that a run of this store had a case for, as it was last, by id."""
        with self._reading() as connection:
            return histories.devices(connection, simulated=simulated)

    def histories(self, *, simulated: bool) -> tuple[History, ...]:
        """Return each workload on each device of which there is a figure; of this store's own runs."""
        with self._reading() as connection:
            return histories.every(connection, simulated=simulated)

    def past(self, device_id: str, workload: Workload, last: int, *, simulated: bool) -> tuple[Past, ...]:
        """Return what the last runs with a figure have of a workload on a device, oldest first."""
        with self._reading() as connection:
            found = histories.runs_of(connection, device_id, workload, last, simulated=simulated)
            return tuple(
                Past(run_id=run_id, created_at=at, cases=self._cases_where(connection, wanted))
                for run_id, at in found
                for wanted in [histories.cases_of(run_id, device_id, workload)]
            )

    @property
    def schedules(self) -> ScheduleBook:
        """The schedules, and their times."""
        return ScheduleBook(self._writing, self._reading)

    def at_work(self) -> frozenset[str]:
        """Return the names under which somebody writes now: runs, and what else is :meth:`written_by`."""
        return self._running_ids()

    def remove_runs(self, run_ids: Sequence[str]) -> int:
        """Take runs out of the store, with all that is theirs; return how many there were.

        A run that somebody is at work on, or that a baseline stands for, stays.
        """
        with self._writing() as connection:
            kept = {baseline.run_id for baseline in baselines.every(connection)} | self._running_ids()
            return removal.remove(connection, [run_id for run_id in run_ids if run_id not in kept])

    def runs(self) -> tuple[RunSummary, ...]:
        """Return every run, newest first. One that was never finished and that nobody works on is interrupted."""
        before = self._running_ids()
        with self._reading() as connection:
            found = connection.execute(SUMMARIES).all()
            running = before | self._running_ids()
            return tuple(rows.summary(row, running) for row in found)

    def run(self, name: str) -> Run:
        """Return a run, whole, by id, by the beginning of an id that no other has, or by ``latest``.

        Raises RunNotFoundError with what was likely meant.
        """
        before = self._running_ids()
        with self._reading() as connection:
            run_id = self._resolved(connection, name)
            return self._whole(connection, run_id, before)

    def resolved(self, name: str) -> str:
        """Return the id of the run that a name means, as for :meth:`run`; raises RunNotFoundError."""
        with self._reading() as connection:
            return self._resolved(connection, name)

    def ended_at(self, run_id: str) -> datetime.datetime | None:
        """Return when a run came to its end; ``None`` where it goes on, was cut off, or is not there."""
        with self._reading() as connection:
            found: datetime.datetime | None = connection.scalar(select(RUNS.c.finished_at).where(RUNS.c.id == run_id))
            return found

    def states(self) -> Mapping[RunState, int]:
        """Return how many runs there are in each state; those that nobody works on any more are interrupted."""
        before = self._running_ids()
        with self._reading() as connection:
            found = connection.execute(select(RUNS.c.id, RUNS.c.state)).all()
            running = before | self._running_ids()
            return Counter(rows.state(row, running) for row in found)

    def paces(self, cases: Sequence[Case], *, simulated: bool) -> Mapping[tuple[str, Workload], Pace]:
        """Return how fast each case's workload went on its device the last time, by device id and workload.

        Where it never gave a figure, there is no entry. Simulated figures and real ones never mix.
        """
        wanted = {(case.device.id, codec.to_json(case.workload)): case.workload for case in cases}
        device_ids = sorted({device_id for device_id, _ in wanted})
        found = {}
        with self._reading() as connection:
            for start in range(0, len(device_ids), _DEVICES_AT_ONCE):
                latest = latest_figures(device_ids[start : start + _DEVICES_AT_ONCE], simulated=simulated)
                for row in connection.execute(latest):
                    if (row.device_id, row.workload) in wanted:
                        found[row.device_id, wanted[row.device_id, row.workload]] = rows.pace(row)
        return found

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._translated():
            with self._writing_engine.begin() as connection:
                self._presence.note()
                yield connection
            if self._presence.is_lost():
                raise gone(self.place, "another file has taken its place")

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, OSError) as error:
            raise store_error(error, self.place) from error
        except codec.CodecError as error:
            raise corrupt(self.place, str(error)) from error

    def _running_ids(self) -> frozenset[str]:
        """Return the runs that write now; asked before and after a reading, for they may begin or end there."""
        return frozenset(holder.run_id for holder in self._lock.holders() if holder.run_id)

    def _whole(self, connection: Connection, run_id: str, running_before: frozenset[str]) -> Run:
        row = connection.execute(select(RUNS).where(RUNS.c.id == run_id)).one()
        running = running_before | self._running_ids()
        return rows.run(row, self._case_results(connection, run_id), running)

    def _set_state(self, run_id: str, state: RunState, finished_at: datetime.datetime | None) -> None:
        with self._writing() as connection:
            values = {"state": state.value, "finished_at": finished_at}
            if connection.execute(update(RUNS).where(RUNS.c.id == run_id).values(values)).rowcount != 1:
                raise self._no_run(run_id, ())

    def _case_id(self, connection: Connection, run_id: str, case_key: str) -> int:
        found: int | None = connection.scalar(
            select(CASES.c.id).where(CASES.c.run_id == run_id, CASES.c.key == case_key)
        )
        if found is not None:
            return found
        if connection.execute(select(RUNS.c.id).where(RUNS.c.id == run_id)).first() is None:
            raise self._no_run(run_id, ())
        raise StoreError(f"{self.place}: run {run_id} has no case {case_key}", remedy="Only planned cases are kept.")

    def _resolved(self, connection: Connection, name: str) -> str:
        runs = connection.execute(select(RUNS.c.id, RUNS.c.name, RUNS.c.imported_at).order_by(*NEWEST_FIRST)).all()
        ids = [str(run_id) for run_id, _, _ in runs]
        if name == LATEST and ids:
            # Of this store's own, if it has any.
            return next((str(run_id) for run_id, _, imported_at in runs if imported_at is None), ids[0])
        matching = [run_id for run_id in ids if name and run_id.startswith(name)]
        if name in ids or len(matching) == 1:
            return name if name in ids else matching[0]
        of_that_name = [str(run_id) for run_id, config_name, _ in runs if config_name == name]
        raise self._no_run(name, matching or of_that_name or difflib.get_close_matches(name, ids) or ids, len(matching))

    def _no_run(self, name: str, near: Sequence[str], matching: int = 0) -> RunNotFoundError:
        what = f"{matching} runs begin with {name!r}" if matching else f"there is no run {name!r}"
        likely = ", ".join(near[:5]) + (", …" if len(near) > 5 else "")
        remedy = f"Name one of these: {likely}. All of them: muster runs" if near else "Make one: muster run CONFIG"
        return RunNotFoundError(f"{self.place}: {what}", remedy=remedy)

    def _case_results(self, connection: Connection, run_id: str) -> tuple[CaseResult, ...]:
        return self._cases_where(connection, CASES.c.run_id == run_id)

    def _cases_where(self, connection: Connection, condition: ColumnElement[bool]) -> tuple[CaseResult, ...]:
        attempts = self._attempts(connection, condition)
        late = self._late(connection, condition)
        found = connection.execute(select(CASES).where(condition).order_by(CASES.c.run_id, CASES.c.position))
        read = rows.Reader()
        return tuple(rows.case_result(read, row, tuple(attempts[row.id]), tuple(late[row.id])) for row in found)

    def _attempts(self, connection: Connection, condition: ColumnElement[bool]) -> Mapping[int, Sequence[Attempt]]:
        """Return the attempts that meet a condition, in order, by the number of their case's row."""
        read = rows.Reader()
        found: defaultdict[int, list[Attempt]] = defaultdict(list)
        for row in connection.execute(ATTEMPTS_WHOLE.where(condition)):
            found[row.case_id].append(Attempt(number=row.number, result=rows.result(read, row)))
        return found

    def _late(self, connection: Connection, condition: ColumnElement[bool]) -> Mapping[int, Sequence[Attempt]]:
        """Return the results that came too late, as they came in, by the number of their case's row."""
        found: defaultdict[int, list[Attempt]] = defaultdict(list)
        for row in connection.execute(LATE_IN_ORDER.where(condition)):
            found[row.case_id].append(rows.late_attempt(row))
        return found


def _is_target(target: str, *, simulated: bool) -> ColumnElement[bool]:
    return and_(QUARANTINES.c.target == target, QUARANTINES.c.simulated == simulated)


def _storable(run: Run) -> Run:
    """Return a run as it will come back: nobody here is at work on it, whatever it was when it was written down."""
    return dataclasses.replace(
        run,
        config_path=rows.legible(run.config_path) or "",
        state=RunState.INTERRUPTED if run.state is RunState.RUNNING else run.state,
        cases=tuple(
            dataclasses.replace(
                each,
                position=position,
                reason=rows.legible(each.reason),
                attempts=tuple(map(_storable_attempt, each.attempts)),
                superseded=tuple(map(_storable_attempt, each.superseded)),
            )
            for position, each in enumerate(run.cases)
        ),
    )


def _storable_attempt(attempt: Attempt) -> Attempt:
    return dataclasses.replace(attempt, result=rows.storable(attempt.result))


def _is_same(known: Run, run: Run) -> bool:
    """Whether two are one run, wherever each came from, and though the one here may have been cut off unseen."""
    return dataclasses.replace(known, imported=None) == dataclasses.replace(run, imported=None)


def _insert_case(connection: Connection, run_id: str, each: CaseResult, at: datetime.datetime) -> None:
    ending = {"verdict": each.verdict and each.verdict.value, "reason": each.reason}
    values = {**rows.case_values(run_id, each.position, each.case), **ending}
    case_id = connection.execute(insert(CASES).values(values).returning(CASES.c.id)).scalar_one()
    for attempt in each.attempts:
        _insert_attempt(connection, case_id, attempt.result)
    for attempt in each.superseded:
        connection.execute(insert(LATE_RESULTS).values(received_at=at, **rows.late_values(case_id, attempt.result)))


def _insert_attempt(connection: Connection, case_id: int, result: Result) -> None:
    environment = rows.environment_values(result.environment)
    is_this = ENVIRONMENTS.c.hash == environment["hash"]
    if connection.execute(select(ENVIRONMENTS.c.hash).where(is_this)).first() is None:
        # Two runs may come with a new one at the same moment.
        with suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(ENVIRONMENTS).values(environment))
    values = {"case_id": case_id, "environment_hash": environment["hash"], **rows.attempt_values(result)}
    attempt_id = connection.execute(insert(ATTEMPTS).values(values).returning(ATTEMPTS.c.id)).scalar_one()
    connection.execute(insert(SAMPLES), rows.sample_values(attempt_id, result))
