from __future__ import annotations

import pytest

from orchestrator.report.figures import mean_and_sd, memory_size, ranges, rounded


@pytest.mark.parametrize(
    ("mean", "sd", "expected"),
    [
        (373.41, 5.19, "373.4 +/- 5.2"),
        (1248.3, 48.4, "1248 +/- 48"),
        (1248.3, 148.0, "1250 +/- 150"),
        (0.81834, 0.0123, "0.818 +/- 0.012"),
        (70.0, 0.1, "70.00 +/- 0.10"),
        # Rounding carries into the next place, and the mean follows.
        (100.04, 9.96, "100 +/- 10"),
        (100.04, 0.996, "100.0 +/- 1.0"),
        # The spread dwarfs the mean, which must not become 0.
        (40.2, 1480.0, "40 +/- 1480"),
    ],
)
def test_sd_has_two_digits_and_the_mean_the_same_place(mean: float, sd: float, expected: str) -> None:
    assert mean_and_sd(mean, sd) == expected


@pytest.mark.parametrize("sd", [0.0, 1e-14, 4e-8])
def test_an_sd_that_no_clock_can_see_is_zero(sd: float) -> None:
    assert mean_and_sd(373.41, sd) == "373.4 +/- 0"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (0.000123456, "0.0001235"),
        (1.0, "1.000"),
        (9.9999, "10.00"),
        (373.41, "373.4"),
        (12345.6, "12346"),
        (1.5e9, "1500000000"),
    ],
)
def test_rounded_has_four_digits_and_no_exponent(value: float, expected: str) -> None:
    assert rounded(value) == expected


def test_neighbours_are_drawn_together() -> None:
    assert ranges((1, 2, 3, 5, 7, 8)) == "1-3, 5, 7-8"
    assert ranges(()) == ""


def test_memory_is_in_the_makers_units() -> None:
    assert memory_size(16 * 2**30) == "16 GB"
    assert memory_size(int(15.5 * 2**30)) == "15.5 GB"
    assert memory_size(512 * 2**20) == "512 MB"
