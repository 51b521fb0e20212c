from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.cli.going_on import refuse_changes
from orchestrator.diagnosis import changes, is_fresh
from orchestrator.errors import UsageError
from tests.builders import a_case, a_device, a_host_report, an_environment
from tests.runs import a_case_result, a_case_without_attempt, a_run
from workers.protocol import Verdict

if TYPE_CHECKING:
    from orchestrator.results import CaseResult
    from workers.protocol import FactValue, HostReport

DRIVER_550: dict[str, FactValue] = {"gpu.driver": "550.54", "package.tensorflow": "2.20.0", "python.version": "3.11.7"}


def facts_of(given: dict[str, FactValue]) -> dict[str, FactValue]:
    return {**DRIVER_550, **{name.replace("__", "."): value for name, value in given.items()}}


def measured(host: str = "oak", started_at: float = 1.0, **given: FactValue) -> CaseResult:
    environment = an_environment(facts_of(given))
    return a_case_result(a_case(a_device(host)), environment=environment, started_at=started_at)


def report(host: str = "oak", **given: FactValue) -> HostReport:
    return a_host_report(host, facts=facts_of(given))


def told(*results: CaseResult, now: HostReport) -> list[str]:
    return [str(change) for change in changes(results, [now])]


def test_a_host_that_is_as_it_was_has_no_changes() -> None:
    assert told(measured(), now=report()) == []


def test_a_driver_and_a_framework_that_are_others_now_are_told() -> None:
    now = report(gpu__driver="560.1", package__tensorflow="2.21.0")
    assert told(measured(), now=now) == [
        "oak: NVIDIA driver 550.54 -> 560.1",
        "oak: TensorFlow 2.20.0 -> 2.21.0",
    ]


def test_what_is_gone_is_a_change_and_what_nobody_recorded_is_none() -> None:
    assert told(measured(), now=report(gpu__driver=None)) == ["oak: NVIDIA driver 550.54 -> none"]
    assert told(measured(), now=report(package__numpy="2.2")) == []


def test_the_last_attempt_on_a_host_counts() -> None:
    older, newer = measured(started_at=1.0), measured(started_at=2.0, gpu__driver="560.1")
    assert told(newer, older, now=report(gpu__driver="560.1")) == []
    assert told(older, newer, now=report()) == ["oak: NVIDIA driver 560.1 -> 550.54"]


def test_other_hosts_and_cases_without_attempts_tell_nothing() -> None:
    never = a_case_without_attempt(a_case(a_device("oak")), None)
    assert told(measured("elm", gpu__driver="1"), never, now=report()) == []


def test_changes_are_refused_by_name_unless_they_are_accepted() -> None:
    run = a_run(measured(), id="7f3a9c")
    reports = [report(gpu__driver="560.1")]
    with pytest.raises(UsageError) as refused:
        refuse_changes(run, reports, accepted=False)
    assert "oak: NVIDIA driver 550.54 -> 560.1" in refused.value.message
    assert "muster resume 7f3a9c --accept-changed" in str(refused.value.remedy)
    refuse_changes(run, reports, accepted=True)
    refuse_changes(run, [report()], accepted=False)


def test_many_changes_are_counted() -> None:
    names = [f"h{number}" for number in range(12)]
    run = a_run(*(measured(name) for name in names))
    reports = [report(name, gpu__driver="560.1") for name in names]
    with pytest.raises(UsageError, match="and 2 more"):
        refuse_changes(run, reports, accepted=False)


@pytest.mark.parametrize(
    ("verdict", "driver", "is_still_good"),
    [(Verdict.OK, "550.54", True), (Verdict.OK, "560.1", False), (Verdict.CRASHED, "550.54", False)],
)
def test_a_result_holds_while_it_is_a_figure_and_its_host_is_the_same(
    verdict: Verdict, driver: str, is_still_good: bool
) -> None:
    earlier = a_case_result(a_case(a_device("oak")), verdict=verdict, environment=an_environment(DRIVER_550))
    assert is_fresh(earlier, {"oak": report(gpu__driver=driver)}) is is_still_good


def test_a_case_that_was_never_measured_holds_nothing_and_a_host_that_is_away_changes_nothing() -> None:
    case = a_case(a_device("oak"))
    assert not is_fresh(None, {})
    assert not is_fresh(a_case_without_attempt(case, None), {})
    assert is_fresh(a_case_result(case), {})
