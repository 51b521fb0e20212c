"""The scheduler over a store in memory, with a clock that the test turns: a year of nights, crashes, two at once."""

from __future__ import annotations

import datetime
import zoneinfo
from typing import TYPE_CHECKING

import pytest

from orchestrator.config.scheduling import ScheduleConfig
from orchestrator.errors import ConfigError
from orchestrator.results import Firing, FiringState, Schedule
from orchestrator.schedules.service import BUSY, MOST_STARTS, Scheduler, holder_of
from orchestrator.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.store.repository import Store

UTC = datetime.timezone.utc
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
START = datetime.datetime(2026, 1, 1, tzinfo=BERLIN).astimezone(UTC)


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("sqlite://") as opened:
        yield opened


class Run:
    """The process of a firing: ends when the test says so."""

    def __init__(self, firing: Firing) -> None:
        self.firing = firing
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code


class Lab:
    """A scheduler, its clock, and what it began."""

    def __init__(self, store: Store, config: ScheduleConfig | None, *, lab: Lab | None = None) -> None:
        self.store, self.config = store, config
        self.now: datetime.datetime = START if lab is None else lab.now
        self.runs: list[Run] = []
        self.log: list[tuple[str, dict[str, object]]] = []
        self.at_work: set[str] = set() if lab is None else lab.at_work
        self.scheduler = Scheduler(
            store.schedules,
            now=lambda: self.now,
            schedule_of=self._schedule_of,
            spawn=self._spawn,
            at_work=lambda: frozenset(self.at_work),
            log=lambda event, **said: self.log.append((event, said)),
        )

    def _schedule_of(self, schedule: Schedule) -> ScheduleConfig:
        if self.config is None:
            raise ConfigError("night.yaml: it has no schedule")
        return self.config

    def _spawn(self, firing: Firing) -> Run:
        run = Run(firing)
        self.runs.append(run)
        return run

    def tick(self, **later: float) -> None:
        self.now += datetime.timedelta(**later)
        self.scheduler.tick()

    def begin(self, run: Run) -> None:
        """What a firing's process does first."""
        self.at_work.add(holder_of(run.firing.id))
        self.store.schedules.change(run.firing.id, state=FiringState.RUNNING, run_id=f"run{run.firing.id}")

    def end(self, run: Run, *, code: int = 0, outcome: str | None = "ok") -> None:
        if outcome is not None:
            self.store.schedules.change(run.firing.id, state=FiringState.DONE, outcome=outcome)
        self.at_work.discard(holder_of(run.firing.id))
        run.code = code

    def states(self) -> list[str]:
        return [firing.state.value for firing in reversed(self.store.schedules.history("night", 100))]


NIGHTLY = ScheduleConfig(cron="30 2 * * *", timezone="Europe/Berlin")
MINUTELY = ScheduleConfig(cron="* * * * *")


def a_lab(store: Store, config: ScheduleConfig = MINUTELY) -> Lab:
    store.schedules.put(a_schedule())
    return Lab(store, config)


def a_schedule(*, is_paused: bool = False) -> Schedule:
    return Schedule(
        name="night",
        added_at=START,
        config_text="",
        config_path="night.yaml",
        overrides=(),
        simulated=False,
        is_paused=is_paused,
        decided_until=START,
    )


def test_a_year_of_nights_begins_one_run_a_night_at_both_changes_of_the_clocks_too(store: Store) -> None:
    lab = a_lab(store, NIGHTLY)
    while lab.now < START + datetime.timedelta(days=365):
        lab.tick(minutes=59)
        for run in [each for each in lab.runs if each.code is None]:
            lab.begin(run)
            lab.end(run)
    nights = [run.firing.due_at.astimezone(BERLIN).date() for run in lab.runs]
    assert nights == [datetime.date(2026, 1, 1) + datetime.timedelta(days=number) for number in range(365)]


def test_a_scheduler_that_is_killed_and_started_again_neither_loses_nor_doubles_a_run(store: Store) -> None:
    lab = a_lab(store)
    lab.tick(seconds=60)
    (first,) = lab.runs
    lab.begin(first)
    # Killed; its run's process goes on, and another scheduler comes.
    again = Lab(store, MINUTELY, lab=lab)
    again.tick(seconds=1)
    assert again.runs == []
    # The process is killed too: its run is gone on with.
    again.at_work.clear()
    again.tick(seconds=1)
    assert [run.firing.id for run in again.runs] == [first.firing.id]
    assert again.runs[0].firing.run_id == f"run{first.firing.id}"
    again.end(again.runs[0])
    again.tick(seconds=1)
    assert again.states() == ["done"]


def test_killed_between_decision_and_beginning_it_begins_the_run_the_next_time(store: Store) -> None:
    lab = a_lab(store)
    lab.tick(seconds=60)
    assert len(lab.runs) == 1
    again = Lab(store, MINUTELY, lab=lab)
    again.tick(seconds=1)
    assert [run.firing.id for run in again.runs] == [lab.runs[0].firing.id]


def test_two_schedulers_that_both_look_decide_each_time_once(store: Store) -> None:
    lab = a_lab(store)
    other = Lab(store, MINUTELY, lab=lab)
    for _ in range(5):
        lab.tick(seconds=61)
        other.tick(seconds=61)
        for run in [each for each in (*lab.runs, *other.runs) if each.code is None]:
            lab.end(run)
    due = [firing.due_at for firing in store.schedules.history("night", 100)]
    assert len(due) == len(set(due)) == 5


def test_a_stale_decision_is_not_kept(store: Store) -> None:
    lab = a_lab(store)
    (before,) = store.schedules.every()
    lab.tick(seconds=60)
    assert not store.schedules.decide(before, (), lab.now)


def test_a_second_time_is_skipped_while_the_first_run_goes_on(store: Store) -> None:
    lab = a_lab(store)
    lab.tick(seconds=60)
    lab.begin(lab.runs[0])
    lab.tick(seconds=60)
    assert lab.states() == ["running", "skipped"]
    lab.end(lab.runs[0])
    lab.tick(seconds=60)
    assert len(lab.runs) == 2


def test_a_queued_run_begins_when_the_one_before_it_has_ended(store: Store) -> None:
    lab = a_lab(store, ScheduleConfig.model_validate({"cron": "* * * * *", "overlap": "queue"}))
    lab.tick(seconds=60)
    lab.begin(lab.runs[0])
    lab.tick(seconds=60)
    assert (len(lab.runs), lab.states()) == (1, ["running", "waiting"])
    lab.end(lab.runs[0])
    lab.tick(seconds=1)
    assert len(lab.runs) == 2


def test_a_run_begins_when_its_jitter_is_over(store: Store) -> None:
    lab = a_lab(store, ScheduleConfig.model_validate({"cron": "0 * * * *", "jitter": "30m"}))
    lab.tick(hours=1)
    assert lab.runs == []
    lab.tick(minutes=30)
    assert len(lab.runs) == 1


def test_a_paused_schedule_begins_nothing_unless_it_is_asked(store: Store) -> None:
    lab = a_lab(store)
    assert store.schedules.pause("night", True)
    lab.tick(seconds=60)
    assert (lab.runs, lab.states()) == ([], ["skipped"])
    store.schedules.ask("night", lab.now + datetime.timedelta(seconds=1))
    lab.tick(seconds=1)
    assert len(lab.runs) == 1


def test_hosts_that_are_busy_are_asked_again_and_in_the_end_no_more(store: Store) -> None:
    lab = a_lab(store, ScheduleConfig(cron="0 0 1 2 *"))
    store.schedules.ask("night", lab.now)
    lab.tick(seconds=0)
    lab.end(lab.runs[-1], code=BUSY, outcome=None)
    lab.tick(seconds=1)
    assert len(lab.runs) == 1
    for _ in range(100):
        lab.tick(seconds=61)
        if lab.runs[-1].code is None:
            lab.end(lab.runs[-1], code=BUSY, outcome=None)
    assert lab.states() == ["skipped"]
    (firing,) = store.schedules.history("night", 1)
    assert firing.reason == "hosts were busy for 60 minutes and more"
    assert 25 < len(lab.runs) < 65


def test_a_process_that_always_ends_without_a_word_is_given_up(store: Store) -> None:
    lab = a_lab(store, ScheduleConfig(cron="0 0 1 2 *"))
    store.schedules.ask("night", lab.now)
    for _ in range(2 * MOST_STARTS):
        lab.tick(seconds=1)
        for run in [each for each in lab.runs if each.code is None]:
            lab.end(run, code=-9, outcome=None)
    assert len(lab.runs) == MOST_STARTS
    (firing,) = store.schedules.history("night", 1)
    assert (firing.outcome, firing.reason) == ("failure", "its process ended 3 times without a word")


def test_a_config_that_cannot_be_read_any_more_is_told_once_and_keeps_no_other_from_running(store: Store) -> None:
    store.schedules.put(a_schedule())
    lab = Lab(store, None)
    lab.tick(seconds=60)
    lab.tick(seconds=60)
    assert lab.log == [("schedule cannot be read", {"schedule": "night", "reason": "night.yaml: it has no schedule"})]


def test_what_waits_of_a_schedule_that_is_removed_is_skipped(store: Store) -> None:
    lab = a_lab(store, ScheduleConfig.model_validate({"cron": "0 * * * *", "jitter": "30m"}))
    lab.tick(hours=1)
    assert store.schedules.remove("night")
    lab.tick(hours=1)
    assert (lab.runs, lab.states()) == ([], ["skipped"])


def test_a_schedule_that_is_put_in_again_has_no_time_twice(store: Store) -> None:
    lab = a_lab(store)
    lab.tick(seconds=60)
    lab.end(lab.runs[0])
    assert store.schedules.put(a_schedule())
    lab.tick(seconds=1)
    assert lab.states() == ["done"]
