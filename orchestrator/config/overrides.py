"""How the overrides of a run are kept: as they were typed, each with its option."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def as_typed(sets: Sequence[str] | None, only: Sequence[str] | None) -> tuple[str, ...]:
    """Return overrides as the store keeps them, each with its option."""
    return (*(f"--set {text}" for text in sets or ()), *(f"--only {text}" for text in only or ()))


def from_typed(overrides: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the values of ``--set`` and of ``--only`` that the store kept."""
    return _values("--set ", overrides), _values("--only ", overrides)


def _values(option: str, overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(text.removeprefix(option) for text in overrides if text.startswith(option))
