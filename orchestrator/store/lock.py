"""Who writes: runs side by side, or one that prepares the store, alone. Held by the kernel, so that a crash frees it.

Different runs need no lock against each other, for the database gives each of their short transactions its turn; what
they hold says that they are at work, keeps the store from being migrated under them, and keeps two processes from going
on with the same run. Readers never wait.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import os
import socket
import struct
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.store.translation import busy, store_error
from workers import codec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

#: Runs that may write to one store at once.
_SLOTS: Final = 64

#: The text of the holder in slot ``n`` is at ``n * _SLOT_BYTES``; longer ones are cut, and then mean nothing.
_SLOT_BYTES: Final = 1024

#: Where the bytes begin of which each run locks one that is its own, far behind every text; a lock needs no byte to lie
#: there. Two ids share a byte once in 2**48.
_RUNS_START: Final = 2**52
_RUN_BYTES: Final = 6

#: Seconds between looks whether a store is prepared; the kernel cannot wait for a lock until a deadline.
_POLL_S: Final = 0.05

#: ``struct flock`` of 64-bit Linux: type, whence, start, length, pid; see fcntl(2).
_FLOCK: Final = struct.Struct("@hhqqi0q")


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who writes to a store; in the text of the lock file."""

    #: ``None`` while the store itself is made or migrated.
    run_id: str | None
    pid: int
    host: str
    #: ISO 8601, UTC.
    since: str

    def __str__(self) -> str:
        who = f"run {self.run_id}" if self.run_id else "muster"
        doing = "is using" if self.run_id else "is preparing"
        return f"{who} (pid {self.pid} on host {self.host}, since {_clock_time(self.since)}) {doing} this store"


def this_process(run_id: str | None) -> Holder:
    """Return the holder that this process is for ``run_id``, from now on."""
    since = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return Holder(run_id=run_id, pid=os.getpid(), host=socket.gethostname(), since=since)


class WriterLock(Protocol):
    """Held by any number of runs, each once, or by one that prepares the store."""

    def held(self, holder: Holder) -> AbstractContextManager[None]:
        """Hold the lock for ``holder``: alone where it has no run. Raises StoreBusyError naming who is in the way.

        In the way are whoever prepares the store, the same run at work elsewhere, and to one who prepares any run.
        """

    def holders(self) -> tuple[Holder, ...]:
        """Return who holds the lock now, without taking it."""


class FileLock:
    """A lock file beside a database, for writers of every process.

    Open file description locks (fcntl(2)): unlike ``flock`` they can be asked for without being taken, unlike plain
    POSIX locks they bind two openings in one process too. The file stays; only the locks on it mean something: each
    run has one on the first free slot, beside its name, and one on a byte that its id leads to, so that no run is held
    twice; whoever prepares the store has one on all of them. ``wait_s`` is how long somebody else's preparing is waited
    for.
    """

    def __init__(self, database: Path, *, wait_s: float = 0.0) -> None:
        self._place = str(database)
        self._path = database.with_name(database.name + ".lock")
        self._wait_s = wait_s

    @contextmanager
    def held(self, holder: Holder) -> Iterator[None]:
        """Hold the lock for ``holder``; raises StoreBusyError, StoreReadOnlyError and StoreFullError."""
        descriptor, slot = self._taken(holder)
        try:
            yield
        finally:
            with suppress(OSError):  # a text that stays means nothing once the lock is gone
                _write(descriptor, slot, "")
            os.close(descriptor)

    def holders(self) -> tuple[Holder, ...]:
        """Return who holds the lock now; whoever has not written its name yet is left out."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ()
        try:
            found = [_parsed(_read(descriptor, slot)) for slot in range(_SLOTS) if _is_held(descriptor, slot)]
        finally:
            os.close(descriptor)
        return tuple(holder for holder in found if holder is not None)

    def _taken(self, holder: Holder) -> tuple[int, int]:
        """Return the lock file, open and locked, and the slot that is the holder's."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise store_error(error, self._place) from error
        try:
            slot = self._slot(descriptor, holder)
            if holder.run_id is None:
                os.ftruncate(descriptor, 0)  # nobody else is there, whatever the text says
            _write(descriptor, slot, codec.to_json(holder))
        except OSError as error:
            os.close(descriptor)
            raise store_error(error, self._place) from error
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, slot

    def _slot(self, descriptor: int, holder: Holder) -> int:
        until = time.monotonic() + self._wait_s
        while (slot := _locked_slot(descriptor, holder.run_id)) is None:
            others = _in_the_way(holder, self.holders())
            if time.monotonic() >= until or any(other.run_id for other in others):
                raise busy(self._place, "; ".join(map(str, others)) or "another run is using this store")
            time.sleep(_POLL_S)
        return slot


class MemoryLock:
    """The same for a store in memory, which no other process can reach."""

    def __init__(self) -> None:
        self._holders: list[Holder] = []

    @contextmanager
    def held(self, holder: Holder) -> Iterator[None]:
        """Hold the lock for ``holder``; raises StoreBusyError."""
        in_the_way = [
            other for other in self._holders if None in (holder.run_id, other.run_id) or holder.run_id == other.run_id
        ]
        if in_the_way:
            raise busy("the store in memory", "; ".join(map(str, in_the_way)))
        self._holders.append(holder)
        try:
            yield
        finally:
            self._holders.remove(holder)

    def holders(self) -> tuple[Holder, ...]:
        """Return who holds the lock now."""
        return tuple(self._holders)


def _in_the_way(holder: Holder, others: tuple[Holder, ...]) -> tuple[Holder, ...]:
    """Return those who keep a holder from the lock: the same run where it is at work, for no other run would."""
    return tuple(other for other in others if other.run_id == holder.run_id) or others


def _locked_slot(descriptor: int, run_id: str | None) -> int | None:
    """Lock everything, or a run's byte and a free slot; return the slot, or ``None`` where somebody is in the way."""
    if run_id is None:
        return 0 if _lock(descriptor, 0, 0) else None
    if not _lock(descriptor, _byte_of(run_id), 1):
        return None
    return next((slot for slot in range(_SLOTS) if _lock(descriptor, slot, 1)), None)


def _byte_of(run_id: str) -> int:
    return _RUNS_START + int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:_RUN_BYTES], "big")


def _lock(descriptor: int, start: int, length: int) -> bool:
    """Lock some bytes, to the end where ``length`` is 0; return False where somebody else has one of them."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
    except BlockingIOError:
        return False
    return True


def _is_held(descriptor: int, slot: int) -> bool:
    asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, slot, 1, 0)
    return bool(_FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)


def _write(descriptor: int, slot: int, text: str) -> None:
    os.pwrite(descriptor, text.encode("ascii").ljust(_SLOT_BYTES)[:_SLOT_BYTES], slot * _SLOT_BYTES)


def _read(descriptor: int, slot: int) -> str:
    return os.pread(descriptor, _SLOT_BYTES, slot * _SLOT_BYTES).decode("ascii", "replace")


def _parsed(text: str) -> Holder | None:
    try:
        return codec.from_json(Holder, text)
    except codec.CodecError:
        return None


def _clock_time(since: str) -> str:
    """Return ``since`` as this machine's wall clock shows it: the time, and the date unless it is today."""
    then = datetime.datetime.fromisoformat(since).astimezone()
    is_today = then.date() == datetime.datetime.now(then.tzinfo).date()
    return then.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M")
