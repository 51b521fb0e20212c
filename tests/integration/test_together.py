"""Devices of one host that are measured at once: real agents and children, and a whole run with Ray and TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

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
    AttemptRequest,
    Company,
    Phase,
    Progress,
    Result,
    Together,
    Verdict,
)
from workers.spool import FOLDER_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]
DEVICES = tuple(a_device("localhost", f"cpu:{core}", cores=(core,)) for core in CORES)
SELECTORS = tuple(device.selector for device in DEVICES)
DEADLINE_S = 60.0

pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="takes two cores")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.02")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "spool"))


class Hosted:
    """An agent for each of two devices, and a thread for the case of each."""

    def __init__(self) -> None:
        self.agents = [DeviceAgent(to_json(device)) for device in DEVICES]
        self._threads = ThreadPoolExecutor(2)
        self.together = Together(group=uuid.uuid4().hex, selectors=SELECTORS)

    def ask(self, number: int, **given: Any) -> Future[Result]:
        request = dataclasses.replace(request_of(number, **given), together=self.together)
        agent = self.agents[number]
        return self._threads.submit(lambda: from_json(Result, agent.run_case(to_json(request))))

    def close(self) -> None:
        for agent in self.agents:
            agent.shutdown()
        self._threads.shutdown()


@pytest.fixture
def host() -> Iterator[Hosted]:
    hosted = Hosted()
    yield hosted
    hosted.close()


def request_of(number: int, *, steps: int = 5, model: str = "alexnet", lease_timeout_s: float = 60.0) -> AttemptRequest:
    case = a_case(
        DEVICES[number],
        a_workload(framework="scripted", model=model),
        a_sampling(warmup=1, min_steps=steps, max_steps=steps),
        company=Company.TOGETHER,
    )
    return AttemptRequest(
        run_id="run",
        case=case,
        attempt=1,
        start_timeout_s=DEADLINE_S,
        case_timeout_s=DEADLINE_S,
        lease_timeout_s=lease_timeout_s,
        is_alone=False,
        telemetry_interval_s=None,
    )


def seconds(result: Result, phase: Phase) -> float:
    return next(timing.seconds for timing in result.phases if timing.phase is phase)


def test_whoever_has_all_its_steps_goes_on_until_the_other_has_them_too(host: Hosted) -> None:
    quick, slow = host.ask(0, steps=5), host.ask(1, steps=60)
    first, second = quick.result(DEADLINE_S), slow.result(DEADLINE_S)
    assert (first.verdict, first.reason, len(first.samples_ms)) == (Verdict.OK, None, 5)
    assert (second.verdict, second.reason, len(second.samples_ms)) == (Verdict.OK, None, 60)
    assert seconds(first, Phase.PEAK) > 0.5  # of the 1.1 s that the other still needed
    assert first.environment.get("company.devices").value == SELECTORS[1]
    assert first.peak_flops is None
    assert first.peak_reason == first.copy_reason == "not measured beside other devices at work"


def test_nobody_is_measured_alone_where_the_other_cannot_be_measured(host: Hosted) -> None:
    other, this = host.ask(1, model="no-such-model"), host.ask(0)
    assert other.result(DEADLINE_S).verdict is Verdict.UNSUPPORTED
    result = this.result(DEADLINE_S)
    assert result.verdict is Verdict.DEVICE_MISSING
    assert result.reason == f"nobody is left to be measured beside: {SELECTORS[1]} ended before the first step"
    assert result.samples_ms == ()


def test_a_figure_says_so_where_the_other_was_ended_in_the_middle(host: Hosted) -> None:
    this, other = host.ask(0, steps=100), host.ask(1, steps=1000)
    wait_for(host.agents[1], Progress, Phase.MEASURE)
    key = request_of(1, steps=1000).case.key
    host.agents[1].cancel(key, 1, Verdict.CANCELLED.value, "enough")
    assert other.result(DEADLINE_S).verdict is Verdict.CANCELLED
    result = this.result(DEADLINE_S)
    assert (result.verdict, len(result.samples_ms)) == (Verdict.OK, 100)
    assert result.reason == f"its company was not whole: {SELECTORS[1]} left before its last step"


def test_whose_device_is_not_free_is_not_waited_for(host: Hosted) -> None:
    claims = claims_of(DEVICES[1], is_alone=False, group=host.together.group)
    with Lease(claims[1:], run_id="another", head="head") as taken:
        assert taken.take(1.0, pause=threading.Event().wait, tell=lambda _: None)
        this, other = host.ask(0), host.ask(1, lease_timeout_s=0.5)
        assert other.result(DEADLINE_S).verdict is Verdict.BUSY
        assert this.result(DEADLINE_S).verdict is Verdict.DEVICE_MISSING


CONFIG = f"""\
version: 1
name: company
hosts: [{{name: localhost, devices: ["cpu:{CORES[0]}", "cpu:{CORES[-1]}"]}}]
workloads: [{{model: alexnet, batch_size: 1, passes: forward}}]
measure: {{warmup: 2, steps: 40}}
policy: {{busy: measure, host_concurrency: both}}
report: {{references: []}}
"""


def window(result: Result) -> tuple[float, float]:
    """When the counted steps ran: seconds since the epoch, up to what the child's Python took to start."""
    begin = result.started_at + sum(
        timing.seconds for timing in result.phases if timing.phase in (Phase.IMPORT, Phase.BUILD, Phase.WARMUP)
    )
    return begin, begin + seconds(result, Phase.MEASURE)


@pytest.mark.slow
def test_a_run_measures_each_device_alone_and_then_both_at_once(tmp_path: Path) -> None:
    (tmp_path / "both.yaml").write_text(CONFIG)
    ended = muster("run", "both.yaml", cwd=tmp_path, timeout_s=170)
    assert ended.code == 0, ended.err
    (summary,) = json.loads(muster("runs", "--json", cwd=tmp_path).out)
    store = open_store(f"sqlite:///{tmp_path / 'muster.db'}")
    try:
        run = store.run(summary["id"])
    finally:
        store.close()
    found = {
        company: [known.result for known in run.cases if known.case.company is company and known.result is not None]
        for company in Company
    }
    alone, together = found[Company.ALONE], found[Company.TOGETHER]
    assert [len(result.samples_ms) for result in (*alone, *together)] == [40] * 4
    assert all(result.verdict.has_figure for result in (*alone, *together))
    (begin, end), (other_begin, other_end) = map(window, alone)
    assert end <= other_begin or other_end <= begin
    assert not [result.reason for result in together if "company was not whole" in (result.reason or "")]
    assert [result.environment.get("company.devices").value for result in together] == [
        f"cpu:{CORES[1]}",
        f"cpu:{CORES[0]}",
    ]
