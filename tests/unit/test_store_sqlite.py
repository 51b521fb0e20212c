"""How a connection is set up: what keeps results on the disk when the power goes."""

from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import StatementError

from orchestrator.errors import StoreCorruptError, StoreError
from orchestrator.store import migrate, open_store, sqlite
from orchestrator.store.sqlite import Access
from tests.builders import a_case, a_device, a_new_run, a_result

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("setting", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 1500)],
)
def test_every_connection_to_a_store_is_durable_and_strict(tmp_path: Path, setting: str, value: object) -> None:
    path = tmp_path / "lab.db"
    open_store(f"sqlite:///{path}").close()
    engine = sqlite.file_engine(path, Access.WRITE, busy_timeout_s=1.5)
    with engine.connect() as one, engine.connect() as two:
        found = [connection.exec_driver_sql(f"PRAGMA {setting}").scalar() for connection in (one, two)]
    engine.dispose()
    assert found == [value, value]


def test_a_file_that_went_away_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with open_store(f"sqlite:///{path}") as store:
        store.close()
        path.unlink()
        with pytest.raises(StoreError, match="unable to open"):
            store.runs()
    assert not path.exists()


@pytest.mark.parametrize("what", ["removed", "moved", "replaced"])
def test_what_was_written_to_a_file_that_is_no_more_counts_as_lost(tmp_path: Path, what: str) -> None:
    """SQLite says of each of these that all is well."""
    path, folder = tmp_path / "lab.db", tmp_path / "elsewhere"
    folder.mkdir()
    with open_store(f"sqlite:///{path}") as store:
        store.begin_run(a_new_run("7f3a01", a_case()))
        store.save_attempt("7f3a01", a_result())
        if what == "replaced":
            shutil.copy(path, folder)
        path.rename(folder / "moved.db") if what == "moved" else path.unlink()
        if what == "replaced":
            (folder / "lab.db").rename(path)
        for _ in range(2):
            with pytest.raises(StoreError, match=r"lab\.db: the place where the store lies is gone") as refused:
                store.save_attempt("7f3a01", a_result(attempt=2))
        assert refused.value.remedy


def test_a_store_that_is_written_to_while_it_is_looked_at_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer comes after we chose to read without locks: what we see of the file may be torn."""
    path = tmp_path / "lab.db"
    open_store(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        question = "SELECT rootpage FROM sqlite_master WHERE name = 'alembic_version'"
        (page,) = writer.execute(question).fetchone()
        for version in ("0099", migrate.REVISIONS[-1]):
            writer.execute("UPDATE alembic_version SET version_num = ?", (version,))
        with path.open("r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(b"\xa5" * 4096)
        choices = iter([Access.READ_UNTOUCHED, Access.READ])
        monkeypatch.setattr(sqlite, "reading", lambda _: next(choices))

        assert sqlite.examine(path) is sqlite.Finding.CURRENT


def test_damage_in_a_store_too_large_to_check_is_told_of_when_it_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_CHECKED_UP_TO_BYTES", 4096)
    path = tmp_path / "lab.db"
    with open_store(f"sqlite:///{path}") as store:
        store.begin_run(a_new_run())
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'runs'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    with open_store(f"sqlite:///{path}") as store, pytest.raises(StoreCorruptError, match=r"lab\.db"):
        store.runs()


def test_a_file_whose_maker_was_killed_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    sqlite.make_file(path, busy_timeout_s=0.0)
    assert path.stat().st_size > 0
    with open_store(f"sqlite:///{path}") as store:
        assert store.runs() == ()


def test_a_time_without_a_zone_is_not_stored(tmp_path: Path) -> None:
    naive = a_new_run().created_at.replace(tzinfo=None)
    with open_store("sqlite://") as store:
        with pytest.raises(StatementError, match="has no time zone"):
            store.begin_run(a_new_run(created_at=naive))
        assert store.runs() == ()


def test_writers_wait_for_each_other_and_never_fail_half_way(tmp_path: Path) -> None:
    cases = tuple(a_case(a_device(f"host-{number}")) for number in range(40))
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    with (
        open_store(url, busy_timeout_s=60.0) as one,
        open_store(url, busy_timeout_s=60.0) as two,
        ThreadPoolExecutor(4) as threads,
    ):
        one.begin_run(a_new_run("7f3a01", *cases))
        saved = [
            threads.submit(store.save_attempt, "7f3a01", a_result(case)) for case in cases for store in (one, two, one)
        ]
        for each in saved:
            each.result()
        assert [len(case.attempts) for case in two.run("7f3a01").cases] == [1] * len(cases)
