"""Successive halving: its rounds, and who is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.halving import LEAST_STEPS, better_half, schedule


@pytest.mark.parametrize(
    ("candidates", "steps", "expected"),
    [
        (1, 100, (100,)),
        (2, 100, (50, 100)),
        (16, 64, (4, 8, 16, 32, 64)),
        (18, 100, (4, 7, 13, 25, 50, 100)),
        (16, 16, (3, 3, 4, 8, 16)),
        (4, 2, (2, 2, 2)),
    ],
)
def test_each_round_has_about_twice_the_steps_of_the_one_before(
    candidates: int, steps: int, expected: tuple[int, ...]
) -> None:
    assert schedule(candidates, steps) == expected


@given(candidates=st.integers(1, 1000), steps=st.integers(1, 1000))
def test_the_last_round_has_all_steps_and_one_candidate(candidates: int, steps: int) -> None:
    rounds = schedule(candidates, steps)
    left = list(range(candidates))
    for _ in rounds[:-1]:
        left = list(better_half((each, float(each)) for each in left))
    assert rounds[-1] == steps
    assert left == [candidates - 1]
    assert list(rounds) == sorted(rounds)
    assert min(rounds) >= min(LEAST_STEPS, steps)


def test_of_odd_numbers_one_more_is_left_and_of_equal_ones_the_earlier() -> None:
    assert better_half([("a", 1.0), ("b", 3.0), ("c", 2.0)]) == ("b", "c")
    assert better_half([("a", 1.0), ("b", 1.0)]) == ("a",)
    assert better_half([]) == ()


@pytest.mark.parametrize(("candidates", "steps"), [(0, 1), (1, 0)])
def test_nothing_cannot_be_tuned(candidates: int, steps: int) -> None:
    with pytest.raises(ValueError, match="cannot have"):
        schedule(candidates, steps)
