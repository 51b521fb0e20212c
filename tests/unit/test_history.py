"""The figures of one workload on one device, run by run."""

from __future__ import annotations

import datetime
from dataclasses import replace

from orchestrator.analysis.history import points_of, reasons
from orchestrator.analysis.trend import ChangePoint
from orchestrator.results import CaseResult, Past
from tests.builders import a_case, a_device, a_workload
from tests.runs import a_case_result, a_case_without_attempt, an_environment
from workers.protocol import Verdict

DAY = datetime.timedelta(days=1)
FIRST = datetime.datetime(2026, 5, 1, tzinfo=datetime.timezone.utc)
CARD = a_device("a", "gpu:0", uuid="GPU-1")
OTHER = a_device("a", "gpu:0", uuid="GPU-2")


def past(number: int, *cases: CaseResult) -> Past:
    return Past(run_id=f"r{number}", created_at=FIRST + number * DAY, cases=cases)


def figure(ms: float, *, device: object = CARD, driver: str = "550", **given: object) -> CaseResult:
    case = a_case(device, a_workload())  # type: ignore[arg-type]
    return a_case_result(case, samples_ms=(ms, ms, ms), environment=an_environment(gpu__driver=driver), **given)


def test_a_run_s_figure_is_the_mean_of_its_processes_medians() -> None:
    first = figure(10.0)
    second = figure(20.0, verdict=Verdict.NOISY)
    second = replace(second, case=replace(second.case, key="other", process=2))
    (point,) = points_of([past(0, first, second)], CARD)
    assert (point.run_id, point.median_ms, point.is_doubtful) == ("r0", 15.0, True)


def test_another_card_in_its_place_and_a_case_without_a_figure_are_no_part_of_it() -> None:
    gap = a_case_without_attempt(a_case(CARD, a_workload()), Verdict.OOM, "no memory")
    found = points_of([past(0, figure(10.0)), past(1, figure(99.0, device=OTHER)), past(2, gap)], CARD)
    assert [point.run_id for point in found] == ["r0"]


def test_where_the_level_changed_what_differs_is_told() -> None:
    runs = [past(number, figure(10.0 + 3 * (number > 1), driver="550" if number < 2 else "560")) for number in range(4)]
    points = points_of(runs, CARD)
    told = reasons(runs, points, [ChangePoint(place=2, before_ms=10.0, after_ms=13.0)])
    assert list(told) == [2]
    assert any("550" in each and "560" in each for each in told[2]), told
    assert reasons(runs, points, []) == {}
