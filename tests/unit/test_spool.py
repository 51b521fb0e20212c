from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.builders import a_case, a_result
from workers.protocol import Environment, Fact
from workers.spool import FOLDER_VARIABLE, KEEP_S, Spool, folder_of_all

DEVICE = "localhost/cpu"
CASE = a_case()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool("3f2a", tmp_path)


def test_what_is_kept_is_found_again_by_whoever_comes_next(spool: Spool, tmp_path: Path) -> None:
    result = a_result(CASE, environment=Environment(facts=(("cpu.model", Fact(value="Ünïcode")),)))
    spool.keep(DEVICE, result)
    other = Spool("3f2a", tmp_path)
    assert other.find(CASE.key, 1) == result
    assert other.results() == (result,)
    assert other.contents().problems == ()


def test_a_spool_that_was_never_used_is_empty(spool: Spool) -> None:
    assert spool.results() == ()
    assert spool.find(CASE.key, 1) is None
    spool.forget(CASE.key, 1)
    spool.prune()
    assert not spool.folder.exists()


def test_each_attempt_run_and_device_is_kept_by_itself(spool: Spool, tmp_path: Path) -> None:
    first, second = a_result(CASE), a_result(CASE, attempt=2)
    spool.keep(DEVICE, first)
    spool.keep("localhost/gpu:0", second)
    assert (spool.find(CASE.key, 1), spool.find(CASE.key, 2), spool.find("another", 1)) == (first, second, None)
    assert (spool.results(DEVICE), spool.results("localhost/gpu:0"), spool.results("elsewhere/cpu")) == (
        (first,),
        (second,),
        (),
    )
    assert Spool("3f2b", tmp_path).results() == ()


def test_the_same_attempt_again_takes_the_place_of_the_first(spool: Spool) -> None:
    spool.keep(DEVICE, a_result(CASE, duration_s=1.0))
    spool.keep(DEVICE, a_result(CASE, duration_s=2.0))
    assert [result.duration_s for result in spool.results()] == [2.0]


def test_what_is_forgotten_is_gone_and_the_folder_with_the_last(spool: Spool) -> None:
    spool.keep(DEVICE, a_result(CASE))
    spool.keep(DEVICE, a_result(CASE, attempt=2))
    spool.forget(CASE.key, 1)
    assert spool.results() == (a_result(CASE, attempt=2),)
    spool.forget(CASE.key, 2)
    spool.forget(CASE.key, 2)
    assert not spool.folder.exists()
    assert spool.folder.parent.is_dir()


@pytest.mark.parametrize("name", ["../../escape", "a/b", "", ".", "..", "x" * 300, "ä b\n", "-", "_"])
def test_any_name_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    base = tmp_path / "base"
    spool = Spool(name, base)
    result = a_result(a_case(key=name or "empty"))
    spool.keep(DEVICE, result)
    assert spool.folder.parent == base
    assert spool.find(result.case_key, 1) == result
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == list(spool.folder.iterdir())


def test_the_folder_is_for_this_user_alone(spool: Spool) -> None:
    spool.keep(DEVICE, a_result(CASE))
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in spool.folder.iterdir()] == [0o600]


@pytest.mark.parametrize("damage", [b"", b'{"device_id":"localhost/cpu","resu', b"\xff\xfe", b"[]", b'{"more":1}'])
def test_what_cannot_be_read_is_passed_over_told_and_left(spool: Spool, damage: bytes) -> None:
    spool.keep(DEVICE, a_result(CASE))
    spool.keep(DEVICE, a_result(CASE, attempt=2))
    damaged = spool.folder / f"{CASE.key}-1.json"
    damaged.write_bytes(damage)
    found = spool.contents(DEVICE)
    assert found.results == (a_result(CASE, attempt=2),)
    (problem,) = found.problems
    assert problem.startswith(f"{damaged}: ")
    assert spool.find(CASE.key, 1) is None
    assert damaged.read_bytes() == damage


def test_a_spool_that_is_no_folder_is_told(spool: Spool) -> None:
    spool.folder.write_text("")
    (problem,) = spool.contents().problems
    assert problem.startswith("the spool cannot be read: ")
    assert spool.find(CASE.key, 1) is None


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.keep(DEVICE, a_result(CASE, duration_s=1.0))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        spool.keep(DEVICE, a_result(CASE, duration_s=2.0))
    assert [path.name for path in spool.folder.iterdir()] == [f"{CASE.key}-1.json"]
    assert spool.results()[0].duration_s == 1.0


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small]).returncode != 0:
        pytest.skip("no small file system can be made here")
    try:
        spool = Spool("3f2a", small)
        spool.keep(DEVICE, a_result(CASE))
        with pytest.raises(OSError, match="No space left"):
            spool.keep(DEVICE, a_result(CASE, attempt=2, samples_ms=(1.2345678,) * 20_000))
        assert spool.results() == (a_result(CASE),)
        assert len(list(spool.folder.iterdir())) == 1
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_file_that_was_being_written_when_the_power_went_is_no_result(spool: Spool) -> None:
    spool.keep(DEVICE, a_result(CASE))
    (spool.folder / ".abc.tmp").write_text("{")
    assert spool.contents().results == (a_result(CASE),)
    assert spool.contents().problems == ()


def test_keeping_and_forgetting_at_once_loses_nothing(spool: Spool) -> None:
    # The folder goes with its last file, while another agent is about to write into it.
    def keep_and_forget(attempt: int) -> None:
        for _ in range(100):
            spool.keep(DEVICE, a_result(CASE, attempt=attempt))
            assert spool.find(CASE.key, attempt) is not None
            spool.forget(CASE.key, attempt)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep_and_forget, range(1, 5)))
    assert not spool.folder.exists()


def test_a_folder_that_always_goes_away_is_an_error(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tempfile.NamedTemporaryFile

    def removed_before(dir: Path, **given: object) -> object:
        shutil.rmtree(dir)
        return real(dir=dir, **given)  # type: ignore[call-overload]

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", removed_before)
    with pytest.raises(FileNotFoundError):
        spool.keep(DEVICE, a_result(CASE))


def test_runs_that_nobody_goes_on_with_are_removed_in_the_end(tmp_path: Path) -> None:
    ours, old, young = (Spool(run_id, tmp_path) for run_id in ("3f2a", "0ld", "y0ung"))
    for spool in (ours, old, young):
        spool.keep(DEVICE, a_result(CASE))
    for spool, age_s in ((ours, 2 * KEEP_S), (old, KEEP_S + 3600), (young, KEEP_S - 3600)):
        os.utime(spool.folder, (time.time(), time.time() - age_s))
    ours.prune()
    assert [len(spool.results()) for spool in (ours, old, young)] == [1, 0, 1]
    assert not old.folder.exists()


# --- where it is -----------------------------------------------------------------------------------------------


def test_the_place_is_the_users_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/bench")
    assert folder_of_all() == Path("/home/bench/.local/state/muster/spool")
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    assert folder_of_all() == Path("/home/bench/.local/state/muster/spool")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert folder_of_all() == Path("/state/muster/spool")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert Spool("3f2a").folder == tmp_path / "3f2a"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    spool = Spool("3f2a")
    with pytest.raises(OSError, match=f"set {FOLDER_VARIABLE}"):
        spool.keep(DEVICE, a_result(CASE))
    assert spool.find(CASE.key, 1) is None
    assert FOLDER_VARIABLE in spool.contents().problems[0]
    spool.prune()


def test_a_result_that_was_kept_outlives_its_process(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom tests.builders import a_case, a_result\nfrom workers.spool import Spool\n"
        f"Spool('3f2a').keep('{DEVICE}', a_result(a_case()))\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, FOLDER_VARIABLE: str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, cwd=root).returncode == -9
    assert Spool("3f2a", tmp_path).results(DEVICE) == (a_result(CASE),)
