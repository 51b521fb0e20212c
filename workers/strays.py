"""What a child leaves behind, wherever it has gone: found by a mark in its environment that no other process has.

A process inherits the environment of whoever starts it, also through a double fork and into a session of its own. One
that wipes its environment before it starts another program is not found, and one of another user is not looked at:
nothing without the mark is ever signalled. The mark also names the process that put it on: should that one be killed,
whoever comes next on the host can end what it left. Standard library only.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workers.descendants import Process, kill, look

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The variable that holds a child's mark.
VARIABLE: Final = "MUSTER_ATTEMPT"

_NAMED: Final = re.compile(r"(\d+)-(\d+)-[0-9a-f]{32}")


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
    """A variable with a value that nobody else has: who put it on, as id and start, and something random."""

    def __init__(self) -> None:
        itself = look(os.getpid())
        self._value = f"{os.getpid()}-{0 if itself is None else itself.started}-{secrets.token_hex(16)}"

    def put_on(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return ``variables`` with the mark."""
        return {**variables, VARIABLE: self._value}

    def bearers(self, *, since: int) -> tuple[Process, ...]:
        """Return the living processes of this user with the mark, none older than ``since`` (ticks since boot)."""
        return tuple(process for process in _own(since) if _mark_of(process) == self._value)


def sweep(mark: Mark, child: int, *, since: int) -> Swept:
    """End every bearer of ``mark`` but ``child`` itself, which leads a group of its own; return what was found."""
    strays: dict[tuple[int, int], Process] = {}

    def others() -> tuple[Process, ...]:
        found = tuple(process for process in mark.bearers(since=since) if process.pid != child)
        strays.update((process.identity, process) for process in found if _group_of(process.pid) not in (child, None))
        return found

    return Swept(left=kill(others), strays=tuple(strays.values()))


def end_orphans() -> tuple[Process, ...]:
    """End what bears the mark of a process that has ended without having swept; return what not even SIGKILL ended."""
    return kill(lambda: tuple(process for process in _own(since=0) if _is_orphaned(process)))


def _is_orphaned(process: Process) -> bool:
    named = _NAMED.match(_mark_of(process) or "")
    # In another namespace other processes have these ids; and whoever is unknown there may live.
    if named is None or not _is_in_our_namespace(process.pid):
        return False
    owner = look(int(named[1]))
    return owner is None or owner.is_zombie or owner.started != int(named[2])


def _is_in_our_namespace(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()
    except OSError:
        return False


def _mark_of(process: Process) -> str | None:
    try:
        variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is not ours to look at
        return None
    prefix = f"{VARIABLE}=".encode()
    return next((each[len(prefix) :].decode(errors="replace") for each in variables if each.startswith(prefix)), None)


def _own(since: int) -> Iterator[Process]:
    """Give the living processes of this user that are not older than ``since``."""
    for entry in os.listdir("/proc"):  # noqa: PTH208  # only the names
        if entry.isdecimal():
            try:
                owner = Path(f"/proc/{entry}").stat().st_uid
            except OSError:  # it has ended
                continue
            process = look(int(entry)) if owner == os.geteuid() else None
            if process is not None and process.started >= since and not process.is_zombie:
                yield process


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _names(processes: tuple[Process, ...]) -> str:
    return ", ".join(f"{process.name} ({process.pid})" for process in processes)
