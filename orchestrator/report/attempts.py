"""Every attempt of a run as a table: also those that were tried again, and results that came too late."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.report.build import title
from orchestrator.report.figures import rounded
from orchestrator.report.notes import SIMULATED
from orchestrator.report.table import Align, Cell, Column, Row, RowKind, Table
from orchestrator.report.workloads import in_place, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.results import Attempt, CaseResult, Run
    from workers.protocol import Case

#: What an attempt is to its case.
_LAST: Final = "last"
_TRIED_AGAIN: Final = "tried again"
_SUPERSEDED: Final = "superseded"

_COLUMNS: Final = (
    Column(key="num", heading="Num"),
    Column(key="device_id", heading="Device"),
    Column(key="workload", heading="Workload"),
    Column(key="attempt", heading="Attempt", align=Align.RIGHT),
    Column(key="verdict", heading="Verdict"),
    Column(key="reason", heading="Reason"),
    Column(key="standing", heading="Standing"),
    Column(key="began_at", heading="Began (UTC)"),
    Column(key="took_s", heading="Took (s)", unit="s", align=Align.RIGHT),
    Column(key="steps", heading="Steps", align=Align.RIGHT),
    Column(key="process", heading="Process"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Try:
    """One row to be."""

    case: Case
    attempt: Attempt
    standing: str


def attempts_table(run: Run) -> Table:
    """Return every attempt of every case, in the plan's order and then as they were numbered.

    ``Standing`` says what an attempt is to its case: the ``last`` one, for which the case's verdict stands; one that
    was ``tried again``; or one that is ``superseded``, whose result came after it had been given up or tried again.
    Times are those of the device's host; ``Steps`` counts those that were kept, without warm-up; ``Process`` is
    how the measuring process ended.
    """
    tries = [one for case in run.cases for one in _tries(case)]
    kind = RowKind.SIMULATED if run.simulated else RowKind.MEASURED
    return Table(
        title=f"{title(run)}, every attempt",
        columns=_COLUMNS,
        rows=tuple(_row(number, kind, one) for number, one in enumerate(tries, start=1)),
        notes=tuple(_notes(run, tries)),
    )


def _tries(case: CaseResult) -> list[_Try]:
    last = len(case.attempts) - 1
    own = [
        _Try(case=case.case, attempt=attempt, standing=_LAST if place == last else _TRIED_AGAIN)
        for place, attempt in enumerate(case.attempts)
    ]
    late = [_Try(case=case.case, attempt=attempt, standing=_SUPERSEDED) for attempt in case.superseded]
    return sorted((*own, *late), key=lambda one: one.attempt.number)


def _row(number: int, kind: RowKind, one: _Try) -> Row:
    case, result = one.case, one.attempt.result
    mark = f" ({_SUPERSEDED})" if one.standing == _SUPERSEDED else ""
    cells = (
        Cell(text=str(number), value=number),
        Cell(text=in_place(case), value=case.device.id),
        Cell(text=in_words(case.workload, case.company), value=in_words(case.workload, case.company)),
        Cell(text=str(one.attempt.number), value=one.attempt.number),
        Cell(
            text=f"{result.verdict.value}{mark}",
            value=result.verdict.value,
            verdict=result.verdict,
            reason=result.reason,
        ),
        Cell(text=result.reason or "", value=result.reason),
        Cell(text=one.standing, value=one.standing),
        _began(result.started_at),
        _took(result.duration_s),
        Cell(text=str(len(result.samples_ms)), value=len(result.samples_ms)),
        _process(one.attempt),
    )
    return Row(kind=kind, cells=cells, definition=(("case_key", case.key), ("device_id", case.device.id)))


def _began(started_at: float) -> Cell:
    """When an attempt began; 0 where nobody was there to look at a clock."""
    if started_at == 0:
        return Cell(text="", reason="it was given up without a result")
    try:
        when = datetime.datetime.fromtimestamp(started_at, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return Cell(text="", reason=f"no clock shows {started_at:g} s")
    return Cell(text=when.strftime("%Y-%m-%d %H:%M:%S"), value=when.isoformat(timespec="milliseconds"))


def _took(duration_s: float) -> Cell:
    if duration_s == 0:
        return Cell(text="", reason="it was given up without a result")
    return Cell(text=rounded(duration_s), value=duration_s)


def _process(attempt: Attempt) -> Cell:
    """How the measuring process ended."""
    ending = attempt.result.ending
    if ending.signal is not None:
        return Cell(text=ending.signal, value=ending.signal)
    if ending.exit_code is not None:
        return Cell(text=f"exit {ending.exit_code}", value=f"exit {ending.exit_code}")
    return Cell(text="", reason="it was not started, or nobody saw it end")


def _notes(run: Run, tries: list[_Try]) -> Iterator[str]:
    if run.simulated:
        yield SIMULATED
    if any(one.standing == _SUPERSEDED for one in tries):
        yield "Superseded: the result came after its attempt had been given up or tried again; it is in no figure."
    if untried := sum(not case.attempts for case in run.cases):
        yield f"Without an attempt: {untried} of {len(run.cases)} cases; why, says the table of the run."
