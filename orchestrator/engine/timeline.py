"""What is still to happen in virtual time, the soonest first; what becomes void before it happens is passed over."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(kw_only=True, slots=True, eq=False)
class Course:
    """What some happenings to come hang on: once it is off, they never happen."""

    is_off: bool = False


class Timeline(Generic[T]):
    """Happenings by their time; those of one instant in the order in which they were expected."""

    def __init__(self) -> None:
        self._coming: list[tuple[float, int, Course, T]] = []
        self._serial = itertools.count()

    def expect(self, course: Course, at: float, happening: T) -> None:
        """Have something happen at ``at``, unless its course is off by then."""
        heapq.heappush(self._coming, (at, next(self._serial), course, happening))

    @property
    def next_at(self) -> float | None:
        """When the next thing happens; ``None`` where nothing is to come."""
        while self._coming and self._coming[0][2].is_off:
            heapq.heappop(self._coming)
        return self._coming[0][0] if self._coming else None

    def pop(self) -> tuple[Course, T]:
        """Take away what happens next; to be called where :attr:`next_at` is not ``None``."""
        _, _, course, happening = heapq.heappop(self._coming)
        return course, happening

    def clear(self) -> None:
        """Have nothing happen any more."""
        self._coming.clear()
