"""Everything that is true of PostgreSQL alone: the URL, the engine, the locks, and what its errors mean.

Credentials come from where libpq looks for them (PGPASSWORD, PGPASSFILE, ``~/.pgpass``, PGSERVICE, a certificate),
never from the URL: a config's text is kept with every run. Commits are durable as the server is set; this only sees to
it that nobody has switched that off for the session.
"""

from __future__ import annotations

import datetime
import hashlib
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from orchestrator.errors import StoreBusyError, StoreVersionError, UsageError
from orchestrator.store import migrate
from orchestrator.store.lock import Holder, this_process
from orchestrator.store.sqlite import Finding
from orchestrator.store.translation import busy, corrupt, store_error
from workers.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, Engine

SCHEME: Final = "postgresql+psycopg"

#: Seconds for the server to answer, at the beginning and in the middle of a connection.
_CONNECT_TIMEOUT_S: Final = 10
_SILENCE_MS: Final = 30_000

#: The first of an advisory lock's two numbers: the letters 'must'. The second is 0 for the whole store, or a run's.
_CLASS: Final = int.from_bytes(b"must", "big")
_WHOLE: Final = 0

#: Seconds between looks whether a store is prepared by now.
_POLL_S: Final = 0.05

_DRIVER: Final = "PostgreSQL needs psycopg: pip install 'muster-bench[postgresql]'"


def parsed(url: str) -> URL:
    """Return the URL; raises UsageError for one that is none, names no database, or has a password in it."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        # Not shown: it may hold a password in a place where nobody looks for one.
        raise UsageError("the store's URL cannot be read", remedy=f"Write it so: {SCHEME}://user@host/muster") from None
    if found.password is not None or "password" in found.query:
        raise UsageError(
            "the store's URL has a password in it, and a config is kept with every run",
            remedy="Put it into ~/.pgpass (PGPASSFILE) or PGPASSWORD, and take it out of the URL.",
        )
    if not found.database:
        raise UsageError(f"{place_of(found)}: names no database", remedy=f"Write it so: {SCHEME}://user@host/muster")
    return found


def place_of(url: URL) -> str:
    """Return the store's name in messages, which never holds a password."""
    return url.set(query={}).render_as_string(hide_password=True)


def engine_of(url: URL, *, busy_timeout_s: float) -> Engine:
    """Return an engine; connections that were lost while they lay idle are made anew. Raises UsageError."""
    from sqlalchemy import create_engine

    try:
        import psycopg  # noqa: F401  # only to say what is missing
    except ImportError as error:
        raise UsageError(f"{place_of(url)}: {error}", remedy=_DRIVER) from None
    settings = f"-c synchronous_commit=on -c lock_timeout={round(busy_timeout_s * 1000)} -c timezone=UTC"
    return create_engine(
        url,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "tcp_user_timeout": _SILENCE_MS,
            "application_name": "muster",
            "options": settings,
        },
    )


def examine(connection: Connection, place: str) -> Finding:
    """Return what is in the database; raises StoreVersionError for a newer store, StoreCorruptError for another's."""
    from sqlalchemy import inspect

    tables = set(inspect(connection).get_table_names())
    if not tables & {"alembic_version", "runs", "cases"}:
        return Finding.NOTHING
    if not {"alembic_version", "runs", "cases"} <= tables:
        raise corrupt(place, "a database of something else; make one for muster alone")
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if version not in migrate.REVISIONS:
        raise StoreVersionError(
            f"{place}: made by a newer muster (store version {version}; muster {VERSION} knows up to"
            f" {migrate.REVISIONS[-1]})",
            remedy="Update muster, or keep results elsewhere: --store sqlite:///other.db",
        )
    return Finding.CURRENT if version == migrate.REVISIONS[-1] else Finding.OLDER


def prepare(engine: Engine, place: str, *, create: bool, busy_timeout_s: float) -> None:
    """Make or migrate the store where that is needed, while nobody else does and no run writes."""
    with engine.connect() as connection:
        finding = examine(connection, place)
    if finding is Finding.CURRENT:
        return
    if finding is Finding.NOTHING and not create:
        raise UsageError(f"{place}: there is no store yet", remedy="Make one with a run: muster run CONFIG")
    try:
        _prepare_alone(engine, place, busy_timeout_s=busy_timeout_s)
    except StoreBusyError:
        # A run that began a moment ago has prepared it first.
        with engine.connect() as connection:
            if examine(connection, place) is not Finding.CURRENT:
                raise


def _prepare_alone(engine: Engine, place: str, *, busy_timeout_s: float) -> None:
    lock = AdvisoryLock(engine, place, wait_s=busy_timeout_s)
    with lock.held(this_process(None)), engine.begin() as connection:
        # Somebody else may have been first.
        if examine(connection, place) is not Finding.CURRENT:
            migrate.migrate(connection)


class AdvisoryLock:
    """A :class:`~orchestrator.store.lock.WriterLock` of the server's advisory locks.

    A run shares the lock on the whole store and has one of its own alone; whoever prepares the store has the first
    alone. The server lets go of both when the connection that holds them ends, however it ends. Who holds them is told
    by the connection's ``application_name``, which every user of the server may see.
    """

    def __init__(self, engine: Engine, place: str, *, wait_s: float = 0.0) -> None:
        self._engine = engine
        self._place = place
        self._wait_s = wait_s

    @contextmanager
    def held(self, holder: Holder) -> Iterator[None]:
        """Hold the lock for ``holder``; raises StoreBusyError and what the server has against it."""
        from sqlalchemy.exc import DBAPIError

        try:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except DBAPIError as error:
            raise store_error(error, self._place) from error
        try:
            self._take(connection, holder)
            yield
        finally:
            # The server notices some time later that a connection was closed; what it is asked, it has done.
            with suppress(DBAPIError):
                connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")
            # Not given back to the pool: it goes by the holder's name.
            connection.invalidate()
            connection.close()

    def holders(self) -> tuple[Holder, ...]:
        """Return who holds a lock of a run, or prepares the store."""
        question = (
            "SELECT DISTINCT activity.application_name, activity.backend_start FROM pg_locks AS locks"
            " JOIN pg_stat_activity AS activity USING (pid) JOIN pg_database AS db ON db.oid = locks.database"
            " WHERE locks.locktype = 'advisory' AND locks.granted AND db.datname = current_database()"
            f" AND locks.classid = {_CLASS}"
        )
        with self._engine.connect() as connection:
            found = [_holder(name, since) for name, since in connection.exec_driver_sql(question)]
        return tuple(holder for holder in found if holder is not None)

    def _take(self, connection: Connection, holder: Holder) -> None:
        from sqlalchemy.exc import DBAPIError

        until = time.monotonic() + self._wait_s
        try:
            connection.exec_driver_sql("SELECT set_config('application_name', %s, false)", (_name_of(holder),))
            while not self._is_taken(connection, holder):
                others = _in_the_way(holder, self.holders())
                # Who prepares the store is done soon; a run takes its time.
                if time.monotonic() >= until or any(other.run_id for other in others):
                    raise busy(self._place, "; ".join(map(str, others)) or "another run is using this store")
                time.sleep(_POLL_S)
        except DBAPIError as error:
            raise store_error(error, self._place) from error

    def _is_taken(self, connection: Connection, holder: Holder) -> bool:
        def locked(function: str, key: int) -> bool:
            return bool(connection.exec_driver_sql(f"SELECT {function}({_CLASS}, {key})").scalar())

        if holder.run_id is None:
            return locked("pg_try_advisory_lock", _WHOLE)
        if not locked("pg_try_advisory_lock_shared", _WHOLE):
            return False
        if locked("pg_try_advisory_lock", _key_of(holder.run_id)):
            return True
        connection.exec_driver_sql(f"SELECT pg_advisory_unlock_shared({_CLASS}, {_WHOLE})")
        return False


def _in_the_way(holder: Holder, others: tuple[Holder, ...]) -> list[Holder]:
    """Return those who keep a holder from its lock: any for one who prepares, else that run or one who prepares."""
    return [other for other in others if holder.run_id is None or other.run_id in (None, holder.run_id)]


def _key_of(run_id: str) -> int:
    """Return a run's number, never that of the whole store; two ids share one once in 2**31."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4], "big") % (2**31 - 1) + 1


def _name_of(holder: Holder) -> str:
    """Return a holder as a connection's name, of which the server keeps 63 bytes."""
    return f"muster {holder.run_id or '-'} {holder.pid} {holder.host}"[:63]


def _holder(name: str | None, since: datetime.datetime | None) -> Holder | None:
    parts = (name or "").split(" ")
    if len(parts) != 4 or parts[0] != "muster" or not parts[2].isdecimal():
        return None  # another program, or a name that a server of another age cut
    began = since or datetime.datetime.now(datetime.timezone.utc)
    return Holder(
        run_id=None if parts[1] == "-" else parts[1],
        pid=int(parts[2]),
        host=parts[3],
        since=began.isoformat(timespec="seconds"),
    )
