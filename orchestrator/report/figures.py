"""Figures as people read them: no more digits than were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Steps are timed in whole nanoseconds: nothing below a millionth of a millisecond was measured.
_FINEST_DECIMALS: Final = 6

#: How many digits a figure has that comes without a standard deviation.
_DIGITS: Final = 4


def mean_and_sd(mean: float, sd: float) -> str:
    """Return ``mean +/- sd``: the sd to two significant digits, the mean to the same decimal place.

    So ``373.41, 5.19`` is ``373.4 +/- 5.2`` and ``1248.3, 148`` is ``1250 +/- 150``: the usual rule for stating an
    uncertainty (JCGM 100:2008, GUM, 7.2.6). An sd too small to have been measured is ``0``; beside a huge one the mean
    keeps two digits of its own, so that it is never rounded away.
    """
    decimals = max(_decimals(sd, digits=2), _decimals(mean, digits=2))
    if sd == 0 or decimals > _FINEST_DECIMALS:
        return f"{rounded(mean)} +/- 0"
    return f"{_fixed(mean, decimals)} +/- {_fixed(sd, decimals)}"


def rounded(value: float, digits: int = _DIGITS) -> str:
    """Return ``value`` to ``digits`` significant digits, never in scientific notation; whole digits are all kept."""
    return _fixed(value, max(_decimals(value, digits), 0))


def _decimals(value: float, digits: int) -> int:
    """How many decimal places ``digits`` significant digits of ``value`` need; negative for tens and up."""
    if value == 0:
        return 0
    # Formatting rounds first, so that 9.96 to two digits counts as 10.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return digits - 1 - exponent


def _fixed(value: float, decimals: int) -> str:
    return f"{round(value, decimals):.{max(decimals, 0)}f}"


def ranges(numbers: tuple[int, ...]) -> str:
    """Return sorted whole numbers with neighbours drawn together: ``1-4, 7``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def rows(numbers: Sequence[int]) -> str:
    """Return how notes name rows by their sorted numbers: ``Row 2``, ``Rows 1-4, 7``."""
    return f"{'Row' if len(numbers) == 1 else 'Rows'} {ranges(tuple(numbers))}"


def memory_size(memory_bytes: int) -> str:
    """Return an amount of memory as makers state it, in units of 1024: ``16 GB``, ``512 MB``."""
    unit, scale = ("GB", 2**30) if memory_bytes >= 2**30 else ("MB", 2**20)
    return f"{memory_bytes / scale:.{0 if memory_bytes % scale == 0 else 1}f} {unit}"
