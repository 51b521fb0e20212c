"""The process that outlives the keeper by a moment, whatever ended it, and clears up behind it.

It is the parent of the keeper and of every orphan below it, so that all of them can be found when the keeper is gone.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workers.descendants import adopt_orphans, below, end, every

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

#: How the kernel calls an agent's process, of which it keeps 15 characters: Ray names an actor by its class.
AGENT: Final = "ray::DeviceAgent"[:15]

#: End first, so that nobody takes the end of what hangs on it for a failure: Ray that of an agent, an agent that of
#: its child.
FIRST_TO_END: Final = ("raylet", AGENT)

#: What ends a keeper and everything below it at once.
ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

_WILL_BYTES: Final = 2**16


class Will:
    """Folders that shall not outlive the keeper. It writes them down; the guard reads them when it is gone."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)

    def add(self, folder: Path) -> None:
        """Have the folder removed in the end, if it is still there."""
        os.write(self._writer, os.fsencode(folder) + b"\0")

    def read(self) -> tuple[Path, ...]:
        """Return the folders that were added."""
        with contextlib.suppress(BlockingIOError):
            return tuple(Path(os.fsdecode(each)) for each in os.read(self._reader, _WILL_BYTES).split(b"\0") if each)
        return ()


def guarded(keep: Callable[[int, Will], None]) -> int:
    """Run ``keep`` in a child of this process, clear up when it has ended in whatever way, return its exit code.

    ``keep`` gets the guard's process id, below which every orphan comes to be. Raises OSError where the kernel refuses.
    """
    # A terminal's Ctrl-C is for the command that started us, which will say what it wants. Whoever has made us a
    # leader has taken us out of its group already.
    with contextlib.suppress(PermissionError):
        os.setsid()
    adopt_orphans()
    guard, will = os.getpid(), Will()
    # Signals wait until both sides have decided what to do with them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    keeper = os.fork()
    if keeper == 0:
        try:
            keep(guard, will)
        finally:
            os._exit(1)
    _let_go_of_the_channel()
    _pass_signals_on(keeper)
    code = _await(keeper)
    for number in ENDING_SIGNALS:  # there is nobody to pass them on to, and the end has begun
        signal.signal(number, signal.SIG_IGN)
    clear_up(guard, will.read())
    return code


def clear_up(guard: int, folders: tuple[Path, ...]) -> None:
    """End everything below the guard, which is this process, and remove the folders."""
    end(lambda: below(every(), guard), first=FIRST_TO_END)
    with contextlib.suppress(ChildProcessError):  # no child is left
        while os.waitpid(-1, os.WNOHANG) != (0, 0):  # not every machine's first process reaps
            pass
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _let_go_of_the_channel() -> None:
    """The head shall see the end of the keeper's output when the keeper has ended."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)


def _pass_signals_on(keeper: int) -> None:
    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeper, number)

    for number in ENDING_SIGNALS:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


def _await(keeper: int) -> int:
    """Reap whatever ends below until it is the keeper; return its exit code."""
    while True:
        pid, status = os.wait()
        if pid == keeper:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code  # as shells say it
