"""What an agent sees beside its child, and how it treats a device that somebody else is using."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_agent import DEADLINE_S, agent, ask, request_for, run, wait_for
from tests.nvml import uuid_of
from tests.unit.test_telemetry_cpu import SPIN, wait_for_cpu
from workers import busy
from workers.agent import DeviceAgent, news_from_json
from workers.codec import from_json, to_json
from workers.protocol import (
    AttemptGranted,
    AttemptRequest,
    AttemptWaiting,
    Progress,
    Result,
    Verdict,
    WhenBusy,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.nvml import StubNvml

__all__ = ["agent"]


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.integration.test_child import FAKES
    from workers.spool import FOLDER_VARIABLE

    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "spool"))


@pytest.fixture
def neighbours() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Somebody on each core that we may use."""
    with _Neighbours() as started:
        yield started


class _Neighbours:
    def __enter__(self) -> list[subprocess.Popen[bytes]]:
        self._started = [
            subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE) for _ in os.sched_getaffinity(0)
        ]
        for process in self._started:
            wait_for_cpu(process.pid, 0.02)
        return self._started

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.communicate(timeout=DEADLINE_S)


def polite(when_busy: WhenBusy, busy_timeout_s: float = DEADLINE_S) -> AttemptRequest:
    return dataclasses.replace(
        request_for(), when_busy=when_busy, busy_timeout_s=busy_timeout_s, busy_above=0.3, telemetry_interval_s=0.1
    )


def test_a_result_says_what_was_seen_while_it_was_measured(agent: DeviceAgent) -> None:
    result = run(agent, polite(WhenBusy.MEASURE))
    seen = result.telemetry
    assert seen is not None
    assert seen.measure_from_s is not None
    assert seen.measure_to_s is not None
    assert 0 < seen.measure_from_s < seen.measure_to_s <= result.duration_s
    assert seen.measured("memory.available_bytes")
    assert seen.energy is not None
    assert seen.energy.joules is not None or seen.energy.reason
    assert seen.load_before is not None
    assert from_json(Result, to_json(result)) == result


def test_nobody_looks_where_nobody_asked(agent: DeviceAgent) -> None:
    request = dataclasses.replace(request_for(), telemetry_interval_s=None)
    assert run(agent, request).telemetry is None


def test_a_child_that_fails_was_watched_as_well(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "segfault in step")
    result = run(agent, polite(WhenBusy.MEASURE))
    assert result.verdict is Verdict.CRASHED
    assert result.telemetry is not None


def test_a_device_that_somebody_uses_is_skipped_and_they_are_named(
    agent: DeviceAgent, neighbours: list[subprocess.Popen[bytes]]
) -> None:
    result = run(agent, polite(WhenBusy.SKIP))
    assert result.verdict is Verdict.BUSY
    assert result.reason is not None
    assert any(f"pid {process.pid}" in result.reason for process in neighbours)
    assert "policy.busy: measure" in result.reason
    assert all(process.poll() is None for process in neighbours)


def test_a_device_that_somebody_uses_may_be_measured_all_the_same(
    agent: DeviceAgent, neighbours: list[subprocess.Popen[bytes]]
) -> None:
    result = run(agent, polite(WhenBusy.MEASURE))
    assert result.verdict is Verdict.OK
    assert result.telemetry is not None
    assert {process.pid for process in result.telemetry.foreign} >= {neighbours[0].pid}


def test_a_device_is_measured_once_those_who_used_it_have_gone(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.agent.LOOK_AGAIN_S", 0.05)
    with ThreadPoolExecutor() as pool:
        with _Neighbours() as neighbours:
            running = pool.submit(run, agent, polite(WhenBusy.WAIT))
            waiting = wait_for(agent, AttemptWaiting)
            assert isinstance(waiting, AttemptWaiting)
            assert any(f"pid {process.pid}" in waiting.reason for process in neighbours)
            assert not running.done()
        wait_for(agent, AttemptGranted)
        assert running.result(DEADLINE_S).verdict is Verdict.OK


def test_a_device_that_stays_in_use_is_busy(
    agent: DeviceAgent, neighbours: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.agent.LOOK_AGAIN_S", 0.05)
    result = run(agent, polite(WhenBusy.WAIT, busy_timeout_s=0.1))
    assert result.verdict is Verdict.BUSY
    assert result.reason is not None
    assert result.reason.startswith("it is in use, still after 0.1 s: others use 30 % of its cores or more")


def test_a_wait_for_others_can_be_cancelled(agent: DeviceAgent, neighbours: list[subprocess.Popen[bytes]]) -> None:
    request = polite(WhenBusy.WAIT)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(ask, agent, request)
        wait_for(agent, AttemptWaiting)
        agent.cancel(request.case.key, 1, Verdict.CANCELLED.value, "stopped by a person")
        result = running.result(DEADLINE_S)
    assert (result.verdict, result.reason) == (Verdict.CANCELLED, "stopped by a person")


def test_shutting_down_ends_a_wait_for_others(agent: DeviceAgent, neighbours: list[subprocess.Popen[bytes]]) -> None:
    with ThreadPoolExecutor() as pool:
        running = pool.submit(ask, agent, polite(WhenBusy.WAIT))
        wait_for(agent, AttemptWaiting)
        agent.shutdown()
        assert running.result(DEADLINE_S).verdict is Verdict.CANCELLED


def test_a_gpu_is_watched_by_its_own_gauge_and_its_host_beside(
    stub_nvml: StubNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.builders import a_device

    monkeypatch.setenv("SCRIPTED_STEP_S", "0.1")
    device = a_device("gpuhost", "gpu:1", index=1, uuid=uuid_of(1))
    stub_nvml.set(1, temperature=71, energy_mj=1_000_000)
    request = polite(WhenBusy.MEASURE)
    request = dataclasses.replace(request, case=dataclasses.replace(request.case, device=device))
    gpu_agent = DeviceAgent(to_json(device))
    try:
        result = from_json(Result, gpu_agent.run_case(to_json(request)))
        news = news_from_json(gpu_agent.progress(0, 0.0))
    finally:
        gpu_agent.shutdown()

    (progress,) = (event for _, event in news if isinstance(event, Progress))
    assert progress.temperature_c == 71
    assert progress.power_w is not None
    seen = result.telemetry
    assert seen is not None
    assert seen.named("gpu.clock_mhz")
    assert seen.named("cpu.use_percent")
    assert seen.energy is not None
    assert seen.energy.source == "nvml counter"


def test_a_gpu_that_another_program_computes_on_is_skipped(stub_nvml: StubNvml) -> None:
    from tests.builders import a_device

    device = a_device("gpuhost", "gpu:1", index=1, uuid=uuid_of(1))
    stub_nvml.set(1, computing="4000001:100")
    request = polite(WhenBusy.SKIP)
    request = dataclasses.replace(request, case=dataclasses.replace(request.case, device=device))
    gpu_agent = DeviceAgent(to_json(device))
    try:
        result = from_json(Result, gpu_agent.run_case(to_json(request)))
    finally:
        gpu_agent.shutdown()
    assert (result.verdict, result.reason) == (
        Verdict.BUSY,
        f"it is in use: a process that cannot be seen from here (pid 4000001) computes on it; {busy.REMEDY}",
    )
