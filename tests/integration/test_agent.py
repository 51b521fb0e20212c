"""The agent as a plain object, with real children."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeAlias

import psutil
import pytest

from tests.builders import a_device, a_sampling
from tests.integration.leaks import assert_no_more_than, held
from tests.integration.test_child import CORES, FAKES, ROOT, a_request
from tests.integration.test_process import has_gone
from workers.agent import STRAYS_FACT, AgentReport, DeviceAgent, news_from_json
from workers.codec import CodecError, from_json, to_json
from workers.headwatch import HeadWatch
from workers.lease import Lease, claims_of
from workers.outbox import SPOOL_FACT
from workers.process import ChildProcess, Silence
from workers.protocol import (
    PROTOCOL_VERSION,
    AgentEvent,
    AgentSettings,
    AttemptGranted,
    AttemptMeasured,
    AttemptRequest,
    AttemptStarted,
    AttemptWaiting,
    HeadLoss,
    Phase,
    Progress,
    Result,
    Sampling,
    StoppedBy,
    Verdict,
)
from workers.spool import FOLDER_VARIABLE, Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workers.descendants import Process

DEADLINE_S = 60.0
DEVICE = a_device(cores=CORES)


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "spool"))


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
    """Run a case as a head does that keeps its result."""
    result = ask(agent, request or request_for())
    agent.acknowledge(result.case_key, result.attempt)
    return result


def ask(agent: DeviceAgent, request: AttemptRequest) -> Result:
    """Run a case and acknowledge nothing."""
    return from_json(Result, agent.run_case(to_json(request)))


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
    assert result.peak_flops is not None
    assert result.copy_bytes_per_s is not None
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
        for other in (dataclasses.replace(request, attempt=2), request_for(max_steps=7)):
            with pytest.raises(RuntimeError, match="one at a time"):
                run(agent, other)
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


#: Leaves a process behind that has all that the child had, but for what would let us find it.
_LEAVES_A_DAEMON = """
import subprocess
print(subprocess.Popen(
    ["sleep", "600"], close_fds=False, start_new_session=True, stdout=subprocess.DEVNULL, env={}
).pid)
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


#: Leaves a process behind as daemons are made: two forks, and a session of its own.
_LEAVES_A_STRAY = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(600)
    os._exit(0)
os.wait()
"""


def test_what_forks_and_lives_on_is_ended_and_told(agent: DeviceAgent) -> None:
    result = run_script(agent, _LEAVES_A_STRAY)
    pid = int(str(result.reason).rsplit(maxsplit=1)[-1])
    assert has_gone(pid)
    assert result.environment.get(STRAYS_FACT).value == f"python ({pid})"
    assert is_free(lease_of_another())
    assert run(agent).verdict is Verdict.OK
    assert run(agent).environment.get(STRAYS_FACT).reason == "not recorded"


def test_a_case_that_leaves_a_daemon_behind_has_its_figure_and_says_so(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "stray in build")
    monkeypatch.setenv("SCRIPTED_PID_FILE", str(tmp_path / "pid"))
    result = run(agent)
    assert result.verdict is Verdict.OK
    assert str(result.environment.get(STRAYS_FACT).value).startswith("python")
    assert has_gone(int((tmp_path / "pid").read_text()))


def test_a_device_stays_with_what_nothing_ends(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process that is stuck in a driver can outlive SIGKILL, and holds the device.
    stuck: list[Process] = []

    def ends_nothing(find: Callable[[], tuple[Process, ...]]) -> tuple[Process, ...]:
        stuck.extend(find())
        return tuple(stuck)

    monkeypatch.setattr("workers.strays.kill", ends_nothing)
    result = run_script(agent, _LEAVES_A_STRAY)
    (process,) = stuck
    try:
        assert result.environment.get(STRAYS_FACT).value == f"not even SIGKILL ended python ({process.pid})"
        assert not is_free(lease_of_another())
    finally:
        os.kill(process.pid, signal.SIGKILL)
    assert has_gone(process.pid)
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
        ("exhaust memory in build", Verdict.OOM, "MemoryError: no message"),
        (
            "exhaust memory of C++ in build",
            Verdict.OOM,
            "ended by SIGABRT (in build) for want of memory: "
            "terminate called after throwing an instance of 'std::bad_alloc'",
        ),
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
    assert is_free(lease_of_another())


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
    assert result.copy_reason == result.peak_reason


def test_a_grandchild_does_not_outlive_its_case(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "grandchild in build")
    monkeypatch.setenv("SCRIPTED_PID_FILE", str(tmp_path / "pid"))
    assert run(agent).verdict is Verdict.OK
    assert has_gone(int((tmp_path / "pid").read_text()))


_STARTED = """print('{"environment":{"facts":[]},"event":"Started"}', flush=True)"""
_TOLD = f"{_STARTED}\n"


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
            f'{_TOLD}print(\'{{"event":"Finished","verdict":"ok","peak_flops":NaN}}\')',
            Verdict.CRASHED,
            "the measuring child said something unreadable: not JSON: NaN is not a number",
        ),
        (
            f"{_TOLD}import time; time.sleep(600)",
            Verdict.TIMEOUT,
            "no result within 0.5 s of the first step",
        ),
        (
            f"{_TOLD}import time\nwhile True: time.sleep(0.05); {_STARTED}",
            Verdict.CRASHED,
            "the measuring child said something unreadable: it has started twice",
        ),
        (
            "import os\nwhile True: os.write(1, b'\\xff\\x00garbage\\n{\\n')",
            Verdict.CRASHED,
            "the measuring child said something unreadable: not JSON: ",
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
    result = run_script(agent, code, case_timeout_s=0.5)
    assert result.verdict is verdict
    assert str(result.reason).startswith(reason)
    assert result.samples_ms == ()
    assert is_free(lease_of_another())


@pytest.mark.parametrize("what", ["b'x' * 2**20", "b'x' * 98 + b'\\n'", "b'{\"event\":\\n' * 2**12", "b'\\n' * 2**16"])
def test_a_child_that_floods_its_stdout_is_a_crash_in_bounded_memory(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("workers.process.ChildProcess.stop.__defaults__", (0.1,))
    code = (
        f"import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nn, what = 0, {what}\n"
        "while n < 2**30: n += os.write(1, what)"
    )
    run(agent)  # what is imported by then does not count
    before = psutil.Process().memory_info().rss
    result = run_script(agent, code)
    assert result.verdict is Verdict.CRASHED
    assert psutil.Process().memory_info().rss - before < 64 * 2**20
    assert run(agent).verdict is Verdict.OK


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


# --- what it keeps ---------------------------------------------------------------------------------------------


def an_agent(*, end: Callable[[], None] | None = None, **settings: object) -> DeviceAgent:
    """An agent as the engine makes it."""
    given = AgentSettings(**{"run_id": "run", **settings})  # type: ignore[arg-type]
    return DeviceAgent(to_json(DEVICE), to_json(given), end=end)


def spooled(agent: DeviceAgent) -> tuple[Result, ...]:
    return from_json(AgentReport, agent.describe()).spooled


def test_a_result_is_on_the_disk_before_it_is_given_and_until_it_is_acknowledged(agent: DeviceAgent) -> None:
    spool = Spool("run")
    result = ask(agent, request_for())
    assert spool.results(DEVICE.id) == (result,)
    assert spooled(agent) == (result,)
    agent.acknowledge(result.case_key, 2)
    agent.acknowledge("another", 1)
    assert spooled(agent) == (result,)
    agent.acknowledge(result.case_key, 1)
    assert spooled(agent) == ()
    assert not spool.folder.exists()


def test_the_next_agent_of_a_run_and_device_tells_what_its_predecessor_left() -> None:
    first = an_agent()
    result = ask(first, request_for())
    first.shutdown()
    assert spooled(an_agent()) == (result,)
    assert spooled(an_agent(run_id="another run")) == ()
    other = DeviceAgent(to_json(a_device(host="elsewhere")), to_json(AgentSettings(run_id="run")))
    assert spooled(other) == ()


def test_what_is_kept_and_cannot_be_read_is_told() -> None:
    spool = Spool("run")
    spool.folder.mkdir(parents=True)
    (spool.folder / "torn-1.json").write_text("{")
    (problem,) = from_json(AgentReport, an_agent().describe()).spool_problems
    assert "torn-1.json" in problem


def test_an_attempt_that_is_over_is_not_measured_again(agent: DeviceAgent) -> None:
    request = request_for()
    result = ask(agent, request)
    successor = an_agent()
    with lease_of_another() as lease:  # and the device is not waited for
        assert take(lease)
        assert ask(agent, request) == result
        assert ask(successor, request) == result
    second = ask(successor, dataclasses.replace(request, attempt=2))
    assert second.started_at > result.started_at
    successor.acknowledge(result.case_key, 1)
    assert ask(successor, request).started_at > second.started_at


def test_an_attempt_that_is_at_work_is_waited_for(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "hang in build")
    request = request_for()
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(ask, agent, request)]
        wait_for(agent, Progress, Phase.BUILD)
        for _ in range(3):
            asked.append(pool.submit(ask, agent, request))
            # Of those that only wait, the last one does: it tells by the end of the one before.
            for past in asked[1:-1]:
                with pytest.raises(RuntimeError, match="asked for again"):
                    past.result(DEADLINE_S)
        agent.cancel(request.case.key, 1, "cancelled", "enough")
        results = [asked[0].result(DEADLINE_S), asked[-1].result(DEADLINE_S)]
    assert results[0].reason == "enough"
    assert results[0] == results[1]


def test_a_cancelled_result_is_kept_and_given_again_but_no_successor_takes_it_for_an_end(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for()
    agent.cancel(request.case.key, 1, "cancelled", "enough")
    cancelled = ask(agent, request)
    assert cancelled.reason == "enough"
    assert ask(agent, request) == cancelled
    successor = an_agent()
    assert spooled(successor) == (cancelled,)
    assert ask(successor, request).verdict is Verdict.OK


def test_what_an_orphan_has_measured_meanwhile_is_not_measured_again(
    agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The orphan of a head that was killed still has the device when the next head asks for the same attempt.
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.05")
    request = request_for(min_steps=20, max_steps=20)
    successor = an_agent()
    with ThreadPoolExecutor() as pool:
        orphaned = pool.submit(ask, agent, request)
        wait_for(agent, Progress, Phase.MEASURE)
        again = pool.submit(ask, successor, request)
        wait_for(successor, AttemptWaiting)
        assert again.result(DEADLINE_S) == orphaned.result(DEADLINE_S)
    kinds = [type(event) for _, event in news_from_json(successor.progress(0, 0.0))]
    assert kinds == [AttemptWaiting, AttemptGranted]


def test_a_result_that_cannot_be_written_down_is_given_and_says_so(agent: DeviceAgent, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    request = request_for()
    result = ask(agent, request)
    assert result.verdict is Verdict.OK
    fact = result.environment.get(SPOOL_FACT)
    assert fact.value is None
    assert str(fact.reason).startswith("the result cannot be kept on the host: ")
    assert ask(agent, request) == result
    assert spooled(agent) == (result,)
    agent.acknowledge(result.case_key, 1)
    assert spooled(agent) == ()


def test_nothing_is_kept_of_what_was_asked_after_the_end(agent: DeviceAgent) -> None:
    agent.shutdown()
    assert ask(agent, request_for()).reason == "the agent was shut down"
    assert spooled(agent) == ()


# --- whether the head is there ---------------------------------------------------------------------------------


class Ends:
    """Stands for the end of the agent's process."""

    def __init__(self) -> None:
        self._has_come = threading.Event()

    def __call__(self) -> None:
        self._has_come.set()

    @property
    def has_come(self) -> bool:
        return self._has_come.is_set()

    def wait(self) -> bool:
        return self._has_come.wait(DEADLINE_S)


Lonely: TypeAlias = Callable[..., tuple[DeviceAgent, Ends]]


@pytest.fixture
def lonely() -> Iterator[Lonely]:
    """Makes agents whose head is soon taken for gone; all of them must end in the end."""
    made = []

    def make(head_timeout_s: float = 0.3, **settings: object) -> tuple[DeviceAgent, Ends]:
        ends = Ends()
        made.append(ends)
        return an_agent(end=ends, head_timeout_s=head_timeout_s, **settings), ends

    yield make
    assert all(ends.wait() for ends in made)


def test_an_idle_agent_without_a_head_ends(lonely: Lonely) -> None:
    _, ends = lonely()
    assert ends.wait()


def test_every_call_is_a_sign_of_the_head(agent: DeviceAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr(HeadWatch, "heard", lambda _: heard.append("yes"))
    calls: tuple[Callable[[], object], ...] = (
        agent.beat,
        agent.describe,
        lambda: ask(agent, request_for()),
        lambda: agent.progress(0, 0.0),
        lambda: agent.acknowledge("nothing", 1),
        lambda: agent.cancel("nothing", 1, "cancelled", "nothing"),
        agent.shutdown,
    )
    for number, call in enumerate(calls, start=1):
        call()
        assert len(heard) == number


def test_a_case_is_finished_without_a_head_and_kept(lonely: Lonely, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.05")
    agent, ends = lonely()
    result = ask(agent, request_for(min_steps=30, max_steps=30))
    assert ends.has_come
    assert (result.verdict, len(result.samples_ms)) == (Verdict.OK, 30)
    assert Spool("run").results(DEVICE.id) == (result,)
    assert is_free(lease_of_another())


def test_deadlines_are_kept_without_a_head(lonely: Lonely, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.05")
    agent, ends = lonely()
    before = psutil.Process().children()
    result = ask(agent, request_for(case_timeout_s=1.0, min_steps=500, max_steps=500))
    assert psutil.Process().children() == before
    assert ends.has_come
    assert str(result.reason).startswith("no result within 1 s of the first step")
    assert Spool("run").find(result.case_key, 1) == result
    assert is_free(lease_of_another())


def test_a_case_is_stopped_without_a_head_where_that_is_the_policy(
    lonely: Lonely, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.05")
    agent, ends = lonely(head_timeout_s=1.5, on_head_loss=HeadLoss.STOP)
    result = ask(agent, request_for(min_steps=1000, max_steps=1000))
    assert ends.has_come
    assert (result.verdict, result.reason) == (Verdict.CANCELLED, "nothing was heard of the head for 1.5 s")
    assert Spool("run").results(DEVICE.id) == (result,)


@pytest.mark.parametrize("policy", list(HeadLoss))
def test_nothing_is_begun_without_a_head(lonely: Lonely, policy: HeadLoss) -> None:
    agent, ends = lonely(on_head_loss=policy)
    with lease_of_another() as lease:
        assert take(lease)
        result = ask(agent, request_for())
    assert ends.has_come
    assert (result.verdict, result.reason) == (Verdict.CANCELLED, "nothing was heard of the head for 0.3 s")
    assert result.ending.exit_code is None


def test_a_head_that_is_heard_again_in_time_finds_everything_as_it_was(
    lonely: Lonely, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_BEHAVIOUR", "hang in build")
    agent, ends = lonely(head_timeout_s=1.5)
    request = request_for()
    silence, leave = threading.Event(), agent._leave_without_head

    def noted() -> None:
        silence.set()
        leave()

    monkeypatch.setattr(agent, "_leave_without_head", noted)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(ask, agent, request)
        assert silence.wait(DEADLINE_S)
        agent.cancel(request.case.key, 1, "cancelled", "back again")
        while not running.done():
            agent.beat()
            wait([running], timeout=0.05)
        assert running.result().reason == "back again"
        assert not ends.has_come


def test_a_result_that_could_be_written_nowhere_keeps_its_agent(
    lonely: Lonely, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "spool").write_text("in the way")
    monkeypatch.setenv("SCRIPTED_STEP_S", "0.05")
    agent, ends = lonely()
    result = ask(agent, request_for(min_steps=20, max_steps=20))
    assert result.verdict is Verdict.OK
    assert not ends.has_come
    (tmp_path / "spool").unlink()
    assert ends.wait()  # it has tried again
    (found,) = Spool("run").results(DEVICE.id)
    assert found.samples_ms == result.samples_ms


def test_an_agents_process_ends_by_itself() -> None:
    code = (
        "import threading\nfrom workers.agent import DeviceAgent\n"
        f"DeviceAgent({to_json(DEVICE)!r}, {to_json(AgentSettings(run_id='run', head_timeout_s=0.1))!r})\n"
        "threading.Event().wait()"
    )
    with ChildProcess([sys.executable, "-c", code], cwd=ROOT) as process:
        assert process.next_line(time.monotonic() + DEADLINE_S) is Silence.ENDED
        assert process.ending().exit_code == 0
