"""What is true of a store on a PostgreSQL server alone: who gets in, who waits, and what the errors say."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy
from fastapi.testclient import TestClient

from orchestrator.errors import (
    MusterError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreVersionError,
    UsageError,
)
from orchestrator.store import migrate, open_store
from orchestrator.store.tables import METADATA
from orchestrator.web.app import create_app
from orchestrator.web.settings import ServeSettings
from tests.builders import a_case, a_new_run, a_result
from tests.postgresql import GUARDED, PASSWORD
from tests.stores import a_live_run, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from tests.postgresql import Server

    Writers: TypeAlias = Callable[[str, int], list[subprocess.Popen[str]]]


def test_a_store_is_made_by_whoever_writes_first_and_not_by_who_looks(postgresql: Server) -> None:
    url = postgresql.new_database()
    with pytest.raises(UsageError, match="there is no store yet"):
        open_store(url, create=False)
    with open_store(url) as store:
        store.begin_run(a_new_run("7f3a01", a_case()))
    with open_store(url, create=False) as store:
        assert store.run("latest").id == "7f3a01"


def test_a_migrated_database_is_the_one_of_the_tables(postgresql: Server) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    open_store(postgresql.new_database()).close()
    engine = sqlalchemy.create_engine(postgresql.url())
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_migrations_go_back_and_forth_and_keep_what_both_sides_know(postgresql: Server) -> None:
    url = postgresql.new_database()
    with open_store(url) as store:
        store.begin_run(a_new_run("7f3a01", a_case()))
        store.save_attempt("7f3a01", a_result())
    engine = sqlalchemy.create_engine(url)
    for revision in (*reversed(migrate.REVISIONS[:-1]),):
        with engine.begin() as connection:
            migrate.migrate_back(connection, revision)
    assert postgresql.sql("SELECT version_num FROM alembic_version", database="muster") == "0001\n"
    engine.dispose()
    with open_store(url, create=False) as store:
        assert store.run("7f3a01").cases[0].result == a_result()


def test_a_newer_store_and_a_database_of_something_else_are_refused(postgresql: Server) -> None:
    url = postgresql.new_database()
    open_store(url).close()
    postgresql.sql("UPDATE alembic_version SET version_num = '9999'", database="muster")
    with pytest.raises(StoreVersionError, match="made by a newer muster"):
        open_store(url)
    url = postgresql.new_database()
    postgresql.sql("CREATE TABLE runs (id text)", database="muster")
    with pytest.raises(StoreCorruptError, match="a database of something else"):
        open_store(url)


# --- locks -------------------------------------------------------------------------------------------------------


def test_runs_write_side_by_side_and_none_of_them_twice(postgresql: Server) -> None:
    url = postgresql.new_database()
    with open_store(url) as one, open_store(url, busy_timeout_s=0.1) as other:
        for run_id in ("aa", "bb"):
            one.begin_run(a_new_run(run_id, a_case()))
        with one.written_by("aa"), other.written_by("bb"):
            assert {run.id: run.state.value for run in other.runs()} == {"aa": "running", "bb": "running"}
            with (
                pytest.raises(StoreBusyError, match=r"run aa \(pid \d+ on host .+ is using this store"),
                other.written_by("aa"),
            ):
                pass
        assert {run.state.value for run in other.runs()} == {"interrupted"}


def test_a_store_is_not_prepared_while_a_run_writes(postgresql: Server) -> None:
    url = postgresql.new_database()
    with open_store(url) as store:
        store.begin_run(a_new_run("aa", a_case()))
        with store.written_by("aa"):
            postgresql.sql("UPDATE alembic_version SET version_num = '0002'", database="muster")
            with pytest.raises(StoreBusyError, match="run aa"):
                open_store(url, busy_timeout_s=0.1)


WRITER = textwrap.dedent("""
    import sys
    from orchestrator.store import open_store
    from tests.builders import a_case, a_device, a_new_run, a_result
    url, name = sys.argv[1:]
    cases = [a_case(a_device(f"h{number}")) for number in range(20)]
    with open_store(url) as store, store.written_by(name):
        store.begin_run(a_new_run(name, *cases))
        print("writing", flush=True)
        sys.stdin.readline()
        for case in cases:
            store.save_attempt(name, a_result(case))
""")


@pytest.fixture
def writers(postgresql: Server) -> Iterator[Writers]:
    """Starts processes that write to a store at once; what still runs at the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(url: str, count: int) -> list[subprocess.Popen[str]]:
        started.extend(_started(url, count))
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _started(url: str, count: int) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, f"run{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip


def test_several_processes_write_at_once_and_nothing_is_lost(postgresql: Server, writers: Writers) -> None:
    url = postgresql.new_database()
    started = writers(url, 4)
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        assert process.wait(60) == 0
    with open_store(url, create=False) as store:
        assert {run.id: len([case for case in store.run(run.id).cases if case.result]) for run in store.runs()} == {
            f"run{number}": 20 for number in range(4)
        }
    assert postgresql.sql("SELECT count(*) FROM environments", database="muster") == "1\n"


def test_a_writer_that_is_killed_holds_nothing_any_more(postgresql: Server, writers: Writers) -> None:
    url = postgresql.new_database()
    (process,) = writers(url, 1)
    with open_store(url, create=False, busy_timeout_s=30.0) as store:
        assert store.run("run0").state.value == "running"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        with store.written_by("run0"):
            store.resume_run("run0")


# --- who gets in -------------------------------------------------------------------------------------------------


def told(url: str) -> MusterError:
    with pytest.raises(MusterError) as caught:
        open_store(url, busy_timeout_s=1.0)
    return caught.value


def test_a_password_comes_from_the_environment_or_a_file_and_is_never_shown(
    postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgresql.new_database()
    postgresql.sql(f"GRANT ALL ON SCHEMA public TO {GUARDED}", database="muster")
    url = postgresql.url(user=GUARDED)
    assert "does not let us in" in told(url).message

    monkeypatch.setenv("PGPASSWORD", "wrong guess")
    error = told(url)
    assert "does not let us in" in error.message
    assert "wrong guess" not in error.message + str(error.remedy)

    monkeypatch.delenv("PGPASSWORD")
    file = postgresql.folder / "pass"
    file.write_text(f"*:*:*:{GUARDED}:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    with open_store(url) as store:
        assert PASSWORD not in store.place
        assert store.runs() == ()


@pytest.mark.parametrize(
    ("url", "message", "remedy"),
    [
        ("postgresql+psycopg://me:hunter2@db/lab", "has a password in it", "PGPASSWORD"),
        ("postgresql+psycopg://me@db/lab?password=hunter2", "has a password in it", "~/.pgpass"),
        ("postgresql+psycopg://me@db", "names no database", "postgresql+psycopg://user@host/muster"),
        ("postgresql+psycopg://me@db:port/lab", "the store's URL cannot be read", "postgresql+psycopg://user@host"),
        ("postgresql+psycopg://me@127.0.0.1:1/lab", "the database server does not answer", "Is it running"),
    ],
)
def test_what_is_wrong_with_a_url_is_told_and_no_secret_with_it(url: str, message: str, remedy: str) -> None:
    error = told(url)
    assert message in error.message
    assert remedy in str(error.remedy)
    assert "hunter2" not in error.message + str(error.remedy)


def test_a_database_that_is_not_there_and_a_user_without_rights(
    postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such database" in told(postgresql.url("nowhere")).message
    postgresql.new_database()
    postgresql.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database="muster")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert "may not write there" in told(postgresql.url(user=GUARDED)).message


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'muster-bench[postgresql]'" in str(told("postgresql+psycopg://me@db/lab").remedy)


def test_a_connection_that_the_server_ended_is_made_anew(postgresql: Server) -> None:
    url = postgresql.new_database()
    with open_store(url) as store:
        assert store.runs() == ()
        postgresql.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'muster'")
        assert store.runs() == ()


def test_a_server_that_goes_away_in_the_middle_is_an_error_for_people(postgresql: Server) -> None:
    url = postgresql.new_database()
    with open_store(url) as store:
        postgresql.sql("ALTER TABLE runs RENAME TO hidden", database="muster")
        with pytest.raises(StoreError, match="muster"):
            store.runs()


def test_the_dashboard_shows_it(postgresql: Server) -> None:
    url = postgresql.new_store()
    with closing(open_store(url)) as store, store.written_by("aaaaaaaaaaaa"):
        fill(store)
        store.put_live(a_live_run())
        app = create_app(ServeSettings(store_url=url))
        with TestClient(app, base_url="http://127.0.0.1", headers={"accept": "text/html"}) as client:
            for address in ("/", "/runs", "/runs/latest", "/trends", "/lab", "/schedules/night", "/metrics"):
                assert client.get(address).status_code == 200, address
            assert "3/50" in client.get("/").text
            assert len(client.get("/api/v1/runs").json()) == 10
