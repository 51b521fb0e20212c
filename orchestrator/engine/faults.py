"""What goes wrong in a simulated lab, on command. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Silence:
    """A time in which a host cannot be reached; what it does meanwhile goes on. Virtual seconds."""

    from_s: float
    for_s: float

    @property
    def until_s(self) -> float:
        """When the host is heard again."""
        return self.from_s + self.for_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What goes wrong on command, with a host, with a device or with one case."""

    #: The child dies in the middle of these attempts, counted from 1.
    crash_on_attempts: tuple[int, ...] = ()
    #: Larger batches do not fit in memory.
    oom_above_batch_size: int | None = None
    #: The child starts, and is never heard of again until it is cancelled.
    hangs: bool = False
    #: Nothing comes of a cancel.
    ignores_cancel: bool = False
    #: Seconds by which the child starts later.
    start_delay_s: float = 0.0
    #: Another muster has the device for so many seconds more when a case is given to it.
    held_for_s: float | None = None
    #: Of a device: its agent never answers.
    never_prepares: bool = False
    #: Of a device: its agent dies so many seconds after ``PrepareDevice``.
    lost_after_s: float | None = None
    #: Of a device: seconds from the death of its agent until another one can be brought up; ``None`` for never.
    back_after_s: float | None = None
    #: Of a device: how many of its agents die, the first ones.
    losses: int = 1
    #: Of a host.
    silences: tuple[Silence, ...] = ()


def merged(silences: Sequence[Silence]) -> tuple[Silence, ...]:
    """Return the times in which a host is silent, in order, those that touch as one."""
    found: list[Silence] = []
    for silence in sorted(silences, key=lambda each: each.from_s):
        if found and silence.from_s <= found[-1].until_s:
            until_s = max(found[-1].until_s, silence.until_s)
            found[-1] = Silence(from_s=found[-1].from_s, for_s=until_s - found[-1].from_s)
        else:
            found.append(silence)
    return tuple(found)
