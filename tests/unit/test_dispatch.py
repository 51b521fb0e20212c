from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.dispatch.deadlines import Deadlines
from orchestrator.dispatch.machine import Dispatcher
from orchestrator.dispatch.messages import (
    CancelCase,
    DeadlinePassed,
    DeviceReady,
    PrepareDevice,
    RecordAttempt,
    RecordVerdict,
    StartCase,
)
from orchestrator.dispatch.policies import is_tried_again
from orchestrator.dispatch.state import Board, ImpossibleTransitionError
from orchestrator.dispatch.transitions import AttemptState, CaseState, DeviceState
from tests.builders import a_case, a_device
from tests.unit.bench import (
    EXCLUSIVE,
    HELD,
    SETTINGS,
    Bench,
    case_on,
    release,
    verdict,
)
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.protocol import Case


# --- the life of a case ------------------------------------------------------------------------------------------


def test_a_plan_without_cases_is_done_at_once() -> None:
    bench = Bench()
    assert bench.done == ()
    assert bench.dispatcher.is_done
    assert bench.dispatcher.next_deadline is None


def test_begin_prepares_every_device_once_in_the_plans_order() -> None:
    cases = [case_on("gpu:1"), case_on("gpu:0"), case_on("gpu:1", 2), case_on(host="attic")]
    assert Bench(*cases).done == tuple(PrepareDevice(device=cases[i].device) for i in (0, 1, 3))


def test_a_case_goes_from_queued_to_done() -> None:
    case = case_on()
    bench = Bench(case)
    assert bench.dispatcher.case(case.key).state is CaseState.QUEUED
    assert bench.ready("gpu:0") == (StartCase(case=case, attempt=1),)
    assert bench.dispatcher.case(case.key).attempt_state is AttemptState.STARTING
    assert bench.started(case) == ()
    assert bench.dispatcher.case(case.key).attempt_state is AttemptState.RUNNING
    assert bench.measured(case) == ()
    assert bench.dispatcher.case(case.key).attempt_state is AttemptState.COLLECTING
    was_done = bench.dispatcher.is_done
    assert bench.finished(case) == (verdict(case, Verdict.OK), release())
    assert not was_done
    assert bench.dispatcher.case(case.key).verdict is Verdict.OK
    assert bench.dispatcher.is_done
    assert bench.dispatcher.next_deadline is None


def test_a_device_takes_its_cases_in_the_plans_order() -> None:
    first, second, third = (case_on(number=number) for number in (3, 1, 2))
    bench = Bench(first, second, third)
    assert bench.ready("gpu:0") == (StartCase(case=first, attempt=1),)
    assert bench.finished(first) == (verdict(first, Verdict.OK), StartCase(case=second, attempt=1))
    assert bench.finished(second) == (verdict(second, Verdict.OK), StartCase(case=third, attempt=1))


def test_the_reason_of_a_result_is_the_reason_of_its_verdict() -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    assert bench.finished(case, verdict=Verdict.NOISY, reason="sd 12 %")[0] == verdict(case, Verdict.NOISY, "sd 12 %")


def test_views_show_what_is_going_on() -> None:
    cases = [case_on(number=number) for number in (1, 2, 3)]
    bench = Bench(*cases)
    bench.ready("gpu:0")
    bench.finished(cases[0])
    counts = bench.dispatcher.counts
    assert (counts.queued, counts.active, counts.done, counts.total) == (1, 1, 1, 3)
    (device,) = bench.dispatcher.devices()
    assert device == bench.dispatcher.device("gpu01/gpu:0")
    assert (device.state, device.queued, device.done, device.reason) == (DeviceState.BUSY, 1, 1, None)
    assert device.active == bench.dispatcher.case(cases[1].key)
    assert [(view.case, view.state, view.attempts) for view in bench.dispatcher.cases()] == [
        (cases[0], CaseState.DONE, 1),
        (cases[1], CaseState.ACTIVE, 1),
        (cases[2], CaseState.QUEUED, 0),
    ]


def test_a_case_may_wait_for_its_device_before_it_starts() -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    assert bench.dispatcher.case(case.key).waits_for is None
    assert bench.waiting(case) == ()
    view = bench.dispatcher.case(case.key)
    assert (view.attempt_state, view.waits_for) == (AttemptState.WAITING, HELD)
    assert bench.waiting(case, at=20.0, reason="the GPU is held by bob") == ()
    assert bench.dispatcher.case(case.key).waits_for == "the GPU is held by bob"
    assert bench.dispatcher.next_deadline == 51.5  # another holder is no new wait
    assert bench.granted(case) == ()
    view = bench.dispatcher.case(case.key)
    assert (view.attempt_state, view.waits_for) == (AttemptState.STARTING, None)
    assert bench.started(case, at=40.0) == ()
    assert bench.finished(case, at=50.0) == (verdict(case, Verdict.OK), release())


def test_a_case_that_waited_in_vain_is_busy_and_the_next_one_begins() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = Bench(first, second)
    bench.ready("gpu:0")
    bench.waiting(first)
    assert bench.finished(first, verdict=Verdict.BUSY, reason=HELD) == (
        verdict(first, Verdict.BUSY, HELD),
        StartCase(case=second, attempt=1),
    )


# --- attempts ----------------------------------------------------------------------------------------------------


def test_a_crashed_case_is_tried_again_before_the_next_one() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = Bench(first, second)
    bench.ready("gpu:0")
    assert bench.finished(first, verdict=Verdict.CRASHED) == (StartCase(case=first, attempt=2),)
    crashed_again = bench.finished(first, 2, Verdict.CRASHED, "SIGSEGV")
    assert crashed_again == (verdict(first, Verdict.CRASHED, "SIGSEGV"), StartCase(case=second, attempt=1))
    assert bench.dispatcher.case(first.key).attempts == 2


@pytest.mark.parametrize("ending", sorted(each for each in Verdict if not each.is_transient))
def test_other_endings_are_not_tried_again(ending: Verdict) -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    assert bench.finished(case, verdict=ending) == (verdict(case, ending), release())


def test_only_crashes_are_tried_again_and_only_so_often() -> None:
    assert is_tried_again(Verdict.CRASHED, attempt=1, attempts=2)
    assert not is_tried_again(Verdict.CRASHED, attempt=2, attempts=2)
    assert not is_tried_again(Verdict.OOM, attempt=1, attempts=2)


# --- deadlines ---------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_ready_in_time_is_lost_with_its_cases() -> None:
    cases = [case_on(number=number) for number in (1, 2)]
    bench = Bench(*cases)
    assert bench.dispatcher.next_deadline == 10.0
    reason = "its agent was not ready within 10 s"
    assert bench.overdue() == (*(verdict(case, Verdict.HOST_DOWN, reason) for case in cases), release())
    assert bench.state() is DeviceState.LOST
    assert bench.dispatcher.device("gpu01/gpu:0").reason == reason
    assert bench.dispatcher.is_done


@pytest.mark.parametrize(
    ("reached", "deadline", "reason"),
    [
        ((), 21.0, "did not start within 20 s"),
        ((Bench.waiting, Bench.granted), 51.5, "did not start within 20 s"),
        ((Bench.started,), 102.0, "was not measured within 100 s"),
        ((Bench.started, Bench.measured), 8.0, "its result did not come within 5 s"),
    ],
)
def test_every_state_of_an_attempt_has_a_deadline(
    reached: tuple[Callable[[Bench, Case], object], ...], deadline: float, reason: str
) -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    for step in reached:
        step(bench, case)
    assert bench.dispatcher.next_deadline == deadline
    assert bench.hear(DeadlinePassed(at=deadline - 0.01)) == ()
    cancel = CancelCase(case_key=case.key, attempt=1, verdict=Verdict.TIMEOUT, reason=reason)
    assert bench.overdue() == (cancel,)
    assert bench.dispatcher.case(case.key).attempt_state is AttemptState.CANCELLING
    assert bench.finished(case, verdict=Verdict.TIMEOUT, reason=reason) == (
        verdict(case, Verdict.TIMEOUT, reason),
        release(),
    )


def test_the_head_ends_a_wait_that_the_agent_does_not_end() -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    bench.waiting(case)
    assert bench.dispatcher.next_deadline == 51.5
    reason = f"{HELD}, and was not free within 50 s"
    assert bench.overdue() == (CancelCase(case_key=case.key, attempt=1, verdict=Verdict.BUSY, reason=reason),)
    assert bench.dispatcher.case(case.key).waits_for is None


def test_a_cancel_that_nobody_answers_loses_the_device() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = Bench(first, second)
    bench.ready("gpu:0")
    bench.overdue()
    assert bench.dispatcher.next_deadline == 24.0
    reason = "did not start within 20 s; its agent did not end it within 3 s"
    assert bench.overdue() == (
        verdict(second, Verdict.HOST_DOWN, reason),
        RecordAttempt(case_key=first.key, attempt=1, verdict=Verdict.HOST_DOWN, reason=reason),
        verdict(first, Verdict.HOST_DOWN, reason),
        release(),
    )
    assert bench.state() is DeviceState.LOST
    assert bench.dispatcher.is_done


def test_deadlines_that_come_together_are_all_met() -> None:
    cases = [case_on("gpu:0"), case_on("gpu:1")]
    bench = Bench(*cases)
    assert len([command for command in bench.overdue() if isinstance(command, RecordVerdict)]) == 2


def test_the_soonest_deadline_comes_first_and_a_new_one_replaces_the_old() -> None:
    deadlines = Deadlines()
    deadlines.set("a", 3.0)
    deadlines.set("b", 2.0)
    deadlines.set("a", 1.0)
    assert (deadlines.next, deadlines.of("a"), deadlines.of("c")) == (1.0, 1.0, None)
    assert deadlines.pop_due(0.5) is None
    assert deadlines.pop_due(5.0) == "a"
    deadlines.clear("c")
    deadlines.clear("b")
    assert deadlines.pop_due(5.0) is None
    assert deadlines.next is None


def test_replaced_deadlines_are_cleared_away() -> None:
    deadlines = Deadlines()
    deadlines.set("late", 1e9)
    for second in range(10_000):
        deadlines.set("a", float(second))
    assert len(deadlines) < 200
    assert deadlines.pop_due(1e9 - 1) == "a"
    assert deadlines.next == 1e9


# --- stopping ----------------------------------------------------------------------------------------------------


def test_a_stop_lets_running_cases_end_and_begins_no_other() -> None:
    running, queued, elsewhere = case_on(number=1), case_on(number=2), case_on("gpu:1")
    bench = Bench(running, queued, elsewhere)
    bench.ready("gpu:0")
    was_stopping = bench.dispatcher.stopping
    assert bench.stop() == (
        verdict(queued, Verdict.NOT_RUN, "Ctrl-C"),
        verdict(elsewhere, Verdict.NOT_RUN, "Ctrl-C"),
        release("gpu:1"),
    )
    assert (was_stopping, bench.dispatcher.stopping) == (False, True)
    assert bench.stop() == ()
    assert bench.finished(running) == (verdict(running, Verdict.OK), release("gpu:0"))
    assert bench.dispatcher.is_done


def test_a_stop_releases_devices_that_wait_for_their_host() -> None:
    first, second = case_on("gpu:0"), case_on("gpu:1")
    bench = Bench(first, second, settings=EXCLUSIVE)
    bench.ready("gpu:0", "gpu:1")
    assert bench.stop() == (verdict(second, Verdict.NOT_RUN, "Ctrl-C"), release("gpu:1"))
    assert bench.finished(first) == (verdict(first, Verdict.OK), release("gpu:0"))


def test_a_case_that_crashes_while_stopping_is_not_tried_again() -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    bench.stop()
    assert bench.finished(case, verdict=Verdict.CRASHED) == (verdict(case, Verdict.CRASHED), release())


@pytest.mark.parametrize("soft_first", [False, True])
def test_a_stop_at_once_cancels_running_cases(soft_first: bool) -> None:
    starting, running, queued = case_on("gpu:0"), case_on("gpu:1"), case_on("gpu:1", 2)
    waiting = case_on("gpu:2")
    bench = Bench(starting, running, queued, waiting)
    bench.ready("gpu:0", "gpu:1", "gpu:2")
    bench.started(running)
    bench.waiting(waiting)
    if soft_first:
        bench.stop()
    cancels = [command for command in bench.stop(now=True) if isinstance(command, CancelCase)]
    assert cancels == [
        CancelCase(case_key=case.key, attempt=1, verdict=Verdict.CANCELLED, reason="Ctrl-C")
        for case in (starting, running, waiting)
    ]
    assert bench.dispatcher.next_deadline == 9.0
    assert bench.stop(now=True) == ()
    assert bench.finished(running, verdict=Verdict.CANCELLED) == (verdict(running, Verdict.CANCELLED), release("gpu:1"))


def test_a_stop_at_once_waits_for_results_that_are_on_their_way() -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    bench.measured(case)
    assert bench.stop(now=True) == ()
    assert bench.finished(case) == (verdict(case, Verdict.OK), release())


# --- what cannot be ----------------------------------------------------------------------------------------------


def test_two_cases_of_one_key_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^two cases of the plan have the key gpu01-gpu:0-1$"):
        Dispatcher([case_on(), case_on()], SETTINGS)


def test_two_devices_of_one_id_are_refused() -> None:
    cases = [a_case(a_device("gpu01", "gpu:0", name=name)) for name in ("one", "another")]
    with pytest.raises(ValueError, match=r"^two devices of the plan are called gpu01/gpu:0$"):
        Dispatcher(cases, SETTINGS)


def test_a_run_begins_once_and_before_any_event() -> None:
    dispatcher = Dispatcher([case_on()], SETTINGS)
    with pytest.raises(RuntimeError, match=r"DeviceReady came before begin\(\)"):
        dispatcher.handle(DeviceReady(at=1.0, device_id="gpu01/gpu:0"))
    dispatcher.begin(0.0)
    with pytest.raises(RuntimeError, match="called twice"):
        dispatcher.begin(0.0)


def test_an_impossible_event_is_told_with_the_story_of_its_case() -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    bench.started(case)
    bench.finished(case, verdict=Verdict.CRASHED, at=12.5)
    with pytest.raises(ImpossibleTransitionError) as caught:
        bench.started(case, attempt=1)
    assert str(caught.value) == (
        "CaseStarted of attempt 1 cannot come while attempt 2 of case gpu01-gpu:0-1 on gpu01/gpu:0 is starting;"
        " its story so far:\n"
        "         1.000  StartCase (attempt 1)\n"
        "         2.000  CaseStarted (attempt 1)\n"
        "        12.500  CaseFinished (attempt 1)\n"
        "        12.500  StartCase (attempt 2)"
    )


def test_an_impossible_event_of_a_device_is_told_with_its_story() -> None:
    bench = Bench(case_on())
    bench.ready("gpu:0")
    with pytest.raises(ImpossibleTransitionError) as caught:
        bench.ready("gpu:0")
    assert str(caught.value) == (
        "DeviceReady cannot come while device gpu01/gpu:0 is busy; its story so far:\n"
        "         0.000  PrepareDevice\n"
        "         1.000  DeviceReady\n"
        "         1.000  StartCase"
    )


@pytest.mark.parametrize("hear", [Bench.started, Bench.measured, Bench.finished])
def test_words_of_a_case_that_was_never_begun_are_impossible(hear: Callable[[Bench, Case], object]) -> None:
    case = case_on()
    with pytest.raises(ImpossibleTransitionError, match="nothing yet"):
        hear(Bench(case), case)


@pytest.mark.parametrize("hear", [Bench.started, Bench.measured])
def test_nothing_follows_on_a_result(hear: Callable[[Bench, Case], object]) -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    bench.finished(case)
    with pytest.raises(ImpossibleTransitionError, match=r"attempt 1 of case .* is done"):
        hear(bench, case)


def test_a_result_that_comes_again_is_taken_once() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = Bench(first, second)
    bench.ready("gpu:0")
    bench.finished(first)
    assert not bench.dispatcher.awaits(first.key, 1)
    assert (bench.finished(first), bench.recovered(first)) == ((), ())
    assert bench.dispatcher.case(second.key).state is CaseState.ACTIVE


def test_a_case_starts_only_once() -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    bench.started(case)
    with pytest.raises(ImpossibleTransitionError, match="is running"):
        bench.started(case)


def test_a_case_that_has_started_waits_for_nobody() -> None:
    case = case_on()
    bench = Bench(case)
    bench.ready("gpu:0")
    with pytest.raises(ImpossibleTransitionError, match="is starting"):
        bench.granted(case)
    bench.started(case)
    with pytest.raises(ImpossibleTransitionError, match="is running"):
        bench.waiting(case)


def test_a_case_that_is_not_queued_cannot_be_begun() -> None:
    board = Board.of([case_on()])
    (record,) = board.cases.values()
    board.move_case(record, StartCase, 1.0)
    with pytest.raises(ImpossibleTransitionError, match=r"StartCase cannot come while case .* is active"):
        board.move_case(record, StartCase, 2.0)


def test_unknown_cases_and_devices_are_errors() -> None:
    bench = Bench(case_on())
    with pytest.raises(KeyError, match="elsewhere"):
        bench.hear(DeviceReady(at=1.0, device_id="elsewhere"))
    with pytest.raises(KeyError, match="gpu01-gpu:9-1"):
        bench.started(case_on("gpu:9"))
