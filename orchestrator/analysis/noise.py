"""How far apart figures of the same thing lie: between fresh processes, and within one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from orchestrator.analysis.statistics import robust_sd
from orchestrator.results import NoiseFloor

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable, Sequence

    from orchestrator.analysis.pooling import PooledCase
    from workers.protocol import Device, Workload

#: Below this share no difference is called one, however steady a device is: clocks, heat and the machine's own work
#: make more than that from one day to the next, and a floor from a few processes knows nothing of days.
LEAST_FLOOR: Final = 0.01

#: What two figures of one process each may differ by where nobody has measured a floor. Between-process deviations of
#: 1 to 2 % are what this project has seen on quiet machines; five times that is beyond what chance makes of them.
UNKNOWN_FLOOR: Final = 0.05

#: One-sided: of a hundred comparisons of a thing with itself one may call it slower by chance, and one faster.
_CONFIDENCE: Final = 0.99


def noise_floor(pooled: PooledCase, *, run_id: str, measured_at: datetime.datetime) -> NoiseFloor | None:
    """Return what several processes of one case say of their own spread; ``None`` for fewer than two with figures.

    Between: the standard deviation of the processes' medians over their mean. It holds the little that the medians owe
    to the steps' own spread as well, as any later figure will: nothing is taken away, as the ANOVA estimator of a
    one-way random effects model would (NIST/SEMATECH e-Handbook, 7.4.2 and 3.2.3). Within: the processes' robust
    deviations, pooled as root mean square, over the same mean.
    """
    processes = [samples for samples in pooled.processes_ms if samples]
    if len(processes) < 2:
        return None
    medians = np.array([np.median(samples) for samples in processes])
    mean = float(medians.mean())
    within = math.sqrt(float(np.mean([robust_sd(samples) ** 2 for samples in processes])))
    return NoiseFloor(
        device_id=pooled.device.id,
        device_uuid=pooled.device.uuid,
        workload=pooled.workload,
        measured_at=measured_at,
        run_id=run_id,
        processes=len(processes),
        between_sd=float(medians.std(ddof=1)) / mean,
        within_sd=within / mean,
    )


def floor_share(between_sd: float, processes: int, before: int, after: int) -> float:
    """Return the share by which two figures must differ to be two, of ``before`` and ``after`` fresh processes.

    ``t * between_sd * sqrt(1 / before + 1 / after)`` with Student's t at 99 %, one-sided, for ``processes - 1`` degrees
    of freedom: the two-sample t test with a deviation that was measured apart (NIST/SEMATECH e-Handbook, 1.3.5.3). Few
    processes know their deviation badly, and t grows accordingly. Never below :data:`LEAST_FLOOR`. Raises ValueError
    for fewer than two processes that the deviation is of, and for figures of none.
    """
    if processes < 2 or before < 1 or after < 1:
        raise ValueError(f"a deviation of {processes} processes, figures of {before} and {after}")
    from scipy.special import stdtrit

    quantile = float(stdtrit(processes - 1, _CONFIDENCE))
    return max(LEAST_FLOOR, quantile * between_sd * math.sqrt(1 / before + 1 / after))


def unknown_floor(before: int, after: int) -> float:
    """Return the share that stands in for a floor that nobody has measured."""
    return max(LEAST_FLOOR, UNKNOWN_FLOOR * math.sqrt((1 / before + 1 / after) / 2))


def floor_for(floors: Iterable[NoiseFloor], device: Device, workload: Workload) -> NoiseFloor | None:
    """Return the newest floor of that workload on that very device; of another card in the same slot it is not."""
    found = [
        floor
        for floor in floors
        if (floor.device_id, floor.device_uuid, floor.workload) == (device.id, device.uuid, workload)
    ]
    return max(found, key=lambda floor: floor.measured_at, default=None)


def pooled_between_sd(groups: Sequence[Sequence[Sequence[float]]]) -> tuple[float, int] | None:
    """Return the deviation of processes' medians within groups of them, over each group's mean, and how many it is of.

    Of ``n`` processes in ``g`` groups it has ``n - g`` degrees of freedom, and is returned as one of ``n - g + 1``.
    ``None`` where no group has two processes.
    """
    squares, degrees = 0.0, 0
    for processes in groups:
        medians = np.array([np.median(samples) for samples in processes])
        if medians.size > 1:
            squares += float(((medians / medians.mean() - 1) ** 2).sum())
            degrees += medians.size - 1
    return (math.sqrt(squares / degrees), degrees + 1) if degrees else None
