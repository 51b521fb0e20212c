"""Cases that hold several devices: real agents and children, and whole runs with Ray and TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from orchestrator.store.opening import open_store
from tests.builders import a_case, a_device, a_sampling, a_workload
from tests.integration.muster import muster
from tests.integration.test_agent import wait_for
from tests.integration.test_child import FAKES
from workers.agent import DeviceAgent
from workers.codec import from_json, to_json
from workers.lease import Lease, claims_of
from workers.protocol import (
    AttemptHeld,
    AttemptRequest,
    AttemptStarted,
    AttemptWaiting,
    Phase,
    Progress,
    Result,
    Ring,
    Verdict,
)
from workers.spool import FOLDER_VARIABLE, Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]
DEVICES = tuple(a_device("localhost", f"cpu:{core}", cores=(core,)) for core in CORES)
DEADLINE_S = 60.0

pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="takes two cores")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.01")
    monkeypatch.setenv("SCRIPTED_PID_FILE", str(tmp_path / "met"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "spool"))


class Hosted:
    """An agent for each of two devices, and a thread for the part of each."""

    def __init__(self) -> None:
        self.agents = [DeviceAgent(to_json(device)) for device in DEVICES]
        self._threads = ThreadPoolExecutor(2)

    def ask(self, rank: int, *, lease_timeout_s: float = 60.0) -> Future[Result]:
        request = dataclasses.replace(request_of(rank), lease_timeout_s=lease_timeout_s)
        return self._threads.submit(lambda: from_json(Result, self.agents[rank].run_case(to_json(request))))

    def address(self, rank: int) -> str:
        held = wait_for(self.agents[rank], AttemptHeld)
        assert isinstance(held, AttemptHeld)
        return held.address

    def meet(self, *addresses: str) -> None:
        for agent in self.agents:
            agent.meet(KEY, 1, addresses)

    def cancel(self, rank: int, reason: str) -> None:
        self.agents[rank].cancel(KEY, 1, Verdict.CANCELLED.value, reason)

    def close(self) -> None:
        for agent in self.agents:
            agent.shutdown()
        self._threads.shutdown()


@pytest.fixture
def host() -> Iterator[Hosted]:
    hosted = Hosted()
    yield hosted
    hosted.close()


def request_of(rank: int) -> AttemptRequest:
    workload = a_workload(framework="scripted", model="allreduce/n8-r2", batch_size=1)
    case = a_case(DEVICES[0], workload, a_sampling(warmup=1, min_steps=5, max_steps=5))
    return AttemptRequest(
        run_id="run",
        case=dataclasses.replace(case, device=DEVICES[rank], peers=DEVICES[1:]),
        attempt=1,
        start_timeout_s=DEADLINE_S,
        case_timeout_s=DEADLINE_S,
        telemetry_interval_s=None,
        ring=Ring(group="group", rank=rank, host="127.0.0.1"),
    )


KEY = request_of(0).case.key


def test_both_hold_the_host_and_begin_once_they_know_of_each_other(host: Hosted, tmp_path: Path) -> None:
    first, second = host.ask(0), host.ask(1)
    addresses = [host.address(rank) for rank in (0, 1)]
    assert len({address.rpartition(":")[2] for address in addresses}) == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("met")]
    host.meet(*addresses)

    result = first.result(DEADLINE_S)

    assert (result.verdict, result.reason, len(result.samples_ms)) == (Verdict.OK, None, 5)
    assert result.peak_reason == result.copy_reason == "not measured beside other devices at work"
    met = [tmp_path / f"met.{rank}" for rank in (0, 1)]
    assert [path.read_text() for path in met] == [" ".join(addresses)] * 2
    wait_for(host.agents[1], Progress, Phase.MEASURE)
    host.cancel(1, "it is over")
    other = second.result(DEADLINE_S)
    assert (other.verdict, other.reason, other.samples_ms) == (Verdict.CANCELLED, "it is over", ())


def test_only_the_first_device_s_host_keeps_the_result(host: Hosted) -> None:
    first, second = host.ask(0), host.ask(1)
    host.meet(*[host.address(rank) for rank in (0, 1)])
    first.result(DEADLINE_S)
    host.cancel(1, "it is over")
    second.result(DEADLINE_S)
    kept = [Spool("run").results(device.id) for device in DEVICES]
    assert [len(results) for results in kept] == [1, 0]


def test_whoever_waits_for_the_others_says_so_and_ends_as_it_is_told(host: Hosted) -> None:
    first = host.ask(0)
    waiting = wait_for(host.agents[0], AttemptWaiting)
    assert isinstance(waiting, AttemptWaiting)
    assert waiting.reason == "its device is held, and the others of its case are not yet"
    host.cancel(0, "enough")
    result = first.result(DEADLINE_S)
    assert (result.verdict, result.reason) == (Verdict.CANCELLED, "enough")
    with Lease(claims_of(DEVICES[0], is_alone=True), run_id="another", head="head") as lease:
        assert lease.take(1.0, pause=threading.Event().wait, tell=lambda _: None)


def test_the_others_are_waited_for_no_longer_than_a_device_is(host: Hosted) -> None:
    result = host.ask(0, lease_timeout_s=0.3).result(DEADLINE_S)
    assert result.verdict is Verdict.BUSY
    assert result.reason == "the other devices of its case were not held within 0.3 s"


def test_a_part_that_fails_is_that_part_s_result(host: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "segfault in rank 1")
    first, second = host.ask(0), host.ask(1)
    host.meet(*[host.address(rank) for rank in (0, 1)])
    wait_for(host.agents[0], AttemptStarted)
    result = second.result(DEADLINE_S)
    assert (result.verdict, result.ending.signal) == (Verdict.CRASHED, "SIGSEGV")
    first.result(DEADLINE_S)


CONFIG = f"""\
version: 1
name: ring
hosts: [{{name: localhost, devices: ["cpu:{CORES[0]}", "cpu:{CORES[-1]}"]}}]
workloads: [{{problems: [allreduce/n100000, allreduce/n1000]}}]
measure: {{warmup: 2, steps: 10}}
policy: {{busy: measure}}
"""


@pytest.mark.slow
def test_a_run_sums_over_two_devices_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "ring.yaml").write_text(CONFIG)
    ended = muster("run", "ring.yaml", cwd=tmp_path, timeout_s=170)
    assert ended.code == 0, ended.err
    store = open_store(f"sqlite:///{tmp_path / 'muster.db'}")
    (summary,) = json.loads(muster("runs", "--json", cwd=tmp_path).out)
    try:
        run = store.run(summary["id"])
    finally:
        store.close()
    assert [known.case.workload.model for known in run.cases] == ["allreduce/n100000-r2", "allreduce/n1000-r2"]
    for known in run.cases:
        assert [device.selector for device in known.case.devices] == [f"cpu:{core}" for core in CORES]
        assert known.result is not None
        assert known.result.verdict.has_figure, known.reason
        assert len(known.result.samples_ms) == 10
        assert known.result.environment.get("collective.implementation").value == "ring over gRPC"
        assert known.result.environment.get("collective.ranks").value == 2
