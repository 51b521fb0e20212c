"""What a child leaves behind, wherever it has gone: found by a mark in its environment that no other process has.

A process inherits the environment of whoever starts it, also through a double fork and into a session of its own. One
that wipes its environment before it starts another program is not found, and one of another user is not looked at:
nothing without the mark is ever signalled. Standard library only.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workers.descendants import Process, kill, look

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The variable that holds a child's mark.
VARIABLE: Final = "MUSTER_ATTEMPT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What was found of a child when it had ended."""

    #: Processes that had left the child's group, and so had to be looked for.
    strays: tuple[Process, ...] = ()
    #: Processes, in the group or not, that not even SIGKILL ended.
    left: tuple[Process, ...] = ()

    def __str__(self) -> str:
        ended = _names(tuple(stray for stray in self.strays if stray not in self.left))
        left = self.left and f"not even SIGKILL ended {_names(self.left)}"
        return "; ".join(part for part in (ended, left) if part)


class Mark:
    """A variable with a value that nobody else has."""

    def __init__(self) -> None:
        self._value = secrets.token_hex(16)
        self._entry = f"{VARIABLE}={self._value}".encode()

    def put_on(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return ``variables`` with the mark."""
        return {**variables, VARIABLE: self._value}

    def bearers(self, *, since: int, proc: Path = Path("/proc")) -> tuple[Process, ...]:
        """Return the living processes of this user with the mark, none older than ``since`` (ticks since boot)."""
        return tuple(
            process
            for pid in _own_pids(proc)
            if (process := look(pid, proc)) is not None
            and process.started >= since
            and not process.is_zombie
            and self._is_on(proc / str(pid) / "environ")
        )

    def _is_on(self, environment: Path) -> bool:
        try:
            return self._entry in environment.read_bytes().split(b"\0")
        except OSError:  # it has ended, or is not ours to look at
            return False


def sweep(mark: Mark, child: int, *, since: int) -> Swept:
    """End every bearer of ``mark`` but ``child`` itself, which leads a group of its own; return what was found."""
    strays: dict[tuple[int, int], Process] = {}

    def others() -> tuple[Process, ...]:
        found = tuple(process for process in mark.bearers(since=since) if process.pid != child)
        strays.update((process.identity, process) for process in found if _group_of(process.pid) not in (child, None))
        return found

    return Swept(left=kill(others), strays=tuple(strays.values()))


def _own_pids(proc: Path) -> Iterator[int]:
    for entry in os.listdir(proc):  # noqa: PTH208  # only the names
        if entry.isdecimal():
            try:
                owner = (proc / entry).stat().st_uid
            except OSError:  # it has ended
                continue
            if owner == os.geteuid():
                yield int(entry)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _names(processes: tuple[Process, ...]) -> str:
    return ", ".join(f"{process.name} ({process.pid})" for process in processes)
