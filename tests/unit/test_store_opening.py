"""What opening a store makes, leaves alone and refuses."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import (
    MusterError,
    StoreBusyError,
    StoreCorruptError,
    StoreReadOnlyError,
    StoreVersionError,
    UsageError,
)
from orchestrator.store import open_store
from orchestrator.store.lock import Holder, this_process
from tests.builders import a_case, a_new_run, a_result

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Whom files of root are read-only for.
NOBODY = 65534


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def make_store(path: Path) -> None:
    with open_store(url_of(path)) as store:
        store.begin_run(a_new_run("7f3a01", a_case()))
        store.save_attempt("7f3a01", a_result())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def assert_refused(path: Path, kind: type[MusterError], message: str, *, create: bool = True) -> None:
    """Opening fails as it should, names the file and a remedy, and leaves every byte of the folder as it was."""
    before = contents(path.parent)
    with pytest.raises(kind) as refused:
        open_store(url_of(path), create=create, busy_timeout_s=0.05)
    assert type(refused.value) is kind
    assert str(path) in refused.value.message
    assert message in refused.value.message
    assert refused.value.remedy
    assert contents(path.parent) == before


# --- made and opened ------------------------------------------------------------------------------------------


def test_a_new_store_is_made_and_found_again(tmp_path: Path) -> None:
    make_store(tmp_path / "lab.db")
    with open_store(url_of(tmp_path / "lab.db"), create=False) as store:
        assert store.run("latest").cases[0].result == a_result()


@pytest.mark.parametrize("name", ["with space.db", "100%.db", "a#b&c=d.db", "ünï ☃.db", "no-suffix", "%41.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name.removesuffix(".db")
    folder.mkdir()
    make_store(folder / name)
    assert {path.name for path in folder.iterdir()} == {name, f"{name}.lock"}


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "lab.db").touch()
    make_store(tmp_path / "lab.db")


def test_nothing_but_the_store_and_its_lock_file_is_left_after_closing(tmp_path: Path) -> None:
    make_store(tmp_path / "lab.db")
    with open_store(url_of(tmp_path / "lab.db")) as store:
        store.runs()
    assert set(contents(tmp_path)) == {"lab.db", "lab.db.lock"}


def test_closing_twice_is_safe(tmp_path: Path) -> None:
    store = open_store(url_of(tmp_path / "lab.db"))
    store.close()
    store.close()


def test_a_store_that_was_made_meanwhile_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process makes the store between our look and our lock."""
    path = tmp_path / "lab.db"

    def after_another(run_id: str | None) -> Holder:
        monkeypatch.undo()
        make_store(path)
        return this_process(run_id)

    monkeypatch.setattr("orchestrator.store.opening.this_process", after_another)
    with open_store(url_of(path)) as store:
        assert len(store.runs()) == 1


def loaded_by(script: str, path: Path) -> set[str]:
    """Return which heavy modules a fresh interpreter has loaded after a script that knows the store's ``URL``."""
    script = f"URL = {url_of(path)!r}\n{script}\nimport sys\nprint(*({{'alembic', 'sqlalchemy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_opening_a_current_store_does_not_import_alembic(tmp_path: Path) -> None:
    make_store(tmp_path / "lab.db")
    script = "from orchestrator.store import open_store\nopen_store(URL).runs()"
    assert loaded_by(script, tmp_path / "lab.db") == {"sqlalchemy"}


def test_finding_no_store_does_not_import_sqlalchemy(tmp_path: Path) -> None:
    script = """
from orchestrator.errors import UsageError
from orchestrator.store import open_store
try:
    open_store(URL, create=False)
except UsageError:
    pass
"""
    assert loaded_by(script, tmp_path / "lab.db") == set()


# --- refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_empty_file", [True, False])
def test_no_store_where_one_should_be_read(tmp_path: Path, is_empty_file: bool) -> None:
    path = tmp_path / "lab.db"
    if is_empty_file:
        path.touch()
    assert_refused(path, UsageError, "no store yet", create=False)


@pytest.mark.parametrize("create", [True, False])
def test_a_store_of_a_newer_muster(tmp_path: Path, create: bool) -> None:
    make_store(tmp_path / "lab.db")
    execute(tmp_path / "lab.db", "UPDATE alembic_version SET version_num = '0099'")
    assert_refused(tmp_path / "lab.db", StoreVersionError, "made by a newer muster (store version 0099", create=create)


def test_a_store_that_a_newer_muster_is_writing_to(tmp_path: Path) -> None:
    """Its version may stand in the log only."""
    make_store(tmp_path / "lab.db")
    with closing(sqlite3.connect(tmp_path / "lab.db", isolation_level=None)) as writer:
        writer.execute("UPDATE alembic_version SET version_num = '0099'")
        with pytest.raises(StoreVersionError, match="0099"):
            open_store(url_of(tmp_path / "lab.db"))
        assert b"0099" not in (tmp_path / "lab.db").read_bytes()


@pytest.mark.parametrize("text", [b"x", b"version: 1\n" * 1000, b"\0" * 8192, b"SQLite format 3\0", b"SQLite format"])
def test_a_file_that_is_no_database(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "lab.db").write_bytes(text)
    assert_refused(tmp_path / "lab.db", StoreCorruptError, "not a muster store, or damaged")


def test_a_database_of_something_else(tmp_path: Path) -> None:
    execute(tmp_path / "lab.db", "CREATE TABLE runs (id TEXT)")
    assert_refused(tmp_path / "lab.db", StoreCorruptError, "a SQLite database of something else")


def test_an_empty_database_of_something_else(tmp_path: Path) -> None:
    execute(tmp_path / "lab.db", "PRAGMA application_id=7")
    assert_refused(tmp_path / "lab.db", StoreCorruptError, "a SQLite database of something else")


@pytest.mark.parametrize("statement", ["DELETE FROM alembic_version", "DROP TABLE alembic_version"])
def test_a_store_without_a_version(tmp_path: Path, statement: str) -> None:
    make_store(tmp_path / "lab.db")
    execute(tmp_path / "lab.db", statement)
    assert_refused(tmp_path / "lab.db", StoreCorruptError, "version")


@pytest.mark.parametrize("tenths", range(1, 10))
def test_a_store_that_was_cut_short(tmp_path: Path, tenths: int) -> None:
    make_store(tmp_path / "lab.db")
    os.truncate(tmp_path / "lab.db", (tmp_path / "lab.db").stat().st_size * tenths // 10)
    assert_refused(tmp_path / "lab.db", StoreCorruptError, "not a muster store, or damaged")


def test_a_store_with_a_page_of_rubbish(tmp_path: Path) -> None:
    make_store(tmp_path / "lab.db")
    for page in range(1, (tmp_path / "lab.db").stat().st_size // 4096):
        damaged = tmp_path / f"page{page}" / "lab.db"
        damaged.parent.mkdir()
        shutil.copy(tmp_path / "lab.db", damaged)
        with damaged.open("r+b") as file:
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)
        assert_refused(damaged, StoreCorruptError, "not a muster store, or damaged")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE attempts SET verdict = 'splendid'",
        "UPDATE attempts SET phases = '[{]'",
        "UPDATE samples SET count = count + 1",
        "UPDATE cases SET device = '{}'",
        "UPDATE runs SET state = 'asleep'",
    ],
)
def test_a_store_with_a_value_that_no_muster_wrote(tmp_path: Path, statement: str) -> None:
    make_store(tmp_path / "lab.db")
    execute(tmp_path / "lab.db", statement)
    with open_store(url_of(tmp_path / "lab.db")) as store, pytest.raises(StoreCorruptError, match=r"lab\.db"):
        store.run("latest")


def test_a_store_that_another_program_has_locked(tmp_path: Path) -> None:
    make_store(tmp_path / "lab.db")
    with open_store(url_of(tmp_path / "lab.db"), busy_timeout_s=0.05) as store:
        with closing(sqlite3.connect(tmp_path / "lab.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusyError, match=r"lab\.db: another process is using the store"):
                store.begin_run(a_new_run("80bb02"))
            assert [run.id for run in store.runs()] == ["7f3a01"]
        store.begin_run(a_new_run("80bb02"))


def test_a_new_file_that_another_program_has_locked(tmp_path: Path) -> None:
    (tmp_path / "lab.db").touch()
    with closing(sqlite3.connect(tmp_path / "lab.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusyError, match="is using the store"):
            open_store(url_of(tmp_path / "lab.db"), busy_timeout_s=0.05)


# --- read-only ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to all but their maker."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may write what it likes: be nobody meanwhile. Anybody else stays who they are."""
    if os.geteuid() != 0:
        yield
        return
    open_store("sqlite://").close()  # loads what nobody may have no right to load
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(params=["file", "folder", "both"])
def read_only(folder: Path, request: pytest.FixtureRequest) -> Path:
    """A store of which the file, the folder or both are read-only for an ordinary user."""
    path = folder / "lab.db"
    make_store(path)
    give_to_ordinary_user(folder, path)
    if request.param in ("file", "both"):
        path.chmod(0o444)
    if request.param in ("folder", "both"):
        folder.chmod(0o555)
    return path


def give_to_ordinary_user(*paths: Path) -> None:
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, NOBODY, -1)


def test_a_read_only_store_is_refused_to_a_run(read_only: Path) -> None:
    with ordinary_user():
        assert_refused(read_only, StoreReadOnlyError, "cannot be written")


def test_a_read_only_store_can_be_read_and_stays_as_it_was(read_only: Path) -> None:
    before = contents(read_only.parent)
    with ordinary_user(), open_store(url_of(read_only), create=False) as store:
        assert store.run("latest").cases[0].result == a_result()
        assert len(store.runs()) == 1
        with pytest.raises(StoreReadOnlyError, match="cannot be written"):
            store.begin_run(a_new_run("80bb02"))
    assert contents(read_only.parent) == before


def test_a_read_only_store_can_be_read_while_its_owner_writes(read_only: Path) -> None:
    with closing(sqlite3.connect(read_only, isolation_level=None)) as owner:
        owner.execute("UPDATE runs SET name = 'renamed'")
        with ordinary_user(), open_store(url_of(read_only), create=False) as store:
            assert store.run("latest").name == "renamed"


def test_no_new_store_in_a_read_only_folder(folder: Path) -> None:
    folder.chmod(0o555)
    with ordinary_user():
        assert_refused(folder / "lab.db", StoreReadOnlyError, "cannot be written")


def test_a_lock_file_that_only_another_user_may_write(folder: Path) -> None:
    path = folder / "lab.db"
    make_store(path)
    give_to_ordinary_user(folder, path)
    (folder / "lab.db.lock").chmod(0o444)
    with (
        ordinary_user(),
        open_store(url_of(path)) as store,
        pytest.raises(StoreReadOnlyError, match=r"lab\.db\.lock"),
        store.written_by("80bb02"),
    ):
        pytest.fail("locked with another user's file")
