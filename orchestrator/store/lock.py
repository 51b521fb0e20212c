"""Who may write: one run at a time, held by the kernel, so that a crash frees it. Readers never wait."""

from __future__ import annotations

import datetime
import fcntl
import os
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.store.translation import busy, store_error
from workers import codec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

#: ``struct flock`` of 64-bit Linux: type, whence, start, length, pid; see fcntl(2).
_FLOCK: Final = struct.Struct("@hhqqi0q")


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who writes to a store; the text of the lock file."""

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
    """Held by at most one writer."""

    def held(self, holder: Holder) -> AbstractContextManager[None]:
        """Hold the lock for ``holder``; raises StoreBusyError naming whoever has it."""

    def holder(self) -> Holder | None:
        """Return who holds the lock now, without taking it."""


class FileLock:
    """A lock file beside a database, for writers of every process.

    Open file description locks (fcntl(2)): unlike ``flock`` they can be asked for without being taken, unlike plain
    POSIX locks they bind two openings in one process too. The file stays; only the lock on it means something.
    """

    def __init__(self, database: Path) -> None:
        self._place = str(database)
        self._path = database.with_name(database.name + ".lock")

    @contextmanager
    def held(self, holder: Holder) -> Iterator[None]:
        """Hold the lock for ``holder``; raises StoreBusyError, StoreReadOnlyError and StoreFullError."""
        descriptor = self._taken(holder)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def holder(self) -> Holder | None:
        """Return who holds the lock now; ``None`` also while a holder has not written its name yet."""
        try:
            text = self._path.read_text("ascii", "replace") if self._is_held() else ""
        except OSError:
            return None
        return _parsed(text)

    def _taken(self, holder: Holder) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise store_error(error, self._place) from error
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, codec.to_json(holder).encode(), 0)
        except BlockingIOError as error:
            os.close(descriptor)
            raise busy(self._place, str(self.holder() or "another run is using this store")) from error
        except OSError as error:
            os.close(descriptor)
            raise store_error(error, self._place) from error
        return descriptor

    def _is_held(self) -> bool:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK))
        finally:
            os.close(descriptor)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


class MemoryLock:
    """The same for a store in memory, which no other process can reach."""

    def __init__(self) -> None:
        self._holder: Holder | None = None

    @contextmanager
    def held(self, holder: Holder) -> Iterator[None]:
        """Hold the lock for ``holder``; raises StoreBusyError."""
        if self._holder is not None:
            raise busy("the store in memory", str(self._holder))
        self._holder = holder
        try:
            yield
        finally:
            self._holder = None

    def holder(self) -> Holder | None:
        """Return who holds the lock now."""
        return self._holder


def _flock(kind: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0)


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
