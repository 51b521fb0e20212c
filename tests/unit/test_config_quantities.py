from __future__ import annotations

import pytest

from orchestrator.config.quantities import format_duration, parse_duration, parse_share


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("10m", 600.0),
        ("1h30m", 5_400.0),
        ("1.5h", 5_400.0),
        ("250ms", 0.25),
        ("1d", 86_400.0),
        ("1m1s1ms", 61.001),
        ("366d", 366 * 86_400.0),
    ],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1 m", "30m1h", "1y", "1e3s", "٣s", "10m\n", "1m1m"])
def test_what_is_no_duration_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90s, 10m or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0s", "0.0001s", "367d", "999999999d"])
def test_no_time_and_more_than_a_year_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="more than 0 and at most 366d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(600.0, "10m"), (5_400.5, "1h30m500ms"), (0.001, "1ms"), (90_061.0, "1d1h1m1s")]
)
def test_seconds_are_written_as_people_read_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "share"), [("1%", 0.01), ("0.5 %", 0.005), ("12.5%", 0.125), (0.01, 0.01), (0.999, 0.999)]
)
def test_a_share_is_a_fraction(value: str | float, share: float) -> None:
    assert parse_share(value) == share


@pytest.mark.parametrize(
    "value", ["1", "0.01", "%", "-1%", "100%", "0%", "1%%", "1e1%", 0, 1, 2, -0.5, float("nan"), float("inf")]
)
def test_a_share_that_could_mean_two_things_or_none_is_refused(value: str | float) -> None:
    with pytest.raises(ValueError, match="a share such as 1%"):
        parse_share(value)
