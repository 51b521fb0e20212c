"""Who writes to a store: asked for without taking, told in words, freed by the kernel."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import StoreBusyError
from orchestrator.store.lock import FileLock, Holder, MemoryLock, WriterLock, this_process

if TYPE_CHECKING:
    from pathlib import Path

OLD = Holder(run_id="7f3a01", pid=123, host="gpu01", since="2024-02-29T14:03:00+00:00")
PREPARING = dataclasses.replace(OLD, run_id=None)


@pytest.fixture(params=["file", "memory"])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> WriterLock:
    return FileLock(tmp_path / "lab.db") if request.param == "file" else MemoryLock()


def test_holders_are_known_while_they_hold_and_no_longer(lock: WriterLock) -> None:
    other = dataclasses.replace(OLD, run_id="80bb02", pid=124)
    assert lock.holders() == ()
    with lock.held(OLD):
        assert lock.holders() == (OLD,)
        with lock.held(other):
            assert lock.holders() == (OLD, other)
        assert lock.holders() == (OLD,)
    assert lock.holders() == ()


def test_a_run_that_ends_first_leaves_the_other(lock: WriterLock) -> None:
    other = dataclasses.replace(OLD, run_id="80bb02")
    first, second = lock.held(OLD), lock.held(other)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert lock.holders() == (other,)
    with lock.held(OLD):
        assert set(lock.holders()) == {OLD, other}
    second.__exit__(None, None, None)
    assert lock.holders() == ()


def test_a_holder_that_failed_lets_go(lock: WriterLock) -> None:
    with pytest.raises(KeyboardInterrupt), lock.held(OLD):
        raise KeyboardInterrupt
    with lock.held(this_process("80bb02")):
        pass


@pytest.mark.parametrize(("first", "second"), [(OLD, PREPARING), (PREPARING, OLD), (PREPARING, PREPARING)])
def test_a_store_is_prepared_by_one_alone_who_disturbs_nobody(lock: WriterLock, first: Holder, second: Holder) -> None:
    with lock.held(first):
        for _ in range(2):
            with pytest.raises(StoreBusyError) as refused, lock.held(second):
                pytest.fail("held beside one who prepares")
            assert str(first) in refused.value.message
        assert lock.holders() == (first,)
    with lock.held(second):
        assert lock.holders() == (second,)


def test_a_run_is_held_once_whatever_others_do(lock: WriterLock) -> None:
    elsewhere = dataclasses.replace(OLD, pid=999)
    with lock.held(dataclasses.replace(OLD, run_id="80bb02")), lock.held(OLD):
        for _ in range(2):
            with pytest.raises(StoreBusyError) as refused, lock.held(elsewhere):
                pytest.fail("one run was held twice")
            assert str(OLD) in refused.value.message
            assert "80bb02" not in refused.value.message
        assert {holder.pid for holder in lock.holders() if holder.run_id == OLD.run_id} == {OLD.pid}
    with lock.held(elsewhere):
        assert lock.holders() == (elsewhere,)


def test_what_is_prepared_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lab.db"
    preparing = FileLock(path).held(PREPARING)
    preparing.__enter__()

    def run() -> tuple[Holder, ...]:
        with FileLock(path, wait_s=60.0).held(OLD):
            return FileLock(path).holders()

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(run)
        concurrent.futures.wait({waiting}, timeout=0.2)
        assert not waiting.done()
        preparing.__exit__(None, None, None)
        assert waiting.result(60.0) == (OLD,)


def test_a_run_is_not_waited_for(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lab.db", wait_s=3600.0)
    with lock.held(OLD), pytest.raises(StoreBusyError, match=r"run 7f3a01 .* is using this store"):
        lock.held(PREPARING).__enter__()


def test_there_is_an_end_to_how_many_runs_write_at_once(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lab.db")
    with contextlib.ExitStack() as stack:
        for number in range(64):
            stack.enter_context(lock.held(dataclasses.replace(OLD, run_id=f"run-{number}")))
        assert len(lock.holders()) == 64
        with pytest.raises(StoreBusyError, match="run run-0 "):
            lock.held(OLD).__enter__()


def test_a_holder_of_another_day_is_told_with_its_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileLock(tmp_path / "lab.db").held(OLD), pytest.raises(StoreBusyError) as refused:
        FileLock(tmp_path / "lab.db").held(PREPARING).__enter__()
    assert "run 7f3a01 (pid 123 on host gpu01, since 2024-0" in refused.value.message


def test_the_text_of_a_holder_that_crashed_means_nothing(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lab.db")
    with lock.held(OLD):
        text = (tmp_path / "lab.db.lock").read_text()
    (tmp_path / "lab.db.lock").write_text(text)

    assert lock.holders() == ()
    shorter = dataclasses.replace(OLD, run_id="8", host="")
    with lock.held(shorter):
        assert lock.holders() == (shorter,)


def test_whoever_prepares_a_store_is_alone_though_a_run_that_crashed_left_its_name(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lab.db")
    with lock.held(dataclasses.replace(OLD, run_id="80bb02")), lock.held(OLD):
        text = (tmp_path / "lab.db.lock").read_text()
    (tmp_path / "lab.db.lock").write_text(text)
    with lock.held(PREPARING):
        assert lock.holders() == (PREPARING,)


@pytest.mark.parametrize("text", ["", "{", "{}", "null", "\xff"])
def test_a_holder_that_has_not_written_its_name_is_still_respected(tmp_path: Path, text: str) -> None:
    lock = FileLock(tmp_path / "lab.db")
    with lock.held(OLD):
        (tmp_path / "lab.db.lock").write_text(text)
        assert lock.holders() == ()
        with pytest.raises(StoreBusyError, match="another run is using this store"):
            lock.held(PREPARING).__enter__()
