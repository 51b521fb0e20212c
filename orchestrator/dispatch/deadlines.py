"""Deadlines by owner: one for each, the soonest first, each operation in logarithmic time."""

from __future__ import annotations

import heapq
from typing import Final

#: Below this many entries, entries that no longer hold are not worth clearing away.
_SMALL: Final = 64


class Deadlines:
    """At most one deadline for each owner; a new one replaces the old.

    A replaced deadline stays in the heap until it comes to the top or until most of the heap is of its kind.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []
        self._current: dict[str, tuple[float, int]] = {}
        self._serial = 0

    def __len__(self) -> int:
        """Return how many entries are held, those that no longer count included."""
        return len(self._heap)

    def set(self, owner: str, at: float) -> None:
        """Give ``owner`` a deadline at ``at``, instead of any that it had."""
        self._serial += 1
        self._current[owner] = (at, self._serial)
        heapq.heappush(self._heap, (at, self._serial, owner))
        if len(self) > _SMALL + 2 * len(self._current):
            self._heap = [(when, serial, name) for name, (when, serial) in self._current.items()]
            heapq.heapify(self._heap)

    def clear(self, owner: str) -> None:
        """Take the owner's deadline away, if it has one."""
        self._current.pop(owner, None)

    def of(self, owner: str) -> float | None:
        """Return the owner's deadline, if it has one."""
        at, _ = self._current.get(owner, (None, 0))
        return at

    @property
    def next(self) -> float | None:
        """The soonest deadline, or ``None`` where there is none."""
        while self._heap:
            at, serial, owner = self._heap[0]
            if self._current.get(owner) == (at, serial):
                return at
            heapq.heappop(self._heap)
        return None

    def pop_due(self, at: float) -> str | None:
        """Take away the soonest deadline that is not after ``at``; return its owner, or ``None`` where none is due."""
        soonest = self.next
        if soonest is None or soonest > at:
            return None
        _, _, owner = heapq.heappop(self._heap)
        del self._current[owner]
        return owner
