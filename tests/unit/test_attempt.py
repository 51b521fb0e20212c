from __future__ import annotations

import pytest

from tests.builders import a_case, a_sampling
from workers.attempt import COLLECT_TIMEOUT_S, MAX_NOISE_LINES, AttemptStory, Stop
from workers.codec import event_to_json
from workers.protocol import (
    AttemptGranted,
    AttemptMeasured,
    AttemptRequest,
    AttemptStarted,
    AttemptWaiting,
    ChildEvent,
    Ending,
    Environment,
    Fact,
    Finished,
    Phase,
    PhaseEntered,
    PhaseTiming,
    Progress,
    Result,
    SampleBatch,
    Sampling,
    Started,
    StoppedBy,
    Verdict,
)

EXITED = Ending(exit_code=0)
KILLED = Ending(signal="SIGKILL")
CANCEL = Stop(verdict=Verdict.CANCELLED, reason="enough", is_asked=True)
OK = Finished(verdict=Verdict.OK, stopped_by=StoppedBy.STEPS, peak_flops=1e12)


def a_story(
    *events: ChildEvent, at: float = 0.0, sampling: Sampling | None = None, memory_bytes: int | None = None
) -> AttemptStory:
    story = AttemptStory(
        AttemptRequest(
            run_id="run",
            case=a_case(sampling=sampling or a_sampling(min_steps=3, max_steps=3), key="key"),
            attempt=2,
            start_timeout_s=30.0,
            case_timeout_s=600.0,
            memory_bytes=memory_bytes,
        ),
        begun_at=1000.0,
    )
    for event in events:
        tell(story, event, at=at)
    return story


def tell(story: AttemptStory, event: ChildEvent, at: float = 0.0) -> tuple[object, ...]:
    return story.observe(event_to_json(event).encode(), at=at)


def end(
    story: AttemptStory,
    ending: Ending = EXITED,
    stop: Stop | None = None,
    *,
    host: Environment | None = None,
) -> Result:
    return story.result(
        ending=ending,
        stop=stop,
        host=host or Environment(),
        started_at=5.0,
        duration_s=7.0,
    )


def entered(phase: Phase) -> PhaseEntered:
    return PhaseEntered(phase=phase)


def started(**facts: str) -> Started:
    return Started(environment=Environment(facts=tuple((name, Fact(value=value)) for name, value in facts.items())))


def samples(*ms: float, warmup: bool = False) -> SampleBatch:
    return SampleBatch(warmup=warmup, ms=ms)


def test_the_deadline_goes_with_the_child() -> None:
    story = a_story(entered(Phase.BUILD))
    assert story.deadline == 1030.0
    tell(story, started(), at=1010.0)
    assert story.deadline == 1610.0
    tell(story, samples(1.0), at=1500.0)
    assert story.deadline == 1610.0
    tell(story, OK, at=1600.0)
    assert story.deadline == 1600.0 + COLLECT_TIMEOUT_S


def test_a_child_has_its_time_from_when_the_device_is_ours() -> None:
    story = a_story()
    assert story.granted(at=1000.5) == ()  # nobody was waited for: nothing to tell
    assert story.deadline == 1030.5
    story = a_story()
    waits = [AttemptWaiting(case_key="key", attempt=2, reason=reason) for reason in ("held by alice", "held by bob")]
    assert [*story.waits("held by alice"), *story.waits("held by bob")] == waits
    assert story.granted(at=2000.0) == (AttemptGranted(case_key="key", attempt=2),)
    assert story.deadline == 2030.0


def test_the_head_hears_marks_and_progress() -> None:
    story = a_story()
    assert tell(story, entered(Phase.IMPORT)) == (
        Progress(case_key="key", attempt=2, phase=Phase.IMPORT, step=0, max_steps=3),
    )
    assert tell(story, started()) == (AttemptStarted(case_key="key", attempt=2),)
    assert tell(story, samples(9.0, 8.0, warmup=True)) == (
        Progress(case_key="key", attempt=2, phase=Phase.WARMUP, step=0, max_steps=3, last_ms=8.0),
    )
    assert tell(story, samples(5.0, 6.0)) == (
        Progress(case_key="key", attempt=2, phase=Phase.MEASURE, step=2, max_steps=3, last_ms=6.0),
    )
    assert tell(story, OK) == (AttemptMeasured(case_key="key", attempt=2),)


def test_the_last_word_makes_the_result() -> None:
    phases = (PhaseTiming(phase=Phase.BUILD, seconds=1.0),)
    word = Finished(verdict=Verdict.OK, stopped_by=StoppedBy.TIME, peak_reason="no peak", phases=phases)
    story = a_story(started(b="child", c="child"), samples(9.0, warmup=True), samples(1.0), samples(2.0, 3.0), word)
    host = Environment(facts=(("a", Fact(value="host")), ("b", Fact(value="host"))))
    result = end(story, host=host)
    assert (result.verdict, result.stopped_by, result.peak_reason) == (Verdict.OK, StoppedBy.TIME, "no peak")
    assert (result.case_key, result.attempt, result.started_at, result.duration_s) == ("key", 2, 5.0, 7.0)
    assert (result.warmup_ms, result.samples_ms, result.phases) == ((9.0,), (1.0, 2.0, 3.0), phases)
    assert [(name, fact.value) for name, fact in result.environment.facts] == [
        ("a", "host"),
        ("b", "child"),
        ("c", "child"),
    ]


@pytest.mark.parametrize("ending", [EXITED, KILLED, Ending(exit_code=3)])
@pytest.mark.parametrize("stop", [None, CANCEL])
def test_the_last_word_counts_however_the_process_ends(ending: Ending, stop: Stop | None) -> None:
    result = end(a_story(started(), samples(1.0), OK), ending, stop)
    assert (result.verdict, result.reason, result.ending) == (Verdict.OK, None, ending)


def test_nothing_counts_after_the_last_word() -> None:
    story = a_story(samples(1.0), OK)
    assert tell(story, samples(2.0)) == ()
    assert tell(story, Finished(verdict=Verdict.OOM)) == ()
    assert end(story).samples_ms == (1.0,)
    assert end(story).verdict is Verdict.OK


def test_ok_without_a_sample_is_no_figure() -> None:
    result = end(a_story(samples(1.0, warmup=True), OK))
    assert result.verdict is Verdict.CRASHED
    assert result.peak_flops is None


def test_a_failure_without_a_sample_is_that_failure() -> None:
    assert end(a_story(Finished(verdict=Verdict.OOM, reason="too big"))).verdict is Verdict.OOM


def test_the_deadlines_say_which_they_were() -> None:
    story = a_story(entered(Phase.IMPORT))
    assert story.passed_deadline() == Stop(
        verdict=Verdict.TIMEOUT, reason="no first step within 30 s (in import)", is_asked=False
    )
    for event in (started(), entered(Phase.MEASURE), samples(1.0, 2.0)):
        tell(story, event)
    reason = "no result within 600 s of the first step (in measure, after 2 of 3 steps)"
    assert story.passed_deadline().reason == reason


def test_whoever_cancels_chooses_the_verdict_and_samples_are_kept() -> None:
    result = end(a_story(started(), entered(Phase.MEASURE), samples(1.0)), KILLED, CANCEL)
    assert (result.verdict, result.reason, result.samples_ms) == (Verdict.CANCELLED, "enough", (1.0,))


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (KILLED, "ended by SIGKILL (in build)"),
        (Ending(exit_code=3), "exit code 3 (in build)"),
        (EXITED, "ended without a result (in build)"),
        (Ending(), "ended, nobody knows how (in build)"),
        (
            Ending(signal="SIGABRT", stderr_tail="first\n  terminate called\x1b[0m \n\n"),
            "ended by SIGABRT (in build): terminate called [0m",
        ),
        (Ending(exit_code=1, stderr_tail="x" * 500), f"exit code 1 (in build): {'x' * 199}…"),
        # What says nothing of an end for want of memory.
        (Ending(signal="SIGKILL", stderr_tail="MemoryError"), "ended by SIGKILL (in build): MemoryError"),
        (Ending(signal="SIGSEGV", stderr_tail="MemoryError"), "ended by SIGSEGV (in build): MemoryError"),
        (Ending(exit_code=0, stderr_tail="MemoryError"), "ended without a result (in build): MemoryError"),
        (
            Ending(exit_code=1, stderr_tail="W CUDA_ERROR_OUT_OF_MEMORY: trying less\n" + "more\n" * 10),
            "exit code 1 (in build): more",
        ),
        (
            Ending(exit_code=1, stderr_tail="Allocator (GPU_0_bfc) ran out of memory; this is not a failure"),
            "exit code 1 (in build): Allocator (GPU_0_bfc) ran out of memory; this is not a failure",
        ),
    ],
)
def test_an_end_without_a_word_is_a_crash_with_its_evidence(ending: Ending, reason: str) -> None:
    result = end(a_story(entered(Phase.BUILD)), ending)
    assert (result.verdict, result.reason, result.ending) == (Verdict.CRASHED, reason, ending)


NAMED = Ending(signal="SIGKILL", oom_evidence="the kernel's log names process 7")


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (NAMED, "ended by SIGKILL (in build) for want of memory: the kernel's log names process 7"),
        (
            Ending(exit_code=1, stderr_tail="Traceback (most recent call last):\n  File\nMemoryError\n"),
            "exit code 1 (in build) for want of memory: MemoryError",
        ),
        (
            Ending(
                signal="SIGABRT",
                stderr_tail="terminate called after throwing an instance of 'std::bad_alloc'\n"
                "  what():  std::bad_alloc\n",
            ),
            "ended by SIGABRT (in build) for want of memory: "
            "terminate called after throwing an instance of 'std::bad_alloc'",
        ),
        (
            Ending(exit_code=134, stderr_tail="OSError: [Errno 12] Cannot allocate memory"),
            "exit code 134 (in build) for want of memory: OSError: [Errno 12] Cannot allocate memory",
        ),
        (
            Ending(exit_code=1, stderr_tail="F0000 RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes\n*** end"),
            "exit code 1 (in build) for want of memory: F0000 RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes",
        ),
        (
            Ending(signal="SIGABRT", stderr_tail="failed call to cuInit: CUDA_ERROR_OUT_OF_MEMORY"),
            "ended by SIGABRT (in build) for want of memory: failed call to cuInit: CUDA_ERROR_OUT_OF_MEMORY",
        ),
    ],
)
def test_an_end_for_want_of_memory_names_its_evidence(ending: Ending, reason: str) -> None:
    result = end(a_story(entered(Phase.BUILD)), ending)
    assert (result.verdict, result.reason) == (Verdict.OOM, reason)
    assert result.ending.oom_evidence is not None
    assert result.ending.oom_evidence in reason


FAILED_ALLOCATION = "W0000 bfc_allocator.cc:502] Allocator (mklcpu) ran out of memory trying to allocate 588.00MiB"


@pytest.mark.parametrize("said", [FAILED_ALLOCATION, "  what():  could not execute a primitive"])
@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGABRT", "SIGBUS"])
def test_a_child_with_a_limit_of_ours_that_could_not_allocate_has_run_out_of_memory(signal: str, said: str) -> None:
    ending = Ending(signal=signal, stderr_tail="\n".join([said, *["Bin (256): 0B"] * 40]))
    assert end(a_story(memory_bytes=2**30), ending).verdict is Verdict.OOM
    assert end(a_story(), ending).verdict is Verdict.CRASHED
    silent = Ending(signal=signal, stderr_tail="Bin (256): 0B")
    assert end(a_story(memory_bytes=2**30), silent).verdict is Verdict.CRASHED


def test_the_batch_that_was_searched_for_is_in_the_result() -> None:
    story = a_story()
    assert end(story).batch_size is None
    story.measures(384)
    assert end(story).batch_size == 384


def test_a_batch_that_had_fitted_and_does_not_when_it_is_measured_is_told() -> None:
    story = a_story(Finished(verdict=Verdict.OOM, reason="no more"))
    story.measures(384)
    assert end(story).reason == "batch 384, which fitted when it was tried, did not when it was measured: no more"


def test_whoever_stopped_a_child_that_spoke_of_memory_has_the_verdict() -> None:
    ending = Ending(signal="SIGABRT", stderr_tail="std::bad_alloc")
    result = end(a_story(entered(Phase.BUILD)), ending, CANCEL)
    assert (result.verdict, result.ending) == (Verdict.CANCELLED, ending)


@pytest.mark.parametrize("ending", [KILLED, NAMED])
def test_a_loss_while_the_peak_is_measured_costs_the_peak_alone(ending: Ending) -> None:
    story = a_story(started(), entered(Phase.MEASURE), samples(1.0, 1.1, 1.2), entered(Phase.PEAK))
    result = end(story, ending)
    assert (result.verdict, result.reason, result.peak_flops) == (Verdict.OK, None, None)
    assert "(in peak)" in str(result.peak_reason)
    assert result.stopped_by is StoppedBy.STEPS


def test_why_sampling_ended_is_found_again_from_the_samples() -> None:
    sampling = a_sampling(min_steps=2, max_steps=99, relative_ci=0.5)
    story = a_story(started(), samples(1.0, 1.0), entered(Phase.PEAK), sampling=sampling)
    assert end(story, KILLED).stopped_by is StoppedBy.PRECISION


def test_a_cancellation_while_the_peak_is_measured_stands() -> None:
    story = a_story(started(), samples(1.0), entered(Phase.PEAK))
    assert end(story, KILLED, CANCEL).verdict is Verdict.CANCELLED


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"SampleBatch","warmup":false,"ms":[NaN]}',
        b'{"event":"SampleBatch","warmup":false,"ms":[1e999]}',
        b'{"event":"SampleBatch","warmup":false,"ms":[1.0,0.0]}',
        b'{"event":"SampleBatch","warmup":false,"ms":[-1.0]}',
        b'{"event":"SampleBatch","warmup":false}',
        b'{"event":"SampleBatch","warmup":false,"ms":[1.0,1.0,1.0]}',
        b'{"event":"SampleBatch","warmup":true,"ms":[1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0]}',
        b'{"event":"Started","environment":{"facts":[]}}',
        b'{"event":"Finished","verdict":"ok","peak_flops":NaN}',
        b'{"event":"Finished","verdict":"ok","peak_flops":-1.0}',
        b'{"event":"Finished","verdict":"ok","peak_flops":0.0}',
        b'{"event":"Nonsense"}',
        b'{"torn',
        b"{\xff}",
    ],
)
def test_an_event_that_cannot_be_believed_breaks_the_attempt(line: bytes) -> None:
    story = a_story(started(), samples(1.0), entered(Phase.PEAK))
    assert story.observe(line, at=0.0) == ()
    assert story.broken is not None
    tell(story, OK)
    result = end(story)
    assert (result.verdict, result.samples_ms) == (Verdict.CRASHED, (1.0,))
    assert str(result.reason).startswith("the measuring child said something unreadable: ")


def test_stray_lines_are_passed_over_and_told_only_of_a_failure() -> None:
    story = a_story()
    for line in (b"Welcome!", b"", b"\xff\x00"):
        assert story.observe(line, at=0.0) == ()
    assert story.broken is None
    assert end(story).reason == (
        "ended without a result (before it said anything); 3 stray lines on its stdout, the first: Welcome!"
    )
    for event in (started(), samples(1.0), OK):
        tell(story, event)
    assert end(story).reason is None


def test_too_many_stray_lines_break_the_attempt() -> None:
    story = a_story()
    broken = []
    for _ in range(MAX_NOISE_LINES + 1):
        story.observe(b"noise", at=0.0)
        broken.append(story.broken is not None)
    assert broken == [False] * MAX_NOISE_LINES + [True]
    assert end(story).verdict is Verdict.CRASHED
