"""The search for the largest batch that fits: an agent with real children, and TensorFlow with little memory."""

from __future__ import annotations

import dataclasses
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.builders import a_device, a_sampling, a_workload
from tests.integration.test_agent import DEADLINE_S, run
from tests.integration.test_child import CORES, FAKES, a_request
from workers import frameworks
from workers.agent import DeviceAgent, news_from_json
from workers.codec import to_json
from workers.protocol import (
    AttemptGranted,
    AttemptMeasured,
    AttemptRequest,
    AttemptStarted,
    AttemptWaiting,
    Pass,
    Progress,
    Verdict,
)
from workers.spool import FOLDER_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEVICE = a_device(cores=CORES)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DeviceAgent]:
    """An agent with the scripted framework, that must leave no child behind."""
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "spool"))
    before = psutil.Process().children()
    agent = DeviceAgent(to_json(DEVICE))
    yield agent
    agent.shutdown()
    assert psutil.Process().children() == before


def a_search(start: int = 8, **given: object) -> AttemptRequest:
    workload = a_workload(framework="scripted", batch_size=start, seeks_largest=True)
    request = a_request(DEVICE, workload, a_sampling(warmup=1, min_steps=5, max_steps=5))
    return dataclasses.replace(request, **given)  # type: ignore[arg-type]


def reasons(agent: DeviceAgent) -> list[str]:
    """Why the head was told to wait, in order."""
    news = [event for _, event in news_from_json(agent.progress(0, 0.0))]
    return [event.reason for event in news if isinstance(event, AttemptWaiting)]


def wait_for_reason(agent: DeviceAgent, reason: str) -> None:
    """Return when the head was told to wait for that reason."""
    after, until = 0, time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        for sequence, event in news_from_json(agent.progress(after, DEADLINE_S)):
            after = sequence
            if isinstance(event, AttemptWaiting) and event.reason == reason:
                return
    raise TimeoutError(reason)


def test_the_largest_batch_is_found_and_measured(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_LARGEST_BATCH", "21")
    result = run(agent, a_search())
    assert (result.verdict, result.reason, result.batch_size) == (Verdict.OK, None, 21)
    assert (len(result.warmup_ms), len(result.samples_ms)) == (1, 5)
    assert result.environment.get("search.tried").value == (
        "8 fits, 16 fits, 32 does not, 24 does not, 20 fits, 22 does not, 21 fits"
    )
    limit = result.environment.get("search.memory_bytes").value
    assert isinstance(limit, int)
    assert 0 < limit < psutil.virtual_memory().total


def test_the_head_hears_of_the_search_as_a_wait_and_then_of_the_case(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_LARGEST_BATCH", "2")
    run(agent, a_search(2))
    kinds = [type(event) for _, event in news_from_json(agent.progress(0, 0.0))]
    waits = kinds.index(AttemptGranted)
    assert kinds == [AttemptWaiting] * waits + [AttemptGranted, AttemptStarted, Progress, AttemptMeasured]
    assert reasons(agent) == [
        "looking for the largest batch that fits: 2 comes first",
        "looking for the largest batch that fits: 2 fits",
        "looking for the largest batch that fits: 2 fits, 4 does not",
        "looking for the largest batch that fits: 2 fits, 3 does not, warming up",
    ]


def test_a_batch_that_fits_only_once_gives_way_to_a_smaller_one(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCRIPTED_LARGEST_BATCH", "8")
    monkeypatch.setenv("SCRIPTED_TIGHT_BATCH", "8")
    monkeypatch.setenv("SCRIPTED_PID_FILE", str(tmp_path / "fitted"))
    result = run(agent, a_search())
    assert (result.verdict, result.reason, result.batch_size) == (Verdict.OK, None, 7)
    assert str(result.environment.get("search.tried").value).endswith("8 does not for long")
    kinds = [type(event) for _, event in news_from_json(agent.progress(0, 0.0))]
    assert kinds[kinds.index(AttemptGranted) :] == [AttemptGranted, AttemptStarted, Progress, AttemptMeasured]


def test_want_of_memory_in_the_middle_of_the_measurement_is_the_verdict(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_LARGEST_BATCH", "1")
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "memory error in fourth step")
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.3")
    result = run(agent, a_search(1))
    assert result.verdict is Verdict.OOM
    assert len(result.samples_ms) == 2
    told = "batch 1, which fitted when it was tried, did not when it was measured: MemoryError: no message"
    assert result.reason == told


def test_where_not_even_one_image_fits_the_case_is_out_of_memory(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_LARGEST_BATCH", "0")
    result = run(agent, a_search(2))
    assert (result.verdict, result.reason) == (Verdict.OOM, "not even a batch of 1 fits")
    assert (result.batch_size, result.samples_ms) == (None, ())


def test_any_other_bad_end_of_a_probe_ends_the_attempt(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_LARGEST_BATCH", "64")
    monkeypatch.setenv("SCRIPTED_BAD_BATCH", "16")
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "segfault in bad batch")
    result = run(agent, a_search())
    assert result.verdict is Verdict.CRASHED
    assert result.reason == "while batch 16 was tried (8 fits): ended by SIGSEGV (in build)"
    assert result.ending.signal == "SIGSEGV"


def test_a_search_takes_no_longer_than_a_case(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_BAD_BATCH", "8")
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "hang in bad batch")
    result = run(agent, a_search(case_timeout_s=1.0))
    assert result.verdict is Verdict.TIMEOUT
    assert result.reason == "while batch 8 was tried (8 comes first): the search had taken as long as a case may"


def test_a_search_can_be_cancelled(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_BAD_BATCH", "16")
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "hang in bad batch")
    request = a_search()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, agent, request)
        wait_for_reason(agent, "looking for the largest batch that fits: 8 fits")
        agent.cancel(request.case.key, 1, "cancelled", "enough")
        result = running.result(DEADLINE_S)
    assert (result.verdict, result.reason) == (Verdict.CANCELLED, "enough")


def test_a_child_that_is_let_have_little_memory_cannot_have_more(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_IMAGE_BYTES", str(2**22))
    result = run(agent, a_search(64, memory_bytes=2**30))
    assert result.verdict is Verdict.OK
    assert result.batch_size is not None
    assert 128 <= result.batch_size <= 224
    assert result.environment.get("search.memory_bytes").value == 2**30


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    frameworks.load("tensorflow").available() is not None, reason=str(frameworks.load("tensorflow").available())
)
def test_tensorflow_with_little_memory_finds_a_batch(agent: DeviceAgent) -> None:
    workload = a_workload(batch_size=40, pass_=Pass.FORWARD_BACKWARD, seeks_largest=True)
    request = dataclasses.replace(
        a_request(a_device(cores=tuple(sorted(os.sched_getaffinity(0)))), workload),
        start_timeout_s=300.0,
        case_timeout_s=600.0,
        memory_bytes=800 * 2**20,
    )
    result = run(agent, request)
    assert (result.verdict, result.reason) == (Verdict.OK, None), result.environment.get("search.tried")
    assert result.batch_size is not None
    assert "does not" in str(result.environment.get("search.tried").value)
    assert len(result.samples_ms) == 5
