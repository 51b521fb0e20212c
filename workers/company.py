"""How the children of one host that are measured at once find each other, begin together, and stay until all are done.

One small file in the folder of the leases has a byte for each of them. What is written there says how far it has come;
the lock on the byte is the kernel's, and ends with its process: whoever has come and holds no lock is gone. One group
is at work on a host at a time, for whoever leads it holds the host's lease for all of it. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from workers.lockfiles import LeaseError, conflict_with, lease_folder, opened_file, opened_folder, set_lock
from workers.protocol import Environment, Fact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workers.protocol import Together

#: The file, in the folder of the leases.
FILE: Final = "company"

#: Whose group it is stands in the first bytes, of which the first one is the leader's to lock; then comes a byte for
#: each member.
_HEAD_BYTES: Final = 64

_NOT_HERE: Final = b"\0"
_CAME: Final = b"c"
_READY: Final = b"r"
_DONE: Final = b"d"
_GONE: Final = b"g"

#: Seconds between two looks at who is ready, before anything is timed.
POLL_S: Final = 0.02

#: Seconds that all are at work together before the first step counts: more than a look comes late.
SETTLE_S: Final = 0.1

DEVICES_FACT: Final = "company.devices"
LEFT_FACT: Final = "company.left"


class CompanyMissingError(Exception):
    """Nobody is there to be measured beside; the message says who was to be."""


class CompanyLateError(Exception):
    """The others were not ready to begin for longer than anybody waits; the message says who."""


def lead(file: int, group: str) -> None:
    """Begin a group in the opened file: its members may come from now on. For whoever has just taken the host.

    What members of the same group have left there stays: whoever led them may have ended before this one came.
    """
    if not _is_of(file, group):
        os.ftruncate(file, 0)
        os.pwrite(file, _head_of(group), 0)
    set_lock(file, fcntl.F_WRLCK, 0)


def is_led(file: int, group: str) -> bool:
    """Return whether somebody else holds the host for this group."""
    return conflict_with(file, fcntl.F_WRLCK, 0) is not None and _is_of(file, group)


def excuse(together: Together, selector: str, folder: Path | None = None) -> None:
    """Say for a member whose child will never come that nobody need wait for it."""
    with contextlib.suppress(OSError, LeaseError):  # they wait for it until their deadline, then
        company = Company(together, selector, folder)
        try:
            company.excuse()
        finally:
            company.close()


class Company:
    """One member of a group: what it tells the others, and what it sees of them. Used by one thread.

    Raises :class:`LeaseError` and OSError where the file cannot be had.
    """

    def __init__(self, together: Together, selector: str, folder: Path | None = None) -> None:
        self._together = together
        self._own = together.selectors.index(selector)
        self._folder = folder or lease_folder()
        with opened_folder(self._folder) as opened:
            self._file = opened_file(opened, self._folder / FILE)
        #: Those beside whom the counted steps began and ended, and those that left in between.
        self._devices: tuple[str, ...] = ()
        self._left: tuple[str, ...] = ()

    def close(self) -> None:
        """Leave the others."""
        os.close(self._file)

    def join(self) -> None:
        """Be seen by the others. Raises :class:`CompanyMissingError` where the group is not there any more."""
        if not _is_of(self._file, self._together.group) or not set_lock(self._file, fcntl.F_WRLCK, self._byte):
            raise CompanyMissingError("the host is not held any more for those that were to be measured together")
        self._write(_CAME)

    def excuse(self) -> None:
        """Say that this member will not come, unless it has."""
        if _is_of(self._file, self._together.group) and self._state(self._own) == _NOT_HERE:
            self._write(_GONE)

    def begin(
        self,
        step: Callable[[], None],
        *,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Return once all that are still there are at work: after a step of our own at least, with the others' beside.

        Raises :class:`CompanyMissingError` where nobody else is there any more, :class:`CompanyLateError` where
        somebody is not ready within ``timeout_s``, and whatever ``step`` raises.
        """
        self._write(_READY)
        until = clock() + timeout_s
        while unready := [number for number in self._others if self._is_awaited(number)]:
            if clock() >= until:
                names = ", ".join(self._together.selectors[number] for number in unready)
                raise CompanyLateError(f"{names} not ready to be measured beside it within {timeout_s:g} s")
            pause(POLL_S)
        self._devices = self._present()
        if not self._devices:
            names = ", ".join(self._together.selectors[number] for number in self._others)
            raise CompanyMissingError(f"nobody is left to be measured beside: {names} ended before the first step")
        settled_at = clock() + SETTLE_S
        step()
        while clock() < settled_at:
            step()

    def stay(self, step: Callable[[], None], *, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Go on stepping, uncounted, until all are done or gone, ``timeout_s`` at most: nobody's last steps are alone.

        Call it when the last step was counted. Whatever ``step`` raises ends it, for the figure is there already.
        """
        still = self._present()
        self._left = tuple(name for name in self._devices if name not in still)
        self._write(_DONE)
        until = clock() + timeout_s
        with contextlib.suppress(Exception):
            while clock() < until and any(self._is_at_work(number) for number in self._others):
                step()

    @property
    def reason(self) -> str | None:
        """What the person has to know of the figure; ``None`` where the company was whole."""
        missing = [name for name in self._names_of_others() if name not in self._devices]
        said = [f"{', '.join(missing)} not beside it"] if missing else []
        said += [f"{', '.join(self._left)} left before its last step"] if self._left else []
        return f"its company was not whole: {' and '.join(said)}" if said else None

    def facts(self) -> Environment:
        """Return who was at work beside it, and who of them not until its last step."""
        facts = [(DEVICES_FACT, Fact(value=", ".join(self._devices)))]
        facts += [(LEFT_FACT, Fact(value=", ".join(self._left)))] if self._left else []
        return Environment(facts=tuple(facts))

    # --- what is seen of the others ----------------------------------------------------------------------------

    @property
    def _byte(self) -> int:
        return _HEAD_BYTES + self._own

    @property
    def _others(self) -> tuple[int, ...]:
        return tuple(number for number in range(len(self._together.selectors)) if number != self._own)

    def _names_of_others(self) -> tuple[str, ...]:
        return tuple(self._together.selectors[number] for number in self._others)

    def _present(self) -> tuple[str, ...]:
        return tuple(self._together.selectors[number] for number in self._others if self._is_here(number))

    def _is_awaited(self, number: int) -> bool:
        """Whether it has not come yet, or has and is not ready."""
        state = self._state(number)
        return state == _NOT_HERE or (state == _CAME and self._is_here(number))

    def _is_at_work(self, number: int) -> bool:
        return self._state(number) == _READY and self._is_here(number)

    def _is_here(self, number: int) -> bool:
        return conflict_with(self._file, fcntl.F_WRLCK, _HEAD_BYTES + number) is not None

    def _state(self, number: int) -> bytes:
        return os.pread(self._file, 1, _HEAD_BYTES + number) or _NOT_HERE

    def _write(self, state: bytes) -> None:
        os.pwrite(self._file, state, self._byte)


def _is_of(file: int, group: str) -> bool:
    return os.pread(file, _HEAD_BYTES, 0) == _head_of(group)


def _head_of(group: str) -> bytes:
    return group.encode()[:_HEAD_BYTES].ljust(_HEAD_BYTES, b"\0")
