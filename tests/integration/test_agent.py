"""The agent as a plain object, with real children."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.builders import a_device, a_sampling
from tests.integration.leaks import assert_no_more_than, held
from tests.integration.test_child import CORES, FAKES, a_request
from tests.integration.test_process import has_gone
from workers.agent import AgentReport, DeviceAgent, news_from_json
from workers.codec import CodecError, from_json, to_json
from workers.lease import Lease, claims_of
from workers.process import ChildProcess
from workers.protocol import (
    PROTOCOL_VERSION,
    AgentEvent,
    AttemptGranted,
    AttemptMeasured,
    AttemptRequest,
    AttemptStarted,
    AttemptWaiting,
    Phase,
    Progress,
    Result,
    Sampling,
    StoppedBy,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 60.0
DEVICE = a_device(cores=CORES)


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES))


@pytest.fixture
def agent() -> Iterator[DeviceAgent]:
    """An agent that must leave no child behind; others, of a Ray that serves other tests, may be there."""
    before = psutil.Process().children()
    agent = DeviceAgent(to_json(DEVICE))
    yield agent
    agent.shutdown()
    assert psutil.Process().children() == before


def request_for(*, start_timeout_s: float = 60.0, case_timeout_s: float = 60.0, **sampling: object) -> AttemptRequest:
    steps = {"warmup": 1, "min_steps": 5, "max_steps": 5, **sampling}
    request = a_request(DEVICE, sampling=a_sampling(**steps))
    return dataclasses.replace(request, start_timeout_s=start_timeout_s, case_timeout_s=case_timeout_s)


def run(agent: DeviceAgent, request: AttemptRequest | None = None) -> Result:
    return from_json(Result, agent.run_case(to_json(request or request_for())))


def run_script(agent: DeviceAgent, code: str, **given: float) -> Result:
    """Run a case with a child that is any Python program."""
    with_script = DeviceAgent(to_json(DEVICE), child_argv=[sys.executable, "-c", code])
    try:
        return run(with_script, request_for(**given))
    finally:
        with_script.shutdown()


def wait_for(agent: DeviceAgent, kind: type[AgentEvent], phase: Phase | None = None) -> AgentEvent:
    """Return the first news of that kind, and of that phase."""
    after, until = 0, time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        for sequence, event in news_from_json(agent.progress(after, DEADLINE_S)):
            after = sequence
            if isinstance(event, kind) and (phase is None or (isinstance(event, Progress) and event.phase is phase)):
                return event
    raise TimeoutError(kind)


def test_a_case_gives_its_result_with_everything_around_it(agent: DeviceAgent) -> None:
    before = time.time()
    request = request_for()
    result = run(agent, request)
    assert (result.verdict, result.reason, result.stopped_by) == (Verdict.OK, None, StoppedBy.STEPS)
    assert (result.case_key, result.attempt) == (request.case.key, 1)
    assert (len(result.warmup_ms), len(result.samples_ms)) == (1, 5)
    assert result.peak_flops == 1e12
    assert [timing.phase for timing in result.phases] == list(Phase)
    assert result.ending.exit_code == 0
    assert before <= result.started_at <= time.time()
    assert sum(timing.seconds for timing in result.phases) <= result.duration_s
    assert result.environment.get("cpu.model").value is not None
    assert result.environment.get("process.affinity").value is not None
    assert result.environment.get("scripted.affinity").value == len(CORES)


def test_an_agent_measures_one_case_after_another(agent: DeviceAgent) -> None:
    assert [run(agent).verdict for _ in range(2)] == [Verdict.OK, Verdict.OK]


def test_an_agent_measures_one_case_at_a_time(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "hang in build")
    request = request_for()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, agent, request)
        wait_for(agent, Progress, Phase.BUILD)
        with pytest.raises(RuntimeError, match="one at a time"):
            run(agent)
        agent.cancel(request.case.key, 1, "cancelled", "enough")
        assert running.result(DEADLINE_S).verdict is Verdict.CANCELLED


def test_the_head_hears_of_every_mark_and_of_progress(agent: DeviceAgent) -> None:
    result = run(agent)
    events = [event for _, event in news_from_json(agent.progress(0, 0.0))]
    assert [type(event) for event in events] == [AttemptStarted, Progress, AttemptMeasured]
    assert events[1] == Progress(case_key=result.case_key, attempt=1, phase=Phase.PEAK, step=5, max_steps=5)
    sequences = [sequence for sequence, _ in news_from_json(agent.progress(0, 0.0))]
    assert sequences == sorted(set(sequences))
    assert news_from_json(agent.progress(sequences[-1], 0.0)) == ()
    assert [s for s, _ in news_from_json(agent.progress(sequences[1], 0.0))] == sequences[2:]


def test_whoever_waits_for_news_gets_them_when_they_come(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.05")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, agent, request_for(min_steps=20, max_steps=20))
        wait_for(agent, AttemptStarted)
        steps, after = [], 0
        while not running.done():
            for sequence, event in news_from_json(agent.progress(after, 1.0)):
                after = sequence
                if isinstance(event, Progress) and event.phase is Phase.MEASURE and event.last_ms is not None:
                    steps.append(event.step)
                    assert event.last_ms >= 50.0
        assert len(steps) >= 3
        assert steps == sorted(steps)


def test_waiting_for_news_ends_by_itself_or_with_the_agent(agent: DeviceAgent) -> None:
    assert agent.progress(0, 0.01) == "[]"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(agent.progress, 0, DEADLINE_S)
        agent.shutdown()
        assert waiting.result(DEADLINE_S) == "[]"


# --- who ends it -----------------------------------------------------------------------------------------------


def test_a_child_that_never_starts_is_timed_out(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "hang in build")
    result = run(agent, request_for(start_timeout_s=1.5))
    assert (result.verdict, result.reason) == (Verdict.TIMEOUT, "no first step within 1.5 s (in build)")
    assert result.samples_ms == ()
    assert result.ending.signal == "SIGTERM"


def test_a_child_that_never_ends_is_timed_out_and_keeps_its_samples(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.05")
    result = run(agent, request_for(case_timeout_s=1.0, min_steps=500, max_steps=500))
    assert result.verdict is Verdict.TIMEOUT
    assert result.reason == (
        f"no result within 1 s of the first step (in measure, after {len(result.samples_ms)} of 500 steps)"
    )
    assert result.samples_ms
    assert result.environment.get("scripted.affinity").value == len(CORES)


def test_a_child_that_does_not_heed_term_is_killed(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.process.ChildProcess.stop.__defaults__", (0.1,))
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "ignore TERM in build")
    result = run(agent, request_for(start_timeout_s=1.5))
    assert result.verdict is Verdict.TIMEOUT
    assert result.ending.signal == "SIGKILL"


def test_a_cancelled_case_has_the_verdict_it_was_given_and_its_samples(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.05")
    request = request_for(min_steps=1000, max_steps=1000)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, agent, request)
        event = wait_for(agent, Progress, Phase.MEASURE)
        while isinstance(event, Progress) and event.step == 0:
            event = news_from_json(agent.progress(0, DEADLINE_S))[-1][1]
        agent.cancel(request.case.key, 1, "timeout", "the head's deadline")
        result = running.result(DEADLINE_S)
    assert (result.verdict, result.reason) == (Verdict.TIMEOUT, "the head's deadline")
    assert result.samples_ms


def test_a_case_cancelled_before_it_came_is_not_begun(agent: DeviceAgent) -> None:
    request = request_for()
    agent.cancel(request.case.key, 1, "cancelled", "too late")
    result = run(agent, request)
    assert (result.verdict, result.reason) == (Verdict.CANCELLED, "too late")
    assert result.ending.exit_code is None
    assert run(agent, request).verdict is Verdict.OK  # the cancellation is used up


def test_cancelling_another_attempt_changes_nothing(agent: DeviceAgent) -> None:
    request = request_for()
    agent.cancel(request.case.key, 2, "cancelled", "not this one")
    agent.cancel("another", 1, "cancelled", "nor this one")
    assert run(agent, request).verdict is Verdict.OK


def test_shutting_down_cancels_what_runs_and_refuses_what_comes(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "hang in build")
    before = psutil.Process().children()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, agent)
        wait_for(agent, Progress, Phase.BUILD)
        agent.shutdown()
        assert psutil.Process().children() == before
        assert running.result(DEADLINE_S).verdict is Verdict.CANCELLED
    assert run(agent).reason == "the agent was shut down"
    agent.shutdown()


# --- whom it waits for -----------------------------------------------------------------------------------------


def lease_of_another() -> Lease:
    """What another muster would hold for a case on this device."""
    return Lease(claims_of(DEVICE, is_alone=True), run_id="another", head="elsewhere")


def take(lease: Lease) -> bool:
    """Take it if it is free."""
    return lease.take(DEADLINE_S, pause=lambda _: True, tell=lambda _: None)


def is_free(lease: Lease) -> bool:
    with lease:
        return take(lease)


def test_an_agent_waits_for_another_to_end_its_case(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "hang in build")
    other = DeviceAgent(to_json(DEVICE))
    request = dataclasses.replace(request_for(), head="head01", run_id="3f2a")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, other, request)
        wait_for(other, Progress, Phase.BUILD)
        monkeypatch.delenv("SCRIPTED_BEHAVIOUR")
        waiting = pool.submit(run, agent)
        waits = wait_for(agent, AttemptWaiting)
        assert isinstance(waits, AttemptWaiting)
        assert "the host is held by" in waits.reason
        assert "(run 3f2a of head01, since " in waits.reason
        other.cancel(request.case.key, 1, "cancelled", "enough")
        assert running.result(DEADLINE_S).verdict is Verdict.CANCELLED
        assert waiting.result(DEADLINE_S).verdict is Verdict.OK
    kinds = [type(event) for _, event in news_from_json(agent.progress(0, 0.0))]
    assert kinds == [AttemptWaiting, AttemptGranted, AttemptStarted, Progress, AttemptMeasured]
    other.shutdown()


def test_a_device_that_stays_with_another_is_busy(agent: DeviceAgent) -> None:
    before = psutil.Process().children()
    with lease_of_another() as lease:
        assert take(lease)
        result = run(agent, dataclasses.replace(request_for(), lease_timeout_s=0.3))
        assert psutil.Process().children() == before
    assert (result.verdict, result.samples_ms) == (Verdict.BUSY, ())
    assert str(result.reason).startswith("the host is held by ")
    assert str(result.reason).endswith("and was not free within 0.3 s")
    assert run(agent).verdict is Verdict.OK


def test_a_case_that_waits_can_be_cancelled(agent: DeviceAgent) -> None:
    request = request_for()
    with ThreadPoolExecutor() as pool, lease_of_another() as lease:
        assert take(lease)
        waiting = pool.submit(run, agent, request)
        wait_for(agent, AttemptWaiting)
        agent.cancel("another", 1, "cancelled", "not this one")
        agent.cancel(request.case.key, 1, "cancelled", "enough")
        result = waiting.result(DEADLINE_S)
    assert (result.verdict, result.reason) == (Verdict.CANCELLED, "enough")
    assert result.ending.exit_code is None


def test_shutting_down_ends_a_wait(agent: DeviceAgent) -> None:
    with ThreadPoolExecutor() as pool, lease_of_another() as lease:
        assert take(lease)
        waiting = pool.submit(run, agent)
        wait_for(agent, AttemptWaiting)
        agent.shutdown()
        assert waiting.result(DEADLINE_S).reason == "the agent was shut down"


def test_a_device_is_held_by_the_child_too_and_given_back_when_it_has_gone(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "hang in build")
    before = psutil.Process().children()
    request = request_for()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, agent, request)
        wait_for(agent, Progress, Phase.BUILD)
        (child,) = [one for one in psutil.Process().children() if one not in before]
        assert not is_free(lease_of_another())
        assert [file.path.rsplit("/", 1)[-1] for file in child.open_files() if "leases" in file.path] == ["host"]
        agent.cancel(request.case.key, 1, "cancelled", "enough")
        running.result(DEADLINE_S)
    assert is_free(lease_of_another())


#: Leaves a process behind that has everything the child had, in a session of its own.
_LEAVES_A_DAEMON = """
import subprocess
print(subprocess.Popen(["sleep", "600"], close_fds=False, start_new_session=True, stdout=subprocess.DEVNULL).pid)
"""


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_device_is_given_back_only_once_the_child_is_known_to_be_gone(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    close = ChildProcess.close

    def close_and_report(child: ChildProcess) -> None:
        close(child)
        monkeypatch.setattr(ChildProcess, "is_gone", is_gone)

    monkeypatch.setattr(ChildProcess, "close", close_and_report)
    result = run_script(agent, _LEAVES_A_DAEMON)
    daemon = psutil.Process(int(str(result.reason).rsplit(maxsplit=1)[-1]))
    try:
        assert is_free(lease_of_another()) is is_gone
    finally:
        daemon.kill()
    assert has_gone(daemon.pid)
    assert is_free(lease_of_another())


def test_cases_that_may_run_beside_each_other_do(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "hang in build")
    request = dataclasses.replace(request_for(), is_alone=False)
    gpu = Lease(claims_of(a_device("localhost", "gpu:0"), is_alone=False), run_id="another", head="elsewhere")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, agent, request)
        wait_for(agent, Progress, Phase.BUILD)
        assert is_free(gpu)
        assert not is_free(lease_of_another())
        agent.cancel(request.case.key, 1, "cancelled", "enough")
        running.result(DEADLINE_S)


def test_where_leases_cannot_be_had_nothing_is_measured(tmp_path: Path) -> None:
    (tmp_path / "leases").symlink_to("/nowhere")
    agent = DeviceAgent(to_json(DEVICE), lease_folder=tmp_path / "leases")
    result = run(agent)
    assert result.verdict is Verdict.CRASHED
    assert str(result.reason).startswith(f"{tmp_path}/leases must be a folder")
    agent.shutdown()


# --- how it ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "verdict", "reason"),
    [
        ("raise in build", Verdict.CRASHED, "ValueError: first line"),
        ("unsupported in build", Verdict.UNSUPPORTED, "no bfloat16 here"),
        ("segfault in build", Verdict.CRASHED, "ended by SIGSEGV (in build)"),
        ("segfault in third step", Verdict.CRASHED, "ended by SIGSEGV (in measure, after 0 of 5 steps)"),
        ("kill itself in build", Verdict.CRASHED, "ended by SIGKILL (in build)"),
        ("exit in prepare", Verdict.CRASHED, "ended without a result (in import)"),
        ("exit 3 in build", Verdict.CRASHED, "exit code 3 (in build)"),
        ("system exit in build", Verdict.CRASHED, "exit code 1 (in build): leaving"),
    ],
)
def test_every_end_is_a_verdict(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch, behaviour: str, verdict: Verdict, reason: str
) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", behaviour)
    result = run(agent)
    assert (result.verdict, result.reason) == (verdict, reason)
    assert result.samples_ms == ()
    assert result.stopped_by is None


@pytest.mark.parametrize("behaviour", ["segfault in peak", "exit 3 in peak", "hang in peak"])
def test_a_child_lost_while_it_measures_the_peak_has_measured_its_case(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", behaviour)
    result = run(agent, request_for(case_timeout_s=1.0))
    assert (result.verdict, result.stopped_by) == (Verdict.OK, StoppedBy.STEPS)
    assert len(result.samples_ms) == 5
    assert result.peak_flops is None
    assert "(in peak)" in str(result.peak_reason)


def test_a_grandchild_does_not_outlive_its_case(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "grandchild in build")
    monkeypatch.setenv("SCRIPTED_PID_FILE", str(tmp_path / "pid"))
    assert run(agent).verdict is Verdict.OK
    assert has_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("code", "verdict", "reason"),
    [
        ("", Verdict.CRASHED, "ended without a result (before it said anything)"),
        (
            "import sys; print('hello'); sys.exit(2)",
            Verdict.CRASHED,
            "exit code 2 (before it said anything); 1 stray lines on its stdout, the first: hello",
        ),
        (
            """print('{"event":"SampleBatch","warmup":false,"ms":[NaN]}')""",
            Verdict.CRASHED,
            "the measuring child said something unreadable: not JSON: NaN is not a number",
        ),
        (
            """print('{"event":"Finished","verdict":"ok"}')""",
            Verdict.CRASHED,
            "the measuring child was content without one sample",
        ),
        (
            "while True: print('x' * 50)",
            Verdict.CRASHED,
            f"over 1000 lines on its stdout are no events; the first: {'x' * 50}",
        ),
    ],
)
def test_a_child_that_talks_nonsense_is_a_crash(code: str, verdict: Verdict, reason: str, agent: DeviceAgent) -> None:
    result = run_script(agent, code)
    assert result.verdict is verdict
    assert str(result.reason).startswith(reason)
    assert result.samples_ms == ()


def test_a_child_that_floods_its_stdout_is_a_crash(agent: DeviceAgent) -> None:
    result = run_script(agent, "import os\nwhile True: os.write(1, b'x' * 2**20)")
    assert (result.verdict, result.reason) == (Verdict.CRASHED, "the measuring child wrote more than it may")


def test_a_child_that_cannot_be_started_is_a_crash() -> None:
    agent = DeviceAgent(to_json(DEVICE), child_argv=["/no/such/python"])
    result = run(agent)
    assert result.verdict is Verdict.CRASHED
    assert str(result.reason).startswith("the measuring child cannot be started: ")
    agent.shutdown()


# --- what it is asked ------------------------------------------------------------------------------------------


def test_a_request_for_another_device_is_refused(agent: DeviceAgent) -> None:
    result = run(agent, a_request(a_device(host="elsewhere")))
    assert result.verdict is Verdict.DEVICE_MISSING
    assert result.reason == "the case is for elsewhere/cpu, this is the agent of localhost/cpu"


def test_a_request_in_another_protocol_is_refused(agent: DeviceAgent) -> None:
    result = run(agent, dataclasses.replace(request_for(), protocol_version=PROTOCOL_VERSION + 1))
    assert result.verdict is Verdict.UNSUPPORTED
    assert "install the same muster on both" in str(result.reason)


def test_a_request_that_cannot_be_read_is_an_error_of_the_caller(agent: DeviceAgent) -> None:
    with pytest.raises(CodecError):
        agent.run_case("{}")
    assert run(agent).verdict is Verdict.OK


def test_an_agent_says_who_it_is(agent: DeviceAgent) -> None:
    report = from_json(AgentReport, agent.describe())
    assert (report.device, report.pid, report.protocol_version) == (DEVICE, os.getpid(), PROTOCOL_VERSION)


def test_agents_leave_no_threads_and_no_descriptors(agent: DeviceAgent) -> None:
    run(agent)  # the probe is over by now
    before = held()
    run(agent)
    assert_no_more_than(before)


def test_everything_goes_over_the_wire_as_json(agent: DeviceAgent) -> None:
    for text in (agent.describe(), agent.run_case(to_json(request_for())), agent.progress(0, 0.0)):
        json.loads(text)


def test_sampling_may_end_by_precision_as_well(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.01")
    sampling = Sampling(warmup=1, min_steps=3, max_steps=400, relative_ci=0.5)
    result = run(agent, dataclasses.replace(a_request(DEVICE, sampling=sampling)))
    assert result.stopped_by is StoppedBy.PRECISION
    assert 3 <= len(result.samples_ms) < 400
