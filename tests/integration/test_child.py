"""The measuring child as a real process, with a framework that misbehaves on command."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.builders import a_case, a_device, a_sampling, a_workload
from workers.codec import event_from_json, to_json
from workers.process import ChildProcess, Silence
from workers.protocol import (
    PROTOCOL_VERSION,
    AttemptRequest,
    ChildEvent,
    Device,
    Environment,
    Finished,
    Phase,
    PhaseEntered,
    SampleBatch,
    Sampling,
    Started,
    StoppedBy,
    Verdict,
    Workload,
)

ROOT = Path(__file__).resolve().parents[2]
FAKES = Path(__file__).resolve().parent / "fakes"
CHILD = (sys.executable, "-m", "workers.child")
CORES = tuple(sorted(os.sched_getaffinity(0)))
DEADLINE_S = 60.0


def a_request(
    device: Device | None = None, workload: Workload | None = None, sampling: Sampling | None = None
) -> AttemptRequest:
    case = a_case(
        device or a_device(cores=CORES),
        workload or a_workload(framework="scripted"),
        sampling or a_sampling(warmup=2, min_steps=5, max_steps=5),
    )
    return AttemptRequest(run_id="run", case=case, attempt=1, start_timeout_s=60.0, case_timeout_s=60.0)


def environment(behaviour: str = "", **given: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(FAKES), "SCRIPTED_BEHAVIOUR": behaviour, **given}


def events_of(behaviour: str = "", request: str | AttemptRequest | None = None, **given: str) -> list[ChildEvent]:
    """All that the child says; every line must be an event."""
    text = request if isinstance(request, str) else to_json(request or a_request())
    events: list[ChildEvent] = []
    with ChildProcess(CHILD, stdin=text.encode(), env=environment(behaviour, **given), cwd=ROOT) as child:
        until = time.monotonic() + DEADLINE_S
        while isinstance(line := child.next_line(until), bytes):
            kinds = (PhaseEntered, Started, SampleBatch, Finished)
            events.append(event_from_json(kinds, line))  # type: ignore[arg-type]  # mypy joins them to object
        assert line is Silence.ENDED
    return events


def last_word(events: list[ChildEvent]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def started(events: list[ChildEvent]) -> Environment:
    return next(event for event in events if isinstance(event, Started)).environment


def test_a_case_is_told_from_its_first_phase_to_its_last_word() -> None:
    events = events_of()
    assert [e.phase if isinstance(e, PhaseEntered) else type(e) for e in events] == [
        Phase.IMPORT,
        Phase.BUILD,
        Started,
        Phase.WARMUP,
        SampleBatch,
        Phase.MEASURE,
        SampleBatch,
        Phase.PEAK,
        Finished,
    ]
    warmup, counted = (event for event in events if isinstance(event, SampleBatch))
    assert (warmup.warmup, len(warmup.ms), counted.warmup, len(counted.ms)) == (True, 2, False, 5)
    assert all(ms > 0 for ms in warmup.ms + counted.ms)
    word = last_word(events)
    assert (word.verdict, word.reason, word.stopped_by) == (Verdict.OK, None, StoppedBy.STEPS)
    # 2048 rows, and 512 MiB, in 0.1 ms at the least.
    assert word.peak_flops is not None
    assert 0 < word.peak_flops <= 2 * 2048**3 / 1e-4
    assert word.copy_bytes_per_s is not None
    assert 0 < word.copy_bytes_per_s <= 2**29 / 1e-4
    assert (word.peak_reason, word.copy_reason) == (None, None)
    assert [timing.phase for timing in word.phases] == list(Phase)
    assert all(timing.seconds >= 0 for timing in word.phases)


def test_the_process_is_bound_before_the_framework_looks_whatever_ray_left_behind() -> None:
    device = a_device(cores=CORES[:1])
    found = started(events_of(request=a_request(device), OMP_NUM_THREADS="77", CUDA_VISIBLE_DEVICES="0,1"))
    assert found.get("scripted.saw.OMP_NUM_THREADS").value == "1"
    assert found.get("scripted.saw.CUDA_VISIBLE_DEVICES").value == "-1"
    assert found.get("scripted.affinity").value == 1
    assert found.get("scripted.oom_score_adj").value == 1000
    assert found.get("process.env.OMP_NUM_THREADS").value == "1"
    assert found.get("process.env.CUDA_VISIBLE_DEVICES").value == "-1"
    assert found.get("process.env.CUDA_DEVICE_ORDER").value == "PCI_BUS_ID"
    assert found.get("process.affinity").value == str(CORES[0])


def test_a_gpu_is_made_visible_by_its_uuid_and_threads_are_those_of_the_host() -> None:
    found = started(events_of(request=a_request(a_device(selector="gpu:1", uuid="GPU-1234")), OMP_NUM_THREADS="77"))
    assert found.get("scripted.saw.CUDA_VISIBLE_DEVICES").value == "GPU-1234"
    assert found.get("scripted.saw.OMP_NUM_THREADS").value == str(len(CORES))


def test_a_gpu_without_a_uuid_is_missing() -> None:
    word = last_word(events_of(request=a_request(a_device(selector="gpu:1", uuid=None))))
    assert (word.verdict, word.reason) == (Verdict.DEVICE_MISSING, "gpu:1 has no UUID to be found by")


@pytest.mark.parametrize("cores", [(CORES[0], 4000), (4000, 4001)])
def test_cores_that_are_not_there_are_missing(cores: tuple[int, ...]) -> None:
    word = last_word(events_of(request=a_request(a_device(cores=cores))))
    assert word.verdict is Verdict.DEVICE_MISSING
    assert word.reason is not None
    assert word.reason.startswith("CPU 4000")
    assert word.reason.endswith("may not be used by this process")


def test_chatter_never_mixes_with_events() -> None:
    events = events_of("chatter in build")
    assert last_word(events).verdict is Verdict.OK
    assert len(events) == 9


@pytest.mark.parametrize(
    ("behaviour", "verdict", "reason"),
    [
        ("raise in prepare", Verdict.CRASHED, "ValueError: first line"),
        ("raise in build", Verdict.CRASHED, "ValueError: first line"),
        ("raise in third step", Verdict.CRASHED, "ValueError: first line"),
        ("unsupported in build", Verdict.UNSUPPORTED, "no bfloat16 here"),
        ("wrong device in build", Verdict.DEVICE_MISSING, "wanted gpu:0, would run on the CPU"),
        ("memory error in step", Verdict.OOM, "MemoryError: no message"),
        (
            "resource exhausted in step",
            Verdict.OOM,
            "RuntimeError: RESOURCE_EXHAUSTED: out of memory while allocating 3 TB",
        ),
        ("missing", Verdict.UNSUPPORTED, "scripted is missing: install it"),
    ],
)
def test_every_error_is_a_verdict_with_one_clear_line(behaviour: str, verdict: Verdict, reason: str) -> None:
    word = last_word(events_of(behaviour))
    assert (word.verdict, word.reason) == (verdict, reason)
    assert word.stopped_by is None


def test_samples_before_an_error_are_told() -> None:
    events = events_of("raise in third step", request=a_request(sampling=a_sampling(warmup=2)))
    assert [len(event.ms) for event in events if isinstance(event, SampleBatch)] == [2]


def test_a_peak_that_cannot_be_measured_spoils_nothing() -> None:
    word = last_word(events_of("raise in peak"))
    assert (word.verdict, word.peak_flops, word.peak_reason) == (Verdict.OK, None, "ValueError: first line")
    assert word.copy_bytes_per_s is not None
    word = last_word(events_of("raise in copy"))
    assert (word.verdict, word.copy_bytes_per_s, word.copy_reason) == (Verdict.OK, None, "ValueError: first line")
    assert word.peak_flops is not None


def test_an_unknown_framework_or_model_is_unsupported_and_those_there_are_named() -> None:
    word = last_word(events_of(request=a_request(workload=a_workload(framework="caffe"))))
    assert word.verdict is Verdict.UNSUPPORTED
    assert "caffe" in str(word.reason)
    assert "tensorflow" in str(word.reason)
    word = last_word(events_of(request=a_request(workload=a_workload(framework="scripted", model="alexnot"))))
    assert word.verdict is Verdict.UNSUPPORTED
    assert "alexnet" in str(word.reason)


def test_a_request_in_another_protocol_is_unsupported() -> None:
    request = dataclasses.replace(a_request(), protocol_version=PROTOCOL_VERSION + 1)
    assert last_word(events_of(request=request)).verdict is Verdict.UNSUPPORTED


@pytest.mark.parametrize("text", ["", "nonsense", "{}", '{"run_id": NaN}'])
def test_a_request_that_cannot_be_read_has_a_last_word_too(text: str) -> None:
    (word,) = events_of(request=text)
    assert isinstance(word, Finished)
    assert word.verdict is Verdict.CRASHED
    assert str(word.reason).startswith("the request cannot be read: ")


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    parent_code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({CHILD!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\n"
        f"child.stdin.write({to_json(a_request())!r}); child.stdin.close()\n"
        "print([child.stdout.readline() for _ in range(2)], flush=True)\n"  # import, build: it hangs from here
        "time.sleep(600)"
    )
    env = environment("hang in build", SCRIPTED_PID_FILE=str(pid_file))
    with ChildProcess([sys.executable, "-c", parent_code], env=env, cwd=ROOT) as parent:
        assert b"build" in bytes(parent.next_line(time.monotonic() + DEADLINE_S))  # type: ignore[arg-type]
        (child,) = psutil.Process(parent.pid).children()
        os.kill(parent.pid, signal.SIGKILL)
        psutil.wait_procs([child], timeout=DEADLINE_S)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_child_whose_parent_is_gone_leaves_at_once() -> None:
    ended = subprocess.run(
        [*CHILD, "--parent", "1"], input="", capture_output=True, text=True, cwd=ROOT, timeout=DEADLINE_S
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "the parent is gone\n")


def test_term_ends_a_child_whose_parent_had_blocked_it() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        child = ChildProcess(CHILD, stdin=to_json(a_request()).encode(), env=environment("hang in build"), cwd=ROOT)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    with child:
        for _ in range(2):
            assert isinstance(child.next_line(time.monotonic() + DEADLINE_S), bytes)
        child.stop(grace_s=DEADLINE_S)
        assert child.ending().signal == "SIGTERM"
