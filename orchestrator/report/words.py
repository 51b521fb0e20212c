"""Durations and numbers of things in words."""

from __future__ import annotations


def seconds(value: float) -> str:
    """Return a duration for people: ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: int, what: str) -> str:
    """Return ``1 case``, ``2 cases``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
