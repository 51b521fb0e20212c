"""What there is in a simulated lab, and what happens there of which the head hears late or never."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.engine.invented import BALANCE, PEAK_RATIO, Timing, environment_of, flop_of, largest_batch, phases_of
from orchestrator.engine.timeline import Course
from workers.models import UnknownModelError
from workers.protocol import Phase, Progress, Result, StoppedBy, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.engine.base import Act, Occurrence
    from orchestrator.engine.faults import Fault, Silence
    from workers.protocol import Case, Device, Ending


@dataclass(kw_only=True, slots=True, eq=False)
class Agent:
    """A device and what it is doing."""

    device: Device
    #: FLOP/s.
    speed: float
    #: What is to be heard of it, and what is to happen to it.
    course: Course = field(default_factory=Course)
    is_up: bool = False
    attempt: Attempt | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class Attempt:
    """One try of a case, from its request to its result."""

    agent: Agent
    case: Case
    number: int
    requested_at: float
    #: When its warm-up begins, and the steps that it would take; ``None`` where it never comes to that.
    started_at: float | None = None
    timing: Timing | None = None
    #: The batch that it found, where it looks for the largest that fits.
    batch_size: int | None = None
    #: What will come of it, and when that is kept on its host; ``None`` where it hangs.
    result: Result | None = None
    kept_at: float | None = None
    #: It is kept, or is told of by somebody else: a cancel comes too late.
    is_kept: bool = False
    #: What is to be heard of it; and what its child does, which goes on where nobody listens.
    course: Course = field(default_factory=Course)
    work: Course = field(default_factory=Course)


@dataclass(frozen=True, kw_only=True, slots=True)
class Up:
    """An agent is up and looks for what its host keeps."""

    agent: Agent


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """An agent dies."""

    agent: Agent
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """An attempt has ended, and its host keeps the result."""

    attempt: Attempt


@dataclass(frozen=True, kw_only=True, slots=True)
class Missed:
    """The agents of a silent host take the head for gone: they finish what they do, and end."""

    host: str
    silence: Silence


@dataclass(frozen=True, kw_only=True, slots=True)
class Noticed:
    """The head notices that a host is silent, or that it is heard again."""

    host: str
    is_silent: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreachable:
    """The head gives up to bring an agent up on a silent host."""

    device: Device


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """What the head asked for while the host was silent arrives there."""

    act: Act


Happening: TypeAlias = "Occurrence | Up | Death | Kept | Missed | Noticed | Unreachable | Arrival"


def result_of(
    attempt: Attempt, at: float, verdict: Verdict, reason: str | None, ending: Ending, *, epoch_s: float
) -> Result:
    """Return the result of an attempt that ends at ``at``: what was timed until then.

    ``epoch_s`` is what a calendar clock shows when the virtual one shows 0, in seconds since 1970.
    """
    is_whole = verdict is Verdict.OK
    timing = attempt.timing or Timing(warmup_ms=(), samples_ms=(), stopped_by=StoppedBy.STEPS)
    if not is_whole and attempt.started_at is not None:
        timing = timing.until(at - attempt.started_at)
    return Result(
        case_key=attempt.case.key,
        attempt=attempt.number,
        verdict=verdict,
        reason=reason,
        batch_size=attempt.batch_size,
        warmup_ms=timing.warmup_ms,
        samples_ms=timing.samples_ms,
        stopped_by=timing.stopped_by if is_whole else None,
        peak_flops=attempt.agent.speed * PEAK_RATIO if is_whole else None,
        peak_reason=None if is_whole else "the attempt ended before",
        copy_bytes_per_s=attempt.agent.speed / BALANCE if is_whole else None,
        copy_reason=None if is_whole else "the attempt ended before",
        phases=phases_of(timing) if is_whole else (),
        environment=environment_of(attempt.case.device, attempt.agent.speed),
        ending=ending,
        started_at=epoch_s + attempt.requested_at,
        duration_s=at - attempt.requested_at,
    )


def refusal_of(case: Case, faults: Sequence[Fault]) -> tuple[Verdict, str] | None:
    """Return why a case does not even begin to warm up, if so."""
    smallest = 1 if case.workload.seeks_largest else case.workload.batch_size
    for limit in (fault.oom_above_batch_size for fault in faults):
        if limit is not None and smallest > limit:
            return Verdict.OOM, f"simulated: batches above {limit} do not fit in memory"
    try:
        flop_of(case.workload)
    except UnknownModelError as error:
        return Verdict.UNSUPPORTED, str(error)
    return None


def as_measured(case: Case, faults: Sequence[Fault]) -> Case:
    """Return the case with the batch that fits at most, where it looks for that; the search itself is not played."""
    if not case.workload.seeks_largest:
        return case
    limits = [fault.oom_above_batch_size for fault in faults if fault.oom_above_batch_size is not None]
    largest = min(limits, default=largest_batch(case.device))
    return dataclasses.replace(case, workload=dataclasses.replace(case.workload, batch_size=largest))


def half_way(attempt: Attempt, timing: Timing) -> Progress:
    """Return what is told of an attempt in the middle of its steps."""
    step = len(timing.samples_ms) // 2
    return Progress(
        case_key=attempt.case.key,
        attempt=attempt.number,
        phase=Phase.MEASURE,
        step=step,
        max_steps=attempt.case.sampling.max_steps,
        last_ms=timing.samples_ms[step],
    )
