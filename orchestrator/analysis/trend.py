"""How the figure of one workload on one device went from run to run, and where it changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from orchestrator.analysis.noise import LEAST_FLOOR
from orchestrator.analysis.statistics import MAD_TO_SD

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

#: Fewer figures show no change: one that is odd would be one.
LEAST_POINTS: Final = 4

#: Runs that a new level must last for.
_MIN_RUNS: Final = 2

#: What each further change must be worth, as a multiple of the logarithm of the number of runs. The Bayesian criterion
#: has 2 of a mean whose deviation is known (Yao, "Estimating the number of change-points via Schwarz' criterion",
#: Statistics & Probability Letters 6, 1988); here it is estimated from the same few figures.
_PENALTY: Final = 6.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrendPoint:
    """One figure of the history."""

    run_id: str
    created_at: datetime.datetime
    #: Mean of the processes' median steps, milliseconds.
    median_ms: float
    #: Whether something speaks against it.
    is_doubtful: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangePoint:
    """Where a new level begins."""

    #: Place of its first figure.
    place: int
    before_ms: float
    after_ms: float

    @property
    def share(self) -> float:
        """How much longer a step takes than before: 0.05 is 5 % slower."""
        return self.after_ms / self.before_ms - 1


def change_points(points: Sequence[TrendPoint], *, between_sd: float | None = None) -> tuple[ChangePoint, ...]:
    """Return where the level of a history changed, in time's order.

    Optimal segmentation of the logarithms by squared error (PELT: Killick, Fearnhead & Eckley, JASA 107, 2012, in
    ruptures), each change at the price of :data:`_PENALTY` times the logarithm of the number of figures, in units of
    the figures' own noise: that of the differences between neighbours, or ``between_sd`` where it was measured and is
    more. Levels that differ by less than :data:`LEAST_FLOOR` are one.
    """
    if len(points) < LEAST_POINTS:
        return ()
    import ruptures

    logs = np.log([point.median_ms for point in points])
    # Neighbours that differ by two deviations' worth: the spread of a difference is that of a figure times root two.
    own = MAD_TO_SD * float(np.median(np.abs(np.diff(logs)))) / math.sqrt(2)
    sd = max(own, between_sd or 0.0, LEAST_FLOOR / 10)
    scaled = (logs / sd).reshape(-1, 1)
    ends = ruptures.Pelt(model="l2", min_size=_MIN_RUNS, jump=1).fit(scaled).predict(pen=_PENALTY * math.log(len(logs)))
    levels = [float(np.exp(np.median(logs[begin:end]))) for begin, end in zip([0, *ends], ends, strict=False)]
    found = [
        ChangePoint(place=place, before_ms=before, after_ms=after)
        for place, before, after in zip(ends, levels, levels[1:], strict=False)
    ]
    return tuple(change for change in found if abs(change.share) > LEAST_FLOOR)
