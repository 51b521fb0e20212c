from __future__ import annotations

import random

import pytest

from orchestrator.analysis.evidence import judge
from orchestrator.config.quality import QualityConfig
from tests.builders import a_case, a_result
from workers.protocol import Verdict
from workers.telemetry.series import DoubtKind

CASE, QUALITY = a_case(), QualityConfig()


@pytest.mark.parametrize(("sd", "steps"), [(1.0, 100), (4.0, 100), (4.0, 30), (8.0, 200)])
def test_pure_noise_within_the_limit_is_hardly_ever_doubted(sd: float, steps: int) -> None:
    chance = random.Random(7)
    doubted = 0
    for _ in range(500):
        samples = tuple(max(chance.gauss(100, sd), 1.0) for _ in range(steps))
        doubted += judge(CASE, a_result(samples_ms=samples), QUALITY).verdict is not Verdict.OK
    assert doubted <= 10


def test_a_trend_beyond_the_limit_is_nearly_always_found_through_the_noise() -> None:
    chance = random.Random(7)
    found = 0
    for _ in range(200):
        samples = tuple(max(chance.gauss(100, 3), 1.0) + 0.12 * i for i in range(100))
        doubts = judge(CASE, a_result(samples_ms=samples), QUALITY).doubts
        found += any(doubt.kind is DoubtKind.DRIFTING for doubt in doubts)
    assert found >= 190
