"""A lab that is not there: devices with a speed, a noise, and faults on command, in virtual time.

It ships with the product: ``muster run --simulate`` tries a config out, and the tests of the head run against it. Time
is virtual: the clock stands still while the head works and jumps to whatever happens next. Results go through the
same codec as real ones.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from orchestrator.dispatch.messages import (
    AcknowledgeResult,
    CancelCase,
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeviceLost,
    DeviceReady,
    PrepareDevice,
    StartCase,
)
from orchestrator.engine.invented import (
    PEAK_RATIO,
    PHASE_S,
    Timing,
    environment_of,
    flop_of,
    phases_of,
    speed_of,
    timing_of,
)
from workers.codec import from_json, to_json
from workers.models import UnknownModelError
from workers.protocol import Ending, Phase, Progress, Result, StoppedBy, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.engine.base import Act, Occurrence
    from workers.protocol import Case, Device

#: Seconds from ``PrepareDevice`` to ``DeviceReady``.
PREPARE_S: Final = 1.0
#: Seconds from ``StartCase`` to ``CaseStarted``.
START_S: Final = PHASE_S[Phase.IMPORT] + PHASE_S[Phase.BUILD]
#: Seconds from the last step to ``CaseMeasured``.
FINISH_S: Final = PHASE_S[Phase.PEAK]
#: Why a case waits.
HELD: Final = "simulated: the device is held by somebody else"
#: Seconds that a result needs to reach the head, and that a cancelled child needs to end.
COLLECT_S: Final = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What goes wrong on command, with a device or with one case."""

    #: The child dies in the middle of these attempts, counted from 1.
    crash_on_attempts: tuple[int, ...] = ()
    #: Larger batches do not fit in memory.
    oom_above_batch_size: int | None = None
    #: The child starts, and is never heard of again until it is cancelled.
    hangs: bool = False
    #: Nothing comes of a cancel.
    ignores_cancel: bool = False
    #: Seconds by which the child starts later.
    start_delay_s: float = 0.0
    #: Another muster has the device for so many seconds more when a case is given to it.
    held_for_s: float | None = None
    #: Of a device: its agent never answers.
    never_prepares: bool = False
    #: Of a device: it is lost so many seconds after ``PrepareDevice``.
    lost_after_s: float | None = None


_NO_FAULT: Final = Fault()


@dataclass(kw_only=True, slots=True, eq=False)
class _Course:
    """What some occurrences to come hang on: once it is off, they never happen."""

    is_off: bool = False


@dataclass(kw_only=True, slots=True, eq=False)
class _Agent:
    """A device and what it is doing."""

    device: Device
    #: FLOP/s.
    speed: float
    course: _Course = field(default_factory=_Course)
    attempt: _Attempt | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class _Attempt:
    """One try of a case, from its request to its result."""

    agent: _Agent
    case: Case
    number: int
    requested_at: float
    #: When its warm-up begins, and the steps that it would take; ``None`` where it never comes to that.
    started_at: float | None = None
    timing: Timing | None = None
    is_measured: bool = False
    course: _Course = field(default_factory=_Course)


class SimulatedEngine:
    """An :class:`orchestrator.engine.base.Engine` that invents what it tells.

    ``speeds`` gives FLOP/s by device id, instead of one invented from ``seed`` and the device's name; ``noise`` is
    the standard deviation of a step's time as a share of its mean; ``faults`` goes by device id or case key;
    ``lease_timeout_s`` is how long a device that another muster has is waited for; ``epoch_s`` is what a calendar clock
    shows when the virtual one shows 0, in seconds since 1970.
    """

    simulated = True

    def __init__(
        self,
        *,
        seed: int = 0,
        speeds: Mapping[str, float] | None = None,
        noise: float = 0.01,
        faults: Mapping[str, Fault] | None = None,
        lease_timeout_s: float = 3600.0,
        epoch_s: float = 0.0,
    ) -> None:
        self._seed = seed
        self._speeds = dict(speeds or {})
        self._noise = noise
        self._faults = dict(faults or {})
        self._lease_timeout_s = lease_timeout_s
        self._epoch_s = epoch_s
        self._now = 0.0
        self._agents: dict[str, _Agent] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._coming: list[tuple[float, int, _Course, Occurrence]] = []
        self._serial = itertools.count()

    def now(self) -> float:
        """Return seconds of virtual time since the engine was made."""
        return self._now

    async def start(self, act: Act) -> None:
        """Begin ``act``; what a device that is gone is told comes to nothing."""
        match act:
            case PrepareDevice():
                self._prepare(act.device)
            case StartCase():
                self._start_case(act.case, act.attempt)
            case CancelCase():
                self._cancel(act)
            case AcknowledgeResult():
                pass  # nothing is kept here beyond its telling
            case _:
                self._release(act.device_id)

    async def occurrences(self, until: float | None) -> Sequence[Occurrence]:
        """Jump to the next thing that happens and return it, with all that happens at the same instant.

        Nothing is returned where ``until`` comes first: then it is ``until``. Raises RuntimeError where nothing is
        under way and no ``until`` is given, which would be to wait for ever.
        """
        await asyncio.sleep(0)  # whoever else lives on the loop gets a turn, although nothing is waited for
        coming = self._next_instant()
        if coming is None and until is None:
            raise RuntimeError("the simulated lab has nothing under way, and nobody said until when to wait")
        if coming is None or (until is not None and until < coming):
            self._now = max(self._now, until or 0.0)
            return ()
        self._now = max(self._now, coming)
        return tuple(self._take(coming))

    async def close(self) -> None:
        """Forget every agent and all that was still to come of it."""
        self._agents.clear()
        self._attempts.clear()
        self._coming.clear()

    # --- what happens next ---

    def _expect(self, course: _Course, at: float, occurrence: Occurrence) -> None:
        heapq.heappush(self._coming, (at, next(self._serial), course, occurrence))

    def _next_instant(self) -> float | None:
        while self._coming and self._coming[0][2].is_off:
            heapq.heappop(self._coming)
        return self._coming[0][0] if self._coming else None

    def _take(self, instant: float) -> list[Occurrence]:
        taken: list[Occurrence] = []
        while self._next_instant() == instant:
            occurrence = heapq.heappop(self._coming)[3]
            self._note(occurrence)
            taken.append(occurrence)
        return taken

    def _note(self, occurrence: Occurrence) -> None:
        match occurrence:
            case CaseMeasured():
                self._attempts[occurrence.case_key].is_measured = True
            case CaseFinished():
                self._attempts.pop(occurrence.case_key).agent.attempt = None
            case DeviceLost():
                self._release(occurrence.device_id)
            case _:
                pass

    # --- acts ---

    def _prepare(self, device: Device) -> None:
        fault = self._faults.get(device.id, _NO_FAULT)
        speed = self._speeds[device.id] if device.id in self._speeds else speed_of(device, self._seed)
        agent = self._agents[device.id] = _Agent(device=device, speed=speed)
        if not fault.never_prepares:
            ready_at = self._now + PREPARE_S
            self._expect(agent.course, ready_at, DeviceReady(at=ready_at, device_id=device.id))
        if fault.lost_after_s is not None:
            lost_at = self._now + fault.lost_after_s
            reason = f"simulated: lost after {fault.lost_after_s:g} s"
            self._expect(agent.course, lost_at, DeviceLost(at=lost_at, device_id=device.id, reason=reason))

    def _release(self, device_id: str) -> None:
        """Let go of a device, and of the attempt that is on it."""
        agent = self._agents.pop(device_id, None)
        if agent is None:
            return
        agent.course.is_off = True
        if agent.attempt is not None:
            agent.attempt.course.is_off = True
            del self._attempts[agent.attempt.case.key]

    def _start_case(self, case: Case, number: int) -> None:
        agent = self._agents.get(case.device.id)
        if agent is None:  # lost a moment ago; the head will hear of it, or has
            return
        attempt = _Attempt(agent=agent, case=case, number=number, requested_at=self._now)
        agent.attempt = self._attempts[case.key] = attempt
        faults = self._faults_of(case)
        granted_at = self._wait(attempt, faults)
        if granted_at is None:
            return
        started_at = granted_at + START_S + sum(fault.start_delay_s for fault in faults)
        if (refusal := self._refusal_of(case, faults)) is not None:
            self._finish(attempt, started_at, *refusal)
            return
        self._play(attempt, started_at, faults)

    def _wait(self, attempt: _Attempt, faults: Sequence[Fault]) -> float | None:
        """Return when the device is ours, ``None`` where that takes longer than we would wait."""
        held_for_s = max((fault.held_for_s for fault in faults if fault.held_for_s is not None), default=None)
        if held_for_s is None:
            return self._now
        key, number = attempt.case.key, attempt.number
        waiting = CaseWaiting(at=self._now, case_key=key, attempt=number, reason=HELD)
        self._expect(attempt.course, self._now, waiting)
        if held_for_s > self._lease_timeout_s:
            reason = f"{HELD}, and was not free within {self._lease_timeout_s:g} s"
            self._finish(attempt, self._now + self._lease_timeout_s, Verdict.BUSY, reason)
            return None
        granted_at = self._now + held_for_s
        self._expect(attempt.course, granted_at, CaseGranted(at=granted_at, case_key=key, attempt=number))
        return granted_at

    def _play(self, attempt: _Attempt, started_at: float, faults: Sequence[Fault]) -> None:
        """Expect what an attempt that could begin will tell."""
        key, number = attempt.case.key, attempt.number
        self._expect(attempt.course, started_at, CaseStarted(at=started_at, case_key=key, attempt=number))
        if any(fault.hangs for fault in faults):
            return
        timing = timing_of(attempt.case, number, speed=attempt.agent.speed, noise=self._noise, seed=self._seed)
        attempt.started_at, attempt.timing = started_at, timing
        middle_at = started_at + timing.warmup_s + timing.measure_s / 2
        self._expect(attempt.course, middle_at, _half_way(attempt, timing))
        if any(number in fault.crash_on_attempts for fault in faults):
            ending = Ending(signal="SIGSEGV")
            self._finish(attempt, middle_at, Verdict.CRASHED, "simulated: the child was ended by SIGSEGV", ending)
            return
        measured_at = started_at + timing.warmup_s + timing.measure_s + FINISH_S
        self._expect(attempt.course, measured_at, CaseMeasured(at=measured_at, case_key=key, attempt=number))
        self._finish(attempt, measured_at + COLLECT_S, Verdict.OK, None)

    def _cancel(self, act: CancelCase) -> None:
        """End an attempt, unless it is over, or measured: then its result is on the way."""
        attempt = self._attempts.get(act.case_key)
        if attempt is None or attempt.is_measured or any(f.ignores_cancel for f in self._faults_of(attempt.case)):
            return
        attempt.course.is_off = True
        attempt.course = _Course()
        self._finish(attempt, self._now + COLLECT_S, act.verdict, act.reason, Ending(signal="SIGTERM"))

    def _finish(
        self, attempt: _Attempt, at: float, verdict: Verdict, reason: str | None, ending: Ending | None = None
    ) -> None:
        result = self._result_of(attempt, at, verdict, reason, ending or Ending(exit_code=0))
        finished = CaseFinished(
            at=at,
            case_key=attempt.case.key,
            attempt=attempt.number,
            result=from_json(Result, to_json(result)),
        )
        self._expect(attempt.course, at, finished)

    def _result_of(self, attempt: _Attempt, at: float, verdict: Verdict, reason: str | None, ending: Ending) -> Result:
        """Return the result of an attempt that ends at ``at``: what was timed until then."""
        is_whole = verdict is Verdict.OK
        timing = attempt.timing or Timing(warmup_ms=(), samples_ms=(), stopped_by=StoppedBy.STEPS)
        if not is_whole and attempt.started_at is not None:
            timing = timing.until(at - attempt.started_at)
        return Result(
            case_key=attempt.case.key,
            attempt=attempt.number,
            verdict=verdict,
            reason=reason,
            warmup_ms=timing.warmup_ms,
            samples_ms=timing.samples_ms,
            stopped_by=timing.stopped_by if is_whole else None,
            peak_flops=attempt.agent.speed * PEAK_RATIO if is_whole else None,
            peak_reason=None if is_whole else "the attempt ended before",
            phases=phases_of(timing) if is_whole else (),
            environment=environment_of(attempt.case.device, attempt.agent.speed),
            ending=ending,
            started_at=self._epoch_s + attempt.requested_at,
            duration_s=at - attempt.requested_at,
        )

    # --- faults ---

    def _faults_of(self, case: Case) -> tuple[Fault, ...]:
        return tuple(self._faults[name] for name in (case.device.id, case.key) if name in self._faults)

    def _refusal_of(self, case: Case, faults: Sequence[Fault]) -> tuple[Verdict, str] | None:
        """Return why a case does not even begin to warm up, if so."""
        for limit in (fault.oom_above_batch_size for fault in faults):
            if limit is not None and case.workload.batch_size > limit:
                return Verdict.OOM, f"simulated: batches above {limit} do not fit in memory"
        try:
            flop_of(case.workload)
        except UnknownModelError as error:
            return Verdict.UNSUPPORTED, str(error)
        return None


def _half_way(attempt: _Attempt, timing: Timing) -> Progress:
    step = len(timing.samples_ms) // 2
    return Progress(
        case_key=attempt.case.key,
        attempt=attempt.number,
        phase=Phase.MEASURE,
        step=step,
        max_steps=attempt.case.sampling.max_steps,
        last_ms=timing.samples_ms[step],
    )
