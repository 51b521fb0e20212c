"""A store that was migrated step by step is the store that the tables describe."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert

from orchestrator.errors import StoreBusyError
from orchestrator.store import migrate, open_store, rows, sqlite
from orchestrator.store.lock import FileLock, this_process
from orchestrator.store.tables import ATTEMPTS, CASES, ENVIRONMENTS, METADATA, RUNS, SAMPLES
from tests.builders import a_case, a_new_run, a_result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def migrated() -> Iterator[sqlalchemy.Connection]:
    engine = sqlite.memory_engine()
    with engine.begin() as connection:
        migrate.migrate(connection)
        yield connection
    engine.dispose()


def shape_of(connection: sqlalchemy.Connection) -> dict[str, object]:
    """Everything that the database can tell of its tables, in an order of no meaning."""
    inspector = sqlalchemy.inspect(connection)
    return {
        name: (
            [{**column, "type": str(column["type"])} for column in inspector.get_columns(name)],
            inspector.get_pk_constraint(name),
            sorted(map(str, inspector.get_foreign_keys(name))),
            sorted(map(str, inspector.get_unique_constraints(name))),
            sorted(map(str, inspector.get_indexes(name))),
        )
        for name in inspector.get_table_names()
        if name != "alembic_version"
    }


def test_alembic_finds_nothing_to_change(migrated: sqlalchemy.Connection) -> None:
    context = MigrationContext.configure(migrated, opts={"compare_type": True, "compare_server_default": True})
    assert compare_metadata(context, METADATA) == []


def test_a_migrated_database_is_the_database_of_the_tables(migrated: sqlalchemy.Connection) -> None:
    engine = sqlite.memory_engine()
    with engine.begin() as fresh:
        METADATA.create_all(fresh)
        assert shape_of(migrated) == shape_of(fresh)
    engine.dispose()


def test_the_known_revisions_are_the_steps_in_their_order() -> None:
    steps = [step.revision for step in ScriptDirectory(str(migrate.MIGRATIONS)).walk_revisions()]
    assert tuple(reversed(steps)) == migrate.REVISIONS


def test_every_step_is_named_after_its_number() -> None:
    names = sorted(path.name for path in (migrate.MIGRATIONS / "versions").glob("[0-9]*.py"))
    assert [name.partition("_")[0] for name in names] == list(migrate.REVISIONS)


def test_migrating_twice_changes_nothing(migrated: sqlalchemy.Connection) -> None:
    before = shape_of(migrated)
    migrate.migrate(migrated)
    assert shape_of(migrated) == before


def test_steps_can_be_taken_back_one_by_one_and_again(migrated: sqlalchemy.Connection) -> None:
    newest = shape_of(migrated)
    for revision in reversed(migrate.REVISIONS[:-1]):
        migrate.migrate_back(migrated, revision)
        assert shape_of(migrated) != newest
    assert "quarantines" not in shape_of(migrated)
    migrate.migrate(migrated)
    assert shape_of(migrated) == newest


def test_foreign_keys_hold(migrated: sqlalchemy.Connection) -> None:
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="FOREIGN KEY"):
        migrated.exec_driver_sql("INSERT INTO samples VALUES (1, 'measured', 0, '')")


# --- from one version to the next --------------------------------------------------------------------------------

NEXT_STEP = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "0009", "0008"
def upgrade():
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("colour", sa.String, nullable=False, server_default="red"))
"""


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The muster of tomorrow, which knows one more step; returns the file of that step."""
    folder = tmp_path / "100% of the steps"
    shutil.copytree(migrate.MIGRATIONS, folder)
    step = folder / "versions" / "0009_colour.py"
    step.write_text(NEXT_STEP)
    monkeypatch.setattr(migrate, "MIGRATIONS", folder)
    monkeypatch.setattr(migrate, "REVISIONS", (*migrate.REVISIONS, "0009"))
    return step


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A store that today's muster made, with a run in it."""
    path = tmp_path / "older" / "lab.db"
    path.parent.mkdir()
    with open_store(f"sqlite:///{path}") as store:
        store.begin_run(a_new_run("7f3a01", a_case()))
        store.save_attempt("7f3a01", a_result())
    return path


def answer(path: Path, question: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchone()[0]


@pytest.mark.parametrize("create", [True, False])
def test_an_older_store_is_migrated_when_it_is_opened(older: Path, next_version: Path, create: bool) -> None:
    with open_store(f"sqlite:///{older}", create=create) as store:
        assert store.run("latest").cases[0].result == a_result()
    assert answer(older, "SELECT colour FROM runs") == "red"
    assert answer(older, "SELECT version_num FROM alembic_version") == "0009"


def test_a_step_that_fails_leaves_the_older_store_as_it_was(
    older: Path, next_version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_version.write_text(NEXT_STEP + "    raise KeyboardInterrupt\n")
    before = older.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        open_store(f"sqlite:///{older}")
    assert older.read_bytes() == before


def test_an_older_store_is_not_migrated_while_a_run_uses_it(older: Path, next_version: Path) -> None:
    with (
        FileLock(older).held(this_process("7f3a01")),
        pytest.raises(StoreBusyError, match=r"run 7f3a01 .* is using this store"),
    ):
        open_store(f"sqlite:///{older}", create=False)
    assert answer(older, "SELECT version_num FROM alembic_version") == "0008"


#: Columns of runs, cases and attempts that the first version had not.
LATER = {
    "batch_size",
    "process",
    "company",
    "doubts",
    "telemetry",
    "copy_bytes_per_s",
    "copy_reason",
    "peers",
    "schedule",
    "rerun_of",
}


@pytest.fixture
def first_version(tmp_path: Path) -> Path:
    """A store as the first muster left it: made by the first step alone, with a run and a result in it."""
    path = tmp_path / "first.db"
    sqlite.make_file(path, busy_timeout_s=1.0)
    engine = sqlite.file_engine(path, sqlite.Access.WRITE, busy_timeout_s=1.0)
    with engine.begin() as connection:
        sqlite.mark(connection)
        config = Config()
        config.set_main_option("script_location", str(migrate.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        case, result = a_case(), a_result()
        run = {name: value for name, value in rows.run_values(a_new_run("7f3a01")).items() if name not in LATER}
        connection.execute(insert(RUNS).values(run))
        planned = {name: value for name, value in rows.case_values("7f3a01", 0, case).items() if name not in LATER}
        connection.execute(insert(CASES).values(planned))
        environment = rows.environment_values(result.environment)
        connection.execute(insert(ENVIRONMENTS).values(environment))
        attempt = {name: value for name, value in rows.attempt_values(result).items() if name not in LATER}
        attempt = {"case_id": 1, "environment_hash": environment["hash"], **attempt}
        connection.execute(insert(ATTEMPTS).values(attempt))
        connection.execute(insert(SAMPLES), rows.sample_values(1, result))
    engine.dispose()
    return path


def test_a_store_of_the_first_version_keeps_what_it_has_and_takes_what_is_new(first_version: Path) -> None:
    with open_store(f"sqlite:///{first_version}") as store:
        assert store.run("7f3a01").rerun_of is None
        assert [case.result for case in store.run("7f3a01").cases] == [a_result()]
        store.begin_run(a_new_run("80bb02", a_case(), rerun_of="7f3a01"))
        assert store.save_late("80bb02", a_result())
        assert store.quarantines(a_new_run().created_at, simulated=False) == ()


def test_nothing_of_a_migration_that_fails_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lab.db"

    def half(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half (x)")
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.store.migrate.migrate", half)
    with pytest.raises(KeyboardInterrupt):
        open_store(f"sqlite:///{path}")
    assert not path.exists()
    monkeypatch.undo()
    with open_store(f"sqlite:///{path}") as store:
        assert store.runs() == ()


def test_a_store_is_not_made_while_another_process_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    with (
        FileLock(path).held(this_process(None)),
        pytest.raises(StoreBusyError, match=r"muster \(pid \d+ on host .+ is preparing this store"),
    ):
        open_store(f"sqlite:///{path}", busy_timeout_s=0.05)
    assert not path.exists()
