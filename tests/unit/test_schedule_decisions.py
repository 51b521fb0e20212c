"""What becomes of the times of a schedule: begun, queued, skipped, missed, made up."""

from __future__ import annotations

import datetime
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.scheduling import CatchUp, Overlap, ScheduleConfig
from orchestrator.results import Cause, FiringState
from orchestrator.schedules.calendar import times
from orchestrator.schedules.decisions import MOST_TOLD, Decision, decide

START = datetime.datetime(2026, 5, 1, tzinfo=datetime.timezone.utc)
HOURLY = ScheduleConfig(cron="0 * * * *")


def at(hour: int, minute: int = 0, second: int = 0) -> datetime.datetime:
    return START + datetime.timedelta(hours=hour, minutes=minute, seconds=second)


def decided(
    schedule: ScheduleConfig = HOURLY,
    *,
    now: datetime.datetime,
    since: datetime.datetime = START,
    open_firings: int = 0,
    is_paused: bool = False,
) -> Decision:
    return decide(schedule, "night", decided_until=since, now=now, open_firings=open_firings, is_paused=is_paused)


def short(decision: Decision) -> list[tuple[int, str, str | None]]:
    return [(firing.due_at.hour, firing.state.value, firing.reason) for firing in decision.firings]


def test_a_time_that_has_come_begins_a_run() -> None:
    decision = decided(now=at(1, 0, 2))
    assert short(decision) == [(1, "waiting", None)]
    assert decision.firings[0].cause is Cause.TIME
    assert decision.decided_until == at(1, 0, 2)


def test_nothing_is_due_before_its_time_and_nothing_twice() -> None:
    assert decided(now=at(0, 59, 59)).firings == ()
    assert decided(since=at(1), now=at(1, 30)).firings == ()


def test_a_schedule_that_has_ended_has_nothing_to_decide() -> None:
    ended = ScheduleConfig(cron="0 * * * *", ends="2026-05-01")
    assert len(decided(ended, now=at(23, 0, 1)).firings) == 23
    assert decided(ended, since=at(30), now=at(40)).firings == ()


def test_of_times_that_were_missed_one_is_made_up_or_none() -> None:
    decision = decided(now=at(3, 30))
    missed = (FiringState.MISSED.value, "no scheduler was at work")
    assert short(decision) == [(1, *missed), (2, *missed), (3, "waiting", None)]
    assert (decision.firings[-1].cause, decision.firings[-1].begins_at) == (Cause.CATCH_UP, at(3, 30))
    none = ScheduleConfig(cron="0 * * * *", catch_up=CatchUp.NONE)
    assert short(decided(none, now=at(3, 30))) == [(1, *missed), (2, *missed), (3, *missed)]


def test_nothing_is_made_up_where_the_next_time_has_come_as_well() -> None:
    assert [state for _, state, _ in short(decided(now=at(3, 0, 10)))] == ["missed", "missed", "waiting"]


def test_a_time_while_the_last_run_goes_on_is_skipped_or_queued_once() -> None:
    busy = "the run before it still went on"
    assert short(decided(now=at(1), open_firings=1)) == [(1, "skipped", busy)]
    queue = ScheduleConfig(cron="0 * * * *", overlap=Overlap.QUEUE)
    assert short(decided(queue, now=at(1), open_firings=1)) == [(1, "waiting", None)]
    full = "one was queued already behind a run that still went on"
    assert short(decided(queue, now=at(1), open_firings=2)) == [(1, "skipped", full)]


def test_while_a_schedule_is_paused_its_times_are_skipped_and_none_is_made_up() -> None:
    assert short(decided(now=at(2, 30), is_paused=True)) == [
        (1, "skipped", "the schedule was paused"),
        (2, "skipped", "the schedule was paused"),
    ]


def test_jitter_puts_a_beginning_off_and_no_catching_up() -> None:
    schedule = ScheduleConfig.model_validate({"cron": "0 * * * *", "jitter": "10m"})
    (firing,) = decided(schedule, now=at(1)).firings
    assert at(1) < firing.begins_at < at(1, 10)
    assert decided(schedule, now=at(1, 30)).firings[-1].begins_at == at(1, 30)


def test_a_year_that_was_missed_is_told_in_part() -> None:
    decision = decided(now=START + datetime.timedelta(days=365))
    assert len(decision.firings) == MOST_TOLD
    assert [firing.state for firing in decision.firings].count(FiringState.WAITING) == 1
    assert decision.firings[-1].state is FiringState.WAITING


@settings(max_examples=300, deadline=None)
@given(
    looks=st.lists(st.integers(1, 20_000), min_size=1, max_size=40),
    overlap=st.sampled_from(Overlap),
    catch_up=st.sampled_from(CatchUp),
    ends=st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_each_time_is_decided_once_whenever_anybody_looks(
    looks: list[int], overlap: Overlap, catch_up: CatchUp, ends: list[bool]
) -> None:
    schedule = ScheduleConfig(cron="7 * * * *", overlap=overlap, catch_up=catch_up)
    now, until, open_firings = START, START, 0
    seen: list[datetime.datetime] = []
    for look, has_ended in zip(looks, ends, strict=False):
        now += datetime.timedelta(seconds=look)
        decision = decide(schedule, "night", decided_until=until, now=now, open_firings=open_firings, is_paused=False)
        until = decision.decided_until
        seen += [firing.due_at for firing in decision.firings]
        waiting = sum(firing.state is FiringState.WAITING for firing in decision.firings)
        assert waiting <= 2
        open_firings += waiting
        assert open_firings <= (1 if overlap is Overlap.SKIP else 2)
        open_firings = 0 if has_ended else open_firings
    expected = list(itertools.takewhile(lambda time: time <= now, times(schedule, START)))
    assert seen == expected
