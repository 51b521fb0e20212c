"""The way into a store: look first, then make, migrate or open; a store that is refused is left as it was."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from orchestrator.errors import StoreBusyError, UsageError
from orchestrator.store import postgresql, sqlite
from orchestrator.store.location import Location, Presence, is_writable, locate
from orchestrator.store.lock import FileLock, MemoryLock, this_process
from orchestrator.store.sqlite import Access, Finding
from orchestrator.store.translation import read_only, store_error

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from orchestrator.store.repository import Store


def open_store(url: str, *, create: bool = True, busy_timeout_s: float = 15.0) -> Store:
    """Return the store at ``url``, a SQLite file or a PostgreSQL database; made or migrated first where needed.

    A context manager.

    With ``create=False`` only a store that is there is opened, and one that this user may not write can still be
    read; SQLAlchemy is imported only once there is a store to open. ``busy_timeout_s`` is how long to wait for
    another program that has locked the database, or for another muster that is making or migrating it.

    Raises UsageError (a wrong URL, a missing folder, no store), StoreVersionError, StoreCorruptError,
    StoreReadOnlyError, StoreFullError, StoreBusyError, and StoreError for other failures of the disk.
    """
    if url.startswith(f"{postgresql.SCHEME}:"):
        return _open_on_server(url, create=create, busy_timeout_s=busy_timeout_s)
    location = locate(url)
    if location.path is None:
        return _open_in_memory(location)
    try:
        access = _access(location.path, create=create, busy_timeout_s=busy_timeout_s)
    except (sqlite3.Error, OSError) as error:
        raise store_error(error, location.place) from error
    engine = sqlite.file_engine(location.path, access, busy_timeout_s=busy_timeout_s)
    return _store(engine, location, FileLock(location.path, wait_s=busy_timeout_s))


def _open_in_memory(location: Location) -> Store:
    engine = sqlite.memory_engine()
    _migrate(engine, location.place)
    return _store(engine, location, MemoryLock())


def _open_on_server(url: str, *, create: bool, busy_timeout_s: float) -> Store:
    from sqlalchemy.exc import DBAPIError

    from orchestrator.store.repository import Store

    where = postgresql.parsed(url)
    place = postgresql.place_of(where)
    engine = postgresql.engine_of(where, busy_timeout_s=busy_timeout_s)
    try:
        postgresql.prepare(engine, place, create=create, busy_timeout_s=busy_timeout_s)
    except DBAPIError as error:
        engine.dispose()
        raise store_error(error, place) from error
    except BaseException:
        engine.dispose()
        raise
    lock = postgresql.AdvisoryLock(engine, place, wait_s=busy_timeout_s)
    return Store(engine, place=place, lock=lock, presence=Presence(None))


def _store(engine: Engine, location: Location, lock: FileLock | MemoryLock) -> Store:
    from orchestrator.store.repository import Store

    return Store(engine, place=location.place, lock=lock, presence=Presence(location.path))


def _access(path: Path, *, create: bool, busy_timeout_s: float) -> Access:
    """Return how to open the file, after it has been made ready for that."""
    finding = sqlite.examine(path)
    if finding is Finding.NOTHING and not create:
        raise UsageError(f"{path}: there is no store yet", remedy="Make one with a run: muster run CONFIG")
    if not is_writable(path):
        if create or finding is Finding.OLDER:
            raise read_only(str(path))
        return sqlite.reading(path)
    if finding is not Finding.CURRENT:
        _prepare(path, busy_timeout_s=busy_timeout_s)
    return Access.WRITE


def _prepare(path: Path, *, busy_timeout_s: float) -> None:
    """Make or migrate the store, alone, unless somebody else has done it by now."""
    try:
        _prepare_alone(path, busy_timeout_s=busy_timeout_s)
    except StoreBusyError:
        # A run that began a moment ago has prepared it first.
        if sqlite.examine(path) is not Finding.CURRENT:
            raise


def _prepare_alone(path: Path, *, busy_timeout_s: float) -> None:
    """Make or migrate the store; a new file that cannot be finished is removed again."""
    with FileLock(path, wait_s=busy_timeout_s).held(this_process(None)):
        finding = sqlite.examine(path)
        try:
            if finding is Finding.NOTHING:
                sqlite.make_file(path, busy_timeout_s=busy_timeout_s)
            _migrate_file(path, busy_timeout_s=busy_timeout_s)
        except BaseException:  # also Ctrl-C: half a store helps nobody
            if finding is Finding.NOTHING:
                sqlite.remove(path)
            raise


def _migrate_file(path: Path, *, busy_timeout_s: float) -> None:
    engine = sqlite.file_engine(path, Access.WRITE, busy_timeout_s=busy_timeout_s)
    try:
        _migrate(engine, str(path))
    finally:
        engine.dispose()


def _migrate(engine: Engine, place: str) -> None:
    from sqlalchemy.exc import DBAPIError

    from orchestrator.store.migrate import migrate

    try:
        with sqlite.for_writing(engine).begin() as connection:
            sqlite.mark(connection)
            migrate(connection)
    except DBAPIError as error:
        raise store_error(error, place) from error
