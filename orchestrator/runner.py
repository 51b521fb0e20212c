"""The loop of a run: next event or deadline, to the dispatcher, to the engine; commit to the store; tell listeners."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Protocol

from orchestrator.dispatch.machine import Dispatcher
from orchestrator.dispatch.messages import (
    AcknowledgeResult,
    CaseFinished,
    DeadlinePassed,
    PutAside,
    RecordAttempt,
    RecordVerdict,
    ResultRecovered,
    StopRequested,
)
from orchestrator.errors import StoreError
from orchestrator.results import Attempt, CaseResult
from workers.protocol import Progress, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from orchestrator.dispatch.messages import Command, Event
    from orchestrator.dispatch.settings import DispatchSettings
    from orchestrator.engine.base import Engine
    from workers.protocol import Case, Verdict


class Recorder(Protocol):
    """Where results go; each call returns when they are durable. Raises :class:`orchestrator.errors.StoreError`."""

    def save_attempt(self, run_id: str, result: Result) -> None:
        """Keep one attempt."""

    def save_verdict(self, run_id: str, case_key: str, verdict: Verdict, reason: str | None) -> None:
        """Keep how a case ended."""

    def save_late(self, run_id: str, result: Result) -> bool:
        """Keep, beside the others, a result whose attempt had been given up; return False where it is known."""

    def put_aside(self, run_id: str, command: PutAside) -> None:
        """Keep that a device or host gets no cases for a while."""


class Judge(Protocol):
    """Who says what a result's evidence comes to, repeatably."""

    def __call__(self, case: Case, result: Result, earlier: Sequence[Result]) -> Result:
        """Return the result with its verdict and doubts; ``earlier`` are those of the same case's other processes."""


class Listener(Protocol):
    """Somebody who watches a run."""

    def heard(self, news: Event | Progress | Command) -> None:
        """Take note of an event that came in, of progress, or of a command that went out."""


class Stopper:
    """Where the rest of the process says that the run shall end."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._now = False
        self._reason = ""

    def ask(self, reason: str, *, now: bool) -> None:
        """Ask the run to end: after the running cases, or with ``now`` at once."""
        self._now, self._reason = now, reason
        self._asked.set()

    async def wait(self) -> None:
        """Return when somebody has asked."""
        await self._asked.wait()

    def take(self, at: float) -> StopRequested | None:
        """Return what was asked since the last call, as an event at ``at``."""
        if not self._asked.is_set():
            return None
        self._asked.clear()
        return StopRequested(at=at, now=self._now, reason=self._reason)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended, from memory: whole also where the store failed."""

    cases: tuple[CaseResult, ...]
    #: Why results after some moment are not in the store; ``None`` when every one is.
    store_error: StoreError | None


class Runner:
    """One run of some cases on an engine.

    A result is committed before the dispatcher hears of it, so before its device gets the next case; only then may its
    agent forget it. When the store fails, no new case is started, running ones end as they do, and what could not be
    kept is in :class:`Outcome` and in the spools of the hosts. ``earlier`` is what is known of the cases of a run that
    is gone on with, by key: also of those that have ended, for a host may still keep results of theirs. ``judge`` says
    what speaks against a figure, before it is kept and before the dispatcher hears of it.
    """

    def __init__(
        self,
        *,
        run_id: str,
        cases: Sequence[Case],
        settings: DispatchSettings,
        engine: Engine,
        recorder: Recorder,
        listeners: Sequence[Listener] = (),
        stopper: Stopper | None = None,
        earlier: Mapping[str, CaseResult] | None = None,
        judge: Judge | None = None,
    ) -> None:
        self._run_id = run_id
        self._engine = engine
        self._recorder = recorder
        self._listeners = listeners
        self._stopper = stopper or Stopper()
        self._results = {case.key: CaseResult(case=case, position=i) for i, case in enumerate(cases)}
        known_before = earlier or {}
        for key in self._results.keys() & known_before.keys():
            self._results[key] = dataclasses.replace(known_before[key], verdict=None, reason=None)
        self._cases = {key: known.case for key, known in {**known_before, **self._results}.items()}
        self._judge = judge
        self._processes: dict[tuple[object, ...], list[str]] = {}
        for case in cases:
            self._processes.setdefault(_apart_from_process(case), []).append(case.key)
        before = {
            key: max(attempt.number for attempt in (*known.attempts, *known.superseded))
            for key, known in self._results.items()
            if known.attempts or known.superseded
        }
        self._dispatcher = Dispatcher(cases, settings, attempts_before=before)
        self._store_error: StoreError | None = None

    async def run(self) -> Outcome:
        """Drive the run to its end and return what came of every case."""
        await self._carry_out(self._dispatcher.begin(self._engine.now()))
        while not self._dispatcher.is_done:
            for occurrence in await self._next():
                self._tell(occurrence)
                if not isinstance(occurrence, Progress):
                    await self._handle(occurrence)
        return Outcome(cases=tuple(self._results.values()), store_error=self._store_error)

    async def _next(self) -> Sequence[Event | Progress]:
        """Wait for occurrences, a request to stop or the next deadline, and return what came."""
        if stop := self._stopper.take(self._engine.now()):
            return (stop,)
        deadline = self._dispatcher.next_deadline
        waiting = asyncio.ensure_future(self._engine.occurrences(deadline))
        stopping = asyncio.ensure_future(self._stopper.wait())
        try:
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not waiting.done():
                waiting.cancel()
        found: list[Event | Progress] = list(waiting.result()) if waiting.done() else []
        now = self._engine.now()
        # Also beside other news: an engine that talks all the time must not hold deadlines off.
        if deadline is not None and now >= deadline:
            found.append(DeadlinePassed(at=now))
        return found

    async def _handle(self, event: Event) -> None:
        if isinstance(event, CaseFinished | ResultRecovered):
            event = dataclasses.replace(event, result=self._judged(event.result))
            await self._take(event.result, is_wanted=self._dispatcher.awaits(event.case_key, event.attempt))
        # A store that has just failed stops the run before the device gets another case, and after it had this result.
        stop = self._stopper.take(event.at)
        if stop is not None:
            self._tell(stop)
        await self._carry_out(self._dispatcher.handle(event, stop=stop))

    def _judged(self, result: Result) -> Result:
        """Return the result with what speaks against it, before anybody keeps it or decides by it."""
        if self._judge is None:
            return result
        case = self._cases[result.case_key]
        return self._judge(case, result, tuple(self._of_other_processes(case)))

    def _of_other_processes(self, case: Case) -> Iterator[Result]:
        for key in self._processes.get(_apart_from_process(case), ()):
            known = self._results[key]
            if key != case.key and known.result is not None and known.result.verdict.has_figure:
                yield known.result

    async def _take(self, result: Result, *, is_wanted: bool) -> None:
        """Make a result durable, then let its agent forget it; one that nobody awaits any more is kept apart.

        What a host still has of a case that was merely stopped stays there: whoever goes on with the run takes it.
        """
        if is_wanted:
            self._keep(result)
        elif self._is_left_open(result):
            return
        else:
            self._record(lambda: self._recorder.save_late(self._run_id, result))
        if self._store_error is None:
            device_id = self._cases[result.case_key].device.id
            await self._engine.start(
                AcknowledgeResult(device_id=device_id, case_key=result.case_key, attempt=result.attempt)
            )

    def _is_left_open(self, result: Result) -> bool:
        known = self._results.get(result.case_key)
        if known is None or known.verdict is None or known.verdict.is_final:
            return False
        return all(attempt.number != result.attempt for attempt in known.attempts)

    async def _carry_out(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._tell(command)
            if isinstance(command, RecordAttempt):
                self._keep(_without_result(command))
            elif isinstance(command, RecordVerdict):
                self._decide(command)
            elif isinstance(command, PutAside):
                self._put_aside(command)
            else:
                await self._engine.start(command)

    def _keep(self, result: Result) -> None:
        known = self._results[result.case_key]
        attempt = Attempt(number=result.attempt, result=result)
        self._results[result.case_key] = dataclasses.replace(known, attempts=(*known.attempts, attempt))
        self._record(lambda: self._recorder.save_attempt(self._run_id, result))

    def _decide(self, command: RecordVerdict) -> None:
        known = self._results[command.case_key]
        self._results[command.case_key] = dataclasses.replace(known, verdict=command.verdict, reason=command.reason)
        self._record(
            lambda: self._recorder.save_verdict(self._run_id, command.case_key, command.verdict, command.reason)
        )

    def _put_aside(self, command: PutAside) -> None:
        self._record(lambda: self._recorder.put_aside(self._run_id, command))

    def _record(self, save: Callable[[], object]) -> None:
        """Make a result durable; once the store has failed, keep no more and ask the run to end."""
        if self._store_error is not None:
            return
        try:
            save()
        except StoreError as error:
            self._store_error = error
            self._stopper.ask(f"the store failed: {error.message}", now=False)

    def _tell(self, news: Event | Progress | Command) -> None:
        for listener in self._listeners:
            listener.heard(news)


def _apart_from_process(case: Case) -> tuple[object, ...]:
    return case.device.id, case.workload, case.company


def _without_result(command: RecordAttempt) -> Result:
    """Return what is known of an attempt whose device went away with its result."""
    return Result(case_key=command.case_key, attempt=command.attempt, verdict=command.verdict, reason=command.reason)
