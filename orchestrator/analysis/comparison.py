"""Two runs held against each other, case by case: faster, slower, no difference shown, or not comparable."""

from __future__ import annotations

import enum
import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from orchestrator.analysis.noise import floor_for, floor_share, pooled_between_sd, unknown_floor
from orchestrator.analysis.pooling import pooled
from orchestrator.analysis.statistics import Interval, effective_count, resampled
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from orchestrator.analysis.pooling import PooledCase
    from orchestrator.results import CaseResult, NoiseFloor
    from workers.protocol import Company, Device, Workload

#: A rank test that would come out so by chance less often than this says that two series are two.
SIGNIFICANCE: Final = 0.01

#: Two-sided confidence of the intervals.
CONFIDENCE: Final = 0.95


class Change(str, enum.Enum):
    """What became of a case between two runs."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference shown"
    NOT_COMPARABLE = "not comparable"


class FloorSource(str, enum.Enum):
    """Where the share comes from that a difference must exceed."""

    #: `muster noise` measured it.
    MEASURED = "measured"
    #: The two runs have several processes each, and show it themselves.
    RUNS = "the runs' own processes"
    #: Nobody knows it: a default stands in.
    ASSUMED = "assumed"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedCase:
    """One case in two runs."""

    device: Device
    workload: Workload
    company: Company | None
    change: Change
    #: Why they cannot be compared, what is doubtful about them, or why no difference could have been shown.
    reason: str | None = None
    #: Mean of the processes' median steps, milliseconds.
    before_ms: float | None = None
    after_ms: float | None = None
    #: ``after_ms / before_ms``: above 1 is slower.
    ratio: float | None = None
    ratio_interval: Interval | None = None
    #: Chance of a rank test like this where there is no difference.
    p_value: float | None = None
    #: The share that a difference must exceed.
    floor: float | None = None
    floor_source: FloorSource | None = None
    #: Whether a doubtful figure is among the two: then it is told, and counts as no regression.
    is_doubtful: bool = False

    def is_regression(self, threshold: float | None) -> bool:
        """Return whether it is slower by more than ``threshold``; without one, its noise floor has decided that."""
        if self.change is not Change.SLOWER or self.is_doubtful or self.ratio is None:
            return False
        return threshold is None or self.ratio - 1 > threshold


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceChange:
    """All comparable cases of a device in one figure."""

    device_id: str
    cases: int
    #: Geometric mean of the cases' ratios: above 1 is slower.
    ratio: float
    ratio_interval: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two runs held against each other."""

    cases: tuple[ComparedCase, ...]
    devices: tuple[DeviceChange, ...]

    @property
    def comparable(self) -> tuple[ComparedCase, ...]:
        """Those that have a figure in both runs, of the same thing."""
        return tuple(case for case in self.cases if case.ratio is not None)

    def regressions(self, threshold: float | None) -> tuple[ComparedCase, ...]:
        """Return the cases that are slower by more than ``threshold``, or than their noise floors."""
        return tuple(case for case in self.cases if case.is_regression(threshold))


def compare(
    before: Iterable[CaseResult], after: Iterable[CaseResult], *, floors: Sequence[NoiseFloor] = ()
) -> Comparison:
    """Return what became of each case of ``before`` and ``after``, in ``before``'s order and then ``after``'s.

    Cases belong together where device, by its place, workload and company are the same; another card in the same place,
    or another method of taking time, is not comparable.

    A case is slower (or faster) only where all three agree: the 95 % interval of the ratio, by a bootstrap of processes
    and of blocks of steps, leaves out 1; a Mann-Whitney test of as many steps as are independent is below
    :data:`SIGNIFICANCE`; and the ratio is further from 1 than the device's noise floor. Any of them alone calls
    differences that are none: an interval and a rank test of many steps see any difference between two processes of the
    same thing, and a floor alone sees chance.
    """
    old, new = _by_work(before), _by_work(after)
    found = []
    with_draws: dict[str, list[tuple[ComparedCase, NDArray[np.float64]]]] = {}
    for key in dict.fromkeys((*old, *new)):
        compared, draws = _compare(old.get(key), new.get(key), floors)
        found.append(compared)
        if draws is not None:
            with_draws.setdefault(compared.device.id, []).append((compared, draws))
    return Comparison(cases=tuple(found), devices=tuple(_device(key, each) for key, each in with_draws.items()))


def _by_work(cases: Iterable[CaseResult]) -> Mapping[tuple[object, ...], PooledCase]:
    found: dict[tuple[object, ...], PooledCase] = {}
    for each in pooled(cases):
        peers = tuple(peer.id for peer in each.case.peers)
        found.setdefault((each.device.id, each.workload, each.company, peers), each)
    return found


def _device(device_id: str, compared: Sequence[tuple[ComparedCase, NDArray[np.float64]]]) -> DeviceChange:
    """Return the geometric mean over cases: the mean that does not depend on which run the ratios are over.

    Fleming & Wallace, "How not to lie with statistics: the correct way to summarize benchmark results", CACM 29 (1986).
    """
    draws = np.exp(np.mean([np.log(each) for _, each in compared], axis=0))
    ratios = [case.ratio for case, _ in compared if case.ratio is not None]
    mean = math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
    return DeviceChange(device_id=device_id, cases=len(compared), ratio=mean, ratio_interval=_interval(draws))


def _compare(
    old: PooledCase | None, new: PooledCase | None, floors: Sequence[NoiseFloor]
) -> tuple[ComparedCase, NDArray[np.float64] | None]:
    if old is None or new is None:
        return _apart(old, new, "only in the second run" if old is None else "only in the first run"), None
    if (reason := _why_not(old, new)) is not None:
        return _apart(old, new, reason), None
    before, after = _processes(old), _processes(new)
    ratio = _middle(after) / _middle(before)
    old_seed, new_seed = _seeds(new, before, after)
    draws = _drawn(after, seed=new_seed) / _drawn(before, seed=old_seed)
    interval = _interval(draws)
    independent = _independent(before), _independent(after)
    p_value = _rank_test(*independent)
    floor, source = _floor(old, new, before, after, floors)
    doubts = _doubts(old, new)
    compared = ComparedCase(
        device=new.device,
        workload=new.workload,
        company=new.company,
        change=_change(ratio, interval, p_value, floor),
        reason=doubts or _too_few(*independent),
        before_ms=_middle(before),
        after_ms=_middle(after),
        ratio=ratio,
        ratio_interval=interval,
        p_value=p_value,
        floor=floor,
        floor_source=source,
        is_doubtful=doubts is not None,
    )
    return compared, draws


def _apart(old: PooledCase | None, new: PooledCase | None, reason: str) -> ComparedCase:
    """Return a case whose figures are not of the same thing, or are not both there; each is told all the same."""
    given = cast("PooledCase", new or old)
    return ComparedCase(
        device=given.device,
        workload=given.workload,
        company=given.company,
        change=Change.NOT_COMPARABLE,
        reason=reason,
        before_ms=None if old is None else _middle_ms(old),
        after_ms=None if new is None else _middle_ms(new),
    )


def _change(ratio: float, interval: Interval, p_value: float, floor: float) -> Change:
    # Faster by a share is as far from 1 as slower by the same: 1 / 1.05 and 1.05.
    is_beyond = max(ratio, 1 / ratio) - 1 > floor
    is_one = interval.low <= 1 <= interval.high
    if is_one or p_value >= SIGNIFICANCE or not is_beyond:
        return Change.NO_DIFFERENCE
    return Change.SLOWER if ratio > 1 else Change.FASTER


def _why_not(old: PooledCase, new: PooledCase) -> str | None:
    """Return why two figures are not of the same thing, or are not there."""
    if old.case.method_version != new.case.method_version:
        return f"time was taken by another method: {old.case.method_version} before, {new.case.method_version} now"
    if old.device.uuid != new.device.uuid:
        return f"another device is in its place: {_card(old)} before, {_card(new)} now"
    if old.device.name != new.device.name:
        return f"another device is in its place: {old.device.name} before, {new.device.name} now"
    for side, which in ((old, "first"), (new, "second")):
        if not _processes(side):
            verdict = side.verdict.value if side.verdict is not None else "it has not ended"
            return f"no figure in the {which} run: {verdict}"
    if old.measured[-1].batch_size != new.measured[-1].batch_size:
        return f"the largest batch was {old.measured[-1].batch_size} before, {new.measured[-1].batch_size} now"
    return None


def _card(side: PooledCase) -> str:
    return f"{side.device.name} {side.device.uuid or 'without a UUID'}"


def _doubts(old: PooledCase, new: PooledCase) -> str | None:
    said = [
        f"{which} it was {side.verdict.value}"
        for side, which in ((old, "before"), (new, "now"))
        if side.verdict is not None and side.verdict is not Verdict.OK
    ]
    return ", ".join(said) or None


# --- figures ---------------------------------------------------------------------------------------------------


def _processes(side: PooledCase) -> list[tuple[float, ...]]:
    return [samples for samples in side.processes_ms if samples]


def _middle_ms(side: PooledCase) -> float | None:
    processes = _processes(side)
    return _middle(processes) if processes else None


def _middle(processes: Sequence[Sequence[float]]) -> float:
    return float(np.mean([np.median(samples) for samples in processes]))


def _seeds(side: PooledCase, before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> tuple[int, int]:
    """Return two seeds that are the case's own, so that no two cases of a device are drawn alike.

    They go with the samples and not with the sides: the other way round, the interval is the same one turned over.
    """
    own = zlib.crc32(f"{side.device.id} {side.workload} {side.company}".encode())
    return (own, own + 1) if list(before) <= list(after) else (own + 1, own)


def _drawn(processes: Sequence[Sequence[float]], *, seed: int) -> NDArray[np.float64]:
    """Return what the mean of medians might have been: processes drawn anew, and in each of them blocks of steps."""
    medians: NDArray[np.float64] = np.stack(
        [
            resampled(samples, lambda rows: np.median(rows, axis=1), seed=seed + 2 * number)
            for number, samples in enumerate(processes)
        ]
    )
    if len(processes) == 1:
        return medians.reshape(-1)
    chosen = np.random.default_rng(seed).integers(0, len(processes), size=medians.shape)
    drawn: NDArray[np.float64] = np.take_along_axis(medians, chosen, axis=0).mean(axis=0)
    return drawn


def _interval(draws: NDArray[np.float64]) -> Interval:
    """Return the percentiles of ratios; between two draws by their logarithms, the same whichever run is below."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.exp(np.percentile(np.log(draws), (tail, 100 - tail)))
    return Interval(low=float(low), high=float(high))


def _rank_test(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Return the two-sided p value; Mann & Whitney, Annals of Mathematical Statistics 18 (1947)."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(before, after, alternative="two-sided").pvalue)


def _too_few(before: NDArray[np.float64], after: NDArray[np.float64]) -> str | None:
    """Return why no rank test can come out: of so few steps even the clearest order has a larger p value.

    The least that it can be is 2 of all the ways to part the steps.
    """
    if 2 / math.comb(before.size + after.size, before.size) < SIGNIFICANCE:
        return None
    return f"too few independent steps to tell: {before.size} before, {after.size} now"


def _independent(processes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return as many steps as are worth independent ones, taken evenly where they remember each other."""
    thinned = []
    for samples in processes:
        stride = max(1, round(len(samples) / effective_count(samples)))
        thinned.append(np.asarray(samples)[::stride])
    return np.concatenate(thinned)


def _floor(
    old: PooledCase,
    new: PooledCase,
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    floors: Sequence[NoiseFloor],
) -> tuple[float, FloorSource]:
    """Return the share that a difference must exceed: measured if it was, else from the runs, else the default.

    A measured deviation is pooled with what the runs' own processes show, by degrees of freedom (NIST/SEMATECH
    e-Handbook, 1.3.5.3): so a day that is noisier than the one of the measurement counts for what it is worth.
    """
    known, own = floor_for(floors, new.device, new.workload), pooled_between_sd([before, after])
    if known is None and own is None:
        return unknown_floor(len(before), len(after)), FloorSource.ASSUMED
    squares, degrees = 0.0, 0
    for deviation, processes in (
        (known.between_sd, known.processes) if known is not None else (0.0, 1),
        own or (0.0, 1),
    ):
        squares += deviation**2 * (processes - 1)
        degrees += processes - 1
    source = FloorSource.RUNS if known is None else FloorSource.MEASURED
    return floor_share(math.sqrt(squares / degrees), degrees + 1, len(before), len(after)), source
