"""Who writes to a store: asked for without taking, told in words, freed by the kernel."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import StoreBusyError
from orchestrator.store.lock import FileLock, Holder, MemoryLock, WriterLock, this_process

if TYPE_CHECKING:
    from pathlib import Path

OLD = Holder(run_id="7f3a01", pid=123, host="gpu01", since="2024-02-29T14:03:00+00:00")


@pytest.fixture(params=["file", "memory"])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> WriterLock:
    return FileLock(tmp_path / "lab.db") if request.param == "file" else MemoryLock()


def test_the_holder_is_known_while_it_holds_and_no_longer(lock: WriterLock) -> None:
    assert lock.holder() is None
    with lock.held(OLD):
        assert lock.holder() == OLD
    assert lock.holder() is None


def test_a_holder_that_failed_lets_go(lock: WriterLock) -> None:
    with pytest.raises(KeyboardInterrupt), lock.held(OLD):
        raise KeyboardInterrupt
    with lock.held(this_process("80bb02")):
        pass


def test_a_refused_second_holder_does_not_disturb_the_first(lock: WriterLock) -> None:
    with lock.held(OLD):
        for _ in range(2):
            with pytest.raises(StoreBusyError), lock.held(this_process("80bb02")):
                pytest.fail("held twice")
        assert lock.holder() == OLD


def test_a_holder_of_another_day_is_told_with_its_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileLock(tmp_path / "lab.db").held(OLD), pytest.raises(StoreBusyError) as refused:
        FileLock(tmp_path / "lab.db").held(OLD).__enter__()
    assert "run 7f3a01 (pid 123 on host gpu01, since 2024-0" in refused.value.message


def test_the_text_of_a_holder_that_crashed_means_nothing(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lab.db")
    with lock.held(OLD):
        text = (tmp_path / "lab.db.lock").read_text()
    (tmp_path / "lab.db.lock").write_text(text)

    assert lock.holder() is None
    shorter = dataclasses.replace(OLD, run_id="8", host="")
    with lock.held(shorter):
        assert lock.holder() == shorter


@pytest.mark.parametrize("text", ["", "{", "{}", "null", "\xff"])
def test_a_holder_that_has_not_written_its_name_is_still_respected(tmp_path: Path, text: str) -> None:
    lock = FileLock(tmp_path / "lab.db")
    with lock.held(OLD):
        (tmp_path / "lab.db.lock").write_text(text)
        assert lock.holder() is None
        with pytest.raises(StoreBusyError, match="another run is using this store"):
            lock.held(OLD).__enter__()
