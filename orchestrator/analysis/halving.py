"""Successive halving: many candidates get a few steps each, the better half twice as many, until one is left. Pure.

Karnin, Koren, Somekh, "Almost Optimal Exploration in Multi-Armed Bandits" (ICML 2013), algorithm 1; as a search for
settings Jamieson, Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (AISTATS 2016).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

#: With fewer steps a median says too little to drop anybody by.
LEAST_STEPS: Final = 3

T = TypeVar("T")


def schedule(candidates: int, steps: int) -> tuple[int, ...]:
    """Return the counted steps of each round: the last has ``steps`` and one candidate, the one before half as many.

    One round for a single candidate; no round has fewer than :data:`LEAST_STEPS` unless ``steps`` are fewer. Raises
    ValueError for less than one of either.
    """
    if candidates < 1 or steps < 1:
        raise ValueError(f"{candidates} candidates cannot have {steps} steps")
    rounds = math.ceil(math.log2(candidates))
    least = min(LEAST_STEPS, steps)
    return tuple(max(least, math.ceil(steps / 2 ** (rounds - number))) for number in range(rounds + 1))


def better_half(scored: Iterable[tuple[T, float]]) -> tuple[T, ...]:
    """Return the better half of candidates, the best first, one more where they are odd; of equal ones the earlier."""
    ranked = sorted(scored, key=lambda pair: -pair[1])
    return tuple(candidate for candidate, _ in ranked[: math.ceil(len(ranked) / 2)])
