"""Everything below a process, found in ``/proc``, and its end: nothing else is ever signalled.

A process is known by its id *and* the time of its start, so that an id which the kernel has given to somebody else is
never taken for ours. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

#: Seconds that the first ones, and then the others, may take over SIGTERM. Ray's daemons need a quarter of one.
GENTLE_S: Final = 1.0

#: Seconds for SIGKILL; a process stuck in a driver can outlive it, and then we say so instead of waiting for ever.
KILL_WAIT_S: Final = 5.0

#: Kernels before 5.3 cannot tell of the end of a process that is not a child: there we look again so often.
_LOOK_AGAIN_S: Final = 0.02

#: ``poll`` cannot wait for ever by a number; callers go round.
_LONGEST_WAIT_S: Final = 3600.0

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process as ``/proc`` shows it."""

    pid: int
    parent: int
    #: When it started, in the kernel's ticks since boot.
    started: int
    #: Its name, cut to 15 characters by the kernel.
    name: str
    #: It has ended, and only its parent has not heard so yet.
    is_zombie: bool

    @property
    def identity(self) -> tuple[int, int]:
        """What no other process ever has."""
        return self.pid, self.started


Finder: TypeAlias = Callable[[], Collection[Process]]


# --- looking ---------------------------------------------------------------------------------------------------


def parse_stat(text: str) -> Process:
    """Return the process that a line of ``/proc/PID/stat`` is about; its name may hold spaces and brackets."""
    pid, _, rest = text.partition(" (")
    name, _, after = rest.rpartition(") ")
    fields = after.split()
    return Process(
        pid=int(pid), parent=int(fields[1]), started=int(fields[19]), name=name, is_zombie=fields[0] in ("Z", "X")
    )


def look(pid: int, proc: Path = Path("/proc")) -> Process | None:
    """Return the process of that id; ``None`` where there is none."""
    try:
        return parse_stat((proc / str(pid) / "stat").read_text(errors="replace"))
    except OSError:
        return None


def every(proc: Path = Path("/proc")) -> tuple[Process, ...]:
    """Return all processes of this machine, or of this container."""
    pids = (int(entry) for entry in os.listdir(proc) if entry.isdecimal())  # noqa: PTH208  # only the names
    return tuple(found for pid in pids if (found := look(pid, proc)) is not None)


def below(processes: Iterable[Process], root: int) -> tuple[Process, ...]:
    """Return those that live and descend from ``root``, without it, parents first.

    ``processes`` were looked at one after the other: a parent that seems younger than its child has got the id of the
    real one, which had ended meanwhile.
    """
    children: dict[int, list[Process]] = {}
    by_pid: dict[int, Process] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
        by_pid[process.pid] = process
    found: list[Process] = []
    if root in by_pid:
        generation = [by_pid[root]]
        while generation:
            generation = [
                child for parent in generation for child in children.get(parent.pid, ()) if _fits(parent, child)
            ]
            found += generation
    return tuple(process for process in found if not process.is_zombie)


def _fits(parent: Process, child: Process) -> bool:
    return child.started >= parent.started and child.pid != parent.pid


def still_there(process: Process) -> bool:
    """Return whether that very process lives."""
    found = look(process.pid)
    return found is not None and found.identity == process.identity and not found.is_zombie


# --- belonging -------------------------------------------------------------------------------------------------


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, however it left its session. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with(parent: int) -> None:
    """Get SIGTERM when ``parent``, which is our parent, ends; at once where it has ended. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# --- waiting and ending ----------------------------------------------------------------------------------------


def await_one(processes: Sequence[Process], until: float) -> bool:
    """Return once one of them has ended, or at ``until`` on :func:`time.monotonic`; say whether one has."""
    with contextlib.ExitStack() as held:
        poll = select.poll()
        for process in processes:
            descriptor = _watch(process)
            if descriptor is not None:
                held.callback(os.close, descriptor)
                poll.register(descriptor, select.POLLIN)
            elif not still_there(process):
                return True
            else:
                return _look_again(processes, until)
        while (remaining_s := until - time.monotonic()) > 0:
            if poll.poll(min(remaining_s, _LONGEST_WAIT_S) * 1000):
                return True
    return False


def _watch(process: Process) -> int | None:
    """Return a descriptor that tells of the process's end; ``None`` where it has ended, or the kernel is too old."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return None
    # Only now is it sure whose it is: the id may have gone to another one until here.
    if still_there(process):
        return descriptor
    os.close(descriptor)
    return None


def _look_again(processes: Sequence[Process], until: float) -> bool:
    while all(still_there(process) for process in processes):
        if time.monotonic() >= until:
            return False
        time.sleep(_LOOK_AGAIN_S)
    return True


def end(find: Finder, *, first: Collection[str] = (), gentle_s: float = GENTLE_S) -> tuple[Process, ...]:
    """End what ``find`` finds, and go on until it finds nothing; return what not even SIGKILL ended.

    SIGTERM goes to those with a name among ``first``, then to the others, then SIGKILL to what is left.
    """
    _end_by(signal.SIGTERM, lambda: [process for process in find() if process.name in first], gentle_s)
    _end_by(signal.SIGTERM, find, gentle_s)
    return kill(find)


def kill(find: Finder) -> tuple[Process, ...]:
    """End what ``find`` finds by SIGKILL, and go on until it finds nothing; return what that did not end."""
    _end_by(signal.SIGKILL, find, KILL_WAIT_S)
    return tuple(find())


def _end_by(number: signal.Signals, find: Finder, patience_s: float) -> None:
    """Signal what ``find`` finds, once each, until it finds nothing or the time is over."""
    until = time.monotonic() + patience_s
    told: set[tuple[int, int]] = set()
    while (found := find()) and time.monotonic() < until:
        for process in found:
            if process.identity not in told:
                told.add(process.identity)
                _tell(process, number)
        await_one(tuple(found), until)


def _tell(process: Process, number: signal.Signals) -> None:
    # What has ended needs no signal, and what has become another user's is not ours to end.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            descriptor = os.pidfd_open(process.pid)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            if still_there(process):
                os.kill(process.pid, number)
            return
        try:
            if still_there(process):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)
