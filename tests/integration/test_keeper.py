"""The keeper as the head meets it: brought to a host, obeyed, lost. No Ray here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator.errors import ClusterError
from orchestrator.reach.code import packed_code
from orchestrator.reach.interpreter import SEARCH, NoInterpreterError, choice, find_interpreter
from orchestrator.reach.keeper import Keeper, KeeperLostError, OrderFailedError, OrderTimeoutError, open_keeper
from tests.integration.leaks import assert_no_more_than, held
from tests.integration.local_reach import DEADLINE_S, LocalReach
from workers.bootstrap import KEPT, MARKER
from workers.codec import event_from_json
from workers.orders import (
    EnvironmentFound,
    Examine,
    Examined,
    FindEnvironment,
    FindKeeper,
    Greeting,
    KeeperFound,
    KeeperIdentity,
    Locate,
    Located,
    Pulse,
    RayStopped,
    StopRay,
    Wheel,
    WheelTaken,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

PYTHON = sys.executable


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Every test gives back its threads, descriptors and children."""
    before, children = held(), psutil.Process().children()
    yield
    assert_no_more_than(before)
    assert psutil.Process().children() == children


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 2 * DEADLINE_S))


async def opened(home: Path, python: str = PYTHON, *, grace_s: float = 0.0) -> Keeper:
    return await open_keeper(LocalReach(home), python=python, grace_s=grace_s)


async def clock(keeper: Keeper) -> float:
    return (await keeper.ask(Locate(), Located, timeout_s=DEADLINE_S)).clock_s


def a_script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def shelf(home: Path) -> Path:
    return home / ".cache" / "muster" / "code"


# --- getting there -----------------------------------------------------------------------------------------------


def test_the_keeper_greets_and_answers(home: Path) -> None:
    async def scenario() -> None:
        before = time.time()
        keeper = await opened(home)
        assert keeper.greeting.python == PYTHON
        assert keeper.greeting.python_version.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
        assert before <= await clock(keeper) <= time.time()
        await keeper.close()

    run(scenario())


def test_the_second_time_no_code_is_sent(home: Path) -> None:
    async def scenario() -> None:
        for was_sent in (True, False):
            keeper = await opened(home)
            assert keeper.was_code_sent is was_sent
            await keeper.close()

    run(scenario())
    assert [entry.name for entry in shelf(home).iterdir()] == [packed_code().key]


def test_hosts_that_share_a_home_may_get_the_code_at_the_same_time(home: Path) -> None:
    async def scenario() -> None:
        keepers = await asyncio.gather(*(opened(home) for _ in range(6)))
        await asyncio.gather(*(clock(keeper) for keeper in keepers))
        await asyncio.gather(*(keeper.close() for keeper in keepers))

    run(scenario())
    assert [entry.name for entry in shelf(home).iterdir()] == [packed_code().key]


def test_code_that_somebody_cleaned_up_in_part_is_brought_again(home: Path) -> None:
    (shelf(home) / packed_code().key / "workers").mkdir(parents=True)

    async def scenario() -> None:
        keeper = await opened(home)
        assert keeper.was_code_sent
        await keeper.close()

    run(scenario())


def test_code_that_was_not_used_for_long_goes_but_for_the_newest_few(home: Path) -> None:
    day_s = 24 * 3600
    for age in (1, 40, 50, 60, 70):
        folder = shelf(home) / f"{age:064}"
        folder.mkdir(parents=True)
        (folder / MARKER).touch()
        used = time.time() - age * day_s
        os.utime(folder / MARKER, (used, used))

    async def scenario() -> None:
        await (await opened(home)).close()

    run(scenario())
    left = {entry.name for entry in shelf(home).iterdir()} - {packed_code().key}
    assert left == {f"{age:064}" for age in (1, 40, 50)}
    assert len(left) == KEPT


def test_a_home_that_cannot_be_written_is_an_error_that_names_the_place(home: Path) -> None:
    (home / ".cache").write_text("not a folder")
    with pytest.raises(OrderFailedError, match=r"cannot be kept under ~/\.cache/muster: .*Not a directory"):
        run(opened(home))  # type: ignore[arg-type]  # it gives nothing


def test_a_python_that_is_too_old_is_refused_with_its_version(home: Path) -> None:
    fake = f'exec {PYTHON} -I -c \'import sys; sys.version_info = (3, 8, 10, "final", 0); \'"$3"'
    with pytest.raises(OrderFailedError, match=r"is Python 3\.8\.10, and 3\.10 or newer is needed"):
        run(opened(home, a_script(home / "old", fake)))  # type: ignore[arg-type]  # it gives nothing


def test_a_python_that_is_not_there_is_an_error_with_the_remedy(home: Path) -> None:
    with pytest.raises(NoInterpreterError, match=r"/no/such/python did not run our code: .*not found") as caught:
        run(opened(home, "/no/such/python"))  # type: ignore[arg-type]  # it gives nothing
    assert "`python:`" in (caught.value.remedy or "")


def test_no_part_of_a_path_reaches_a_shell_and_the_home_is_found(home: Path) -> None:
    folder = home / "a 'b\" $(touch gone) ;touch gone; `touch gone` \\ *"
    folder.mkdir()
    (folder / "python").symlink_to(PYTHON)

    async def scenario() -> None:
        keeper = await opened(home, f"~/{folder.name}/python")
        await clock(keeper)
        await keeper.close()

    run(scenario())
    assert not list(home.rglob("gone"))


def test_what_a_login_prints_is_no_trouble(home: Path) -> None:
    noisy = a_script(home / "noisy", f'echo "Welcome!"; echo "{{}}"; echo; exec {PYTHON} "$@"')

    async def scenario() -> None:
        keeper = await opened(home, noisy)
        await clock(keeper)
        await keeper.close()

    run(scenario())


def test_nothing_in_the_home_is_taken_for_a_library(home: Path) -> None:
    (home / "json.py").write_text("raise SystemExit('a file of that person was imported')")

    async def scenario() -> None:
        keeper = await opened(home)
        await clock(keeper)
        await keeper.close()

    run(scenario())


# --- finding a Python --------------------------------------------------------------------------------------------


def test_the_search_finds_a_version_where_people_put_it(home: Path) -> None:
    folder = home / "miniforge3" / "bin"
    folder.mkdir(parents=True)
    a_script(folder / "python3.99", "echo 3.99.1")
    a_script(folder / "python3", "echo 3.98.0")
    listings: list[str] = []

    async def scenario() -> None:
        for wanted in ("3.99", "3.97"):
            argv = ("/bin/sh", "-c", SEARCH, "sh", wanted)
            ended = await LocalReach(home, PATH=str(home)).run(argv, timeout_s=DEADLINE_S)
            listings.append(ended.out.decode())

    run(scenario())
    assert choice(listings[0], "3.99") == f"{folder}/python3.99"
    assert f"3.98.0 {folder}/python3" in listings[1].splitlines()  # to be told of
    with pytest.raises(NoInterpreterError, match=r"miniforge3/bin/python3 \(3\.98\.0\)"):
        choice(listings[1], "3.97")


def test_the_search_prefers_the_path_and_passes_over_what_does_not_run(home: Path) -> None:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (home / "broken").mkdir()
    (home / "with space").mkdir()
    a_script(home / "broken" / name, "exit 127")
    a_script(home / "with space" / name, f'exec {PYTHON} "$@"')
    found: list[str] = []

    async def scenario() -> None:
        reach = LocalReach(home, PATH=f"{home}/broken:relative:{home}/with space:/usr/bin")
        found.append(await find_interpreter(reach))

    run(scenario())
    assert found == [str(home / "with space" / name)]


# --- orders ------------------------------------------------------------------------------------------------------


def test_the_way_to_an_address_is_found_without_a_packet(home: Path) -> None:
    async def scenario() -> None:
        keeper = await opened(home)
        here = await keeper.ask(Locate(toward="127.0.0.1"), Located, timeout_s=DEADLINE_S)
        assert here.node_ip == "127.0.0.1"
        nowhere = await keeper.ask(Locate(toward="no..name"), Located, timeout_s=DEADLINE_S)
        assert nowhere.node_ip is None
        assert "no..name" in (nowhere.reason or "")
        await keeper.close()

    run(scenario())


def test_the_host_is_examined_under_the_name_of_the_config(home: Path) -> None:
    async def scenario() -> None:
        keeper = await opened(home)
        answer = await keeper.ask(Examine(host="--attic", python=PYTHON), Examined, timeout_s=DEADLINE_S)
        assert answer.report.host == "--attic"
        await keeper.close()

    run(scenario())


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo sorry >&2; exit 3", r"gave no report \(ended, exit 3\): sorry"),
        ("echo '{}'", "gave something else than a report: HostReport: host is missing"),
    ],
)
def test_a_probe_that_fails_is_told_with_its_last_words(home: Path, script: str, message: str) -> None:
    python = a_script(home / "python", script)

    async def scenario() -> None:
        keeper = await opened(home)
        with pytest.raises(OrderFailedError, match=message):
            await keeper.ask(Examine(host="attic", python=python), Examined, timeout_s=DEADLINE_S)
        with pytest.raises(OrderFailedError, match="/no/python cannot be run: No such file"):
            await keeper.ask(Examine(host="attic", python="/no/python"), Examined, timeout_s=DEADLINE_S)
        await clock(keeper)
        await keeper.close()

    run(scenario())


def test_a_keeper_knows_whether_an_earlier_one_is_still_there(home: Path) -> None:
    async def scenario() -> None:
        first, second = await opened(home), await opened(home)
        identity = first.greeting.identity
        assert identity is not None

        async def is_there(sought: KeeperIdentity) -> bool:
            return (await second.ask(FindKeeper(keeper=sought), KeeperFound, timeout_s=DEADLINE_S)).is_there

        assert await is_there(identity)
        # Somebody else's process, by the same number.
        assert not await is_there(replace(identity, started=identity.started - 1))
        assert not await is_there(replace(identity, boot_id="before"))
        await first.close()
        assert first.is_lost
        assert not await is_there(identity)
        await second.close()

    run(scenario())


def test_what_is_no_order_is_refused_without_repeating_it_and_the_next_one_is_obeyed() -> None:
    lines = (b"{", b"[]", b'{"event":"Greeting"}', b'{"event":"Locate","toward":{"s3cret":1}}', b"\xff")
    ended = subprocess.run(
        [PYTHON, "-m", "workers.keeper"],
        input=b"\n".join((*lines, b"", b'{"event":"Locate"}', b'{"event":"StopRay"')),
        capture_output=True,
        timeout=DEADLINE_S,
        cwd=Path(__file__).parents[2],
    )
    greeting, *refused, obeyed = (json.loads(line) for line in ended.stdout.splitlines())
    assert greeting["event"] == "Greeting"
    assert [answer["event"] for answer in refused] == ["Failed"] * len(lines)
    assert all(answer["reason"].startswith("this is no order") for answer in refused)
    assert b"s3cret" not in ended.stdout
    assert obeyed["event"] == "Located"  # and the last line, which was cut, is no order
    assert ended.returncode == 0


def test_signs_of_life_come_unasked_and_are_no_answers(home: Path) -> None:
    async def scenario() -> None:
        reach = LocalReach(home)
        channel = await reach.open([PYTHON, "-m", "workers.keeper", "--grace=0", "--pulse=0.001"])
        greeting = event_from_json((Greeting,), await channel.read_line())
        assert event_from_json((Pulse,), await channel.read_line()) == Pulse()
        keeper = Keeper(channel, greeting, was_code_sent=False)
        for _ in range(50):
            assert await clock(keeper) > 0.0
        await keeper.close()
        await reach.close()

    run(scenario())


def test_who_did_not_wait_for_an_answer_leaves_the_next_one_his_own(home: Path) -> None:
    os.mkfifo(home / "gate")
    slow = a_script(home / "slow", f'read line < {home}/gate; exec {PYTHON} "$@"')

    async def scenario() -> None:
        keeper = await opened(home)
        with pytest.raises(OrderTimeoutError, match="no answer to Examine within 0 s"):
            await keeper.ask(Examine(host="attic", python=slow), Examined, timeout_s=0.2)
        later = asyncio.create_task(clock(keeper))
        await asyncio.to_thread((home / "gate").write_text, "go\n")
        assert await later > 0
        await keeper.close()

    run(scenario())


def test_a_wheel_that_is_not_as_it_was_is_not_sent(home: Path) -> None:
    path = home / "a.whl"
    path.write_bytes(b"12345")

    async def scenario() -> None:
        keeper = await opened(home)
        for size in (4, 6):
            with pytest.raises(ClusterError, match=r"a\.whl is not the file of \d bytes"):
                await keeper.send_wheel(Wheel(name="a.whl", sha256="0" * 64, size=size), path, timeout_s=DEADLINE_S)
        await clock(keeper)
        await keeper.close()

    run(scenario())


def test_a_wheel_arrives_whole_and_the_next_order_is_understood(home: Path) -> None:
    content = os.urandom(3 * 2**20 + 1)
    path = home / "a-1-py3-none-any.whl"
    path.write_bytes(content)
    wheel = Wheel(name=path.name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    spoiled = replace(wheel, sha256="0" * 64)
    find = FindEnvironment(key="k", wheels=(wheel, spoiled))

    async def scenario() -> None:
        keeper = await opened(home)
        for _ in range(2):
            with pytest.raises(OrderFailedError):
                await keeper.send_wheel(spoiled, path, timeout_s=DEADLINE_S)
            assert await keeper.send_wheel(wheel, path, timeout_s=DEADLINE_S) == WheelTaken()
        found = await keeper.ask(find, EnvironmentFound, timeout_s=DEADLINE_S)
        assert found == EnvironmentFound(python=None, missing=(spoiled.sha256,))
        await keeper.close()

    run(scenario())


# --- the end -----------------------------------------------------------------------------------------------------


def test_a_keeper_that_is_killed_is_lost_and_says_so_to_all_who_wait(home: Path) -> None:
    os.mkfifo(home / "gate")
    slow = a_script(home / "slow", f"read line < {home}/gate")

    async def scenario() -> None:
        keeper = await opened(home)
        waiting = asyncio.create_task(keeper.ask(Examine(host="attic", python=slow), Examined, timeout_s=DEADLINE_S))
        probe = await _a_child_of(keeper.greeting.pid)
        os.kill(keeper.greeting.pid, signal.SIGKILL)
        with pytest.raises(KeeperLostError, match="our keeper on that host is lost"):
            await waiting
        assert "lost" in (await keeper.ended).reason
        with pytest.raises(KeeperLostError):
            await clock(keeper)
        await keeper.close()
        assert psutil.wait_procs([probe], timeout=DEADLINE_S)[1] == []

    run(scenario())


async def _a_child_of(pid: int) -> psutil.Process:
    until = time.monotonic() + DEADLINE_S
    while not (children := psutil.Process(pid).children()):
        assert time.monotonic() < until
        await asyncio.sleep(0.01)  # nothing tells of another process's children
    return children[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("who", ["keeper", "guard"])
def test_a_signal_ends_it_whoever_gets_it(home: Path, number: signal.Signals, who: str) -> None:
    async def scenario() -> None:
        reach = LocalReach(home)
        keeper = await open_keeper(reach, python=PYTHON, grace_s=3600.0)
        process = reach.opened[0].process
        os.kill(keeper.greeting.pid if who == "keeper" else process.pid, number)
        assert await asyncio.wait_for(process.wait(), DEADLINE_S) == 0
        await keeper.close()

    run(scenario())


def test_the_keeper_does_not_outlive_its_guard(home: Path) -> None:
    async def scenario() -> None:
        reach = LocalReach(home)
        keeper = await open_keeper(reach, python=PYTHON, grace_s=3600.0)
        process = psutil.Process(keeper.greeting.pid)
        os.kill(reach.opened[0].process.pid, signal.SIGKILL)
        assert psutil.wait_procs([process], timeout=DEADLINE_S)[1] == []
        await keeper.close()

    run(scenario())


def test_an_order_in_hand_does_not_hold_up_the_end_when_the_head_has_gone(home: Path) -> None:
    os.mkfifo(home / "gate")
    slow = a_script(home / "slow", f"read line < {home}/gate")

    async def scenario() -> None:
        reach = LocalReach(home)
        keeper = await open_keeper(reach, python=PYTHON, grace_s=0.0)
        asking = asyncio.create_task(keeper.ask(Examine(host="a", python=slow), Examined, timeout_s=DEADLINE_S))
        probe = await _a_child_of(keeper.greeting.pid)
        await keeper.close()
        assert not psutil.pid_exists(probe.pid)  # and reaped
        with pytest.raises(KeeperLostError):
            await asking

    run(scenario())


def test_after_the_end_only_the_code_is_left(home: Path) -> None:
    async def scenario() -> None:
        keeper = await opened(home)
        assert (await keeper.ask(StopRay(), RayStopped, timeout_s=DEADLINE_S)).survivors == ()
        await keeper.close()
        await keeper.close()

    run(scenario())
    shutil.rmtree(home / ".cache")
    assert [entry.name for entry in home.iterdir()] == ["complaints-0"]
