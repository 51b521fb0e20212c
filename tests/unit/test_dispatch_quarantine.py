"""What fails too often in a row, what is too large for a device, and what waits for too long."""

from __future__ import annotations

import pytest

from orchestrator.dispatch.messages import PutAside
from orchestrator.dispatch.policies import needs_more_memory, retry_delay_s
from orchestrator.dispatch.settings import DispatchSettings
from orchestrator.dispatch.transitions import DeviceState
from tests.builders import a_case, a_device, a_workload
from tests.unit.bench import GONE, Bench, case_on, host_down, prepare, release, start, verdict
from workers.protocol import Pass, Verdict

ONCE = DispatchSettings(attempts=1, quarantine_after=2)
ASIDE = "put aside after 2 failures in a row, the last: SIGSEGV"


def crash(bench: Bench, number: int, selector: str = "gpu:0", attempt: int = 1) -> object:
    return bench.finished(case_on(selector, number), attempt, Verdict.CRASHED, "SIGSEGV")


def aside(target: str, failures: int = 2, reason: str = "SIGSEGV") -> PutAside:
    return PutAside(target=target, failures=failures, reason=reason)


# --- put aside -------------------------------------------------------------------------------------------------


def test_a_device_on_which_cases_fail_in_a_row_is_put_aside() -> None:
    cases = [case_on(number=number) for number in (1, 2, 3, 4)]
    bench = Bench(*cases, settings=ONCE)
    bench.ready("gpu:0")
    assert crash(bench, 1) == (verdict(cases[0], Verdict.CRASHED, "SIGSEGV"), start(cases[1]))
    assert crash(bench, 2) == (
        verdict(cases[1], Verdict.CRASHED, "SIGSEGV"),
        aside("gpu01/gpu:0"),
        verdict(cases[2], Verdict.NOT_RUN, ASIDE),
        verdict(cases[3], Verdict.NOT_RUN, ASIDE),
        release(),
    )
    assert bench.dispatcher.is_done


@pytest.mark.parametrize(("between", "is_put_aside"), [(Verdict.OK, False), (Verdict.OOM, True), (Verdict.BUSY, True)])
def test_a_figure_ends_a_row_and_what_is_the_workloads_fault_does_not_count(
    between: Verdict, is_put_aside: bool
) -> None:
    # Falling batches, for one that does not fit says nothing of smaller ones.
    cases = [case_on(number=number) for number in (9, 8, 7, 6)]
    bench = Bench(*cases, settings=ONCE)
    bench.ready("gpu:0")
    crash(bench, 9)
    bench.finished(cases[1], verdict=between)
    crash(bench, 7)
    assert (bench.dispatcher.case(cases[3].key).verdict is Verdict.NOT_RUN) is is_put_aside


def test_a_row_is_counted_in_cases_and_not_in_attempts() -> None:
    cases = [case_on(number=number) for number in (1, 2)]
    bench = Bench(*cases, settings=DispatchSettings(attempts=3, quarantine_after=2))
    bench.ready("gpu:0")
    for attempt in (1, 2, 3):
        crash(bench, 1, attempt=attempt)
    assert bench.done == (verdict(cases[0], Verdict.CRASHED, "SIGSEGV"), start(cases[1]))


def test_a_host_is_put_aside_where_cases_fail_on_several_of_its_devices() -> None:
    first, second, third, fourth = (case_on(f"gpu:{index}") for index in range(4))
    more = [case_on(f"gpu:{index}", 2) for index in range(4)]
    bench = Bench(first, second, third, fourth, *more, settings=ONCE)
    bench.ready("gpu:0", "gpu:1", "gpu:2")
    crash(bench, 1)
    ended = (
        verdict(second, Verdict.CRASHED, "SIGSEGV"),
        aside("gpu01"),
        verdict(more[1], Verdict.NOT_RUN, ASIDE),
        verdict(more[2], Verdict.NOT_RUN, ASIDE),
        verdict(fourth, Verdict.NOT_RUN, ASIDE),
        verdict(more[3], Verdict.NOT_RUN, ASIDE),
        release("gpu:3"),
        release("gpu:1"),
    )
    assert crash(bench, 1, "gpu:1") == ended
    # What was begun goes on.
    assert bench.finished(more[0]) == (verdict(more[0], Verdict.OK), release("gpu:0"))
    assert bench.finished(third) == (verdict(third, Verdict.OK), release("gpu:2"))


def test_what_fails_on_what_is_put_aside_gets_no_other_attempt() -> None:
    first, second, third = (case_on(f"gpu:{index}") for index in range(3))
    bench = Bench(first, second, third, settings=DispatchSettings(attempts=2, quarantine_after=2))
    bench.ready("gpu:0", "gpu:1", "gpu:2")
    for attempt in (1, 2):
        crash(bench, 1, attempt=attempt)
        crash(bench, 1, "gpu:1", attempt=attempt)
    assert crash(bench, 1, "gpu:2") == (verdict(third, Verdict.CRASHED, "SIGSEGV"), release("gpu:2"))


def test_failures_of_one_device_are_not_held_against_its_host() -> None:
    bad = [case_on("gpu:0", number) for number in (1, 2, 3)]
    good = [case_on("gpu:1", number) for number in (1, 2)]
    bench = Bench(*bad, *good, settings=ONCE)
    bench.ready("gpu:0", "gpu:1")
    crash(bench, 1)
    assert aside("gpu01/gpu:0") in bench.finished(bad[1], verdict=Verdict.CRASHED, reason="SIGSEGV")
    assert bench.finished(good[0]) == (verdict(good[0], Verdict.OK), start(good[1]))


def test_a_lost_device_is_put_aside_with_its_host_and_let_go_once() -> None:
    first, second, waiting = case_on("gpu:0"), case_on("gpu:1"), case_on("gpu:0", 2)
    bench = Bench(first, second, waiting, settings=ONCE)
    bench.ready("gpu:0", "gpu:1")
    crash(bench, 1, "gpu:1")
    assert bench.lost(is_final=True) == (
        verdict(waiting, Verdict.HOST_DOWN, GONE),
        host_down(first),
        verdict(first, Verdict.HOST_DOWN, GONE),
        aside("gpu01", reason=GONE),
        release("gpu:0"),
    )


def test_a_missing_attempt_of_what_is_put_aside_is_still_looked_for() -> None:
    away, first, second = case_on("gpu:2"), case_on("gpu:0"), case_on("gpu:1")
    bench = Bench(away, first, second, case_on("gpu:2", 2), settings=ONCE)
    bench.ready("gpu:0", "gpu:1", "gpu:2")
    bench.lost("gpu:2", at=3.5)
    crash(bench, 1)
    crash(bench, 1, "gpu:1")
    assert bench.state("gpu:2") is DeviceState.AWAY
    assert bench.overdue() == (prepare(away),)
    assert bench.recovered(away) == (verdict(away, Verdict.OK),)
    assert bench.ready("gpu:2", at=7.0) == (release("gpu:2"),)


def test_an_idle_device_of_a_silent_host_that_is_put_aside_is_let_go() -> None:
    first, second, delayed = case_on("gpu:0"), case_on("gpu:1"), case_on("gpu:2")
    settings = DispatchSettings(attempts=2, quarantine_after=2, retry_delay_s=100.0)
    bench = Bench(first, second, delayed, settings=settings, before={first.key: 1, second.key: 1})
    bench.ready("gpu:0", "gpu:1", "gpu:2")
    bench.finished(delayed, verdict=Verdict.CRASHED)
    bench.silent()
    assert release("gpu:2") not in bench.finished(first, 2, Verdict.TIMEOUT, "SIGSEGV")
    assert release("gpu:2") in bench.finished(second, 2, Verdict.TIMEOUT, "SIGSEGV")


def test_nothing_is_put_aside_where_nobody_asked_for_it() -> None:
    cases = [case_on(number=number) for number in range(1, 9)]
    bench = Bench(*cases, settings=DispatchSettings(attempts=1))
    bench.ready("gpu:0")
    for case in cases:
        bench.finished(case, verdict=Verdict.CRASHED)
    assert {view.verdict for view in bench.dispatcher.cases()} == {Verdict.CRASHED}


# --- too large -------------------------------------------------------------------------------------------------


def test_what_is_larger_than_what_did_not_fit_does_not_fit_either() -> None:
    small, large, larger = (case_on(number=number) for number in (1, 64, 128))
    other = a_case(large.device, a_workload(batch_size=256, pass_=Pass.FORWARD_BACKWARD), key="other")
    elsewhere = case_on("gpu:1", 128)
    bench = Bench(large, larger, small, other, elsewhere)
    bench.ready("gpu:0")
    inferred = "inferred: batch 64 did not fit on this device, so a larger one does not either"
    assert bench.finished(large, verdict=Verdict.OOM) == (
        verdict(large, Verdict.OOM),
        verdict(larger, Verdict.OOM, inferred),
        start(small),
    )
    assert bench.finished(small) == (verdict(small, Verdict.OK), start(other))


def test_a_larger_batch_is_of_the_same_workload_on_the_same_device() -> None:
    case = a_case(a_device("gpu01", "gpu:0"), a_workload(batch_size=64))

    def larger(selector: str = "gpu:0", **given: object) -> bool:
        return needs_more_memory(a_case(a_device("gpu01", selector), a_workload(**{"batch_size": 65, **given})), case)

    assert larger()
    assert not larger(batch_size=64)
    assert not larger(selector="gpu:1")
    assert not larger(pass_=Pass.FORWARD_BACKWARD)


# --- tried again later -----------------------------------------------------------------------------------------


def test_a_case_is_tried_again_after_a_while_and_others_go_first() -> None:
    first, second, third = (case_on(number=number) for number in (1, 2, 3))
    bench = Bench(first, second, third, settings=DispatchSettings(attempts=3, retry_delay_s=5.0))
    bench.ready("gpu:0")
    assert bench.finished(first, verdict=Verdict.CRASHED, at=10.0) == (start(second),)
    assert bench.finished(second, at=16.0) == (verdict(second, Verdict.OK), start(first, 2))
    assert bench.finished(first, 2, Verdict.CRASHED, at=20.0) == (start(third),)
    assert bench.finished(third, at=21.0) == (verdict(third, Verdict.OK),)
    assert bench.state() is DeviceState.IDLE
    assert bench.dispatcher.next_deadline == 30.0
    assert bench.overdue() == (start(first, 3),)


def test_pauses_between_attempts_are_doubled() -> None:
    assert [retry_delay_s(tries, 5.0) for tries in (1, 2, 3)] == [5.0, 10.0, 20.0]


def test_an_attempt_that_was_cancelled_without_a_stop_is_made_again() -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    assert bench.finished(case, verdict=Verdict.CANCELLED, reason="its agent heard nothing") == (start(case, 2),)


# --- waits for too long ----------------------------------------------------------------------------------------

QUEUE = DispatchSettings(queue_timeout_s=50.0, prepare_timeout_s=1000.0)
TOO_LONG = "was still waiting for its turn 50 s after the run began"


def test_what_has_not_begun_when_the_queues_time_is_over_is_given_up_and_the_rest_goes_on() -> None:
    running, queued, unready = case_on("gpu:0", 1), case_on("gpu:0", 2), case_on("gpu:1")
    bench = Bench(running, queued, unready, settings=QUEUE)
    bench.ready("gpu:0", at=49.0)
    assert bench.dispatcher.next_deadline == 50.0
    assert bench.overdue() == (
        verdict(queued, Verdict.TIMEOUT, TOO_LONG),
        verdict(unready, Verdict.TIMEOUT, TOO_LONG),
        release("gpu:1"),
    )
    assert bench.dispatcher.stopping
    assert bench.finished(running, verdict=Verdict.CRASHED) == (verdict(running, Verdict.CRASHED), release("gpu:0"))


def test_what_has_begun_and_is_missing_is_still_looked_for_when_the_queues_time_is_over() -> None:
    running = case_on()
    bench = Bench(running, settings=QUEUE)
    bench.ready("gpu:0")
    bench.lost(at=49.5)
    assert bench.overdue() == ()
    assert bench.overdue() == (prepare(running),)
    bench.lost(at=52.0)
    assert bench.overdue() == (prepare(running),)
    bench.ready("gpu:0", at=60.0)
    assert bench.done == (host_down(running), verdict(running, Verdict.HOST_DOWN, GONE), release())
