"""Everything that is true of SQLite alone: how a file is looked at before it is opened, and how it is opened."""

from __future__ import annotations

import enum
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from orchestrator.errors import StoreCorruptError, StoreVersionError
from orchestrator.store import migrate
from orchestrator.store.translation import corrupt
from workers.version import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection, Engine

#: Marks a database as ours (``PRAGMA application_id``): the letters 'must'.
APPLICATION_ID: Final = int.from_bytes(b"must", "big")

#: What every SQLite 3 file begins with; https://www.sqlite.org/fileformat.html
_MAGIC: Final = b"SQLite format 3\0"

#: Larger files are not read through when they are opened: about 20 ms go into a check of this size.
_CHECKED_UP_TO_BYTES: Final = 32 * 2**20

#: Name of the execution option that says how a transaction begins.
_BEGIN: Final = "muster_begin"


class Finding(enum.Enum):
    """What lies where a store should be."""

    NOTHING = enum.auto()
    OLDER = enum.auto()
    CURRENT = enum.auto()


class Access(enum.Enum):
    """How a file is opened; the values are SQLite's URI parameters (https://www.sqlite.org/uri.html)."""

    CREATE = "mode=rwc"
    WRITE = "mode=rw"
    READ = "mode=ro"
    #: Takes no locks and makes no files; only while no journal lies beside the file, that is, nobody writes.
    READ_UNTOUCHED = "mode=ro&immutable=1"


def reading(path: Path) -> Access:
    """Return how to read the file without leaving anything behind."""
    return Access.READ if path.with_name(path.name + "-wal").exists() else Access.READ_UNTOUCHED


def examine(path: Path) -> Finding:
    """Return what lies at ``path``; writes nothing.

    Raises StoreVersionError for a newer store, StoreCorruptError for a foreign or damaged file, and OSError and
    sqlite3.Error where it cannot be read.
    """
    if not path.exists() or path.stat().st_size == 0:
        return Finding.NOTHING
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise corrupt(str(path), "not a SQLite file")
    access = reading(path)
    try:
        return _examined(path, access)
    except (sqlite3.DatabaseError, StoreCorruptError):
        if reading(path) is access:
            raise
    # A writer came while an untouched file was being read: what was seen may be half of its work.
    return _examined(path, Access.READ)


def _examined(path: Path, access: Access) -> Finding:
    with closing(sqlite3.connect(_uri(path, access), uri=True)) as connection:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        is_empty = connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
        if is_empty and application_id in (0, APPLICATION_ID):
            return Finding.NOTHING
        if application_id != APPLICATION_ID:
            raise corrupt(str(path), "a SQLite database of something else")
        finding = _finding_of(path, connection.execute("SELECT version_num FROM alembic_version").fetchone())
        _refuse_damage(path, connection)
    return finding


def _finding_of(path: Path, version: tuple[str] | None) -> Finding:
    if version is None:
        raise corrupt(str(path), "it has no version")
    known = migrate.REVISIONS
    if version[0] not in known:
        raise StoreVersionError(
            f"{path}: made by a newer muster (store version {version[0]}; muster {VERSION} knows up to {known[-1]})",
            remedy="Update muster, or keep results elsewhere: --store sqlite:///other.db",
        )
    return Finding.CURRENT if version[0] == known[-1] else Finding.OLDER


def _refuse_damage(path: Path, connection: sqlite3.Connection) -> None:
    if path.stat().st_size > _CHECKED_UP_TO_BYTES:
        return
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise corrupt(str(path), answer)


def file_engine(path: Path, access: Access, *, busy_timeout_s: float) -> Engine:
    """Return an engine on a file: every commit is on the disk when it returns, readers and a writer do not wait.

    Raises nothing itself; what SQLite has to say comes with the first connection.
    """
    import sqlalchemy

    def connect() -> sqlite3.Connection:
        return _connected(_uri(path, access), busy_timeout_s)

    engine = sqlalchemy.create_engine("sqlite://", creator=connect, poolclass=sqlalchemy.QueuePool)
    return _with_plain_transactions(engine)


def memory_engine() -> Engine:
    """Return an engine on a database in memory, one connection for all threads."""
    import sqlalchemy

    def connect() -> sqlite3.Connection:
        return _connected("file::memory:", 0.0)

    engine = sqlalchemy.create_engine("sqlite://", creator=connect, poolclass=sqlalchemy.StaticPool)
    return _with_plain_transactions(engine)


def for_writing(engine: Engine) -> Engine:
    """Return the engine for transactions that will write: they wait for the lock first, never half-way."""
    return engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})


def make_file(path: Path, *, busy_timeout_s: float) -> None:
    """Make an empty database that keeps a write-ahead log, so that readers never wait for the writer.

    The setting stays with the file. Raises sqlite3.Error.
    """
    with closing(_connected(_uri(path, Access.CREATE), busy_timeout_s)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def mark(connection: Connection) -> None:
    """Mark a database as a muster store, within the transaction that makes its tables."""
    connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")


def remove(path: Path) -> None:
    """Remove a file that could not be made into a store, and what SQLite laid beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _uri(path: Path, access: Access) -> str:
    return f"{path.as_uri()}?{access.value}"


def _connected(uri: str, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _with_plain_transactions(engine: Engine) -> Engine:
    """Begin transactions ourselves: the driver would begin them late, and never for a read or a CREATE TABLE."""
    from sqlalchemy import event

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))

    event.listen(engine, "begin", begin)
    return engine
