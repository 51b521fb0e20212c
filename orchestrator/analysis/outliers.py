"""The odd one out among equal devices of a run, found without any rule but that equals are to be equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from orchestrator.analysis.noise import LEAST_FLOOR
from orchestrator.analysis.statistics import robust_sd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.analysis.pooling import PooledCase

#: Fewer equal devices do not say which of them is odd.
LEAST_PEERS: Final = 4

#: Iglewicz & Hoaglin, "How to Detect and Handle Outliers" (1993): modified z scores beyond 3.5 are outliers.
_MOST_Z: Final = 3.5

#: Differences below this share are not worth anybody's walk to the rack.
LEAST_SHARE: Final = 2 * LEAST_FLOOR


@dataclass(frozen=True, kw_only=True, slots=True)
class OddOne:
    """A device that is not like its peers."""

    pooled: PooledCase
    #: How many equal devices there are, itself among them.
    peers: int
    #: Its speed over that of the median device, less one: -0.06 is 6 % slower.
    share: float
    #: Robust z score of its speed: how many robust standard deviations it is off.
    z: float


def odd_ones(cases: Iterable[PooledCase]) -> tuple[OddOne, ...]:
    """Return the devices whose speed is off among at least :data:`LEAST_PEERS` equal ones, workload by workload.

    Equal are devices of one kind, name and size of memory (a CPU device: of as many cores) that were measured on the
    same workload and batch. The speed is one over the median step. The score is ``(x - median) / (1.4826 * MAD)``, with
    a deviation of a third of :data:`LEAST_FLOOR` at least, so that equals which agree to a hair make no odd one. It
    must be beyond :func:`most_z`.
    """
    groups: dict[tuple[object, ...], list[PooledCase]] = {}
    for pooled in cases:
        if pooled.samples_ms:
            groups.setdefault(_equal(pooled), []).append(pooled)
    return tuple(odd for group in groups.values() if len(group) >= LEAST_PEERS for odd in _odd_in(group))


def most_z(peers: int) -> float:
    """Return the score beyond which one of ``peers`` is odd: 3.5 of very many, and more of few.

    As likely by chance as 3.5 of a normal distribution, by Student's t: few equals know their own spread badly.
    """
    from scipy.special import ndtr, stdtrit

    return float(stdtrit(peers - 1, ndtr(_MOST_Z)))


def _equal(pooled: PooledCase) -> tuple[object, ...]:
    device = pooled.device
    size = pooled.measured[-1].batch_size
    return (
        device.kind,
        device.name,
        device.memory_bytes,
        len(device.cores),
        pooled.workload,
        pooled.company,
        size,
        len(pooled.case.peers),
    )


def _odd_in(group: list[PooledCase]) -> list[OddOne]:
    speeds = np.array([1 / float(np.median(pooled.samples_ms)) for pooled in group])
    usual = float(np.median(speeds))
    deviation = max(robust_sd(speeds.tolist()) / usual, LEAST_FLOOR / 3)
    limit = most_z(len(group))
    found = []
    for pooled, speed in zip(group, speeds.tolist(), strict=True):
        share = speed / usual - 1
        if abs(share) / deviation > limit and abs(share) > LEAST_SHARE:
            found.append(OddOne(pooled=pooled, peers=len(group), share=share, z=share / deviation))
    return found
