from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.progress.news import Teller, Tone
from orchestrator.dispatch.messages import (
    CancelCase,
    CaseFinished,
    CaseGranted,
    CaseStarted,
    CaseWaiting,
    DeviceLost,
    DeviceReady,
    HostHeard,
    HostSilent,
    PutAside,
    RecordAttempt,
    RecordVerdict,
    ReleaseDevice,
    ResultRecovered,
    StartCase,
    StopRequested,
)
from tests.builders import a_case, a_device, a_result
from workers.protocol import Verdict

if TYPE_CHECKING:
    from orchestrator.dispatch.messages import Command, Event
    from workers.protocol import Case

NAME = "localhost/cpu: alexnet forward b128 float32"


def a_teller(*cases: Case) -> Teller:
    return Teller({case.key: case for case in cases})


def texts(teller: Teller, *news: Event | Command) -> list[str]:
    """What was told at once, without what is held back."""
    return [told.text for each in news for told in teller.heard(each)]


def not_run(case: Case, reason: str = "stopped") -> RecordVerdict:
    return RecordVerdict(case_key=case.key, verdict=Verdict.NOT_RUN, reason=reason)


def finished(case: Case, verdict: Verdict, reason: str | None = None, attempt: int = 1) -> CaseFinished:
    result = a_result(case, attempt, verdict=verdict, reason=reason)
    return CaseFinished(at=1.0, case_key=case.key, attempt=attempt, result=result)


def test_a_figure_is_told_with_its_verdict() -> None:
    case = a_case()
    teller = a_teller(case)
    assert texts(teller, finished(case, Verdict.OK)) == []
    (told,) = teller.heard(RecordVerdict(case_key=case.key, verdict=Verdict.OK, reason=None))
    assert (told.text, told.tone) == (f"{NAME}: 100 ms a step over 3 steps", Tone.FIGURE)


def test_a_doubtful_figure_says_why() -> None:
    case = a_case()
    teller = a_teller(case)
    teller.heard(finished(case, Verdict.NOISY))
    (told,) = teller.heard(RecordVerdict(case_key=case.key, verdict=Verdict.NOISY, reason="wide"))
    assert (told.text, told.tone) == (f"{NAME}: 100 ms a step over 3 steps: noisy: wide", Tone.DOUBTFUL)


def test_a_crash_is_told_when_it_comes_and_not_when_the_next_attempt_begins() -> None:
    case = a_case()
    teller = a_teller(case)
    (crashed,) = teller.heard(finished(case, Verdict.CRASHED, "SIGSEGV"))
    (again,) = teller.heard(StartCase(case=case, attempt=2))
    assert crashed.text == f"{NAME}: attempt 1 crashed: SIGSEGV"
    assert again.text == f"{NAME}: starting (attempt 2)"
    assert crashed.tone is again.tone is Tone.DOUBTFUL


def test_a_wait_says_for_whom_and_when_it_is_over() -> None:
    case = a_case()
    assert texts(
        a_teller(case),
        CaseWaiting(at=1.0, case_key=case.key, attempt=1, reason="held by ann"),
        CaseGranted(at=9.0, case_key=case.key, attempt=1),
        CaseStarted(at=10.0, case_key=case.key, attempt=1),
    ) == [f"{NAME}: waiting: held by ann", f"{NAME}: starting, the wait is over"]


def test_cases_that_a_stop_ends_together_are_one_line() -> None:
    one, two, three = (a_case(a_device(host, "gpu:0"), key=host) for host in ("a", "b", "c"))
    teller = a_teller(one, two, three)
    stop = StopRequested(at=1.0, now=True, reason="stopped")
    cancel = CancelCase(case_key="b", attempt=1, verdict=Verdict.CANCELLED, reason="stopped")
    told = texts(teller, stop, not_run(one), cancel, not_run(two), ReleaseDevice(device_id="a"), not_run(three))
    assert told == ["stopping: stopped"]
    assert [each.text for each in teller.rest()] == ["3 cases on 3 devices: not_run: stopped"]
    assert teller.rest() == ()


def test_cases_of_one_device_that_end_together_name_it() -> None:
    first, second = a_case(key="1"), a_case(key="2")
    teller = a_teller(first, second)
    lost = DeviceLost(at=1.0, device_id="localhost/cpu", reason="gone", is_final=True)
    ends = [RecordVerdict(case_key=key, verdict=Verdict.HOST_DOWN, reason="gone") for key in ("1", "2")]
    assert texts(teller, lost, *ends) == ["localhost/cpu: lost: gone"]
    assert [each.text for each in teller.rest()] == ["localhost/cpu: 2 cases: host_down: gone"]


def test_what_ended_for_another_reason_is_another_line() -> None:
    first, second = a_case(key="1"), a_case(key="2")
    assert texts(a_teller(first, second), not_run(first, "one"), not_run(second, "two")) == [f"{NAME}: not_run: one"]


def test_other_news_come_after_what_was_held_back() -> None:
    first, second = a_case(key="1"), a_case(key="2")
    assert texts(a_teller(first, second), not_run(first), StartCase(case=second, attempt=1)) == [
        f"{NAME}: not_run: stopped",
        f"{NAME}: starting",
    ]


def test_a_failure_is_told_at_once_and_after_what_was_held_back() -> None:
    first, second = a_case(key="1"), a_case(key="2")
    oom = RecordVerdict(case_key="2", verdict=Verdict.OOM, reason="too large")
    assert texts(a_teller(first, second), not_run(first), oom) == [
        f"{NAME}: not_run: stopped",
        f"{NAME}: oom: too large",
    ]


def test_a_device_that_is_away_is_told_of_once_and_when_it_is_back() -> None:
    case = a_case()
    teller = a_teller(case)
    ready = DeviceReady(at=3.0, device_id="localhost/cpu")
    away = DeviceLost(at=1.0, device_id="localhost/cpu", reason="the agent died")
    still = DeviceLost(at=2.0, device_id="localhost/cpu", reason="cannot be reached")
    assert texts(teller, ready) == []
    assert texts(teller, away, still, ready, ready) == ["localhost/cpu: away: the agent died", "localhost/cpu: back"]
    assert texts(teller, RecordAttempt(case_key=case.key, attempt=1, verdict=Verdict.HOST_DOWN, reason="died")) == []
    assert texts(teller, StartCase(case=case, attempt=2)) == [
        f"{NAME}: starting (attempt 2): attempt 1 host_down: died"
    ]


def test_a_host_is_told_of_when_it_is_silent_and_heard_again() -> None:
    assert texts(a_teller(), HostSilent(at=1.0, host="gpu01"), HostHeard(at=9.0, host="gpu01")) == [
        "gpu01: silent, no sign of life",
        "gpu01: heard again",
    ]


def test_what_is_put_aside_is_told_before_the_cases_that_it_costs() -> None:
    case = a_case()
    teller = a_teller(case)
    aside = PutAside(target="localhost", failures=3, reason="SIGSEGV")
    told = "localhost: put aside after 3 failures in a row, the last: SIGSEGV"
    assert texts(teller, aside, not_run(case, "put aside")) == [told]


def test_a_result_that_was_found_on_its_host_is_told_with_its_figure() -> None:
    case = a_case()
    found = ResultRecovered(at=1.0, case_key=case.key, attempt=2, result=a_result(case, 2))
    ok = RecordVerdict(case_key=case.key, verdict=Verdict.OK, reason=None)
    assert texts(a_teller(case), found, ok) == [
        f"{NAME}: result of attempt 2 found on its host",
        f"{NAME}: 100 ms a step over 3 steps",
    ]
    assert texts(a_teller(), found) == []


def test_what_comes_from_hosts_cannot_steer_the_terminal() -> None:
    case = a_case()
    oom = RecordVerdict(case_key=case.key, verdict=Verdict.OOM, reason="a\x1b[2Jb\nc")
    assert texts(a_teller(case), oom) == [f"{NAME}: oom: a\\x1b[2Jb c"]
