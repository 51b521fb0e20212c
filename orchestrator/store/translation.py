"""The one place where failures of SQLite and of the file system become errors for people."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.errors import (
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
)

#: A file system with less than this left counts as full: SQLite takes its shared memory in steps of 32 KiB.
_FULL_BELOW_BYTES: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meaning:
    """What a foreign failure means to a person."""

    kind: type[StoreError]
    what: str
    remedy: str


_BUSY: Final = _Meaning(
    kind=StoreBusyError,
    what="another process is using the store",
    remedy="Wait until it has finished, or keep results elsewhere: --store sqlite:///other.db",
)
_READ_ONLY: Final = _Meaning(
    kind=StoreReadOnlyError,
    what="the store cannot be written",
    remedy="Make the file and its folder writable for this user, or keep results elsewhere: --store sqlite:///other.db",
)
_FULL: Final = _Meaning(
    kind=StoreFullError,
    what="no space is left where the store lies",
    remedy="Free some space, or keep results elsewhere: --store sqlite:///other.db",
)
_CORRUPT: Final = _Meaning(
    kind=StoreCorruptError,
    what="not a muster store, or damaged",
    remedy="Move the file away and bring back a copy, or use another: --store sqlite:///other.db",
)
_GONE: Final = _Meaning(
    kind=StoreError,
    what="the place where the store lies is gone or does not answer",
    remedy="Bring it back, or mount it again, or keep results elsewhere: --store sqlite:///other.db",
)
_FAILED: Final = _Meaning(
    kind=StoreError,
    what="the store cannot be used",
    remedy="Look at the disk and at the file's rights, or use another store: --store sqlite:///other.db",
)

_UNREACHABLE: Final = _Meaning(
    kind=StoreError,
    what="the database server does not answer",
    remedy="Is it running, and the address right? Or keep results elsewhere: --store sqlite:///other.db",
)
_LOCKED_OUT: Final = _Meaning(
    kind=StoreError,
    what="the database server does not let us in",
    remedy="Put the password into ~/.pgpass (PGPASSFILE) or PGPASSWORD, and look at the user in the URL.",
)
_NO_DATABASE: Final = _Meaning(
    kind=StoreError,
    what="the server has no such database",
    remedy="Make it first: createdb muster",
)
_NO_RIGHTS: Final = _Meaning(
    kind=StoreReadOnlyError,
    what="this user may not write there",
    remedy="GRANT it the right to create tables in the database, or keep results elsewhere: --store sqlite:///other.db",
)
_SERVER_FULL: Final = _Meaning(
    kind=StoreFullError, what="the database server has no space left", remedy="Free some space on the server."
)
_SERVER_FAILED: Final = _Meaning(
    kind=StoreError,
    what="the database server could not do it",
    remedy="Look into the server's log, or keep results elsewhere: --store sqlite:///other.db",
)

#: What codes begin with, longer ones first; https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE: Final = (
    ("55P03", _BUSY),
    ("57P", _UNREACHABLE),
    ("3D000", _NO_DATABASE),
    ("28", _LOCKED_OUT),
    ("42501", _NO_RIGHTS),
    ("25006", _READ_ONLY),
    ("53100", _SERVER_FULL),
    ("42P01", _CORRUPT),
    ("42703", _CORRUPT),
    ("08", _UNREACHABLE),
)

#: What libpq says before there is a server that could.
_BY_WORDS: Final = (
    ("password authentication failed", _LOCKED_OUT),
    ("no password supplied", _LOCKED_OUT),
    ("no pg_hba.conf entry", _LOCKED_OUT),
    ("role ", _LOCKED_OUT),
    ("database ", _NO_DATABASE),
    ("connect", _UNREACHABLE),
    ("timeout", _UNREACHABLE),
    ("resolve", _UNREACHABLE),
)

#: Parts of SQLite's messages (https://www.sqlite.org/rescode.html); its codes reach Python from 3.11 only.
_BY_MESSAGE: Final = (
    ("locked", _BUSY),
    ("locking protocol", _BUSY),
    ("readonly database", _READ_ONLY),
    ("disk is full", _FULL),
    ("not a database", _CORRUPT),
    ("malformed", _CORRUPT),
    ("unsupported file format", _CORRUPT),
    ("no such table", _CORRUPT),
    ("no such column", _CORRUPT),
)

_BY_ERRNO: Final = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.ENOENT: _GONE,
    errno.ENOTDIR: _GONE,
    errno.ENODEV: _GONE,
    errno.ENXIO: _GONE,
    errno.EIO: _GONE,
    errno.ESTALE: _GONE,
    errno.ENOTCONN: _GONE,
    errno.ETIMEDOUT: _GONE,
}

#: What SQLite says where the place fails it, whatever is wrong there: full, read-only, gone.
_OF_THE_PLACE: Final = ("disk i/o error", "unable to open database file")


def store_error(error: Exception, place: str) -> StoreError:
    """Return what ``error`` from SQLite, SQLAlchemy or the file system means for the store at ``place``."""
    cause = getattr(error, "orig", None) or error
    if type(cause).__module__.partition(".")[0] == "psycopg":
        return _of_server(cause, place)
    meaning = _meaning_of(cause, place)
    return meaning.kind(f"{place}: {meaning.what} ({cause})", remedy=meaning.remedy)


def _of_server(cause: BaseException, place: str) -> StoreError:
    """Return what PostgreSQL's driver says, by SQLSTATE where the server spoke and by words where it did not."""
    state = str(getattr(cause, "sqlstate", None) or "")
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    words = lines[0] if lines else type(cause).__name__
    meaning = next((meaning for begin, meaning in _BY_STATE if state.startswith(begin)), None)
    if meaning is None:
        meaning = next((meaning for part, meaning in _BY_WORDS if part in str(cause).lower()), _SERVER_FAILED)
    return meaning.kind(f"{place}: {meaning.what} ({words})", remedy=meaning.remedy)


def corrupt(place: str, why: str) -> StoreCorruptError:
    """Return the error for a store whose contents make no sense."""
    return StoreCorruptError(f"{place}: {_CORRUPT.what} ({why})", remedy=_CORRUPT.remedy)


def read_only(place: str) -> StoreReadOnlyError:
    """Return the error for a store that was asked to be written and cannot be."""
    return StoreReadOnlyError(f"{place}: {_READ_ONLY.what}", remedy=_READ_ONLY.remedy)


def busy(place: str, who: str) -> StoreBusyError:
    """Return the error for a store that somebody else writes to."""
    return StoreBusyError(f"{place}: {who}", remedy=_BUSY.remedy)


def gone(place: str, why: str) -> StoreError:
    """Return the error for a store whose file is not there any more."""
    return StoreError(f"{place}: {_GONE.what} ({why})", remedy=_GONE.remedy)


def _meaning_of(cause: BaseException, place: str) -> _Meaning:
    if isinstance(cause, OSError):
        return _BY_ERRNO.get(cause.errno or 0, _FAILED)
    message = str(cause).lower()
    meaning = next((meaning for part, meaning in _BY_MESSAGE if part in message), _FAILED)
    if meaning is _CORRUPT:
        return _refusal_of(Path(place).parent) or meaning  # what cannot be read looks damaged
    return _meaning_of_place(Path(place)) if any(part in message for part in _OF_THE_PLACE) else meaning


def _meaning_of_place(path: Path) -> _Meaning:
    """Return what is wrong where the store lies; asked of the system, for SQLite does not tell."""
    if refusal := _refusal_of(path.parent):
        return refusal
    try:
        found = os.statvfs(path.parent)
        if found.f_flag & os.ST_RDONLY:
            return _READ_ONLY
        if _is_full(found):
            return _FULL
        path.stat()
    except OSError as error:
        return _BY_ERRNO.get(error.errno or 0, _FAILED)
    return _FAILED


def _refusal_of(folder: Path) -> _Meaning | None:
    """Return what a folder itself has against being used; ``None`` where it is there and its disk answers."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except PermissionError:
        return None  # a folder need not be readable for its files to be
    except OSError as error:
        return _BY_ERRNO.get(error.errno or 0)
    return None


def _is_full(found: os.statvfs_result) -> bool:
    no_inodes = found.f_files > 0 and found.f_favail == 0
    return no_inodes or found.f_bavail * found.f_frsize < _FULL_BELOW_BYTES
