"""Every failure of SQLite, SQLAlchemy and the file system has a meaning for people."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy.exc

from orchestrator.errors import (
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
)
from orchestrator.store.translation import store_error

if TYPE_CHECKING:
    from pathlib import Path


def classes_under(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(found for child in kind.__subclasses__() for found in classes_under(child))]


def failure_of(connection: sqlite3.Connection, *statements: str) -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as failed:
        for statement in statements:
            connection.execute(statement)
    return failed.value


@pytest.mark.parametrize("kind", classes_under(sqlite3.Error))
def test_every_error_of_sqlite_names_the_store_the_cause_and_a_remedy(kind: type[Exception], tmp_path: Path) -> None:
    error = store_error(kind("something odd"), str(tmp_path / "lab.db"))
    assert type(error) is StoreError
    assert error.message == f"{tmp_path / 'lab.db'}: the store cannot be used (something odd)"
    assert error.remedy


@pytest.mark.parametrize("kind", classes_under(sqlalchemy.exc.DBAPIError))
def test_every_database_error_of_sqlalchemy_is_told_by_its_cause(
    kind: type[sqlalchemy.exc.DBAPIError], tmp_path: Path
) -> None:
    wrapped = kind("INSERT INTO samples", (b"a secret",), sqlite3.OperationalError("database or disk is full"))
    error = store_error(wrapped, str(tmp_path / "lab.db"))
    assert type(error) is StoreFullError
    assert "secret" not in error.message
    assert "INSERT" not in error.message


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.EROFS, StoreReadOnlyError),
        (errno.EACCES, StoreReadOnlyError),
        (errno.EPERM, StoreReadOnlyError),
        (errno.EIO, StoreError),
        (errno.ESTALE, StoreError),
        (errno.ENOTCONN, StoreError),
        (errno.ENAMETOOLONG, StoreError),
    ],
)
def test_errors_of_the_file_system(number: int, kind: type[StoreError]) -> None:
    assert type(store_error(OSError(number, "no"), "/lab.db")) is kind


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN])
def test_a_file_system_that_vanished_is_to_be_brought_back(number: int) -> None:
    error = store_error(OSError(number, "no"), "/lab.db")
    assert "gone or does not answer" in error.message
    assert "mount it again" in (error.remedy or "")


def test_an_error_of_the_file_system_without_a_number() -> None:
    assert type(store_error(OSError("no"), "/lab.db")) is StoreError


@pytest.mark.parametrize("said", ["disk I/O error", "unable to open database file", "database disk image is malformed"])
@pytest.mark.parametrize("name", ["gone/lab.db", "file/lab.db"])
def test_a_folder_that_has_gone_is_told_of_whatever_sqlite_says(tmp_path: Path, said: str, name: str) -> None:
    (tmp_path / "file").touch()
    error = store_error(sqlite3.OperationalError(said), str(tmp_path / name))
    assert type(error) is StoreError
    assert error.message == f"{tmp_path / name}: the place where the store lies is gone or does not answer ({said})"
    assert "mount it again" in (error.remedy or "")


def test_a_file_that_has_gone_from_its_folder_is_told_of(tmp_path: Path) -> None:
    error = store_error(sqlite3.OperationalError("unable to open database file"), str(tmp_path / "lab.db"))
    assert "gone or does not answer" in error.message


def test_a_place_that_has_nothing_wrong_is_not_accused(tmp_path: Path) -> None:
    (tmp_path / "lab.db").touch()
    error = store_error(sqlite3.OperationalError("disk I/O error"), str(tmp_path / "lab.db"))
    assert error.message == f"{tmp_path / 'lab.db'}: the store cannot be used (disk I/O error)"


def test_what_sqlite_really_says(tmp_path: Path) -> None:
    """The table goes by SQLite's wording: provoke each failure, so that another wording is noticed."""
    path = tmp_path / "real.db"
    found = {}
    with closing(sqlite3.connect(path, isolation_level=None)) as one:
        one.execute("CREATE TABLE t (x)")
        found["table"] = failure_of(one, "SELECT * FROM missing")
        found["column"] = failure_of(one, "SELECT missing FROM t")
        found["full"] = failure_of(one, "PRAGMA max_page_count=2", "INSERT INTO t VALUES (zeroblob(100000))")
        one.execute("BEGIN EXCLUSIVE")
        with closing(sqlite3.connect(path, timeout=0)) as two:
            found["locked"] = failure_of(two, "SELECT * FROM t")
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as reader:
        found["read-only"] = failure_of(reader, "INSERT INTO t VALUES (1)")
    path.write_bytes(path.read_bytes()[:4096])
    with closing(sqlite3.connect(path)) as cut:
        found["cut"] = failure_of(cut, "SELECT * FROM t")
    path.write_bytes(b"no database at all" * 1000)
    with closing(sqlite3.connect(path)) as foreign:
        found["foreign"] = failure_of(foreign, "SELECT * FROM t")

    assert {name: type(store_error(error, str(path))) for name, error in found.items()} == {
        "table": StoreCorruptError,
        "column": StoreCorruptError,
        "full": StoreFullError,
        "locked": StoreBusyError,
        "read-only": StoreReadOnlyError,
        "cut": StoreCorruptError,
        "foreign": StoreCorruptError,
    }
