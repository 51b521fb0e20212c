"""What an agent makes of its child: the story of one attempt, its deadline, and the verdict at its end. Pure.

The agent tells it every line with the time it came (seconds on any clock that never goes back) and asks for the
deadline; in the end it says how the process ended, and gets the result.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from workers.codec import CodecError, event_from_json
from workers.measure import stopped_by
from workers.protocol import (
    AgentEvent,
    AttemptGranted,
    AttemptMeasured,
    AttemptRequest,
    AttemptStarted,
    AttemptWaiting,
    Environment,
    Finished,
    Phase,
    PhaseEntered,
    Progress,
    Result,
    SampleBatch,
    Started,
    Verdict,
)

if TYPE_CHECKING:
    from workers.protocol import ChildEvent, Ending

#: How long a child may take to go after its last word; its result is safe by then.
COLLECT_TIMEOUT_S: Final = 10.0

#: Lines that are no events at all (something printed while Python started) are counted; more than this is a crash.
MAX_NOISE_LINES: Final = 1000

_QUOTE_CHARACTERS: Final = 200

#: What is said when there is no memory, by Python, C++, the C library (ENOMEM), XLA and TensorFlow, and CUDA's parts.
_MEMORY: Final = re.compile(
    r"MemoryError|std::bad_alloc|Cannot allocate memory|RESOURCE_EXHAUSTED|OOM when allocating"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|CUDA error: out of memory|_STATUS_ALLOC_FAILED"
)

#: What TensorFlow's allocators say of each that failed, also of those that can be done without; and the error by which
#: oneDNN, which has no words for it, then ends the process.
_FAILED_ALLOCATION: Final = re.compile(
    rf"{_MEMORY.pattern}|ran out of memory trying to allocate|^what\(\): +could not (create|execute) a primitive$"
)

#: Signals by which a program ends that did not get the memory that it counted on.
_GAVE_UP: Final = frozenset({"SIGABRT", "SIGBUS", "SIGSEGV"})

#: Of what a child wrote to stderr, so many lines are its last words; a traceback's end is among them.
_LAST_LINES: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Why an attempt is ended from outside its child."""

    verdict: Verdict
    reason: str
    #: True where the head or a person wanted it, so that the verdict is theirs.
    is_asked: bool = False


class AttemptStory:
    """Everything that is known of an attempt while it runs."""

    def __init__(self, request: AttemptRequest, *, begun_at: float) -> None:
        self._request = request
        self._deadline = begun_at + request.start_timeout_s
        self._is_waiting = False
        self._batch_size: int | None = None
        self._phase: Phase | None = None
        self._has_started = False
        self._finished: Finished | None = None
        self._environment = Environment()
        self._warmup_ms: list[float] = []
        self._samples_ms: list[float] = []
        self._noise: list[str] = []
        self._broken: str | None = None

    @property
    def deadline(self) -> float:
        """When the child must have said more: its first step, its last word, or its end, by where it is."""
        return self._deadline

    @property
    def phase(self) -> Phase | None:
        """The phase that the child is in; ``None`` before it said anything."""
        return self._phase

    @property
    def broken(self) -> Stop | None:
        """Why nothing more that the child says can be believed, if so."""
        return None if self._broken is None else Stop(verdict=Verdict.CRASHED, reason=self._broken)

    def waits(self, reason: str) -> tuple[AgentEvent, ...]:
        """Note that somebody has the device or its host; return what the head should hear of it."""
        self._is_waiting = True
        return (AttemptWaiting(case_key=self._request.case.key, attempt=self._request.attempt, reason=reason),)

    def granted(self, *, at: float) -> tuple[AgentEvent, ...]:
        """Note that the device is ours: the child is started now, and its time begins."""
        self._deadline = at + self._request.start_timeout_s
        if not self._is_waiting:
            return ()
        self._is_waiting = False
        return (AttemptGranted(case_key=self._request.case.key, attempt=self._request.attempt),)

    def measures(self, batch_size: int) -> None:
        """Note which batch is measured, where it had to be searched for."""
        self._batch_size = batch_size

    def observe(self, line: bytes, *, at: float) -> tuple[AgentEvent, ...]:
        """Take one line of the child's; return what the head should hear of it."""
        if self._broken is not None or self._finished is not None:
            return ()
        if not line.startswith(b"{"):
            self._count_noise(line)
            return ()
        try:
            event = event_from_json((PhaseEntered, Started, SampleBatch, Finished), line)
            return self._take(cast("ChildEvent", event), at)
        except CodecError as error:
            self._broken = f"the measuring child said something unreadable: {_quote(str(error))}"
            return ()

    def passed_deadline(self) -> Stop:
        """Return how the attempt ends when its deadline has passed."""
        if not self._has_started:
            reason = f"no first step within {self._request.start_timeout_s:g} s"
        else:
            reason = f"no result within {self._request.case_timeout_s:g} s of the first step"
        return Stop(verdict=Verdict.TIMEOUT, reason=f"{reason}{self._where()}")

    def result(
        self,
        *,
        ending: Ending,
        stop: Stop | None,
        host: Environment,
        started_at: float,
        duration_s: float,
    ) -> Result:
        """Return what the attempt gave.

        The child's last word counts above all; then a broken stream; then who stopped it; then how its process ended.
        A child that is lost while it measures the device's peak has measured its case already: that is ok.
        """
        if self._finished is None and stop is None:
            words = _words_of_memory(ending, is_limited=self._request.memory_bytes is not None)
            ending = dataclasses.replace(ending, oom_evidence=ending.oom_evidence or words)
        finished = self._finished or self._ended_without_a_word(ending, stop)
        if finished.verdict is Verdict.OOM and self._batch_size is not None:
            had_fitted = f"batch {self._batch_size}, which fitted when it was tried, did not when it was measured"
            finished = dataclasses.replace(finished, reason=f"{had_fitted}: {finished.reason}")
        if finished.verdict.has_figure and not self._samples_ms:
            finished = Finished(verdict=Verdict.CRASHED, reason="the measuring child was content without one sample")
        return Result(
            case_key=self._request.case.key,
            attempt=self._request.attempt,
            verdict=finished.verdict,
            reason=finished.reason,
            batch_size=self._batch_size,
            warmup_ms=tuple(self._warmup_ms),
            samples_ms=tuple(self._samples_ms),
            stopped_by=finished.stopped_by,
            peak_flops=finished.peak_flops,
            peak_reason=finished.peak_reason,
            copy_bytes_per_s=finished.copy_bytes_per_s,
            copy_reason=finished.copy_reason,
            phases=finished.phases,
            environment=host.merged(self._environment).merged(finished.environment),
            ending=ending,
            started_at=started_at,
            duration_s=duration_s,
        )

    # --- what the child says -----------------------------------------------------------------------------------

    def _take(self, event: ChildEvent, at: float) -> tuple[AgentEvent, ...]:
        case_key, attempt = self._request.case.key, self._request.attempt
        if isinstance(event, PhaseEntered):
            self._phase = event.phase
            return (self._progress(event.phase),)
        if isinstance(event, Started):
            if self._has_started:
                raise CodecError("it has started twice")
            self._has_started = True
            self._deadline = at + self._request.case_timeout_s
            self._environment = event.environment
            return (AttemptStarted(case_key=case_key, attempt=attempt),)
        if isinstance(event, SampleBatch):
            return self._take_samples(event)
        for figure, unit in ((event.peak_flops, "FLOP/s"), (event.copy_bytes_per_s, "bytes/s")):
            if figure is not None and not _is_figure(figure):
                raise CodecError(f"a peak of {figure} {unit}")
        self._finished = event
        self._deadline = at + COLLECT_TIMEOUT_S
        return (AttemptMeasured(case_key=case_key, attempt=attempt),)

    def _take_samples(self, batch: SampleBatch) -> tuple[AgentEvent, ...]:
        for ms in batch.ms:
            if not _is_figure(ms):
                raise CodecError(f"a step of {ms} ms")
        sampling = self._request.case.sampling
        taken, most = (self._warmup_ms, sampling.warmup) if batch.warmup else (self._samples_ms, sampling.max_steps)
        if len(taken) + len(batch.ms) > most:
            raise CodecError(f"more than {most} {'warm-up ' if batch.warmup else ''}steps")
        taken.extend(batch.ms)
        return (self._progress(Phase.WARMUP if batch.warmup else Phase.MEASURE, batch.ms[-1] if batch.ms else None),)

    def _progress(self, phase: Phase, last_ms: float | None = None) -> Progress:
        return Progress(
            case_key=self._request.case.key,
            attempt=self._request.attempt,
            phase=phase,
            step=len(self._samples_ms),
            max_steps=self._request.case.sampling.max_steps,
            last_ms=last_ms,
        )

    def _count_noise(self, line: bytes) -> None:
        self._noise.append(_quote(line.decode(errors="replace")))
        if len(self._noise) > MAX_NOISE_LINES:
            self._broken = f"over {MAX_NOISE_LINES} lines on its stdout are no events; the first: {self._noise[0]}"

    # --- how it ended ------------------------------------------------------------------------------------------

    def _ended_without_a_word(self, ending: Ending, stop: Stop | None) -> Finished:
        stop = self.broken or stop or self._death(ending)
        if self._phase is Phase.PEAK and self._broken is None and not stop.is_asked:
            return Finished(
                verdict=Verdict.OK,
                stopped_by=stopped_by(self._request.case.sampling, self._samples_ms),
                peak_reason=stop.reason,
                copy_reason=stop.reason,
            )
        return Finished(verdict=stop.verdict, reason=stop.reason + self._noise_remark())

    def _death(self, ending: Ending) -> Stop:
        if ending.signal is not None:
            how = f"ended by {ending.signal}"
        elif ending.exit_code is None:
            how = "ended, nobody knows how"
        elif ending.exit_code != 0:
            how = f"exit code {ending.exit_code}"
        else:
            how = "ended without a result"
        if ending.oom_evidence is not None:
            reason = f"{how}{self._where()} for want of memory: {_quote(ending.oom_evidence)}"
            return Stop(verdict=Verdict.OOM, reason=reason)
        return Stop(verdict=Verdict.CRASHED, reason=f"{how}{self._where()}{_last_words(ending)}")

    def _where(self) -> str:
        if self._phase is None:
            return " (before it said anything)"
        if self._phase is Phase.MEASURE:
            return f" (in measure, after {len(self._samples_ms)} of {self._request.case.sampling.max_steps} steps)"
        return f" (in {self._phase.value})"

    def _noise_remark(self) -> str:
        if not self._noise:
            return ""
        return f"; {len(self._noise)} stray lines on its stdout, the first: {self._noise[0]}"


def _is_figure(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _last_words(ending: Ending) -> str:
    lines = _lines(ending)
    return f": {_quote(lines[-1])}" if lines else ""


def _words_of_memory(ending: Ending, *, is_limited: bool) -> str | None:
    """Return the line by which a child that gave up said that it could get no memory.

    Only of one that ended itself, by abort(3) or with an exit code, and only of its last lines: frameworks also tell
    of allocations that failed and that they could do without. Where the limit is ours, they did fail: TensorFlow's
    kernels for CPUs say so, at length, and then follow a null pointer.
    """
    if is_limited and ending.signal in _GAVE_UP:
        return next((line for line in reversed(_lines(ending)) if _FAILED_ALLOCATION.search(line)), None)
    if ending.signal != "SIGABRT" and not ending.exit_code:
        return None
    return next((line for line in _lines(ending)[-_LAST_LINES:] if _MEMORY.search(line)), None)


def _lines(ending: Ending) -> list[str]:
    return [line.strip() for line in ending.stderr_tail.splitlines() if line.strip()]


def _quote(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable if len(printable) <= _QUOTE_CHARACTERS else printable[: _QUOTE_CHARACTERS - 1] + "…"
