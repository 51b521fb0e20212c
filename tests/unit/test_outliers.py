from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.analysis.outliers import OddOne, odd_ones
from orchestrator.analysis.pooling import pooled
from orchestrator.report.build import build_table
from tests.builders import a_case, a_device, a_workload
from tests.runs import a_case_result, a_case_without_attempt, a_run
from workers.protocol import Verdict

if TYPE_CHECKING:
    from orchestrator.results import CaseResult


def lab(*speeds_ms: float, **device: object) -> list[CaseResult]:
    return [
        a_case_result(
            a_case(a_device(f"h{number:02}", "gpu:0", **device)), samples_ms=tuple(ms + i % 3 for i in range(30))
        )
        for number, ms in enumerate(speeds_ms)
    ]


def odd(cases: list[CaseResult]) -> list[OddOne]:
    return list(odd_ones(pooled(cases)))


def test_the_odd_one_among_equals_is_found_without_a_rule() -> None:
    (found,) = odd(lab(*[99.0] * 23, 106.0))
    assert found.pooled.device.id == "h23/gpu:0"
    assert found.peers == 24
    assert found.share == pytest.approx(100 / 107 - 1)
    assert found.z < -3.5


def test_one_that_is_faster_is_odd_as_well() -> None:
    (found,) = odd(lab(*[99.0] * 5, 89.0))
    assert found.share > 0


def test_equals_that_differ_little_have_no_odd_one() -> None:
    assert odd(lab(99.0, 99.1, 98.9, 99.0, 100.5)) == []


def test_three_do_not_say_which_of_them_is_odd() -> None:
    assert odd(lab(99.0, 99.0, 150.0)) == []


def test_only_equal_devices_are_held_against_each_other() -> None:
    assert odd([*lab(99.0, 99.0, 99.0, 99.0), *lab(150.0, name="Another GPU")]) == []
    other_work = a_case_result(a_case(a_device("h09", "gpu:0"), a_workload(batch_size=64)), samples_ms=(10.0, 10.0))
    without = a_case_without_attempt(a_case(a_device("h08", "gpu:0")), Verdict.OOM)
    assert odd([*lab(99.0, 99.0, 99.0, 99.0), other_work, without]) == []


def test_pure_chance_makes_no_odd_one() -> None:
    chance = random.Random(3)
    flagged = 0
    for _ in range(200):
        flagged += bool(odd(lab(*[100 * (1 + chance.gauss(0, 0.01)) for _ in range(8)])))
    assert flagged <= 10


def test_the_table_says_so_below_it_and_names_the_worst_first() -> None:
    notes = build_table(a_run(*lab(*[99.0] * 23, 106.0, 130.0))).notes
    assert notes[:2] == (
        "h24/gpu:0 is 24 % slower than the median of 25 equal ones (robust z -71.0): alexnet forward batch 128"
        " float32 NHWC.",
        "h23/gpu:0 is 6.5 % slower than the median of 25 equal ones (robust z -19.6): alexnet forward batch 128"
        " float32 NHWC.",
    )


def test_a_lab_in_disorder_does_not_bury_its_table() -> None:
    notes = build_table(a_run(*lab(*[99.0] * 30, *[130.0 + i for i in range(12)]))).notes
    assert notes[10] == "… and 2 more that differ from their equals."


def test_devices_with_another_batch_that_fits_are_not_equal() -> None:
    cases = lab(99.0, 99.0, 99.0, 99.0)
    searched = [
        replace(one, attempts=(replace(one.attempts[0], result=replace(one.attempts[0].result, batch_size=size)),))
        for one, size in zip(lab(99.0, 150.0), (256, 512), strict=True)
    ]
    assert odd([*cases, *searched]) == []
