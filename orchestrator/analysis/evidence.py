"""What speaks against a figure: its own samples, and what was seen of the device meanwhile. Pure and repeatable."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from orchestrator.analysis.statistics import robust_sd
from workers.protocol import Company, DeviceKind, Verdict
from workers.telemetry.series import Doubt, DoubtKind, EventKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.config.quality import QualityConfig
    from workers.protocol import Case, Result
    from workers.telemetry.series import ForeignProcess, Telemetry

#: Fewer counted steps say nothing of their spread, and fewer than twice as many nothing of a trend.
LEAST_STEPS: Final = 10

#: The kernel counts CPU time in hundredths of a second: shares over less than this are mostly rounding.
LEAST_WINDOW_S: Final = 0.2

#: Readings within the counted steps that a falling clock must be seen in.
_LEAST_READINGS: Final = 4

#: A trend is told from chance at this level, and the first steps from the others at so many standard errors.
_SIGNIFICANCE: Final = 0.01
_STANDARD_ERRORS: Final = 3.0

#: Parts that a series is cut into to see its trend: steps that follow each other then hardly matter.
_PARTS: Final = 20

#: From here on a GPU's host has hardly a core to spare for feeding it, where others use more than half of what is used.
_STARVED: Final = 0.9

_VERDICTS: Final = {
    DoubtKind.CONTENDED: Verdict.CONTENDED,
    DoubtKind.THROTTLED: Verdict.THROTTLED,
    DoubtKind.NOISY: Verdict.NOISY,
    DoubtKind.DRIFTING: Verdict.NOISY,
    DoubtKind.WARMING_UP: Verdict.NOISY,
    DoubtKind.CLOCK_CHANGED: Verdict.NOISY,
}

#: The first of these that there are doubts of is the verdict: others explain what comes after them.
_GRAVEST_FIRST: Final = (Verdict.CONTENDED, Verdict.THROTTLED, Verdict.NOISY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a figure's evidence comes to."""

    verdict: Verdict
    doubts: tuple[Doubt, ...] = ()

    @property
    def reason(self) -> str | None:
        """The doubts in words, those behind the verdict first; ``None`` without any."""
        ordered = sorted(self.doubts, key=lambda doubt: _VERDICTS[doubt.kind] is not self.verdict)
        return "; ".join(doubt.text for doubt in ordered) or None


def judge(case: Case, result: Result, quality: QualityConfig, earlier: Sequence[Result] = ()) -> Judgement:
    """Return what speaks against a result that is ok; any other is left as it is.

    ``earlier`` are results of the same case in other processes. Evidence that is not there, or is of too few steps or
    too short a time, says nothing; a limit that is ``None`` lets everything pass.
    """
    if result.verdict is not Verdict.OK:
        return Judgement(verdict=result.verdict)
    doubts = tuple(_doubts(case, result, quality, earlier))
    found = {_VERDICTS[doubt.kind] for doubt in doubts}
    return Judgement(verdict=next((one for one in _GRAVEST_FIRST if one in found), Verdict.OK), doubts=doubts)


def judged(case: Case, result: Result, quality: QualityConfig, earlier: Sequence[Result] = ()) -> Result:
    """Return the result with the verdict that its evidence comes to, and its doubts."""
    judgement = judge(case, result, quality, earlier)
    if not judgement.doubts:
        return result
    return replace(result, verdict=judgement.verdict, reason=judgement.reason, doubts=judgement.doubts)


def _doubts(case: Case, result: Result, quality: QualityConfig, earlier: Sequence[Result]) -> Iterator[Doubt]:
    seen = result.telemetry
    if seen is not None:
        yield from _others(case, seen, quality)
        yield from _stolen(seen, quality)
        yield from _slowed_down(case, seen, quality)
        yield from _clock_changed(case, seen, quality, earlier)
    yield from _spread(result.samples_ms, quality)
    yield from _trend(result.samples_ms, quality)
    yield from _warm_up(result.samples_ms, quality)


# --- others ----------------------------------------------------------------------------------------------------


def _others(case: Case, seen: Telemetry, quality: QualityConfig) -> Iterator[Doubt]:
    on_gpu = [process for process in seen.foreign if process.cores is None]
    if on_gpu:
        verb = "was" if len(on_gpu) == 1 else "were"
        yield Doubt(kind=DoubtKind.CONTENDED, text=f"{_named(on_gpu)} {verb} on the GPU as well")
    if case.company is Company.TOGETHER:
        return  # others on its host are what it is measured with
    share, limit = _share(seen, "cpu.others_percent"), quality.max_others
    if share is None or limit is None or share <= limit:
        return
    used = _share(seen, "cpu.use_percent")
    if case.device.kind is DeviceKind.GPU and (used is None or used < _STARVED or share < used / 2):
        return
    on_cpu = [process for process in seen.foreign if process.cores is not None]
    most = f", most of all {_named(on_cpu[:1])}" if on_cpu else ""
    whose = "its host's" if case.device.kind is DeviceKind.GPU else "its"
    text = f"others used {_over(share, limit)} of {whose} cores ({_percent(limit)} allowed){most}"
    yield Doubt(kind=DoubtKind.CONTENDED, text=text, value=share, limit=limit)


def _stolen(seen: Telemetry, quality: QualityConfig) -> Iterator[Doubt]:
    share, limit = _share(seen, "cpu.steal_percent"), quality.max_steal
    if share is not None and limit is not None and share > limit:
        given = _over(share, limit)
        text = f"the hypervisor gave {given} of its cores' time to other machines ({_percent(limit)} allowed)"
        yield Doubt(kind=DoubtKind.CONTENDED, text=text, value=share, limit=limit)


def _named(processes: Sequence[ForeignProcess]) -> str:
    return ", ".join(
        f"{process.name or 'a process that cannot be seen'} (pid {process.pid}"
        f"{'' if process.user is None else f', {process.user}'})"
        for process in processes
    )


def _share(seen: Telemetry, name: str) -> float | None:
    """Return the mean of a percentage over the counted steps as a share, each reading for the time since the last."""
    begin, end = seen.measure_from_s, seen.measure_to_s
    if begin is None or end is None or end - begin < LEAST_WINDOW_S:
        return None
    sum_s = weight_s = 0.0
    before = begin
    for at_s, value in zip(seen.at_s, seen.named(name), strict=False):
        if begin < at_s <= end:
            if value is not None:
                sum_s += value * (at_s - before)
                weight_s += at_s - before
            before = at_s
    return None if weight_s < LEAST_WINDOW_S else sum_s / weight_s / 100


# --- clocks ----------------------------------------------------------------------------------------------------


def _clock_name(case: Case) -> str:
    return "gpu.clock_mhz" if case.device.kind is DeviceKind.GPU else "cpu.frequency_mhz"


def _slowed_down(case: Case, seen: Telemetry, quality: QualityConfig) -> Iterator[Doubt]:
    if any(seen.measured("gpu.throttle")):
        to_s = seen.measure_to_s or 0.0
        began = [event.text for event in seen.events if event.kind is EventKind.THROTTLE and event.at_s <= to_s]
        reasons = dict.fromkeys(text.removesuffix(" began") for text in began if text.endswith(" began"))
        yield Doubt(kind=DoubtKind.THROTTLED, text=f"the GPU slowed itself down: {', '.join(reasons) or 'no reason'}")
        return
    clocks, limit = seen.measured(_clock_name(case)), quality.max_clock_drop
    # At its power limit a card's clock follows the load: that is how it is set, and no sign of heat.
    if limit is None or len(clocks) < _LEAST_READINGS or any(seen.measured("gpu.power_capped")):
        return
    highest, last = max(clocks), float(np.median(clocks[-max(2, len(clocks) // 3) :]))
    drop = 1 - last / highest if highest > 0 else 0.0
    if drop > limit:
        text = (
            f"its clock fell from {highest:.0f} to {last:.0f} MHz, by {_over(drop, limit)} ({_percent(limit)} allowed)"
        )
        yield Doubt(kind=DoubtKind.THROTTLED, text=text, value=drop, limit=limit)


def _clock_changed(case: Case, seen: Telemetry, quality: QualityConfig, earlier: Sequence[Result]) -> Iterator[Doubt]:
    name, limit = _clock_name(case), quality.max_clock_change
    now = _median(seen.measured(name))
    before = [
        clock
        for other in earlier
        if other.telemetry is not None and (clock := _median(other.telemetry.measured(name))) is not None
    ]
    if limit is None or now is None or not before:
        return
    usual = float(np.median(before))
    change = abs(now / usual - 1)
    if change > limit:
        text = (
            f"its clock was {now:.0f} MHz, and {usual:.0f} MHz in the case's other processes"
            f" ({_percent(limit)} allowed)"
        )
        yield Doubt(kind=DoubtKind.CLOCK_CHANGED, text=text, value=change, limit=limit)


def _median(values: Sequence[float]) -> float | None:
    positive = [value for value in values if value > 0]
    return float(np.median(positive)) if positive else None


# --- the samples themselves ------------------------------------------------------------------------------------


def _spread(samples_ms: Sequence[float], quality: QualityConfig) -> Iterator[Doubt]:
    limit = quality.max_dispersion
    if limit is None or len(samples_ms) < LEAST_STEPS:
        return
    spread = robust_sd(samples_ms) / float(np.median(samples_ms))
    if spread > limit:
        text = f"its steps spread by {_over(spread, limit)} of their median ({_percent(limit)} allowed)"
        yield Doubt(kind=DoubtKind.NOISY, text=text, value=spread, limit=limit)


def _trend(samples_ms: Sequence[float], quality: QualityConfig) -> Iterator[Doubt]:
    """Tell of a trend: its size by Theil and Sen's slope, whether it is one by Kendall's tau, over medians of parts."""
    limit = quality.max_drift
    if limit is None or len(samples_ms) < 2 * LEAST_STEPS:
        return
    parts = np.array([np.median(part) for part in np.array_split(np.asarray(samples_ms), _PARTS)])
    later, sooner = np.triu_indices(parts.size, 1)[::-1]
    steps = parts[later] - parts[sooner]
    drift = float(np.median(steps / (later - sooner))) * (parts.size - 1) / float(np.median(parts))
    if abs(drift) > limit and abs(float(np.sign(steps).sum())) > _chance_of_kendall(parts.size):
        way = "slower" if drift > 0 else "faster"
        text = f"its steps became {_over(abs(drift), limit)} {way} from first to last ({_percent(limit)} allowed)"
        yield Doubt(kind=DoubtKind.DRIFTING, text=text, value=abs(drift), limit=limit)


def _chance_of_kendall(count: int) -> float:
    """Return what Kendall's S reaches by chance once in a hundred series of that length, whichever way.

    S is near normal with variance ``n (n - 1) (2 n + 5) / 18`` from ten on: Kendall, "Rank Correlation Methods" (1970).
    """
    from scipy.special import ndtri

    return float(ndtri(1 - _SIGNIFICANCE / 2)) * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)


def _warm_up(samples_ms: Sequence[float], quality: QualityConfig) -> Iterator[Doubt]:
    limit = quality.max_warmup
    if limit is None or len(samples_ms) < 2 * LEAST_STEPS:
        return
    first = max(3, len(samples_ms) // 10)
    rest_ms = samples_ms[first:]
    usual = float(np.median(rest_ms))
    excess = float(np.median(samples_ms[:first])) / usual - 1
    # A median of few has a standard error of about 1.25 deviations over the root of their number.
    chance = _STANDARD_ERRORS * 1.25 * robust_sd(rest_ms) / usual / math.sqrt(first)
    if excess > max(limit, chance):
        text = (
            f"its first {first} steps were {_over(excess, limit)} slower than the others ({_percent(limit)} allowed):"
            " warm up longer, measure.warmup"
        )
        yield Doubt(kind=DoubtKind.WARMING_UP, text=text, value=excess, limit=limit)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _over(share: float, limit: float) -> str:
    """Return a share with as many digits as it takes to see that it is over a limit."""
    texts = (f"{100 * share:.{digits}g} %" for digits in range(3, 8))
    return next((text for text in texts if text != _percent(limit)), _percent(share))
