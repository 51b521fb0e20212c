from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.cli.progress.picture import Activity, Picture
from orchestrator.dispatch.messages import (
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeviceLost,
    DeviceReady,
    HostHeard,
    HostSilent,
    PrepareDevice,
    RecordAttempt,
    RecordVerdict,
    ReleaseDevice,
    StartCase,
    StopRequested,
)
from tests.builders import a_case, a_device, a_result, a_workload
from workers.protocol import Phase, Progress, Verdict

if TYPE_CHECKING:
    from orchestrator.cli.progress.picture import Seen
    from workers.protocol import Case


class Clock:
    """Stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def picture(clock: Clock) -> Picture:
    return Picture(clock)


def cases_of(*devices: str, each: int = 1) -> list[Case]:
    """Cases on the GPUs of one host, device by device; their keys are ``selector#number``."""
    return [
        a_case(a_device("a", device), a_workload(batch_size=2**number), key=f"{device}#{number}")
        for device in devices
        for number in range(each)
    ]


def begin(picture: Picture, case: Case, attempt: int = 1) -> Seen:
    picture.heard(StartCase(case=case, attempt=attempt))
    return picture.devices[case.device.id]


def end(picture: Picture, case: Case, verdict: Verdict = Verdict.OK) -> None:
    picture.heard(CaseFinished(at=0.0, case_key=case.key, attempt=1, result=a_result(case, verdict=verdict)))
    picture.heard(RecordVerdict(case_key=case.key, verdict=verdict, reason=None))


def progress(case: Case, phase: Phase, step: int = 0, last_ms: float | None = None, attempt: int = 1) -> Progress:
    return Progress(case_key=case.key, attempt=attempt, phase=phase, step=step, max_steps=100, last_ms=last_ms)


def test_a_device_goes_from_its_agent_to_its_last_case(picture: Picture) -> None:
    (case,) = cases_of("gpu:0")
    picture.expect([case], {})
    seen = picture.devices["a/gpu:0"]
    activities = [seen.activity]
    for news in (
        PrepareDevice(device=case.device),
        DeviceReady(at=0.0, device_id="a/gpu:0"),
        StartCase(case=case, attempt=1),
        CaseWaiting(at=0.0, case_key=case.key, attempt=1, reason="held by ann"),
        CaseGranted(at=0.0, case_key=case.key, attempt=1),
        CaseStarted(at=0.0, case_key=case.key, attempt=1),
        CaseMeasured(at=0.0, case_key=case.key, attempt=1),
        CaseFinished(at=0.0, case_key=case.key, attempt=1, result=a_result(case)),
        RecordVerdict(case_key=case.key, verdict=Verdict.OK, reason=None),
        ReleaseDevice(device_id="a/gpu:0"),
    ):
        picture.heard(news)
        activities.append(seen.activity)
    assert activities == [
        Activity.QUEUED,
        Activity.PREPARING,
        Activity.QUEUED,
        Activity.STARTING,
        Activity.WAITING,
        Activity.STARTING,
        Activity.MEASURING,
        Activity.MEASURING,
        Activity.QUEUED,
        Activity.QUEUED,
        Activity.DONE,
    ]
    assert picture.done == picture.total == 1


@pytest.mark.parametrize(
    ("phase", "doing", "activity"),
    [
        (Phase.IMPORT, "importing", Activity.STARTING),
        (Phase.BUILD, "building", Activity.STARTING),
        (Phase.WARMUP, "warming up", Activity.MEASURING),
        (Phase.MEASURE, "measuring", Activity.MEASURING),
        (Phase.PEAK, "peak", Activity.MEASURING),
    ],
)
def test_every_phase_has_its_words(picture: Picture, phase: Phase, doing: str, activity: Activity) -> None:
    (case,) = cases_of("gpu:0")
    picture.expect([case], {})
    seen = begin(picture, case)
    picture.heard(progress(case, phase))
    assert seen.active is not None
    assert (seen.active.doing, seen.activity) == (doing, activity)


def test_a_device_that_is_lost_says_why_and_does_not_come_back(picture: Picture) -> None:
    (case,) = cases_of("gpu:0")
    picture.expect([case], {})
    seen = begin(picture, case)
    picture.heard(DeviceLost(at=0.0, device_id="a/gpu:0", reason="no answer"))
    picture.heard(RecordAttempt(case_key=case.key, attempt=1, verdict=Verdict.HOST_DOWN, reason="no answer"))
    picture.heard(RecordVerdict(case_key=case.key, verdict=Verdict.HOST_DOWN, reason="no answer"))
    picture.heard(ReleaseDevice(device_id="a/gpu:0"))
    picture.heard(progress(case, Phase.MEASURE, 3))
    assert (seen.activity, seen.reason, seen.active) == (Activity.LOST, "no answer", None)
    assert (picture.done, picture.failed) == (1, 1)


def test_a_device_that_was_given_up_is_lost_too(picture: Picture) -> None:
    first, second = cases_of("gpu:0", each=2)
    picture.expect([first, second], {})
    seen = begin(picture, first)
    picture.heard(RecordAttempt(case_key=first.key, attempt=1, verdict=Verdict.HOST_DOWN, reason="silent"))
    for case in (first, second):
        picture.heard(RecordVerdict(case_key=case.key, verdict=Verdict.HOST_DOWN, reason="silent"))
    picture.heard(ReleaseDevice(device_id="a/gpu:0"))
    assert (seen.activity, seen.reason) == (Activity.LOST, "silent")
    assert picture.failed == 2


def test_what_is_heard_of_an_attempt_that_is_over_changes_nothing(picture: Picture) -> None:
    (case,) = cases_of("gpu:0")
    picture.expect([case], {})
    seen = begin(picture, case, attempt=2)
    picture.heard(progress(case, Phase.MEASURE, 3, attempt=1))
    picture.heard(CaseMeasured(at=0.0, case_key=case.key, attempt=1))
    assert seen.active is not None
    assert (seen.active.doing, seen.active.steps) == ("starting", None)


def test_news_of_what_is_not_expected_change_nothing(picture: Picture) -> None:
    stranger = a_case(a_device("z", "gpu:0"))
    picture.heard(PrepareDevice(device=stranger.device))
    picture.heard(StartCase(case=stranger, attempt=1))
    picture.heard(RecordVerdict(case_key=stranger.key, verdict=Verdict.OK, reason=None))
    picture.heard(StopRequested(at=0.0, now=True, reason="Ctrl-C"))
    assert (picture.devices, picture.done, picture.total) == ({}, 0, 0)


# --- how much longer -------------------------------------------------------------------------------------------


def test_nobody_knows_how_long_cases_take_that_were_never_run(picture: Picture) -> None:
    picture.expect(cases_of("gpu:0"), {})
    assert picture.left_s is None


def test_estimates_tell_how_long_it_takes_before_anything_has_ended(picture: Picture, clock: Clock) -> None:
    cases = cases_of("gpu:0", "gpu:1", each=2)
    picture.expect(cases, {case.key: 10.0 for case in cases})
    assert picture.left_s == 20.0
    begin(picture, cases[0])
    clock.now += 4.0
    # gpu:1 has not begun and has 20 s to come.
    assert picture.left_s == 20.0
    begin(picture, cases[2])
    clock.now += 4.0
    assert picture.left_s == pytest.approx(16.0)


def test_the_pace_of_a_device_holds_for_what_it_has_to_come(picture: Picture, clock: Clock) -> None:
    cases = cases_of("gpu:0", each=3)
    picture.expect(cases, {})
    begin(picture, cases[0])
    clock.now += 7.0
    end(picture, cases[0])
    assert picture.left_s == 14.0


def test_the_pace_of_one_device_holds_for_others_of_its_name(picture: Picture, clock: Clock) -> None:
    cases = cases_of("gpu:0", "gpu:1", each=2)
    picture.expect(cases, {})
    begin(picture, cases[0])
    clock.now += 7.0
    end(picture, cases[0])
    assert picture.left_s == 14.0


def test_failures_give_no_pace(picture: Picture, clock: Clock) -> None:
    first, second = cases_of("gpu:0", each=2)
    picture.expect([first, second], {})
    begin(picture, first)
    clock.now += 1.0
    end(picture, first, Verdict.OOM)
    assert picture.left_s is None
    assert picture.devices["a/gpu:0"].failed == 1


def test_a_wait_has_no_end_that_is_known_and_does_not_count_as_the_case_s_time(picture: Picture, clock: Clock) -> None:
    (case,) = cases_of("gpu:0")
    picture.expect([case], {case.key: 10.0})
    seen = begin(picture, case)
    picture.heard(CaseWaiting(at=0.0, case_key=case.key, attempt=1, reason="held by ann"))
    assert (picture.case_left_s(seen), picture.left_s) == (None, None)
    clock.now += 500.0
    picture.heard(CaseGranted(at=0.0, case_key=case.key, attempt=1))
    assert (picture.case_left_s(seen), picture.left_s) == (10.0, 10.0)


def test_counted_steps_tell_more_than_an_estimate(picture: Picture, clock: Clock) -> None:
    (case,) = cases_of("gpu:0")
    picture.expect([case], {case.key: 500.0})
    seen = begin(picture, case)
    picture.heard(progress(case, Phase.MEASURE, 10, last_ms=100.0))
    clock.now += 1.0
    picture.heard(progress(case, Phase.MEASURE, 20, last_ms=100.0))
    assert picture.case_left_s(seen) == pytest.approx(8.0)
    picture.heard(progress(case, Phase.PEAK, 100))
    assert picture.case_left_s(seen) == 0.0


def test_another_attempt_has_its_time_to_come_again(picture: Picture, clock: Clock) -> None:
    (case,) = cases_of("gpu:0")
    picture.expect([case], {case.key: 10.0})
    begin(picture, case)
    clock.now += 9.0
    crashed = a_result(case, verdict=Verdict.CRASHED)
    picture.heard(CaseFinished(at=0.0, case_key=case.key, attempt=1, result=crashed))
    assert picture.left_s == 10.0


def test_a_device_that_is_lost_has_nothing_to_come(picture: Picture) -> None:
    (case,) = cases_of("gpu:0")
    picture.expect([case], {case.key: 10.0})
    picture.heard(DeviceLost(at=0.0, device_id="a/gpu:0", reason="gone", is_final=True))
    assert picture.left_s == 0.0


# --- away, lost, silent ----------------------------------------------------------------------------------------


def test_a_device_that_is_away_is_so_until_it_is_back(picture: Picture) -> None:
    first, second = cases_of("gpu:0", each=2)
    picture.expect([first, second], {first.key: 10.0, second.key: 5.0})
    seen = begin(picture, first)
    picture.heard(DeviceLost(at=0.0, device_id="a/gpu:0", reason="gone"))
    assert (seen.activity, seen.reason, picture.left_s) == (Activity.AWAY, "gone", 15.0)
    picture.heard(PrepareDevice(device=first.device))
    assert seen.activity is Activity.AWAY
    picture.heard(DeviceReady(at=0.0, device_id="a/gpu:0"))
    assert (seen.activity, seen.reason) == (Activity.QUEUED, None)


def test_a_device_that_is_back_is_not_lost_with_the_case_that_it_cost(picture: Picture) -> None:
    first, second = cases_of("gpu:0", each=2)
    picture.expect([first, second], {})
    seen = begin(picture, first)
    for news in (
        DeviceLost(at=0.0, device_id="a/gpu:0", reason="gone"),
        DeviceReady(at=0.0, device_id="a/gpu:0"),
        RecordAttempt(case_key=first.key, attempt=1, verdict=Verdict.HOST_DOWN, reason="gone"),
        RecordVerdict(case_key=first.key, verdict=Verdict.HOST_DOWN, reason="gone"),
        StartCase(case=second, attempt=1),
        CaseFinished(at=0.0, case_key=second.key, attempt=1, result=a_result(second)),
        RecordVerdict(case_key=second.key, verdict=Verdict.OK, reason=None),
        ReleaseDevice(device_id="a/gpu:0"),
    ):
        picture.heard(news)
    assert (seen.activity, seen.failed, picture.failed) == (Activity.DONE, 1, 1)


def test_a_device_that_is_not_back_in_time_is_lost(picture: Picture) -> None:
    (case,) = cases_of("gpu:0")
    picture.expect([case], {})
    seen = picture.devices["a/gpu:0"]
    for news in (
        DeviceLost(at=0.0, device_id="a/gpu:0", reason="gone"),
        RecordVerdict(case_key=case.key, verdict=Verdict.HOST_DOWN, reason="gone; not back within 60 s"),
        ReleaseDevice(device_id="a/gpu:0"),
    ):
        picture.heard(news)
    assert (seen.activity, seen.reason) == (Activity.LOST, "gone; not back within 60 s")


def test_hosts_are_silent_until_they_are_heard(picture: Picture) -> None:
    picture.heard(HostSilent(at=0.0, host="a"))
    assert picture.silent == {"a"}
    picture.heard(HostHeard(at=0.0, host="a"))
    assert picture.silent == set()


# --- stages ----------------------------------------------------------------------------------------------------


def test_a_stage_is_news_once_and_gone_when_all_is_done(picture: Picture) -> None:
    assert picture.stage("reaching hosts", 0, 2)
    assert not picture.stage("reaching hosts", 1, 2)
    assert picture.stages == {"reaching hosts": (1, 2)}
    picture.stage("reaching hosts", 2, 2)
    assert picture.stages == {}


def test_stages_that_are_counted_stand_beside_each_other(picture: Picture) -> None:
    picture.stage("bringing wheels to a", 1, 9)
    picture.stage("bringing wheels to b", 3, 9)
    picture.stage("bringing wheels to a", 2, 9)
    assert picture.stages == {"bringing wheels to a": (2, 9), "bringing wheels to b": (3, 9)}


def test_a_stage_that_is_not_counted_gives_way_to_the_next(picture: Picture) -> None:
    picture.stage("installing on a", None, None)
    picture.stage("installing on b", None, None)
    assert list(picture.stages) == ["installing on b"]
    picture.stage("starting Ray", 0, 3)
    assert list(picture.stages) == ["starting Ray"]


def test_stages_are_over_when_devices_are_prepared(picture: Picture) -> None:
    (case,) = cases_of("gpu:0")
    picture.expect([case], {})
    picture.stage("starting Ray", 1, 3)
    picture.heard(PrepareDevice(device=case.device))
    assert picture.stages == {}
