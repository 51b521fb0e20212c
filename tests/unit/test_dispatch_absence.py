"""Devices that are lost, away and back again, and hosts that are silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.dispatch.messages import CaseFinished, DeadlinePassed, DeviceLost
from orchestrator.dispatch.policies import LONGEST_PAUSE_S, MOST_RETURNS, return_delay_s
from orchestrator.dispatch.settings import DispatchSettings, HostConcurrency
from orchestrator.dispatch.transitions import AttemptState, DeviceState
from tests.builders import a_result
from tests.unit.bench import (
    EXCLUSIVE,
    GONE,
    SETTINGS,
    Bench,
    case_on,
    host_down,
    prepare,
    release,
    start,
    verdict,
)
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.dispatch.messages import Command
    from workers.protocol import Case

#: A host's grace is 60 s, and an agent's time to come up 10 s.
NOT_BACK = f"{GONE}; not back within 60 s"
MUTE = "no sign of life from gpu01 for 60 s and more"


def at_work(*cases: Case, settings: DispatchSettings = SETTINGS) -> Bench:
    """A bench whose devices have begun their first cases."""
    bench = Bench(*cases, settings=settings)
    bench.ready(*dict.fromkeys(case.device.selector for case in cases))
    return bench


# --- lost, away, back ------------------------------------------------------------------------------------------


def test_a_lost_device_is_away_and_its_attempt_missing() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = at_work(first, second)
    assert bench.lost() == ()
    device = bench.dispatcher.device("gpu01/gpu:0")
    assert (device.state, device.queued, device.reason) == (DeviceState.AWAY, 1, GONE)
    assert bench.dispatcher.case(first.key).attempt_state is AttemptState.MISSING
    assert bench.dispatcher.next_deadline == 6.0
    assert bench.overdue() == (prepare(first),)
    assert bench.state() is DeviceState.PREPARING


def test_a_missing_attempt_of_which_nothing_is_left_is_recorded_and_made_again() -> None:
    case = case_on()
    bench = at_work(case)
    bench.lost()
    bench.overdue()
    assert bench.ready("gpu:0", at=7.0) == (host_down(case), start(case, 2))
    assert bench.dispatcher.device("gpu01/gpu:0").reason is None
    assert bench.finished(case, 2, at=20.0) == (verdict(case, Verdict.OK), release())


def test_a_missing_attempt_that_was_the_last_one_ends_its_case() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = at_work(first, second, settings=DispatchSettings(attempts=1))
    bench.lost()
    bench.overdue()
    ended = (host_down(first), verdict(first, Verdict.HOST_DOWN, GONE), start(second))
    assert bench.ready("gpu:0", at=7.0) == ended


def test_a_result_that_the_host_kept_is_taken_once() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = at_work(first, second)
    bench.lost()
    bench.overdue()
    assert bench.dispatcher.awaits(first.key, 1)
    assert bench.recovered(first) == (verdict(first, Verdict.OK),)
    assert not bench.dispatcher.awaits(first.key, 1)
    assert bench.recovered(first) == ()
    assert bench.ready("gpu:0", at=7.0) == (start(second),)


def test_a_kept_result_that_failed_is_an_attempt_like_another() -> None:
    case = case_on()
    bench = at_work(case)
    bench.lost()
    bench.overdue()
    assert bench.recovered(case, verdict=Verdict.CRASHED) == ()
    assert bench.ready("gpu:0", at=7.0) == (start(case, 2),)


def test_a_result_of_the_device_while_it_is_away_ends_what_was_left_of_it() -> None:
    case = case_on()
    bench = at_work(case)
    bench.lost()
    assert bench.finished(case, at=5.5) == (verdict(case, Verdict.OK), release())
    assert bench.state() is DeviceState.LOST
    assert bench.dispatcher.is_done


def test_a_device_that_is_away_with_other_cases_is_still_sought_after_such_a_result() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = at_work(first, second)
    bench.lost()
    assert bench.finished(first, at=5.5) == (verdict(first, Verdict.OK),)
    assert bench.overdue() == (prepare(first),)


def test_pauses_between_tries_grow_up_to_a_limit() -> None:
    assert [return_delay_s(losses) for losses in (1, 2, 3, 4, 5, 6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert return_delay_s(100_000) == LONGEST_PAUSE_S


def test_a_device_is_sought_until_its_hosts_grace_is_over() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = at_work(first, second)
    bench.lost(at=5.0)
    tried_at = []
    done: tuple[Command, ...] = bench.overdue()
    while done == (prepare(first),):
        tried_at.append(bench.at)
        bench.lost(at=bench.at)
        done = bench.overdue()
    assert tried_at == [6.0, 8.0, 12.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    assert bench.at == 65.0
    assert done == (
        verdict(second, Verdict.HOST_DOWN, NOT_BACK),
        host_down(first, reason=NOT_BACK),
        verdict(first, Verdict.HOST_DOWN, NOT_BACK),
        release(),
    )
    assert bench.dispatcher.is_done


def test_grace_may_be_longer_than_any_number_of_tries() -> None:
    case = case_on()
    bench = at_work(case, settings=DispatchSettings(host_grace_s=1000.0, queue_timeout_s=1e5))
    bench.lost(at=5.0)
    while bench.overdue() == (prepare(case),):
        bench.lost(at=bench.at)
    assert bench.at == 1005.0


def test_an_agent_that_is_brought_up_again_has_the_rest_of_the_grace() -> None:
    case = case_on()
    bench = at_work(case)
    bench.lost(at=5.0)
    bench.overdue()
    assert bench.dispatcher.next_deadline == 65.0
    assert bench.overdue() == (
        host_down(case, reason=NOT_BACK),
        verdict(case, Verdict.HOST_DOWN, NOT_BACK),
        release(),
    )


def test_a_loss_that_is_final_takes_everything_with_it() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = at_work(first, second)
    assert bench.lost(is_final=True) == (
        verdict(second, Verdict.HOST_DOWN, GONE),
        host_down(first),
        verdict(first, Verdict.HOST_DOWN, GONE),
        release(),
    )
    assert bench.state() is DeviceState.LOST
    assert bench.dispatcher.is_done


def test_a_device_lost_before_it_is_ready_is_sought_as_well() -> None:
    case = case_on()
    bench = Bench(case)
    assert bench.lost() == ()
    assert bench.overdue() == (prepare(case),)
    assert bench.ready("gpu:0", at=7.0) == (start(case),)


def test_a_device_lost_when_its_last_case_was_recovered_is_let_go() -> None:
    case = case_on()
    bench = Bench(case)
    bench.recovered(case, at=0.5)
    assert bench.lost(at=0.6) == (release(),)


def test_a_device_that_comes_back_again_and_again_and_begins_nothing_is_given_up() -> None:
    cpu, gpu = case_on("cpu"), case_on("gpu:0")
    bench = at_work(gpu, cpu, settings=DispatchSettings(case_timeout_s=1e4, start_timeout_s=1e4))
    for round_ in range(1, MOST_RETURNS + 1):
        assert bench.lost("cpu", at=30.0 * round_) == ()
        assert bench.overdue() == (prepare(cpu),)
        assert bench.ready("cpu", at=30.0 * round_ + 11) == ()
    assert bench.lost("cpu", at=500.0) == (verdict(cpu, Verdict.HOST_DOWN, GONE), release("cpu"))


def test_a_case_that_begins_ends_the_count_of_losses() -> None:
    case = case_on()
    bench = at_work(case, settings=DispatchSettings(attempts=3))
    bench.lost(at=5.0)
    bench.overdue()
    bench.lost(at=6.0)
    bench.overdue()
    bench.ready("gpu:0", at=9.0)
    bench.started(case, 2, at=10.0)
    bench.lost(at=11.0)
    assert bench.dispatcher.next_deadline == 12.0


def test_a_device_lost_in_its_hosts_line_has_its_turn_when_it_is_back() -> None:
    first, second, third = (case_on(f"gpu:{index}") for index in range(3))
    bench = at_work(first, second, third, settings=EXCLUSIVE)
    assert bench.lost("gpu:1") == ()
    assert bench.finished(first, at=5.5) == (verdict(first, Verdict.OK), release("gpu:0"), start(third))
    assert bench.overdue() == (prepare(second),)
    assert bench.ready("gpu:1", at=7.0) == ()
    assert bench.finished(third, at=9.0) == (verdict(third, Verdict.OK), release("gpu:2"), start(second))


def test_a_device_lost_in_its_hosts_line_is_not_in_line_for_a_case_that_may_not_begin_yet() -> None:
    first, other, second = case_on("gpu:1", 1), case_on("gpu:0"), case_on("gpu:1", 2)
    settings = DispatchSettings(host_concurrency=HostConcurrency.EXCLUSIVE, retry_delay_s=100.0)
    bench = at_work(first, other, second, settings=settings)
    assert bench.finished(first, verdict=Verdict.CRASHED, at=4.0) == (start(other),)
    bench.lost("gpu:1", at=5.0)
    assert bench.overdue() == (prepare(first),)
    assert bench.recovered(second) == (verdict(second, Verdict.OK),)
    assert bench.ready("gpu:1", at=7.0) == ()
    assert bench.finished(other, at=8.0) == (verdict(other, Verdict.OK), release("gpu:0"))
    assert bench.dispatcher.next_deadline == 104.0


def test_a_result_for_a_device_in_line_lets_it_leave_the_line() -> None:
    first, second = case_on("gpu:0"), case_on("gpu:1")
    bench = at_work(first, second, settings=EXCLUSIVE)
    assert bench.recovered(second, at=2.0) == (verdict(second, Verdict.OK), release("gpu:1"))
    assert bench.finished(first) == (verdict(first, Verdict.OK), release("gpu:0"))


def test_a_cpu_device_waits_for_no_gpu_that_is_away() -> None:
    cpu, gpu = case_on("cpu"), case_on("gpu:0")
    bench = Bench(cpu, gpu)
    bench.ready("cpu")
    assert bench.lost("gpu:0") == (start(cpu),)


def test_late_words_of_a_lost_device_change_nothing() -> None:
    case = case_on()
    bench = at_work(case)
    bench.lost()
    assert bench.lost() == ()
    assert bench.ready("gpu:0") == ()
    for hear in (bench.waiting, bench.granted, bench.started, bench.measured):
        assert hear(case) == ()
    bench.lost(is_final=True)
    assert bench.dispatcher.case(case.key).verdict is None


def test_late_words_of_an_attempt_that_was_given_up_change_nothing_while_the_next_one_goes_on() -> None:
    case = case_on()
    bench = at_work(case)
    bench.lost()
    bench.overdue()
    bench.ready("gpu:0", at=7.0)
    assert not bench.dispatcher.awaits(case.key, 1)
    for words in (bench.waiting(case), bench.granted(case), bench.started(case), bench.measured(case)):
        assert words == ()
    assert (bench.finished(case), bench.recovered(case)) == ((), ())
    assert bench.dispatcher.case(case.key).attempt_state is AttemptState.STARTING
    assert bench.finished(case, 2, at=9.0) == (verdict(case, Verdict.OK), release())


# --- attempts of an earlier head -------------------------------------------------------------------------------


def test_attempts_made_before_are_not_counted_again_and_their_numbers_not_given_again() -> None:
    case = case_on()
    bench = Bench(case, before={case.key: 3})
    assert bench.ready("gpu:0") == (start(case, 4),)
    assert bench.finished(case, 4, Verdict.CRASHED) == (start(case, 5),)
    assert bench.finished(case, 5, Verdict.CRASHED) == (verdict(case, Verdict.CRASHED), release())


def test_a_result_that_an_earlier_head_never_had_is_taken() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = Bench(first, second, before={first.key: 1})
    assert not bench.dispatcher.awaits(first.key, 1)
    assert bench.recovered(first, 1, at=0.5) == ()
    assert bench.dispatcher.awaits(first.key, 2)
    assert bench.recovered(first, 2, at=0.5) == (verdict(first, Verdict.OK),)
    assert bench.ready("gpu:0") == (start(second),)


def test_a_crash_that_an_earlier_head_never_heard_of_takes_none_of_this_ones_attempts() -> None:
    case = case_on()
    bench = Bench(case)
    assert bench.recovered(case, 1, Verdict.CRASHED, at=0.5) == ()
    assert bench.ready("gpu:0") == (start(case, 2),)
    assert bench.finished(case, 2, Verdict.CRASHED) == (start(case, 3),)


def test_results_of_cases_that_an_earlier_head_ended_are_not_awaited() -> None:
    case, ended = case_on(number=1), case_on(number=2)
    bench = Bench(case)
    assert not bench.dispatcher.awaits(ended.key, 1)
    assert bench.recovered(ended, at=0.5) == ()
    late = CaseFinished(at=0.6, case_key=ended.key, attempt=1, result=a_result(ended))
    assert bench.hear(late) == ()


# --- hosts that are silent -------------------------------------------------------------------------------------


def test_a_silent_host_begins_nothing_and_waits_for_nothing_but_its_grace() -> None:
    first, second = case_on("gpu:0", 1), case_on("gpu:1", 2)
    bench = Bench(first, second)
    bench.ready("gpu:0")
    assert bench.silent(at=5.0) == ()
    assert bench.dispatcher.next_deadline == 65.0
    assert bench.ready("gpu:1", at=6.0) == ()
    assert bench.silent(at=7.0) == ()
    assert bench.dispatcher.next_deadline == 65.0
    assert bench.heard(at=30.0) == (start(second),)
    assert bench.dispatcher.next_deadline == 50.0


@pytest.mark.parametrize(
    ("reached", "deadline"),
    [((), 50.0), ((Bench.waiting,), 80.0), ((Bench.started,), 130.0), ((Bench.measured,), 35.0)],
)
def test_waits_begin_anew_when_a_host_is_heard_again(
    reached: tuple[Callable[[Bench, Case], object], ...], deadline: float
) -> None:
    case = case_on()
    bench = at_work(case)
    for step in reached:
        step(bench, case)
    bench.silent()
    assert bench.heard(at=30.0) == ()
    assert bench.heard(at=30.0) == ()
    assert bench.dispatcher.next_deadline == deadline


def test_a_cancel_has_its_time_anew_when_its_host_is_heard_again() -> None:
    case = case_on()
    bench = at_work(case)
    bench.overdue()
    bench.silent(at=22.0)
    bench.heard(at=40.0)
    assert bench.dispatcher.next_deadline == 43.0


def test_an_agent_that_comes_up_has_its_time_anew_when_its_host_is_heard_again() -> None:
    bench = Bench(case_on())
    bench.silent()
    bench.heard(at=30.0)
    assert bench.dispatcher.next_deadline == 40.0


def test_a_host_that_stays_silent_is_down_with_all_that_is_on_it() -> None:
    running, queued, elsewhere = case_on("gpu:0", 1), case_on("gpu:0", 2), case_on("gpu:1", 3)
    ended = case_on("gpu:2")
    bench = Bench(running, queued, elsewhere, ended)
    bench.ready("gpu:0", "gpu:2")
    bench.finished(ended)
    bench.silent()
    assert bench.overdue() == (
        verdict(queued, Verdict.HOST_DOWN, MUTE),
        host_down(running, reason=MUTE),
        verdict(running, Verdict.HOST_DOWN, MUTE),
        release("gpu:0"),
        verdict(elsewhere, Verdict.HOST_DOWN, MUTE),
        release("gpu:1"),
    )
    assert bench.dispatcher.is_done
    assert bench.silent(at=70.0) == ()
    assert bench.finished(running, at=71.0) == ()


def test_results_that_come_from_a_silent_host_are_taken_and_no_case_begins_there() -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = at_work(first, second)
    bench.silent()
    assert bench.finished(first, at=6.0) == (verdict(first, Verdict.OK),)
    assert bench.heard(at=7.0) == (start(second),)


def test_silence_ends_with_the_last_agent_of_the_host() -> None:
    first, second = case_on("gpu:0"), case_on("gpu:1")
    bench = at_work(first, second)
    bench.silent(at=5.0)
    assert bench.lost("gpu:0", at=8.0) == ()
    assert bench.dispatcher.next_deadline == 65.0
    assert bench.lost("gpu:1", at=9.0) == ()
    # Its devices are sought one by one now, and their grace is that of the host.
    assert bench.dispatcher.next_deadline == 9.0
    assert set(bench.overdue()) == {prepare(first), prepare(second)}
    assert bench.dispatcher.next_deadline == 65.0


def test_silence_ends_with_the_last_case_of_the_host() -> None:
    case, away = case_on("gpu:0"), case_on("gpu:1")
    bench = at_work(case, away)
    bench.lost("gpu:1", at=5.0)
    bench.silent(at=5.5)
    assert bench.finished(case, at=6.0) == (verdict(case, Verdict.OK), release("gpu:0"))
    assert bench.dispatcher.next_deadline == 6.0


def test_a_host_whose_devices_are_all_away_is_not_silent_as_well() -> None:
    case = case_on()
    bench = at_work(case)
    bench.lost(at=5.0)
    assert bench.silent(at=5.5) == ()
    assert bench.overdue() == (prepare(case),)


def test_a_device_that_was_away_while_its_host_was_silent_has_its_grace_anew() -> None:
    case, away = case_on("gpu:0"), case_on("gpu:1")
    bench = at_work(case, away)
    bench.lost("gpu:1", at=5.0)
    bench.silent(at=5.5)
    assert bench.heard(at=65.2) == ()
    assert bench.overdue() == (prepare(away),)
    assert bench.at == 65.2


def test_a_case_that_may_not_begin_yet_waits_on_when_its_host_is_heard_again() -> None:
    case = case_on()
    bench = at_work(case, settings=DispatchSettings(retry_delay_s=100.0))
    bench.finished(case, verdict=Verdict.CRASHED, at=4.0)
    bench.silent(at=5.0)
    assert bench.heard(at=30.0) == ()
    assert bench.dispatcher.next_deadline == 104.0
    assert bench.overdue() == (start(case, 2),)


# --- and somebody stops the run --------------------------------------------------------------------------------


@pytest.mark.parametrize("now", [False, True])
def test_nobody_waits_for_what_is_away_when_the_run_is_stopped(now: bool) -> None:
    first, second = case_on(number=1), case_on(number=2)
    bench = at_work(first, second)
    bench.lost()
    reason = f"{GONE}; Ctrl-C"
    assert bench.stop(now=now) == (
        verdict(second, Verdict.NOT_RUN, "Ctrl-C"),
        host_down(first, reason=reason),
        verdict(first, Verdict.CANCELLED, reason),
        release(),
    )
    assert bench.dispatcher.is_done


def test_a_device_that_is_away_without_an_attempt_is_let_go_when_the_run_is_stopped() -> None:
    case = case_on()
    bench = Bench(case)
    bench.lost()
    assert bench.stop() == (verdict(case, Verdict.NOT_RUN, "Ctrl-C"), release())


def test_a_device_that_is_lost_while_stopping_is_not_sought() -> None:
    case = case_on()
    bench = at_work(case)
    bench.stop(at=4.0)
    reason = f"{GONE}; Ctrl-C"
    assert bench.lost() == (host_down(case, reason=reason), verdict(case, Verdict.CANCELLED, reason), release())


def test_a_silent_host_is_waited_for_by_a_stop_and_not_by_one_at_once() -> None:
    running, idle = case_on("gpu:0"), case_on("gpu:1")
    bench = at_work(running, idle, settings=EXCLUSIVE)
    bench.silent()
    assert bench.stop() == (verdict(idle, Verdict.NOT_RUN, "Ctrl-C"), release("gpu:1"))
    reason = "gpu01 is silent; Ctrl-C"
    assert bench.stop(now=True) == (
        host_down(running, reason=reason),
        verdict(running, Verdict.CANCELLED, reason),
        release("gpu:0"),
    )
    assert bench.dispatcher.is_done


def test_a_stop_begins_nothing_on_a_host_that_becomes_free_by_it() -> None:
    away, waiting = case_on("gpu:0"), case_on("cpu")
    bench = Bench(away, waiting)
    bench.ready("gpu:0")
    bench.lost("gpu:0")
    bench.overdue()
    assert bench.ready("cpu", at=7.0) == ()  # for the agent of the GPU is starting
    assert start(waiting) not in bench.stop(at=8.0)
    assert bench.dispatcher.is_done


def test_a_stop_that_comes_with_a_result_comes_after_it() -> None:
    case, following = case_on(number=1), case_on(number=2)
    bench = at_work(case, following)
    bench.lost()
    bench.overdue()
    commands = bench.recovered_and_stopped(case)
    assert commands == (
        verdict(case, Verdict.OK),
        verdict(following, Verdict.NOT_RUN, "Ctrl-C"),
        release(),
    )


def test_deadlines_that_pass_together_end_hosts_and_devices() -> None:
    silent, away = case_on("gpu:0"), case_on("gpu:0", host="attic")
    bench = Bench(silent, away, settings=DispatchSettings(host_concurrency=HostConcurrency.TOGETHER))
    bench.ready("gpu:0")
    bench.ready("gpu:0", host="attic")
    bench.silent(at=5.0)
    bench.hear(DeviceLost(at=5.0, device_id="attic/gpu:0", reason=GONE))
    bench.hear(DeadlinePassed(at=65.0))
    assert bench.dispatcher.is_done
