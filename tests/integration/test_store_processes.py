"""The store among processes: killed writers, writers side by side, readers, full and read-only file systems.

The other processes run this very file: ``python -m tests.integration.test_store_processes WHAT URL``.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import pytest

from orchestrator.errors import MusterError, StoreBusyError, StoreFullError
from orchestrator.results import RunState
from orchestrator.store import open_store
from tests.builders import a_case, a_device, a_new_run, a_result
from workers.protocol import Environment, Fact, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.store.repository import Store
    from workers.protocol import Case, Result

CHECKOUT = Path(__file__).parents[2]

#: More than any test lets a writer write, so that it is always cut off.
CASES = tuple(a_case(a_device(f"host-{number}")) for number in range(500))

#: What a writer writes that is let finish.
SOME_CASES: Final = CASES[:60]


# --- what the other processes do ------------------------------------------------------------------------------


def write(store: Store) -> None:
    """Write results and say so after each; then wait to be killed."""
    with store.written_by("writer"):
        store.begin_run(a_new_run("writer", *CASES))
        say("begun")
        for case in CASES:
            store.save_attempt("writer", a_result(case))
            say(case.key)
        sys.stdin.read()


def hurry(store: Store) -> None:
    """Write a whole run, with an environment that others write too, as fast as it goes."""
    run_id = f"run-{os.getpid()}"
    with store.written_by(run_id):
        store.begin_run(a_new_run(run_id, *SOME_CASES))
        for number, case in enumerate(SOME_CASES):
            environment = Environment(facts=(("number", Fact(value=number)),))
            store.save_attempt(run_id, a_result(case, environment=environment))
            store.save_verdict(run_id, case.key, Verdict.OK, None)
        store.finish_run(run_id, RunState.FINISHED, a_new_run().created_at)
    say("done")


def fill(store: Store) -> None:
    """Write until the disk is full, make room, and go on; tells what happened as JSON."""
    folder = Path(store.place).parent
    with store.written_by("filler"):
        store.begin_run(a_new_run("filler", *CASES))
        saved, error = save_until_refused(store)
        kept = sum(len(case.attempts) for case in store.run("filler").cases)
        (folder / "ballast").unlink()
        store.save_attempt("filler", large_result(CASES[saved]))
        after = sum(len(case.attempts) for case in store.run("filler").cases)
    say(json.dumps({**told(error), "saved": saved, "kept": kept, "after": after}))


def save_until_refused(store: Store) -> tuple[int, MusterError | None]:
    saved = 0
    try:
        for case in CASES:
            store.save_attempt("filler", large_result(case))
            saved += 1
    except MusterError as error:
        return saved, error
    return saved, None


def vanish(store: Store) -> None:
    """Lose the file system in the middle of a run, however the command line says; then have it back, and go on."""
    lose, find = sys.argv[3:]
    store.begin_run(a_new_run("7f3a01", *CASES[:3]))
    store.save_attempt("7f3a01", a_result(CASES[0]))
    subprocess.run(["sh", "-c", lose], check=True)
    refused = [refusal(store, CASES[1]) for _ in range(2)]
    store.close()
    subprocess.run(["sh", "-c", find], check=True)
    store.save_attempt("7f3a01", a_result(CASES[2]))
    kept = [len(case.attempts) for case in store.run("latest").cases]
    errors = [type(error).__name__ for error in refused]
    say(json.dumps({**told(refused[0]), "errors": errors, "kept": [kept[0], kept[2]]}))


def refusal(store: Store, case: Case) -> MusterError | None:
    try:
        store.save_attempt("7f3a01", a_result(case))
    except MusterError as error:
        return error
    return None


def go_on(store: Store) -> None:
    """Go on with a run as soon as told to, unless somebody else does; then wait to be told to end."""
    say("ready")
    sys.stdin.readline()
    with store.written_by("7f3a01"):
        store.resume_run("7f3a01")
        say("mine")
        sys.stdin.readline()


def lock(store: Store) -> None:
    """Keep every writer out, until killed."""
    with closing(sqlite3.connect(store.place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        say("locked")
        sys.stdin.read()


def large_result(case: Case) -> Result:
    return a_result(case, samples_ms=tuple(100.0 + step for step in range(2000)))


def told(error: MusterError | None) -> dict[str, object]:
    return {"error": type(error).__name__, "message": str(error), "remedy": error and error.remedy}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(what: str, url: str, *_: str) -> None:
    acts = {"write": write, "hurry": hurry, "fill": fill, "vanish": vanish, "go on": go_on, "lock": lock}
    try:
        with open_store(url) as store:
            if what in acts:
                acts[what](store)
    except MusterError as error:
        say(json.dumps(told(error)))


# --- tests ----------------------------------------------------------------------------------------------------


@contextmanager
def process(what: str, url: str, *prefix: str, arguments: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Another process doing ``what``; gone when the test is over."""
    command = [*prefix, sys.executable, "-m", "tests.integration.test_store_processes", what, url, *arguments]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def lines_of(child: subprocess.Popen[str]) -> IO[str]:
    assert child.stdout is not None
    return child.stdout


@pytest.mark.parametrize("acknowledged", [0, 1, 7, 40])
def test_a_killed_writer_has_lost_nothing_that_it_had_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    with process("write", url) as child:
        assert lines_of(child).readline() == "begun\n"
        keys = [lines_of(child).readline().strip() for _ in range(acknowledged)]
        child.kill()
        keys += [line.strip() for line in lines_of(child) if line.endswith("\n")]
        assert child.wait() == -signal.SIGKILL

    with open_store(url) as store:
        run = store.run("latest")
        stored = [case for case in run.cases if case.attempts]
        assert run.state is RunState.INTERRUPTED
        # One more may have been written, and its line not.
        assert [case.case.key for case in stored][: len(keys)] == keys
        assert len(stored) - len(keys) in (0, 1)
        assert all(case.result == a_result(case.case) and len(case.attempts) == 1 for case in stored)
        with store.written_by("writer"):
            for case in CASES[: len(keys) + 1]:
                store.save_attempt("writer", a_result(case))
            assert sum(len(case.attempts) for case in store.run("writer").cases) == len(keys) + 1


def test_processes_that_write_at_once_to_a_store_that_none_of_them_found_lose_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    with ExitStack() as stack:
        writers = [stack.enter_context(process("hurry", url)) for _ in range(3)]
        assert [lines_of(writer).read() for writer in writers] == ["done\n"] * 3
        ids = {f"run-{writer.pid}" for writer in writers}

    with open_store(url, create=False) as store:
        assert {(run.id, run.state, run.figures) for run in store.runs()} == {
            (run_id, RunState.FINISHED, len(SOME_CASES)) for run_id in ids
        }
        for run_id in ids:
            for number, case in enumerate(store.run(run_id).cases):
                assert case.case == SOME_CASES[number]
                assert case.result is not None
                assert case.result.samples_ms == a_result().samples_ms
                assert case.result.environment.get("number").value == number


def test_a_second_process_writes_beside_a_run_and_sees_when_that_is_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    with process("write", url) as child:
        assert lines_of(child).readline() == "begun\n"
        with open_store(url) as store, store.written_by("second"):
            store.begin_run(a_new_run("second", a_case()))
            store.save_attempt("second", a_result())
            assert {run.state for run in store.runs()} == {RunState.RUNNING}

            child.kill()
            child.wait()

            assert store.run("writer").state is RunState.INTERRUPTED
            assert store.run("second").state is RunState.RUNNING


def test_a_reader_sees_whole_results_while_a_run_writes_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    with process("write", url) as child:
        assert lines_of(child).readline() == "begun\n"
        with open_store(url, create=False) as store:
            for acknowledged in range(1, 30):
                assert lines_of(child).readline()
                cases = [case for case in store.run("writer").cases if case.attempts]
                assert len(cases) >= acknowledged
                assert all(case.result == a_result(case.case) for case in cases)


# --- file systems that are full or read-only -------------------------------------------------------------------


TMPFS: Final = 'mount -t tmpfs -o size=1m tmpfs "$0"'


def in_own_mounts(folder: Path, set_up: str, after: str = ":", mount: str = TMPFS) -> tuple[str, ...]:
    """Return the beginning of a command that gives its process a small file system of its own at ``folder``.

    It lies in a mount namespace, which ends with the process. ``set_up``, ``after`` and ``mount`` are shell; ``$0`` is
    the folder.
    """
    unshare = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")
    tried = subprocess.run([*unshare, "sh", "-c", mount, folder], capture_output=True, text=True)
    if tried.returncode == 0:
        return (*unshare, "sh", "-c", f'{mount} && {set_up} && "$@"; ended=$?; {after}; exit $ended', str(folder))
    reason = f"no file system can be mounted here: {tried.stderr.strip()}"
    # Not every container has loop devices.
    if os.environ.get("CI") == "true" and mount == TMPFS:
        pytest.fail(reason)
    pytest.skip(reason)


def answer_of(what: str, url: str, *prefix: str, arguments: tuple[str, ...] = ()) -> dict[str, object]:
    with process(what, url, *prefix, arguments=arguments) as child:
        text = lines_of(child).read()
        assert child.wait() == 0
    found: dict[str, object] = json.loads(text)
    return found


def test_a_disk_that_fills_up_is_told_of_and_the_store_goes_on_once_there_is_room(tmp_path: Path) -> None:
    prefix = in_own_mounts(tmp_path, 'head -c 200000 /dev/zero >"$0/ballast"')

    found = answer_of("fill", f"sqlite:///{tmp_path / 'lab.db'}", *prefix)

    assert found["error"] == "StoreFullError"
    assert f"{tmp_path / 'lab.db'}: no space is left" in str(found["message"])
    assert "--store" in str(found["remedy"])
    assert isinstance(found["saved"], int)
    assert found["saved"] > 3
    assert found["kept"] == found["saved"]
    assert found["after"] == found["saved"] + 1


@pytest.mark.parametrize("free_bytes", [0, 4096, 16384, 65536])
def test_a_store_that_has_no_room_to_begin_leaves_no_half_of_itself(tmp_path: Path, free_bytes: int) -> None:
    used = 2**20 - free_bytes
    listing = tmp_path / "left"
    folder = tmp_path / "small"
    folder.mkdir()
    prefix = in_own_mounts(folder, f'head -c {used} /dev/zero >"$0/ballast"', after=f'ls "$0" >{listing}')

    found = answer_of("open", f"sqlite:///{folder / 'lab.db'}", *prefix)

    assert found["error"] == StoreFullError.__name__
    assert set(listing.read_text().split()) <= {"ballast", "lab.db.lock"}


@pytest.mark.parametrize("is_there", [True, False])
def test_a_read_only_file_system_is_told_of_even_to_root(tmp_path: Path, is_there: bool) -> None:
    made, folder = tmp_path / "made.db", tmp_path / "mounted"
    folder.mkdir()
    with open_store(f"sqlite:///{made}") as store:
        store.begin_run(a_new_run("7f3a01", a_case()))
    copy = f'cp {made} "$0/lab.db" && ' if is_there else ""
    prefix = in_own_mounts(folder, f'{copy} mount -o remount,ro "$0"')

    found = answer_of("open", f"sqlite:///{folder / 'lab.db'}", *prefix)

    assert found["error"] == "StoreReadOnlyError"
    assert f"{folder / 'lab.db'}: the store cannot be written" in str(found["message"])


#: Shell that gives ``$0`` a file system of a real disk: one whose disk can fail.
DISK: Final = 'truncate -s 8m "$0.img" && mkfs.ext4 -q -F "$0.img" && mount -o loop,errors=remount-ro "$0.img" "$0"'

REMOUNT: Final = "umount {at} && mount -o loop {at}.img {at}"

#: The ioctl of ext4 that makes a disk answer nothing but EIO from now on (EXT4_IOC_SHUTDOWN, linux/fs.h).
FAIL: Final = "import fcntl, os, sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, b'\\2\\0\\0\\0')"


@pytest.mark.parametrize(
    ("mount", "lose", "find", "kind", "message"),
    [
        (
            'mkdir -p "$0.kept" && mount -t tmpfs tmpfs "$0.kept" && mount --bind "$0.kept" "$0"',
            "umount --lazy {at}",
            "mount --bind {at}.kept {at}",
            "StoreError",
            "is gone or does not answer",
        ),
        (DISK, f'{sys.executable} -c "{FAIL}" {{at}}', REMOUNT, "StoreError", "is gone or does not answer"),
        (DISK, "mount -o remount,abort {at}", REMOUNT, "StoreReadOnlyError", "cannot be written"),
    ],
    ids=["taken away", "disk fails", "becomes read-only"],
)
def test_a_file_system_that_is_lost_in_the_middle_is_told_of_and_the_store_goes_on_once_it_is_back(
    tmp_path: Path, mount: str, lose: str, find: str, kind: str, message: str
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    prefix = in_own_mounts(folder, ":", mount=mount)

    found = answer_of(
        "vanish", f"sqlite:///{folder / 'lab.db'}", *prefix, arguments=(lose.format(at=folder), find.format(at=folder))
    )

    assert found["errors"] == [kind, kind]
    assert message in str(found["message"])
    assert found["remedy"]
    # Of the one in the middle nothing was promised.
    assert found["kept"] == [1, 1]


def test_a_store_that_another_process_has_locked_for_too_long_is_told_of_and_goes_on_after(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    with open_store(url, busy_timeout_s=0.05) as store:
        store.begin_run(a_new_run("7f3a01", *CASES[:2]))
        with process("lock", url) as child:
            assert lines_of(child).readline() == "locked\n"
            with pytest.raises(StoreBusyError, match=r"lab\.db: another process is using the store") as refused:
                store.save_attempt("7f3a01", a_result(CASES[0]))
            assert refused.value.remedy
            assert store.run("7f3a01").cases[0].attempts == ()
        store.save_attempt("7f3a01", a_result(CASES[0]))
        assert len(store.run("7f3a01").cases[0].attempts) == 1


def test_of_processes_that_go_on_with_one_run_at_once_one_does_and_its_end_lets_another(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    with open_store(url) as store:
        store.begin_run(a_new_run("7f3a01", a_case()))
        store.finish_run("7f3a01", RunState.INTERRUPTED, a_new_run().created_at)
    with ExitStack() as stack:
        children = [stack.enter_context(process("go on", url)) for _ in range(4)]
        assert [lines_of(child).readline() for child in children] == ["ready\n"] * 4
        for child in children:
            tell(child)
        answers = [lines_of(child).readline() for child in children]
        assert sorted(answer == "mine\n" for answer in answers) == [False, False, False, True]
        refused = [json.loads(answer) for answer in answers if answer != "mine\n"]
        assert {answer["error"] for answer in refused} == {"StoreBusyError"}
        [winner] = [child for child, answer in zip(children, answers, strict=True) if answer == "mine\n"]
        with open_store(url) as store:
            assert store.run("7f3a01").state is RunState.RUNNING
            winner.kill()
            winner.wait()
            with store.written_by("7f3a01"):
                store.resume_run("7f3a01")


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("now\n")
    child.stdin.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
