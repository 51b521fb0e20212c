"""What must hold of any comparison, whatever the figures are."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.analysis.comparison import Change, compare
from tests.builders import a_case, a_device, a_workload
from tests.runs import a_case_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.analysis.comparison import ComparedCase
    from orchestrator.results import CaseResult

#: Each comparison draws many thousand series.
few = settings(max_examples=40)

seeds = st.integers(min_value=0, max_value=2**32)
processes = st.integers(min_value=1, max_value=4)
spreads = st.floats(min_value=0.0, max_value=0.2)


@st.composite
def runs(draw: st.DrawFn, *, batch_size: int = 64) -> list[CaseResult]:
    """Draw a case in some processes that differ a little, each with steps that remember each other a little."""
    chance = random.Random(draw(seeds))
    memory, within, between = draw(st.floats(min_value=0, max_value=0.9)), draw(spreads), draw(spreads)
    level = draw(st.floats(min_value=0.01, max_value=1e4))
    found = []
    for _ in range(draw(processes)):
        middle, off = level * (1 + between * chance.uniform(-1, 1)), 0.0
        steps = []
        for _ in range(draw(st.integers(min_value=1, max_value=60))):
            off = memory * off + (1 - memory) * within * chance.uniform(-1, 1)
            steps.append(middle * (1 + off))
        found.append(steps)
    return a_run(found, batch_size=batch_size)


def a_run(steps_ms: Sequence[Sequence[float]], *, batch_size: int = 64) -> list[CaseResult]:
    case = a_case(a_device("a", "gpu:0"), a_workload(batch_size=batch_size))
    return [
        a_case_result(replace(case, key=f"{case.key}{process}", process=process), samples_ms=tuple(steps))
        for process, steps in enumerate(steps_ms, start=1)
    ]


def longer(run: Sequence[CaseResult], factor: float) -> list[CaseResult]:
    """Return the run with each step longer by the same factor."""
    return a_run([[factor * step for step in each.result.samples_ms] for each in run if each.result is not None])


def only(before: Sequence[CaseResult], after: Sequence[CaseResult]) -> ComparedCase:
    (found,) = compare(before, after).cases
    return found


@few
@given(runs())
def test_nothing_is_slower_or_faster_than_itself(run: list[CaseResult]) -> None:
    found = only(run, run)
    assert found.change is Change.NO_DIFFERENCE
    assert found.ratio == 1
    assert found.ratio_interval is not None
    assert found.ratio_interval.low <= 1 <= found.ratio_interval.high


TURNED = {Change.SLOWER: Change.FASTER, Change.FASTER: Change.SLOWER, Change.NO_DIFFERENCE: Change.NO_DIFFERENCE}


@few
@given(runs(), runs(), st.floats(min_value=0.5, max_value=2))
def test_the_other_way_round_it_is_the_other_way_round(
    one: list[CaseResult], other: list[CaseResult], factor: float
) -> None:
    after = longer(other, factor)
    # The same figures twice have nothing to be told apart by, and their draws no sides to change.
    assume(longer(one, 1.0) != after)
    first, second = only(one, after), only(after, one)
    assert second.change is TURNED[first.change]
    assert first.ratio is not None
    assert first.ratio_interval is not None
    assert second.ratio_interval is not None
    assert second.ratio == pytest.approx(1 / first.ratio)
    assert second.ratio_interval.low == pytest.approx(1 / first.ratio_interval.high)
    assert second.ratio_interval.high == pytest.approx(1 / first.ratio_interval.low)
    assert second.p_value == pytest.approx(first.p_value)
    assert second.floor == pytest.approx(first.floor)


@few
@given(seeds, processes, st.floats(min_value=0.01, max_value=0.5))
def test_what_takes_longer_by_more_than_the_floor_is_found(seed: int, count: int, beyond: float) -> None:
    chance = random.Random(seed)
    before = a_run([[chance.gauss(100, 0.3) for _ in range(60)] for _ in range(count)])
    floor = only(before, before).floor
    assert floor is not None
    found = only(before, longer(before, 1 + floor + beyond))
    assert found.change is Change.SLOWER
    assert only(before, longer(before, 1 + 0.9 * floor)).change is Change.NO_DIFFERENCE


@few
@given(runs(), runs(), runs(batch_size=32), runs(batch_size=32), st.randoms(use_true_random=False))
def test_the_order_of_cases_changes_nothing(
    before: list[CaseResult],
    after: list[CaseResult],
    before_other: list[CaseResult],
    after_other: list[CaseResult],
    chance: random.Random,
) -> None:
    old, new = [*before, *before_other], [*after, *after_other]
    in_order = compare(old, new)
    chance.shuffle(old)
    chance.shuffle(new)
    assert set(compare(old, new).cases) == set(in_order.cases)


@few
@given(runs(), runs(), st.floats(min_value=0.01, max_value=100))
def test_the_unit_of_time_changes_nothing(one: list[CaseResult], other: list[CaseResult], factor: float) -> None:
    plain, scaled = only(one, other), only(longer(one, factor), longer(other, factor))
    assert scaled.ratio == pytest.approx(plain.ratio)
    assert scaled.floor == pytest.approx(plain.floor)
