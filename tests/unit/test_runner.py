from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.dispatch.messages import (
    AcknowledgeResult,
    CaseFinished,
    PutAside,
    RecordVerdict,
    ResultRecovered,
    StartCase,
)
from orchestrator.dispatch.settings import DispatchSettings
from orchestrator.engine.simulated import Fault, SimulatedEngine
from orchestrator.errors import StoreFullError
from orchestrator.results import Attempt, CaseResult
from orchestrator.runner import Outcome, Runner, Stopper
from tests.builders import a_case, a_device, a_result, a_sampling, a_workload
from workers.protocol import Pass, Progress, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.dispatch.messages import Command, Event
    from orchestrator.engine.base import Act, Occurrence
    from orchestrator.runner import Judge, Listener
    from workers.protocol import Case, Result


class Journal:
    """A recorder and a listener at once: one list of what happened, in order."""

    def __init__(self, *, full_after: int | None = None) -> None:
        self.lines: list[str] = []
        self.attempts: list[Result] = []
        self.late: list[Result] = []
        self.verdicts: dict[str, Verdict] = {}
        self.full_after = full_after

    def save_attempt(self, run_id: str, result: Result) -> None:
        if self.full_after is not None and len(self.attempts) >= self.full_after:
            raise StoreFullError("no space left", remedy="make room")
        self.attempts.append(result)
        self.lines.append(f"{run_id} saved {result.case_key}")

    def save_verdict(self, run_id: str, case_key: str, verdict: Verdict, reason: str | None) -> None:
        self.verdicts[case_key] = verdict
        self.lines.append(f"{run_id} verdict {case_key} {verdict.value}")

    def save_late(self, run_id: str, result: Result) -> bool:
        self.late.append(result)
        self.lines.append(f"{run_id} late {result.case_key}")
        return True

    def put_aside(self, run_id: str, command: PutAside) -> None:
        self.lines.append(f"{run_id} put aside {command.target}")

    def heard(self, news: Event | Progress | Command) -> None:
        if isinstance(news, StartCase):
            self.lines.append(f"start {news.case.key}")


def _cases(hosts: int = 1, passes: int = 2) -> list[Case]:
    return [
        a_case(
            device=a_device(host=f"h{host}"),
            workload=a_workload(pass_=list(Pass)[i]),
            sampling=a_sampling(warmup=1, min_steps=5, max_steps=5),
            key=f"h{host}-{i}",
        )
        for host in range(hosts)
        for i in range(passes)
    ]


def _run(
    cases: Sequence[Case],
    journal: Journal,
    *,
    engine: SimulatedEngine | None = None,
    stopper: Stopper | None = None,
    listeners: Sequence[Listener] = (),
    settings: DispatchSettings | None = None,
    earlier: Mapping[str, CaseResult] | None = None,
    judge: Judge | None = None,
) -> Outcome:
    async def drive() -> Outcome:
        runner = Runner(
            run_id="r",
            cases=cases,
            settings=settings or DispatchSettings(attempts=2),
            engine=engine or SimulatedEngine(),
            recorder=journal,
            listeners=(journal, *listeners),
            stopper=stopper,
            earlier=earlier,
            judge=judge,
        )
        return await runner.run()

    return asyncio.run(drive())


def test_every_case_ends_with_its_result_in_the_store_and_in_the_outcome() -> None:
    journal = Journal()
    outcome = _run(_cases(hosts=2), journal)
    assert [result.case.key for result in outcome.cases] == ["h0-0", "h0-1", "h1-0", "h1-1"]
    assert [result.position for result in outcome.cases] == [0, 1, 2, 3]
    assert journal.verdicts == dict.fromkeys(["h0-0", "h0-1", "h1-0", "h1-1"], Verdict.OK)
    assert all(len(result.attempts[0].result.samples_ms) == 5 for result in outcome.cases)
    assert outcome.store_error is None


def test_a_result_is_saved_before_its_device_gets_the_next_case() -> None:
    journal = Journal()
    _run(_cases(), journal)
    assert journal.lines == [
        "start h0-0",
        "r saved h0-0",
        "r verdict h0-0 ok",
        "start h0-1",
        "r saved h0-1",
        "r verdict h0-1 ok",
    ]


def test_every_attempt_is_kept_also_when_a_later_one_passed() -> None:
    journal = Journal()
    engine = SimulatedEngine(faults={"h0-0": Fault(crash_on_attempts=(1,))})
    outcome = _run(_cases(), journal, engine=engine)
    first = outcome.cases[0]
    assert [(a.number, a.result.verdict) for a in first.attempts] == [(1, Verdict.CRASHED), (2, Verdict.OK)]
    assert first.verdict is Verdict.OK
    assert [result.attempt for result in journal.attempts if result.case_key == "h0-0"] == [1, 2]


def test_a_device_that_goes_away_leaves_a_recorded_attempt_and_reasons() -> None:
    journal = Journal()
    engine = SimulatedEngine(faults={"h0/cpu": Fault(lost_after_s=4.0)})
    outcome = _run(_cases(), journal, engine=engine)
    assert [result.verdict for result in outcome.cases] == [Verdict.HOST_DOWN, Verdict.HOST_DOWN]
    assert [result.verdict for result in journal.attempts] == [Verdict.HOST_DOWN]
    assert all(result.reason for result in outcome.cases)


def test_a_child_that_hangs_is_ended_at_its_deadline_and_the_next_case_runs() -> None:
    journal = Journal()
    outcome = _run(_cases(), journal, engine=SimulatedEngine(faults={"h0-0": Fault(hangs=True)}))
    assert [result.verdict for result in outcome.cases] == [Verdict.TIMEOUT, Verdict.OK]


@pytest.mark.parametrize(("now", "first"), [(True, Verdict.CANCELLED), (False, Verdict.OK)])
def test_a_stop_ends_the_run_and_keeps_what_there_is(now: bool, first: Verdict) -> None:
    async def drive() -> Outcome:
        stopper = Stopper()

        class StopAtFirstProgress:
            def heard(self, news: Event | Progress | Command) -> None:
                if isinstance(news, Progress):
                    stopper.ask("Ctrl-C", now=now)

        runner = Runner(
            run_id="r",
            cases=_cases(),
            settings=DispatchSettings(),
            engine=SimulatedEngine(),
            recorder=Journal(),
            listeners=(StopAtFirstProgress(),),
            stopper=stopper,
        )
        return await runner.run()

    outcome = asyncio.run(drive())
    assert [result.verdict for result in outcome.cases] == [first, Verdict.NOT_RUN]
    assert "Ctrl-C" in (outcome.cases[1].reason or "")


def test_a_stop_is_heard_while_nothing_happens() -> None:
    async def drive() -> Outcome:
        stopper = Stopper()
        engine = SilentEngine()
        runner = Runner(
            run_id="r",
            cases=_cases(),
            settings=DispatchSettings(cancel_timeout_s=0.0, prepare_timeout_s=1000.0),
            engine=engine,
            recorder=Journal(),
            stopper=stopper,
        )
        run = asyncio.ensure_future(runner.run())
        await engine.is_waited_for.wait()
        stopper.ask("SIGTERM", now=True)
        return await asyncio.wait_for(run, timeout=30)

    outcome = asyncio.run(drive())
    assert {result.verdict for result in outcome.cases} == {Verdict.NOT_RUN}


class SilentEngine(SimulatedEngine):
    """Its devices come up; then it hears nothing until it is asked to go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waited_for = asyncio.Event()

    async def occurrences(self, until: float | None) -> Sequence[Occurrence]:
        self.is_waited_for.set()
        await asyncio.Event().wait()
        return ()


def test_a_full_store_ends_the_run_and_nothing_that_was_measured_is_lost() -> None:
    journal = Journal(full_after=1)
    cases = [*_cases(hosts=1, passes=2), a_case(key="h0-2", device=a_device(host="h0"))]
    outcome = _run(cases, journal)
    assert isinstance(outcome.store_error, StoreFullError)
    assert [result.verdict for result in outcome.cases] == [Verdict.OK, Verdict.OK, Verdict.NOT_RUN]
    assert len(outcome.cases[1].attempts[0].result.samples_ms) == 5
    assert [result.case_key for result in journal.attempts] == ["h0-0"]


def test_listeners_hear_events_progress_and_commands() -> None:
    heard: list[object] = []

    class Ear:
        def heard(self, news: Event | Progress | Command) -> None:
            heard.append(type(news))

    _run(_cases(passes=1), Journal(), listeners=[Ear()])
    assert {StartCase, CaseFinished, RecordVerdict, Progress} <= set(heard)


# --- results that hosts keep -----------------------------------------------------------------------------------


class Noting(SimulatedEngine):
    """Notes in the journal what it is told to forget."""

    def __init__(self, journal: Journal, **given: Any) -> None:
        super().__init__(**given)
        self._journal = journal

    async def start(self, act: Act) -> None:
        if isinstance(act, AcknowledgeResult):
            self._journal.lines.append(f"acknowledged {act.case_key} on {act.device_id}")
        await super().start(act)


def test_a_result_is_acknowledged_once_it_is_kept() -> None:
    journal = Journal()
    _run(_cases(passes=1), journal, engine=Noting(journal))
    assert journal.lines == ["start h0-0", "r saved h0-0", "acknowledged h0-0 on h0/cpu", "r verdict h0-0 ok"]


def test_a_result_that_could_not_be_kept_is_not_acknowledged() -> None:
    journal = Journal(full_after=0)
    engine = Noting(journal)
    outcome = _run(_cases(), journal, engine=engine)
    assert outcome.store_error is not None
    assert not [line for line in journal.lines if line.startswith("acknowledged")]
    assert [result.case_key for result in engine.kept()] == ["h0-0"]


def _killed(journal: Journal, engine: SimulatedEngine, cases: Sequence[Case]) -> None:
    """Have a head die when it has begun its first case; its agent finishes it."""

    class Death(BaseException):
        pass

    class Killer:
        def heard(self, news: Event | Progress | Command) -> None:
            if isinstance(news, Progress):
                raise Death

    with pytest.raises(Death):
        _run(cases, journal, engine=engine, listeners=(Killer(),))
    engine.abandon()


def test_the_next_head_takes_what_the_host_kept() -> None:
    journal = Journal()
    engine = Noting(journal)
    _killed(journal, engine, _cases())
    asyncio.run(engine.occurrences(engine.now() + 60.0))
    assert journal.attempts == []
    outcome = _run(_cases(), journal, engine=engine)
    assert [len(found.attempts) for found in outcome.cases] == [1, 1]
    assert [(result.case_key, result.attempt) for result in journal.attempts] == [("h0-0", 1), ("h0-1", 1)]
    assert list(engine.kept()) == []


def test_what_the_host_kept_of_a_case_that_has_ended_is_kept_apart_and_acknowledged() -> None:
    journal = Journal()
    engine = Noting(journal)
    _killed(journal, engine, _cases())
    asyncio.run(engine.occurrences(engine.now() + 60.0))
    first, second = _cases()
    ended = CaseResult(case=first, position=0, verdict=Verdict.HOST_DOWN)
    outcome = _run([second], journal, engine=engine, earlier={first.key: ended})
    assert [found.case.key for found in outcome.cases] == [second.key]
    assert [result.case_key for result in journal.late] == [first.key]
    assert list(engine.kept()) == []


def test_what_a_host_kept_of_a_case_that_is_stopped_meanwhile_is_left_to_whoever_goes_on() -> None:
    journal, stopper = Journal(), Stopper()
    engine = Noting(journal)
    cases = _cases(hosts=2, passes=1)
    _killed(journal, engine, cases)
    asyncio.run(engine.occurrences(engine.now() + 60.0))

    class StopAtTheFirst:
        def heard(self, news: Event | Progress | Command) -> None:
            if isinstance(news, ResultRecovered):
                stopper.ask("Ctrl-C", now=False)

    outcome = _run(cases, journal, engine=engine, stopper=stopper, listeners=(StopAtTheFirst(),))
    assert [found.verdict for found in outcome.cases] == [Verdict.OK, Verdict.NOT_RUN]
    assert ([result.case_key for result in journal.attempts], journal.late) == (["h0-0"], [])
    assert [result.case_key for result in engine.kept()] == ["h1-0"]


def test_numbers_of_attempts_go_on_where_an_earlier_head_ended_late_ones_counted() -> None:
    (case,) = _cases(passes=1)
    crashed = Attempt(number=1, result=a_result(case, 1, verdict=Verdict.CRASHED))
    known = CaseResult(
        case=case, position=0, attempts=(crashed,), superseded=(Attempt(number=3, result=a_result(case, 3)),)
    )
    journal = Journal()
    outcome = _run([case], journal, earlier={case.key: known})
    assert [attempt.number for attempt in outcome.cases[0].attempts] == [1, 4]


def test_what_fails_in_a_row_is_put_aside() -> None:
    journal = Journal()
    engine = SimulatedEngine(faults={"h0/cpu": Fault(crash_on_attempts=(1,))})
    settings = DispatchSettings(attempts=1, quarantine_after=1)
    outcome = _run(_cases(), journal, engine=engine, settings=settings)
    assert [found.verdict for found in outcome.cases] == [Verdict.CRASHED, Verdict.NOT_RUN]
    assert "r put aside h0/cpu" in journal.lines


def test_a_stop_that_comes_with_a_result_comes_after_it() -> None:
    stopper, journal = Stopper(), Journal()

    class StopAtTheResult:
        def heard(self, news: Event | Progress | Command) -> None:
            if isinstance(news, CaseFinished):
                stopper.ask("Ctrl-C", now=True)

    outcome = _run(_cases(), journal, stopper=stopper, listeners=(StopAtTheResult(),))
    assert [found.verdict for found in outcome.cases] == [Verdict.OK, Verdict.NOT_RUN]
    assert journal.lines[-2:] == ["r verdict h0-0 ok", "r verdict h0-1 not_run"]


# --- what speaks against a figure --------------------------------------------------------------------------------


class Doubting:
    """Finds every figure noisy, and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[str]]] = []

    def __call__(self, case: Case, result: Result, earlier: Sequence[Result]) -> Result:
        self.seen.append((case.process, [other.case_key for other in earlier]))
        return dataclasses.replace(result, verdict=Verdict.NOISY, reason="it spreads")


def test_a_result_is_judged_before_it_is_kept_and_before_anything_is_decided() -> None:
    journal = Journal()
    outcome = _run(_cases(passes=1), journal, judge=Doubting())
    assert [result.verdict for result in journal.attempts] == [Verdict.NOISY]
    assert journal.verdicts == {"h0-0": Verdict.NOISY}
    assert (outcome.cases[0].verdict, outcome.cases[0].reason) == (Verdict.NOISY, "it spreads")


def test_a_doubtful_figure_is_not_tried_again() -> None:
    journal = Journal()
    _run(_cases(), journal, judge=Doubting(), settings=DispatchSettings(attempts=5))
    assert [result.attempt for result in journal.attempts] == [1, 1]


def test_the_judge_sees_the_figures_of_the_cases_other_processes() -> None:
    first = _cases(passes=1)[0]
    cases = [dataclasses.replace(first, key=f"p{process}", process=process) for process in (1, 2, 3)]
    judge = Doubting()
    _run([*cases, _cases(passes=2)[1]], Journal(), judge=judge)
    assert judge.seen == [(1, []), (2, ["p1"]), (3, ["p1", "p2"]), (1, [])]
