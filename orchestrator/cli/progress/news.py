"""Events and commands as lines for people. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from orchestrator.dispatch.messages import (
    CancelCase,
    CaseFinished,
    CaseGranted,
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
from orchestrator.report.printable import printable
from orchestrator.report.words import count
from orchestrator.report.workloads import in_place, unusual
from workers import works
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.dispatch.messages import Command, Event
    from workers.protocol import Case, Progress, Result

#: Verdicts that many cases get at one moment and for one reason: they are told of together.
_TOGETHER: Final = frozenset({Verdict.NOT_RUN, Verdict.CANCELLED, Verdict.HOST_DOWN})

#: What belongs to the verdicts around it, and so does not end what is told together.
_BESIDE: Final = (RecordVerdict, RecordAttempt, CancelCase, CaseFinished, ReleaseDevice)


class Tone(enum.Enum):
    """What a line, or a part of one, is about."""

    #: Something has begun, or goes on.
    PLAIN = "plain"
    #: A figure is there.
    FIGURE = "figure"
    #: A figure is there, and doubtful; or an attempt is made again.
    DOUBTFUL = "doubtful"
    #: No figure will come of it.
    BAD = "bad"
    #: Nothing goes on.
    FAINT = "faint"
    #: The part of a bar that is done.
    DONE = "done"


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """One line for people."""

    text: str
    tone: Tone


@dataclass(kw_only=True, slots=True, eq=False)
class _Together:
    """Cases that ended at one moment and for one reason."""

    verdict: Verdict
    reason: str | None
    cases: list[Case] = field(default_factory=list)


def label(case: Case) -> str:
    """Return what a case is called in one short line."""
    workload = case.workload
    batch = "max" if workload.seeks_largest else workload.batch_size
    parts = (
        workload.model,
        workload.pass_.value,
        None if works.is_operation(workload.model) else f"b{batch}",
        workload.precision.value,
        *unusual(workload),
        None if case.company is None else case.company.value,
    )
    return " ".join(part for part in parts if part is not None)


class Teller:
    """Turns what is heard of a run into lines, one at most an event."""

    def __init__(self, cases: Mapping[str, Case]) -> None:
        self._cases = cases
        #: Results of attempts whose cases have no verdict yet.
        self._results: dict[str, Result] = {}
        #: Attempts of such cases that were given up without a result.
        self._given_up: dict[str, RecordAttempt] = {}
        #: Devices that were told of as away: not each try to bring them back is news.
        self._away: set[str] = set()
        self._together: _Together | None = None

    def heard(self, news: Event | Progress | Command) -> tuple[Told, ...]:
        """Return what there is to tell now that ``news`` is known; what was held back comes before it."""
        if isinstance(news, RecordVerdict):
            return self._verdict(news)
        held = () if isinstance(news, _BESIDE) else self.rest()
        told = self._tell(news)
        return held if told is None else (*held, told)

    def rest(self) -> tuple[Told, ...]:
        """Return what was held back, for nothing that belongs to it will come."""
        together, self._together = self._together, None
        return () if together is None else (self._of_many(together),)

    def _tell(self, news: Event | Progress | Command) -> Told | None:
        match news:
            case StartCase():
                return self._start(news)
            case CaseWaiting():
                return self._of_case(news.case_key, f"waiting: {news.reason}", Tone.PLAIN)
            case CaseGranted():
                return self._of_case(news.case_key, "starting, the wait is over", Tone.PLAIN)
            case DeviceLost() | DeviceReady():
                return self._device(news)
            case HostSilent() | HostHeard() | PutAside():
                return _of_place(news)
            case StopRequested():
                return Told(text=printable(f"stopping: {news.reason}"), tone=Tone.BAD)
            case CaseFinished():
                return self._finished(news)
            case ResultRecovered():
                return self._recovered(news)
            case RecordAttempt():
                self._given_up[news.case_key] = news
                return None
            case _:
                return None

    def _device(self, news: DeviceLost | DeviceReady) -> Told | None:
        was_away = news.device_id in self._away
        if isinstance(news, DeviceReady):
            self._away.discard(news.device_id)
            return Told(text=printable(f"{news.device_id}: back"), tone=Tone.PLAIN) if was_away else None
        self._away.add(news.device_id)
        if news.is_final:
            return Told(text=printable(f"{news.device_id}: lost: {news.reason}"), tone=Tone.BAD)
        return None if was_away else Told(text=printable(f"{news.device_id}: away: {news.reason}"), tone=Tone.DOUBTFUL)

    def _recovered(self, news: ResultRecovered) -> Told | None:
        if news.case_key not in self._cases:  # an earlier head has ended it
            return None
        self._results[news.case_key] = news.result
        return self._of_case(news.case_key, f"result of attempt {news.attempt} found on its host", Tone.PLAIN)

    def _finished(self, news: CaseFinished) -> Told | None:
        result = news.result
        self._results[news.case_key] = result
        if result.verdict is not Verdict.CRASHED:
            return None
        # At once: the next attempt, if there is one, may be long in coming.
        text = f"attempt {result.attempt} {_reasoned(result.verdict, result.reason)}"
        return self._of_case(news.case_key, text, Tone.DOUBTFUL)

    def _start(self, news: StartCase) -> Told:
        self._results.pop(news.case.key, None)
        given_up = self._given_up.pop(news.case.key, None)
        if news.attempt == 1:
            return self._of_case(news.case.key, "starting", Tone.PLAIN)
        why = "" if given_up is None else f": attempt {given_up.attempt} {_reasoned(given_up.verdict, given_up.reason)}"
        return self._of_case(news.case.key, f"starting (attempt {news.attempt}){why}", Tone.DOUBTFUL)

    def _verdict(self, news: RecordVerdict) -> tuple[Told, ...]:
        result = self._results.pop(news.case_key, None)
        self._given_up.pop(news.case_key, None)
        if news.verdict not in _TOGETHER:
            return (*self.rest(), self._of_case(news.case_key, *_end_of(news, result)))
        before = self._together
        is_alike = before is not None and (before.verdict, before.reason) == (news.verdict, news.reason)
        held = () if is_alike else self.rest()
        if self._together is None:
            self._together = _Together(verdict=news.verdict, reason=news.reason)
        self._together.cases.append(self._cases[news.case_key])
        return held

    def _of_many(self, together: _Together) -> Told:
        cases = together.cases
        devices = {case.device.id for case in cases}
        end = _reasoned(together.verdict, together.reason)
        if len(cases) == 1:
            return self._of_case(cases[0].key, end, Tone.BAD)
        number = count(len(cases), "case")
        who = f"{devices.pop()}: {number}" if len(devices) == 1 else f"{number} on {count(len(devices), 'device')}"
        return Told(text=printable(f"{who}: {end}"), tone=Tone.BAD)

    def _of_case(self, case_key: str, text: str, tone: Tone) -> Told:
        case = self._cases[case_key]
        return Told(text=printable(f"{in_place(case)}: {label(case)}: {text}"), tone=tone)


def _of_place(news: HostSilent | HostHeard | PutAside) -> Told:
    match news:
        case HostSilent():
            return Told(text=printable(f"{news.host}: silent, no sign of life"), tone=Tone.DOUBTFUL)
        case HostHeard():
            return Told(text=printable(f"{news.host}: heard again"), tone=Tone.PLAIN)
        case _:
            failures = count(news.failures, "failure")
            told = f"{news.target}: put aside after {failures} in a row, the last: {news.reason}"
            return Told(text=printable(told), tone=Tone.BAD)


def _end_of(news: RecordVerdict, result: Result | None) -> tuple[str, Tone]:
    samples = result.samples_ms if result is not None else ()
    if not news.verdict.has_figure or not samples:
        return _reasoned(news.verdict, news.reason), Tone.BAD
    figure = f"{sum(samples) / len(samples):.4g} ms a step over {count(len(samples), 'step')}"
    if news.verdict is Verdict.OK:
        return figure, Tone.FIGURE
    return f"{figure}: {_reasoned(news.verdict, news.reason)}", Tone.DOUBTFUL


def _reasoned(verdict: Verdict, reason: str | None) -> str:
    return verdict.value if reason is None else f"{verdict.value}: {reason}"
