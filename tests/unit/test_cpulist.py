from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.cpulist import format_cpulist, parse_cpulist


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("", ()), ("0\n", (0,)), ("0-3,8", (0, 1, 2, 3, 8)), ("0-1,4-5\n", (0, 1, 4, 5)), ("12", (12,))],
)
def test_the_kernels_lists_are_read(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpulist(text) == cpus


@pytest.mark.parametrize("text", ["a", "1-b", "-"])
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_cpulist(text)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 300)))
def test_a_list_names_exactly_what_went_in(cpus: set[int]) -> None:
    text = format_cpulist(cpus)
    assert parse_cpulist(text) == tuple(sorted(cpus))


def test_neighbours_are_joined() -> None:
    assert format_cpulist([9, 3, 1, 2, 2]) == "1-3,9"
