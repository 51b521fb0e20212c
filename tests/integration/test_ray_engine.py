"""What only the Ray engine has: Ray's own exceptions, and agents that die."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import ray.exceptions
from ray.util import list_named_actors

from orchestrator.dispatch.messages import (
    AcknowledgeResult,
    CaseFinished,
    CaseStarted,
    DeviceLost,
    DeviceReady,
    HostHeard,
    HostSilent,
    PrepareDevice,
    ResultRecovered,
    StartCase,
)
from orchestrator.engine.ray import EngineLimits, RayEngine
from orchestrator.engine.ray_errors import MEANINGS, meaning_of
from tests.builders import a_case, a_device, a_sampling, a_workload
from tests.integration.muster import survivors
from workers.orders import RayEnded
from workers.protocol import Verdict
from workers.spool import Spool

if TYPE_CHECKING:
    from orchestrator.cluster.base import ClusterHandle
    from orchestrator.engine.base import Occurrence
    from workers.protocol import Case

_RAY_EXCEPTIONS = sorted(
    (kind for kind in vars(ray.exceptions).values() if isinstance(kind, type) and issubclass(kind, BaseException)),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", _RAY_EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_every_exception_of_ray_has_a_meaning(kind: type[BaseException]) -> None:
    error = kind.__new__(kind)
    meaning = meaning_of(error)
    assert meaning.text
    assert any(ancestor in MEANINGS for ancestor in kind.__mro__ if ancestor is not ray.exceptions.RayError) or (
        meaning.lost
    ), "what we do not know of must count as a lost device"


def test_a_failure_of_the_agents_code_costs_the_attempt_and_not_the_device() -> None:
    assert not meaning_of(ray.exceptions.RayTaskError.__new__(ray.exceptions.RayTaskError)).lost
    assert meaning_of(ray.exceptions.ActorDiedError.__new__(ray.exceptions.ActorDiedError)).lost
    assert meaning_of(ValueError("no exception of Ray's")).lost


@pytest.mark.parametrize("kind", [ray.exceptions.ActorUnavailableError])
def test_a_way_that_broke_says_nothing_of_the_agent(kind: type[BaseException]) -> None:
    meaning = meaning_of(kind.__new__(kind))
    assert meaning.is_cut
    assert not meaning.lost


def _engine(handle: ClusterHandle, run_id: str | None = None, **more: Any) -> RayEngine:
    limits = EngineLimits(start_timeout_s=120, case_timeout_s=120)
    return RayEngine(run_id=run_id or uuid.uuid4().hex, limits=limits, handle=handle, **more)


async def _hear(engine: RayEngine, kind: type[Any]) -> Any:
    deadline = engine.now() + 120
    heard: list[Occurrence] = []
    while engine.now() < deadline:
        heard += await engine.occurrences(deadline)
        for occurrence in heard:
            if isinstance(occurrence, kind):
                return occurrence
    raise AssertionError(f"no {kind.__name__}; heard {heard}")


def test_an_agent_that_is_killed_is_a_lost_device_and_its_child_goes_with_it(ray_cluster: ClusterHandle) -> None:
    device = a_device("h1", "cpu", cores=tuple(sorted(os.sched_getaffinity(0))))
    case = a_case(device, a_workload(batch_size=1), a_sampling(warmup=1, min_steps=10**6, max_steps=10**6))

    async def scene() -> tuple[DeviceLost, list[psutil.Process]]:
        engine = _engine(ray_cluster)
        try:
            await engine.start(PrepareDevice(device=device))
            await _hear(engine, DeviceReady)
            await engine.start(StartCase(case=case, attempt=1))
            await _hear(engine, CaseStarted)
            (child,) = [one for one in _all_processes() if "workers.child" in one.cmdline()]
            agent = child.parent()
            assert agent is not None
            os.kill(agent.pid, signal.SIGKILL)
            return await _hear(engine, DeviceLost), [agent, child]
        finally:
            await engine.close()

    lost, processes = asyncio.run(scene())
    assert lost.device_id == "h1/cpu"
    assert lost.reason
    assert survivors(processes) == []


def _a_short_case(host: str) -> Case:
    device = a_device(host, "cpu", cores=tuple(sorted(os.sched_getaffinity(0))))
    return a_case(device, a_workload(model="no-such-model"), a_sampling(warmup=1, min_steps=3, max_steps=3))


def _agents_of(run_id: str) -> list[str]:
    return [each["name"] for each in list_named_actors(all_namespaces=True) if each["namespace"] == f"muster-{run_id}"]


def test_an_agent_that_was_lost_is_brought_up_again_and_takes_the_case_once_more(ray_cluster: ClusterHandle) -> None:
    case = _a_short_case("h1")

    async def scene() -> CaseFinished:
        engine = _engine(ray_cluster)
        try:
            await engine.start(PrepareDevice(device=case.device))
            await _hear(engine, DeviceReady)
            (agent,) = [one for one in _all_processes() if "DeviceAgent" in " ".join(one.cmdline())]
            agent.kill()
            await _hear(engine, DeviceLost)
            await engine.start(PrepareDevice(device=case.device))
            await _hear(engine, DeviceReady)
            await engine.start(StartCase(case=case, attempt=1))
            finished: CaseFinished = await _hear(engine, CaseFinished)
            return finished
        finally:
            await engine.close()

    assert asyncio.run(scene()).result.verdict is Verdict.UNSUPPORTED


def test_what_was_not_acknowledged_is_told_to_the_next_head_of_the_run(ray_cluster: ClusterHandle) -> None:
    run_id, first, second = uuid.uuid4().hex, _a_short_case("h1"), _a_short_case("h1")

    async def scene(*, acknowledges: bool) -> list[Occurrence]:
        engine = _engine(ray_cluster, run_id)
        try:
            await engine.start(PrepareDevice(device=first.device))
            heard: list[Occurrence] = []
            while not any(isinstance(occurrence, DeviceReady) for occurrence in heard):
                heard += await engine.occurrences(engine.now() + 120)
            await engine.start(StartCase(case=second, attempt=1))
            await _hear(engine, CaseFinished)
            if acknowledges:
                await engine.start(AcknowledgeResult(device_id=first.device.id, case_key=second.key, attempt=1))
            return heard
        finally:
            await engine.close()

    nothing, something, nothing_again = (asyncio.run(scene(acknowledges=each)) for each in (False, True, True))
    assert [type(occurrence) for occurrence in nothing] == [DeviceReady]
    assert [type(occurrence) for occurrence in something] == [ResultRecovered, DeviceReady]
    assert isinstance(something[0], ResultRecovered)
    assert (something[0].case_key, something[0].result.verdict) == (second.key, Verdict.UNSUPPORTED)
    assert [type(occurrence) for occurrence in nothing_again] == [DeviceReady]


def test_what_a_host_keeps_and_cannot_read_is_told_to_the_person_once(ray_cluster: ClusterHandle) -> None:
    run_id, said = uuid.uuid4().hex, list[str]()
    folder = Spool(run_id).folder
    folder.mkdir(parents=True)
    (folder / "torn-1.json").write_text("{")

    async def scene() -> None:
        engine = _engine(ray_cluster, run_id, say=said.append)
        try:
            for _ in range(2):  # the device's next agent finds it again
                await engine.start(PrepareDevice(device=a_device("h1", "cpu")))
                await _hear(engine, DeviceReady)
        finally:
            await engine.close()

    asyncio.run(scene())
    (problem,) = said
    assert problem.startswith("h1: a result that it keeps cannot be read: ")
    assert "torn-1.json" in problem


def test_no_agent_of_a_run_is_left_also_none_that_was_still_coming_up(ray_cluster: ClusterHandle) -> None:
    run_id = uuid.uuid4().hex

    async def scene() -> int:
        engine = _engine(ray_cluster, run_id)
        try:
            await engine.start(PrepareDevice(device=_a_short_case("h1").device))
            await _hear(engine, DeviceReady)
            there = len(_agents_of(run_id))
            for host in ("h2", "h3", "h4"):
                await engine.start(PrepareDevice(device=_a_short_case(host).device))
            await asyncio.sleep(0)
            return there
        finally:
            await engine.close()

    assert asyncio.run(scene()) == 1
    assert _agents_of(run_id) == []


def test_a_host_that_does_not_answer_is_silent_until_it_does(ray_cluster: ClusterHandle) -> None:
    device = _a_short_case("h1").device

    async def scene() -> tuple[HostSilent, HostHeard]:
        engine = _engine(ray_cluster)
        try:
            await engine.start(PrepareDevice(device=device))
            await _hear(engine, DeviceReady)
            (agent,) = [one for one in _all_processes() if "DeviceAgent" in " ".join(one.cmdline())]
            agent.suspend()
            try:
                silent: HostSilent = await _hear(engine, HostSilent)
            finally:
                agent.resume()
            return silent, await _hear(engine, HostHeard)
        finally:
            await engine.close()

    silent, heard = asyncio.run(scene())
    assert (silent.host, heard.host) == ("h1", "h1")
    assert silent.at < heard.at


def _lost(handle: ClusterHandle, host: str) -> DeviceLost:
    """Return what is told of a device there."""

    async def scene() -> DeviceLost:
        engine = _engine(handle)
        try:
            await engine.start(PrepareDevice(device=a_device(host, "cpu")))
            lost: DeviceLost = await _hear(engine, DeviceLost)
            return lost
        finally:
            await engine.close()

    return asyncio.run(scene())


def test_a_device_of_a_host_that_is_lost_is_lost_for_the_same_reason(ray_cluster: ClusterHandle) -> None:
    handle = replace(ray_cluster, lost={"attic": "Ray did not start there: no space left"})
    lost = _lost(handle, "attic")
    assert (lost.device_id, lost.reason) == ("attic/cpu", "Ray did not start there: no space left")
    assert lost.is_final


def test_a_device_of_a_host_that_nobody_knows_is_lost(ray_cluster: ClusterHandle) -> None:
    assert _lost(ray_cluster, "elsewhere").reason == "elsewhere is not in the cluster"


def test_once_ray_on_the_head_is_gone_nobody_waits_for_it(ray_cluster: ClusterHandle) -> None:
    async def scene() -> DeviceLost:
        ended: asyncio.Future[RayEnded] = asyncio.get_running_loop().create_future()
        engine = _engine(replace(ray_cluster, ended=ended))
        ended.set_result(RayEnded(reason="gcs_server ended by itself"))
        try:
            await engine.start(PrepareDevice(device=a_device("h1", "cpu")))
            lost: DeviceLost = await _hear(engine, DeviceLost)
            return lost
        finally:
            await engine.close()

    lost = asyncio.run(scene())
    assert lost.is_final
    assert lost.reason == "Ray on the head has ended, and cannot place an agent any more"


def test_an_agent_is_put_on_its_hosts_node_and_on_no_other(ray_cluster: ClusterHandle) -> None:
    gone = replace(ray_cluster, nodes={**ray_cluster.nodes, "h1": "ab" * 28})
    lost = _lost(gone, "h1")
    assert lost.reason.startswith("no host of the cluster can hold the agent")


def _all_processes() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
