from __future__ import annotations

import pytest

from orchestrator.dispatch.messages import Command, StartCase
from orchestrator.dispatch.settings import DispatchSettings, HostConcurrency
from orchestrator.dispatch.transitions import DeviceState
from tests.builders import a_case, a_device, a_workload
from tests.unit.bench import GONE, Bench, host_down, release, verdict
from workers.protocol import Case, Company, Layout, Together, Verdict

BOTH = DispatchSettings(host_concurrency=HostConcurrency.BOTH, attempts=3, host_grace_s=60)
LONELY = "no other device of gpu01 is there to be measured together with"


def case_in(company: Company | None, selector: str, number: int = 1, **given: object) -> Case:
    workload = a_workload(batch_size=number, **given)
    key = f"{selector} {number} {company and company.value} {workload.layout.value}"
    return a_case(a_device("gpu01", selector), workload, key=key, company=company)


def begun(commands: tuple[Command, ...]) -> list[str]:
    return [command.case.key for command in commands if isinstance(command, StartCase)]


def groups(commands: tuple[Command, ...]) -> list[Together | None]:
    return [command.together for command in commands if isinstance(command, StartCase)]


ALONE = [case_in(Company.ALONE, selector) for selector in ("gpu:0", "gpu:1", "gpu:2")]
TOGETHER = [case_in(Company.TOGETHER, selector) for selector in ("gpu:0", "gpu:1", "gpu:2")]


def a_bench_where_all_are_together(*more: Case, cases: list[Case] = TOGETHER) -> Bench:
    bench = Bench(*cases, *more, settings=BOTH)
    bench.ready(*(case.device.selector for case in cases))
    return bench


def test_each_is_measured_alone_and_then_all_begin_at_once() -> None:
    bench = Bench(*ALONE, *TOGETHER, settings=BOTH)
    assert begun(bench.ready("gpu:0", "gpu:1", "gpu:2")) == [ALONE[0].key]
    assert groups(bench.done) == [None]
    assert begun(bench.finished(ALONE[0])) == [ALONE[1].key]
    assert begun(bench.finished(ALONE[1])) == [ALONE[2].key]

    bench.finished(ALONE[2])

    assert begun(bench.done) == [case.key for case in TOGETHER]
    (told,) = set(groups(bench.done))
    assert told is not None
    assert told.selectors == ("gpu:0", "gpu:1", "gpu:2")


def test_nothing_else_begins_before_the_last_of_them_has_ended() -> None:
    later = [case_in(Company.TOGETHER, selector, 2) for selector in ("gpu:0", "gpu:1", "gpu:2")]
    bench = a_bench_where_all_are_together(*later)
    first = groups(bench.done)[0]
    assert begun(bench.finished(TOGETHER[1])) == []
    assert begun(bench.finished(TOGETHER[0])) == []
    assert begun(bench.finished(TOGETHER[2])) == [case.key for case in later]
    assert groups(bench.done)[0] != first


def test_a_layout_of_its_own_does_not_keep_a_device_from_the_others() -> None:
    cases = [case_in(Company.TOGETHER, "cpu"), case_in(Company.TOGETHER, "gpu:0", layout=Layout.NCHW)]
    bench = a_bench_where_all_are_together(cases=cases)
    assert begun(bench.done) == [case.key for case in cases]


def test_a_device_that_is_away_is_waited_for_and_once_it_is_lost_the_others_begin() -> None:
    bench = Bench(*TOGETHER, settings=BOTH)
    bench.ready("gpu:0", "gpu:1")
    assert begun(bench.lost("gpu:2", at=2.0)) == []

    while bench.state("gpu:2") is not DeviceState.LOST:
        assert begun(bench.done) == []
        bench.overdue()

    assert begun(bench.done) == [TOGETHER[0].key, TOGETHER[1].key]
    told = groups(bench.done)[0]
    assert told is not None
    assert told.selectors == ("gpu:0", "gpu:1")


def test_a_device_that_comes_back_in_time_is_of_the_company() -> None:
    bench = Bench(*TOGETHER, settings=BOTH)
    bench.ready("gpu:0", "gpu:1")
    bench.lost("gpu:2", at=2.0)
    bench.overdue()
    assert begun(bench.ready("gpu:2", at=bench.at + 1)) == [case.key for case in TOGETHER]


def test_who_is_left_without_others_has_nobody_to_be_compared_with() -> None:
    mine, another = case_in(Company.ALONE, "gpu:0", 2), case_in(None, "gpu:0", 3)
    bench = Bench(*TOGETHER[:2], mine, another, settings=BOTH)
    bench.ready("gpu:0")
    bench.lost("gpu:1", at=2.0, is_final=True)
    assert verdict(TOGETHER[0], Verdict.DEVICE_MISSING, LONELY) in bench.done
    assert begun(bench.done) == [mine.key]
    assert begun(bench.finished(mine)) == [another.key]
    bench.finished(another)
    assert bench.dispatcher.is_done


def test_many_that_are_left_without_others_end_one_after_the_other() -> None:
    count = 2000
    cases = [case_in(Company.TOGETHER, "gpu:0", number) for number in range(1, count + 1)]
    bench = Bench(*cases, settings=BOTH)
    assert len(bench.ready("gpu:0")) == count + 1
    assert bench.done == () or bench.done[-1] == release()
    assert bench.dispatcher.is_done


@pytest.mark.parametrize("given", [Verdict.CRASHED, Verdict.HOST_DOWN])
def test_what_was_measured_together_is_not_tried_again_for_its_company_has_ended(given: Verdict) -> None:
    bench = a_bench_where_all_are_together()
    assert bench.finished(TOGETHER[0], verdict=given) == (verdict(TOGETHER[0], given), release())
    assert bench.finished(TOGETHER[1]) == (verdict(TOGETHER[1], Verdict.OK), release("gpu:1"))


def test_what_was_measured_alone_is_tried_again_as_ever() -> None:
    bench = Bench(ALONE[0], settings=BOTH)
    bench.ready("gpu:0")
    assert begun(bench.finished(ALONE[0], verdict=Verdict.CRASHED)) == [ALONE[0].key]


def test_what_was_begun_together_and_lost_with_its_device_is_not_begun_alone() -> None:
    bench = a_bench_where_all_are_together()
    bench.lost("gpu:0")
    bench.overdue()
    bench.ready("gpu:0", at=bench.at + 1)
    assert bench.done[:2] == (host_down(TOGETHER[0]), verdict(TOGETHER[0], Verdict.HOST_DOWN, GONE))


def test_what_an_earlier_head_had_cancelled_is_measured_with_those_that_are_left() -> None:
    bench = Bench(*TOGETHER, settings=BOTH)
    bench.ready("gpu:0", "gpu:1")
    assert bench.recovered(TOGETHER[2], verdict=Verdict.CANCELLED) == ()
    bench.ready("gpu:2")
    assert [(command.case.key, command.attempt) for command in bench.done if isinstance(command, StartCase)] == [
        (TOGETHER[0].key, 1),
        (TOGETHER[1].key, 1),
        (TOGETHER[2].key, 2),
    ]


def test_two_cases_of_one_device_do_not_keep_each_other_company() -> None:
    twice = [*TOGETHER[:2], case_in(Company.TOGETHER, "gpu:0", layout=Layout.NCHW)]
    bench = Bench(*twice, settings=BOTH)
    bench.ready("gpu:0", "gpu:1")
    assert begun(bench.done) == [TOGETHER[0].key, TOGETHER[1].key]
    bench.finished(TOGETHER[1])
    assert verdict(twice[2], Verdict.DEVICE_MISSING, LONELY) in bench.finished(TOGETHER[0])
    assert bench.dispatcher.is_done


def test_a_host_of_one_device_works_as_an_exclusive_one() -> None:
    cases = [case_in(None, "gpu:0", number) for number in (1, 2)]
    bench = Bench(*cases, settings=BOTH)
    assert begun(bench.ready("gpu:0")) == [cases[0].key]
    assert groups(bench.done) == [None]
