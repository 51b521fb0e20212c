"""The times of schedules: cron lines, time zones, both changes of the clocks, quiet windows, ends, jitter."""

from __future__ import annotations

import datetime
import itertools
import zoneinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.config.scheduling import ScheduleConfig
from orchestrator.schedules.calendar import begins_at, is_quiet, times

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
UTC = datetime.timezone.utc


def a_schedule(cron: str, timezone: str = "Europe/Berlin", **given: object) -> ScheduleConfig:
    return ScheduleConfig.model_validate({"cron": cron, "timezone": timezone, **given})


def local(schedule: ScheduleConfig, after: str, count: int = 3) -> list[str]:
    """The next times by the schedule's own clock, with its offset."""
    zone = zoneinfo.ZoneInfo(schedule.timezone)
    start = datetime.datetime.fromisoformat(after).replace(tzinfo=zone)
    found = itertools.islice(times(schedule, start), count)
    return [time.astimezone(zone).isoformat(sep=" ", timespec="minutes") for time in found]


def test_a_time_that_the_clocks_jump_over_comes_at_the_end_of_the_jump() -> None:
    # On 2026-03-29 2:00 is followed by 3:00.
    assert local(a_schedule("30 2 * * *"), "2026-03-28 12:00") == [
        "2026-03-29 03:00+02:00",
        "2026-03-30 02:30+02:00",
        "2026-03-31 02:30+02:00",
    ]


def test_a_time_that_the_clocks_pass_twice_comes_once() -> None:
    # On 2026-10-25 3:00 is followed by 2:00.
    assert local(a_schedule("30 2 * * *"), "2026-10-24 12:00") == [
        "2026-10-25 02:30+02:00",
        "2026-10-26 02:30+01:00",
        "2026-10-27 02:30+01:00",
    ]


def test_every_half_hour_goes_on_as_real_time_does() -> None:
    assert local(a_schedule("*/30 * * * *"), "2026-10-25 01:45", 5) == [
        "2026-10-25 02:00+02:00",
        "2026-10-25 02:30+02:00",
        "2026-10-25 02:00+01:00",
        "2026-10-25 02:30+01:00",
        "2026-10-25 03:00+01:00",
    ]
    assert local(a_schedule("*/30 * * * *"), "2026-03-29 01:15", 3) == [
        "2026-03-29 01:30+01:00",
        "2026-03-29 03:00+02:00",
        "2026-03-29 03:30+02:00",
    ]


@pytest.mark.parametrize(
    "timezone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
)
def test_a_night_run_comes_once_a_day_all_year(timezone: str) -> None:
    schedule = a_schedule("30 2 * * *", timezone)
    zone = zoneinfo.ZoneInfo(timezone)
    start = datetime.datetime(2026, 1, 1, tzinfo=zone)
    days = [time.astimezone(zone).date() for time in itertools.islice(times(schedule, start), 365)]
    assert days == [datetime.date(2026, 1, 1) + datetime.timedelta(days=number) for number in range(365)]


@settings(max_examples=200, deadline=None)
@given(
    cron=st.sampled_from(["0 3 * * *", "*/7 * * * *", "15 1-4 * * 1-5", "0 0 1 * *", "30 2 * 3,10 0"]),
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]),
    minutes=st.integers(0, 2 * 365 * 24 * 60),
    split=st.integers(0, 20),
)
def test_times_rise_and_are_the_same_wherever_one_begins_to_look(
    cron: str, timezone: str, minutes: int, split: int
) -> None:
    schedule = a_schedule(cron, timezone)
    after = datetime.datetime(2026, 1, 1, tzinfo=UTC) + datetime.timedelta(minutes=minutes)
    found = list(itertools.islice(times(schedule, after), 25))
    assert all(earlier < later for earlier, later in itertools.pairwise((after, *found)))
    again = list(itertools.islice(times(schedule, found[split]), 24 - split))
    assert again == found[split + 1 :]


def test_seconds_come_first_where_a_line_has_six_fields() -> None:
    schedule = a_schedule("*/20 * * * * *", "UTC")
    start = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    assert [time.second for time in itertools.islice(times(schedule, start), 4)] == [20, 40, 0, 20]


@pytest.mark.parametrize(
    ("window", "time", "expected"),
    [
        ("08:00-18:00", "2026-05-04 08:00", True),
        ("08:00-18:00", "2026-05-04 07:59", False),
        ("08:00-18:00", "2026-05-04 18:00", False),
        ("22:00-06:00", "2026-05-04 23:00", True),
        ("22:00-06:00", "2026-05-04 05:59", True),
        ("22:00-06:00", "2026-05-04 06:00", False),
        # 2026-05-04 is a Monday.
        ("08:00-18:00 mon-fri", "2026-05-09 12:00", False),
        ("08:00-18:00 sat,sun", "2026-05-09 12:00", True),
        ("08:00-18:00 fri-mon", "2026-05-10 12:00", True),
        ("08:00-18:00 fri-mon", "2026-05-06 12:00", False),
        ("22:00-06:00 fri", "2026-05-09 05:00", True),
        ("22:00-06:00 fri", "2026-05-08 05:00", False),
    ],
)
def test_quiet_windows(window: str, time: str, expected: bool) -> None:
    assert is_quiet([window], datetime.datetime.fromisoformat(time).replace(tzinfo=BERLIN)) is expected


def test_times_in_a_quiet_window_are_left_out() -> None:
    schedule = a_schedule("0 */6 * * *", quiet=["08:00-20:00 mon-fri", "00:00-01:00"])
    assert local(schedule, "2026-05-08 01:00", 4) == [
        "2026-05-08 06:00+02:00",
        "2026-05-09 06:00+02:00",
        "2026-05-09 12:00+02:00",
        "2026-05-09 18:00+02:00",
    ]


def test_a_schedule_that_is_always_quiet_never_comes() -> None:
    assert local(a_schedule("0 3 * * *", quiet="02:00-04:00"), "2026-05-08 01:00") == []


def test_a_yearly_schedule_that_is_always_quiet_never_comes_either() -> None:
    assert local(a_schedule("0 3 1 1 *", quiet="02:00-04:00"), "2026-05-08 01:00") == []


def test_a_window_that_is_none_is_no_window() -> None:
    with pytest.raises(ValueError, match="'8-18' is no quiet window"):
        is_quiet(["8-18"], datetime.datetime(2026, 5, 1, tzinfo=UTC))


def test_a_schedule_ends_with_its_last_day() -> None:
    schedule = a_schedule("0 3 * * *", ends="2026-05-02")
    assert local(schedule, "2026-05-01 00:00") == ["2026-05-01 03:00+02:00", "2026-05-02 03:00+02:00"]


def test_jitter_is_within_its_bounds_and_the_same_for_whoever_asks() -> None:
    schedule = a_schedule("0 3 * * *", jitter="10m")
    due = list(itertools.islice(times(schedule, datetime.datetime(2026, 1, 1, tzinfo=UTC)), 200))
    later = [(begins_at(schedule, "night", each) - each).total_seconds() for each in due]
    assert later == [(begins_at(schedule, "night", each) - each).total_seconds() for each in due]
    assert all(0 <= each < 600 for each in later)
    assert len(set(later)) == 200
    assert max(later) > 500 > 100 > min(later)
    assert begins_at(schedule, "other", due[0]) != begins_at(schedule, "night", due[0])
    assert begins_at(a_schedule("0 3 * * *"), "night", due[0]) == due[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cron": "61 3 * * *"}, "'61 3 * * *' is no cron line: bad minute"),
        ({"cron": "0 3 * *"}, "expected minute, hour, day, month, weekday"),
        ({"cron": "0 0 30 2 *"}, "is no cron line: bad day-of-month"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berln"}, "there is no time zone 'Europe/Berln'"),
        ({"cron": "0 3 * * *", "timezone": "../etc/passwd"}, "there is no time zone"),
        ({"cron": "0 3 * * *", "quiet": "8-18"}, "'8-18' is no quiet window: expected 22:00-06:00"),
        ({"cron": "0 3 * * *", "quiet": "08:00-25:00"}, "is no quiet window"),
        ({"cron": "0 3 * * *", "quiet": "08:00-08:00"}, "is no quiet window"),
        ({"cron": "0 3 * * *", "quiet": "08:00-18:00 mon-fry"}, "is no quiet window"),
        ({"cron": "0 3 * * *", "ends": "tomorrow"}, "'tomorrow' is no date: expected 2026-12-31"),
    ],
)
def test_what_is_no_schedule_is_told(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ScheduleConfig.model_validate(given)
    assert message in str(caught.value)
