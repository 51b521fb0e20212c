"""The search for the largest batch that fits: which one to try next, and what came of those before. Pure.

From the start it goes up, or down where not even that one fits, in steps that double, and then grow, until one batch is
known that fits and one that does not; then it halves what lies between, until no more than a sixteenth of what fits is
left to gain. Only want of memory means "does not fit".
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from workers.attempt import AttemptStory, Stop
from workers.protocol import Environment, Fact, Progress, Sampling, Verdict

if TYPE_CHECKING:
    from workers.protocol import AgentEvent, AttemptRequest, Ending, Result

#: The most batches that are tried: what the search takes at its worst, from 1 to the largest number, and a little more.
MAX_PROBES: Final = 24

#: The search ends when no more than this part of what fits could still be gained.
_PRECISION: Final = 16

#: The largest batch that a config, and so a search, may ask for.
_LARGEST: Final = 2**31 - 1

#: After so many steps the same way the next ones grow: there the start was far off, and each probe costs a process.
_PATIENCE: Final = 4

#: The share of the measuring child's memory that a probe may take: threads do not meet in the same way at each step, so
#: one that just fits, once, is not sure to fit a hundred times. Without it a batch was seen to fit and then not to.
SHARE_OF_PROBE: Final = 7 / 8

#: What a probe measures: enough that everything which a step needs has been there, beside what the last one left.
_SAMPLING: Final = Sampling(warmup=1, min_steps=1, max_steps=1)


class Search:
    """Names the next batch to try, and is told whether it fitted."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._tried: list[str] = []
        self._fits: int | None = None
        self._too_large: int | None = None
        self._probes = 0

    @property
    def found(self) -> int | None:
        """The largest batch that is known to fit; ``None`` while there is none."""
        return self._fits

    @property
    def next_batch(self) -> int | None:
        """The batch to try now; ``None`` when the search is over."""
        if self._probes >= MAX_PROBES:
            return None
        if self._fits is None:
            return self._below()
        if self._too_large is None:
            return None if self._fits == _LARGEST else min(self._fits * self._stride(), _LARGEST)
        return self._between(self._fits, self._too_large)

    def tell(self, batch_size: int, *, fits: bool) -> None:
        """Take what came of :attr:`next_batch`."""
        self._probes += 1
        self._tried.append(f"{batch_size} {'fits' if fits else 'does not'}")
        if fits:
            self._fits = batch_size
        else:
            self._too_large = batch_size

    @property
    def tried(self) -> str:
        """Every batch that was tried, in order: ``128 fits, 256 does not, 192 fits``."""
        return ", ".join(self._tried)

    def retract(self) -> None:
        """Take note that the batch that was found does not fit for long: an eighth less may."""
        if self._fits is not None:
            self._tried.append(f"{self._fits} does not for long")
            self._too_large = self._fits
            self._fits = self._fits * 7 // 8 or None

    def in_words(self) -> str:
        """Return what is known so far: ``512 fits, 1024 does not``."""
        if self._fits is None:
            return f"{self._start} comes first" if self._too_large is None else f"{self._too_large} does not fit"
        return f"{self._fits} fits" + ("" if self._too_large is None else f", {self._too_large} does not")

    def _below(self) -> int | None:
        if self._too_large is None:
            return self._start
        return None if self._too_large == 1 else max(self._too_large // self._stride(), 1)

    def _stride(self) -> int:
        """Return how many times as large, or as small, the next batch is: 2, then 4, then 16."""
        steps = self._probes - 1
        return 2 if steps < _PATIENCE else 4 if steps < 2 * _PATIENCE else 16

    def _between(self, fits: int, too_large: int) -> int | None:
        """Return a round number about half way, by their ratio where they are far apart."""
        gap = too_large - fits
        if gap <= max(fits // _PRECISION, 1):
            return None
        if too_large > 2 * fits:
            return fits << max((too_large // fits).bit_length() // 2, 1)
        grain = 1 << max((gap // 4).bit_length() - 1, 0)
        return max((fits + gap // 2) // grain * grain, fits + 1)


class ProbeStory(AttemptStory):
    """The story of a child that only shows whether a batch fits: the head hears nothing of it.

    ``until`` is when the whole search must be over.
    """

    def __init__(self, request: AttemptRequest, *, begun_at: float, until: float) -> None:
        super().__init__(request, begun_at=begun_at)
        self._until = until

    @property
    def deadline(self) -> float:
        """When the child must have said more, or the search is over."""
        return min(super().deadline, self._until)

    def passed_deadline(self) -> Stop:
        """Return how the attempt ends when its deadline has passed."""
        if super().deadline <= self._until:
            return super().passed_deadline()
        return Stop(verdict=Verdict.TIMEOUT, reason="the search had taken as long as a case may")

    def observe(self, line: bytes, *, at: float) -> tuple[AgentEvent, ...]:
        """Take one line of the child's."""
        super().observe(line, at=at)
        return ()

    def shown(self, ending: Ending, stop: Stop | None) -> Result:
        """Return what the probe gave: with a figure the batch fits, ``oom`` says that it does not."""
        return _shown(self, ending, stop)


class LargestStory(AttemptStory):
    """The story of the child that measures the batch that was found.

    The head hears nothing before the first counted step: until then the batch may prove too large after all, and
    another be measured.
    """

    def __init__(self, request: AttemptRequest, *, begun_at: float, reason: str) -> None:
        super().__init__(request, begun_at=begun_at)
        self.measures(request.case.workload.batch_size)
        self.wait = self.waits(reason)
        self._held = list(self.granted(at=begun_at))
        self.has_counted = False

    def observe(self, line: bytes, *, at: float) -> tuple[AgentEvent, ...]:
        """Take one line of the child's; return what the head should hear by now."""
        self._held += super().observe(line, at=at)
        self.has_counted = self.has_counted or any(
            isinstance(event, Progress) and event.step > 0 for event in self._held
        )
        if not self.has_counted:
            return ()
        told, self._held = tuple(self._held), []
        return told

    def was_too_large(self, ending: Ending, stop: Stop | None) -> bool:
        """True where the child ran out of memory before its first counted step."""
        return not self.has_counted and _shown(self, ending, stop).verdict is Verdict.OOM


def failed(search: Search, batch_size: int, probe: Result) -> Stop:
    """Return how an attempt ends one of whose probes showed neither."""
    return Stop(
        verdict=probe.verdict,
        reason=f"while batch {batch_size} was tried ({search.in_words()}): {probe.reason or 'no reason was given'}",
    )


def facts(search: Search, memory_bytes: int | None) -> Environment:
    """Return what is to be known of a search that has found its batch."""
    no_limit = "no limit but the device's own memory" if memory_bytes is None else None
    return Environment(
        facts=(
            ("search.memory_bytes", Fact(value=memory_bytes, reason=no_limit)),
            ("search.tried", Fact(value=search.tried)),
        )
    )


def _shown(story: AttemptStory, ending: Ending, stop: Stop | None) -> Result:
    return story.result(ending=ending, stop=stop, host=Environment(), started_at=0.0, duration_s=0.0)


def measuring(request: AttemptRequest, batch_size: int, memory_bytes: int | None) -> AttemptRequest:
    """Return the request for a child that measures this batch with no more than so much of the host's memory."""
    workload = dataclasses.replace(request.case.workload, batch_size=batch_size, seeks_largest=False)
    return dataclasses.replace(
        request, case=dataclasses.replace(request.case, workload=workload), memory_bytes=memory_bytes
    )


def probing(request: AttemptRequest, batch_size: int, memory_bytes: int | None) -> AttemptRequest:
    """Return the same for a child that only shows whether the batch fits, in :data:`SHARE_OF_PROBE` of the memory."""
    measured = measuring(request, batch_size, None if memory_bytes is None else int(SHARE_OF_PROBE * memory_bytes))
    probed = dataclasses.replace(measured.case, sampling=_SAMPLING)
    return dataclasses.replace(measured, case=probed, telemetry_interval_s=None)
