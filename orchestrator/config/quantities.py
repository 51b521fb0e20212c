"""Durations and shares as people write them: ``1h30m``, ``1%``."""

from __future__ import annotations

import re
from typing import Final

DURATION_FORMS: Final = "a duration with its unit, such as 90s, 10m or 1h30m"
SHARE_FORMS: Final = "a share such as 1%, or a number between 0 and 1 such as 0.01"

#: Seconds in each unit, the largest first, as they follow each other in a duration.
_UNITS_S: Final = (("d", 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001))
#: A longer time is a typo, and larger numbers would not fit where the store keeps them.
_MAX_DURATION_S: Final = 366 * 86_400.0

_NUMBER: Final = r"[0-9]{1,9}(?:\.[0-9]{1,6})?"
_DURATION: Final = re.compile("".join(rf"(?:({_NUMBER}){unit})?" for unit, _ in _UNITS_S), re.ASCII)
_PERCENTAGE: Final = re.compile(rf"({_NUMBER}) ?%", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of ``1h30m``, to the millisecond; raises ValueError with what was expected."""
    found = _DURATION.fullmatch(text)
    if not text or not found:
        raise ValueError(DURATION_FORMS)
    seconds = round(sum(float(n) * s for n, (_, s) in zip(found.groups(), _UNITS_S, strict=True) if n), 3)
    if not 0 < seconds <= _MAX_DURATION_S:
        raise ValueError(f"{DURATION_FORMS}, more than 0 and at most 366d")
    return seconds


def format_duration(seconds: float) -> str:
    """Return ``seconds`` in the form that :func:`parse_duration` reads: ``1m30s``."""
    parts: list[str] = []
    rest_ms = round(seconds * 1000)
    for unit, unit_s in _UNITS_S:
        count, rest_ms = divmod(rest_ms, round(unit_s * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def typed_share(text: str) -> float:
    """Return a share as a person typed it, ``3%`` or ``0.03``; raises ValueError."""
    return parse_share(text if text.endswith("%") else float(text))


def parse_share(value: str | float) -> float:
    """Return ``1%`` as 0.01, and a number between 0 and 1 as it is; raises ValueError with what was expected.

    A bare ``1`` is refused, for it could be meant as either.
    """
    if isinstance(value, str):
        found = _PERCENTAGE.fullmatch(value)
        # Divided in decimal, so that 1% is the same number as 0.01.
        share = float(f"{found[1]}e-2") if found else 0.0
    else:
        share = float(value)
    if not 0 < share < 1:
        raise ValueError(SHARE_FORMS)
    return share
