"""Ray as keepers start and end it: real daemons on this machine, beside a Ray that is somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator.reach.keeper import OrderFailedError, open_keeper
from tests.integration.leaks import assert_no_more_than, held
from tests.integration.local_reach import LocalReach
from tests.integration.muster import ROOT, survivors
from workers import portblock
from workers.orders import HOST_LABEL, PORTS_IN_BLOCK, ClearUp, RayStarted, RayStopped, StartRay, StopRay
from workers.raynode import RAY

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from orchestrator.reach.keeper import Keeper

#: Never reached unless something is broken.
DEADLINE_S = 90.0

#: Ports that no other test uses.
FIRST_PORT, LAST_PORT = 27000, 27799
BYSTANDER_PORT = 27900

TOKEN = secrets.token_hex(32)

ORDER = StartRay(
    python=sys.executable,
    join=None,
    node_ip="127.0.0.2",
    labels=((HOST_LABEL, "first"),),
    first_port=FIRST_PORT,
    last_port=LAST_PORT,
    gpus=0,
    object_store_bytes=80 * 2**20,
    timeout_s=60.0,
    token=TOKEN,
)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    before, children, folders = held(), psutil.Process().children(), set(Path("/tmp").glob("muster-*"))
    yield
    assert_no_more_than(before)
    assert psutil.Process().children() == children
    assert not {folder for folder in set(Path("/tmp").glob("muster-*")) - folders if _is_ours(folder)}


def _is_ours(folder: Path) -> bool:
    """Tests run beside others, whose folders come and go."""
    try:
        return (folder / "token").read_text() == TOKEN
    except OSError:
        return False


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 2 * DEADLINE_S))


async def opened(home: Path, *, grace_s: float = 0.0) -> Keeper:
    return await open_keeper(LocalReach(home), python=sys.executable, grace_s=grace_s)


async def started(keeper: Keeper, order: StartRay = ORDER) -> RayStarted:
    return await keeper.ask(order, RayStarted, timeout_s=DEADLINE_S)


def ray_of(keeper: Keeper) -> list[psutil.Process]:
    """Everything that the keeper's Ray consists of: what is below the guard, but for the keeper."""
    keeping = psutil.Process(keeper.greeting.pid)
    guard = keeping.parent()
    assert guard is not None
    return [process for process in guard.children(recursive=True) if process != keeping]


# Ray's daemons have helpers that come and go: who has gone has no name, knows nothing and listens nowhere.


def names(processes: list[psutil.Process]) -> set[str]:
    return {name for process in processes if (name := _name_of(process)) is not None}


def _name_of(process: psutil.Process) -> str | None:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return None


def _is_at_work(process: psutil.Process) -> bool:
    """Whether it has not ended; what only waits for init to take note of its end has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def knows(process: psutil.Process, text: str) -> bool:
    try:
        return text in " ".join(process.cmdline()) or text in " ".join(process.environ().values())
    except psutil.NoSuchProcess:
        return False


def listening_ports(processes: list[psutil.Process]) -> set[int]:
    return {port for process in processes for port in _ports_of(process)}


def _ports_of(process: psutil.Process) -> set[int]:
    try:
        connections = process.net_connections("inet")
    except psutil.NoSuchProcess:
        return set()
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


# --- a cluster of two beside a bystander ---------------------------------------------------------------------------

_DRIVER = """
import json, ray, sys
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray.init(address=sys.argv[1], _node_ip_address=sys.argv[2], log_to_driver=False)

@ray.remote(num_cpus=0)
class Agent:
    def where(self):
        import workers
        return workers.__file__

found = {}
for node in ray.nodes():
    on_it = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    agent = Agent.options(scheduling_strategy=on_it).remote()
    found[node["Labels"].get("muster.host")] = ray.get(agent.where.remote(), timeout=60)
print(json.dumps(found), flush=True)
sys.stdin.readline()
ray.shutdown()
"""

_PLAIN_DRIVER = """
import ray, sys

ray.init(address=sys.argv[1], _node_ip_address=sys.argv[2], log_to_driver=False)

@ray.remote
def task():
    return "still at work"

print(ray.get(task.remote(), timeout=60))
"""


def a_driver(address: str, node_ip: str, token_file: Path, code: str = _DRIVER) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
    return subprocess.Popen(
        [sys.executable, "-c", code, address, node_ip],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd="/",
        env={**clean, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)},
    )


@pytest.fixture(scope="module")
def bystander() -> Iterator[Path]:
    """A Ray of the same user that is none of ours, with a driver at work; gives the token file that opens it."""
    folder = Path(tempfile.mkdtemp(prefix="bystander-", dir="/tmp"))
    token_file = folder / "token"
    token_file.write_text(secrets.token_hex(32))
    argv = (
        *("start", "--head", "--node-ip-address=127.0.0.9", f"--port={BYSTANDER_PORT}", f"--temp-dir={folder}/ray"),
        *("--include-dashboard=false", "--include-log-monitor=false", "--no-monitor", "--disable-usage-stats"),
        *("--num-cpus=1", "--object-store-memory=83886080", f"--min-worker-port={BYSTANDER_PORT + 10}"),
        f"--max-worker-port={BYSTANDER_PORT + 40}",
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    subprocess.run(
        [sys.executable, *RAY, *argv],
        env={**clean, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=DEADLINE_S,
    )
    processes = [process for process in psutil.process_iter() if _belongs(process, str(folder))]
    yield token_file
    ended = [process for process in processes if not _is_at_work(process)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it hung on one that is gone
            process.kill()
    shutil.rmtree(folder)
    assert ended == []


def _belongs(process: psutil.Process, folder: str) -> bool:
    try:
        return folder in " ".join(process.cmdline()) and process.pid != os.getpid()
    except psutil.Error:  # it has ended meanwhile, or is another user's
        return False


def test_two_hosts_make_one_cluster_that_goes_without_a_trace_while_another_one_stays(
    tmp_path: Path, bystander: Path
) -> None:
    async def scenario() -> None:
        first, second = await asyncio.gather(opened(tmp_path), opened(tmp_path))
        head = await started(first)
        other = await started(
            second, replace(ORDER, join=head.address, node_ip="127.0.0.3", labels=((HOST_LABEL, "second"),))
        )
        _check_secrets(head, first)
        _check_secrets(other, second)
        _check_ports(head, first)
        _check_ports(other, second)
        assert head.first_port != other.first_port
        assert other.address == head.address == f"127.0.0.2:{head.first_port}"
        assert names(ray_of(first)) >= {"gcs_server", "raylet"}
        assert "gcs_server" not in names(ray_of(second))

        driver = a_driver(head.address, "127.0.0.2", Path(head.token_file))
        try:
            assert driver.stdout is not None
            found = json.loads(await asyncio.to_thread(driver.stdout.readline))
            # Agents come from the code that was pushed, on every host.
            assert set(found) == {"first", "second"}
            assert all(str(tmp_path) in path for path in found.values())
            _check_ports(head, first)
            _check_ports(other, second)
        finally:
            await asyncio.to_thread(driver.communicate, "\n")

        for keeper, node in ((second, other), (first, head)):
            processes = ray_of(keeper)
            assert await keeper.ask(StopRay(), RayStopped, timeout_s=DEADLINE_S) == RayStopped()
            assert survivors(processes) == []
            assert not Path(node.folder).exists()
            assert not keeper.ended.done()
            assert await keeper.ask(StopRay(), RayStopped, timeout_s=DEADLINE_S) == RayStopped()
            await keeper.close()

    run(scenario())
    with a_driver(f"127.0.0.9:{BYSTANDER_PORT}", "127.0.0.9", bystander, _PLAIN_DRIVER) as driver:
        out, _ = driver.communicate(timeout=DEADLINE_S)
    assert out == "still at work\n"


def _check_secrets(node: RayStarted, keeper: Keeper) -> None:
    folder, token_file = Path(node.folder), Path(node.token_file)
    assert token_file.parent == folder
    assert token_file.read_text() == TOKEN
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    everybody = [psutil.Process(keeper.greeting.pid), *ray_of(keeper)]
    assert [process.name() for process in everybody if knows(process, TOKEN)] == []
    written = [path for path in folder.rglob("*") if path.is_file() and path != token_file]
    assert written
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []


def _check_ports(node: RayStarted, keeper: Keeper) -> None:
    assert FIRST_PORT <= node.first_port <= LAST_PORT - PORTS_IN_BLOCK + 1
    ports = listening_ports(ray_of(keeper))
    assert ports
    assert ports <= set(range(node.first_port, node.first_port + PORTS_IN_BLOCK))


# --- the other ways to end -----------------------------------------------------------------------------------------


def test_two_keepers_at_once_take_different_blocks_and_end_whether_let_go_or_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        keepers = await asyncio.gather(opened(tmp_path), opened(tmp_path))
        nodes = await asyncio.gather(*(started(keeper) for keeper in keepers))
        assert nodes[0].first_port != nodes[1].first_port
        processes = [process for keeper in keepers for process in ray_of(keeper)]
        assert len(processes) >= 6
        os.kill(keepers[1].greeting.pid, signal.SIGKILL)
        await asyncio.gather(*(keeper.close() for keeper in keepers))
        # The guard has ended after all of them.
        assert [process for process in processes if _is_at_work(process)] == []
        assert [node.folder for node in nodes if Path(node.folder).exists()] == []

    run(scenario())


def test_a_daemon_that_ends_by_itself_is_told_and_ray_can_be_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        keeper = await opened(tmp_path, grace_s=3600.0)
        node = await started(keeper)
        processes = ray_of(keeper)
        with pytest.raises(OrderFailedError, match="Ray runs here already"):
            await started(keeper)
        (raylet,) = [process for process in processes if process.name() == "raylet"]
        raylet.kill()
        ended = await asyncio.wait_for(asyncio.shield(keeper.ended), DEADLINE_S)
        assert "raylet ended by itself" in ended.reason
        assert survivors(processes) == []
        assert not Path(node.folder).exists()
        again = await started(keeper)
        assert again.first_port == node.first_port
        assert await keeper.ask(StopRay(), RayStopped, timeout_s=DEADLINE_S) == RayStopped()
        await keeper.close()  # at once, for nothing runs

    run(scenario())


_AGENT_DRIVER = """
import os, ray, sys

ray.init(address=sys.argv[1], _node_ip_address=sys.argv[2], log_to_driver=False)

@ray.remote(num_cpus=0, max_concurrency=2)
class DeviceAgent:
    def pid(self):
        return os.getpid()
    def leave_when_told(self, gate):
        open(gate).read()
        os._exit(0)

agent = DeviceAgent.options(name="it", namespace="run", lifetime="detached").remote()
print(ray.get(agent.pid.remote(), timeout=60), flush=True)
gate = sys.stdin.readline().strip()
agent.leave_when_told.remote(gate)
ray.get(agent.pid.remote(), timeout=60)
print("told", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("patience_s", [3600.0, 4.0])
def test_without_the_head_ray_goes_on_while_there_are_agents_but_not_for_ever(
    tmp_path: Path, patience_s: float
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    async def scenario() -> None:
        reach = LocalReach(tmp_path)
        keeper = await open_keeper(reach, python=sys.executable, grace_s=0.0, patience_s=patience_s)
        node = await started(keeper)
        with a_driver(node.address, "127.0.0.2", Path(node.token_file), _AGENT_DRIVER) as driver:
            assert driver.stdout is not None
            assert driver.stdin is not None
            agent = psutil.Process(int(await asyncio.to_thread(driver.stdout.readline)))
            driver.stdin.write(f"{gate}\n")
            driver.stdin.flush()
            assert await asyncio.to_thread(driver.stdout.readline) == "told\n"
            driver.kill()
        processes = ray_of(keeper)
        closing = asyncio.create_task(keeper.close())
        if patience_s > DEADLINE_S:
            # Twice as long as it would be to the next look for agents.
            assert (await asyncio.to_thread(psutil.wait_procs, [agent], 6.0))[1] == [agent]
            assert not closing.done()
            await asyncio.to_thread(gate.write_text, "go")
        await closing
        assert survivors([agent, *processes]) == []
        assert not Path(node.folder).exists()

    run(scenario())


def test_when_the_guard_is_killed_the_keeper_ends_what_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        keeper = await opened(tmp_path, grace_s=3600.0)
        node = await started(keeper)
        processes = ray_of(keeper)
        guard = psutil.Process(keeper.greeting.pid).parent()
        assert guard is not None
        guard.kill()
        await keeper.close()
        assert survivors(processes) == []
        assert not Path(node.folder).exists()

    run(scenario())


def test_what_is_left_when_keeper_and_guard_are_killed_is_cleared_up_by_the_next_one_and_nothing_else(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        keeper, other = await asyncio.gather(opened(tmp_path), opened(tmp_path))
        node, spared = await asyncio.gather(started(keeper), started(other))
        processes = ray_of(keeper)
        own = psutil.Process(keeper.greeting.pid)
        guard = own.parent()
        assert guard is not None
        # Stopped first, so that neither has the time to clear up when the other is gone.
        for process in (own, guard):
            process.suspend()
        for process in (own, guard):
            process.kill()
        await keeper.close()
        assert {process.name() for process in processes if process.is_running()} >= {"raylet", "gcs_server"}
        for path in ("/tmp", "/", str(tmp_path)):
            assert await other.ask(ClearUp(folder=path), RayStopped, timeout_s=DEADLINE_S) == RayStopped()
        assert await other.ask(ClearUp(folder=node.folder), RayStopped, timeout_s=DEADLINE_S) == RayStopped()
        assert survivors(processes) == []
        assert not Path(node.folder).exists()
        assert names(ray_of(other)) >= {"raylet", "gcs_server"}
        assert Path(spared.folder).exists()
        await other.close()

    run(scenario())


# --- when it does not start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (replace(ORDER, object_store_bytes=1), "Ray did not start: .*object.store"),
        (replace(ORDER, python="/no/python"), "/no/python cannot be run: No such file or directory"),
        (replace(ORDER, python="false"), "Ray did not start: it said nothing"),
        (replace(ORDER, join="127.0.0.2:1", timeout_s=2.0), "Ray was not up within 2 s"),
        (replace(ORDER, last_port=FIRST_PORT + 98), r"ports 27000-27098 are fewer than the 100 that Ray needs"),
    ],
    ids=["store", "no-python", "no-ray", "no-head", "few-ports"],
)
def test_when_ray_does_not_start_the_reason_is_told_and_nothing_is_left(
    tmp_path: Path, order: StartRay, message: str
) -> None:
    async def scenario() -> None:
        keeper = await opened(tmp_path)
        with pytest.raises(OrderFailedError, match=message) as caught:
            await started(keeper, order)
        assert TOKEN not in caught.value.message
        assert ray_of(keeper) == []
        await keeper.close()

    run(scenario())


def test_a_failure_does_not_tell_the_token(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "the token is $(cat "$RAY_AUTH_TOKEN_PATH")"\nexit 1\n')
    python.chmod(0o755)

    async def scenario() -> None:
        keeper = await opened(tmp_path)
        with pytest.raises(OrderFailedError, match=r"Ray did not start: the token is \(token\)$"):
            await started(keeper, replace(ORDER, python=str(python)))
        await keeper.close()

    run(scenario())


# --- ports -----------------------------------------------------------------------------------------------------------


def test_a_block_is_claimed_once_until_it_is_released() -> None:
    first = portblock.claim(29100, 29399)
    second = portblock.claim(29100, 29399)
    third = portblock.claim(29100, 29399)
    assert [claim.first_port for claim in (first, second, third)] == [29100, 29200, 29300]
    with pytest.raises(portblock.PortsTakenError, match="no block of 100 ports in 29100-29399 is free; in use: 29109"):
        portblock.claim(29100, 29399)
    second.release()
    again = portblock.claim(29100, 29399)
    assert again.first_port == 29200
    for claim in (first, again, third):
        claim.release()
