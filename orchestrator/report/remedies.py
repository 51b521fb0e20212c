"""What to type so that rows without a figure get one: a failed row again, a run gone on with."""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.planning import filter_values
from orchestrator.report.figures import rows
from orchestrator.results import RunState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.report.entries import Entry
    from orchestrator.results import CaseResult, Run

#: Notes that name the command of some rows; more would bury the table that they are about.
_MOST_NOTES: Final = 20

#: Failed rows of one host that have a command each; where there are more, one is for the host.
_ROWS_ALONE: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """Failed rows that one command runs again."""

    numbers: tuple[int, ...]
    #: Of these rows, those that failed.
    cases: tuple[CaseResult, ...]
    #: What the command names in any case, so that people see what it is about.
    fields: tuple[str, ...] = ("host", "device")

    @property
    def host(self) -> str:
        """The rows' host."""
        return self.cases[0].case.device.host


def remedies(run: Run, ours: Sequence[Entry], *, store: str | None) -> list[str]:
    """Return a note for each row that failed, with the command that runs exactly its failed cases again.

    Where many rows of a host failed they share one. Rows that were merely stopped or never begun are for
    ``muster resume``, which has one note. ``store`` is the URL that commands have to name.
    """
    at = "" if store is None else f" --store {shlex.quote(store)}"
    return [*_again(run, ours, at), *_going_on(run, ours, at)]


def _going_on(run: Run, ours: Sequence[Entry], at: str) -> list[str]:
    unended = [number for number, entry in enumerate(ours, start=1) if any(case.is_open for case in entry.cases)]
    if not unended or run.state is RunState.RUNNING:
        return []
    return [f"{rows(unended)}: go on with: muster resume {run.id}{at}"]


def _again(run: Run, ours: Sequence[Entry], at: str) -> list[str]:
    command = f"muster rerun {run.id} --failed{at}"
    unmeasured = _unmeasured(run)
    jobs = list(_jobs(ours, unmeasured))
    said = [
        " ".join((f"{rows(job.numbers)}: again with: {command}", *_filters(job, unmeasured[job.host])))
        for job in jobs[:_MOST_NOTES]
    ]
    if rest := sorted(number for job in jobs[_MOST_NOTES:] for number in job.numbers):
        said.append(f"{rows(rest)}: again, with all others that failed: {command}")
    return said


def _unmeasured(run: Run) -> Mapping[str, Sequence[CaseResult]]:
    """Return what ``muster rerun --failed`` chooses from, by host."""
    found: defaultdict[str, list[CaseResult]] = defaultdict(list)
    for case in run.cases:
        if case.verdict is None or not case.verdict.has_figure:
            found[case.case.device.host].append(case)
    return found


def _jobs(ours: Sequence[Entry], unmeasured: Mapping[str, Sequence[CaseResult]]) -> Iterator[_Job]:
    """Give what is to be run again, row by row, or host by host where many rows of one failed and nothing else did."""
    by_host: defaultdict[str, list[_Job]] = defaultdict(list)
    for number, entry in enumerate(ours, start=1):
        failed = tuple(case for case in entry.cases if _has_failed(case))
        if failed:
            by_host[failed[0].case.device.host].append(_Job(numbers=(number,), cases=failed))
    for host, jobs in by_host.items():
        cases = tuple(case for job in jobs for case in job.cases)
        if len(jobs) > _ROWS_ALONE and len(cases) == len(unmeasured[host]):
            yield _Job(numbers=tuple(number for job in jobs for number in job.numbers), cases=cases, fields=("host",))
        else:
            yield from jobs


def _has_failed(case: CaseResult) -> bool:
    return case.verdict is not None and case.verdict.is_final and not case.verdict.has_figure


def _filters(job: _Job, unmeasured: Sequence[CaseResult]) -> Iterator[str]:
    """Give the options that pick a job's cases out of the unmeasured ones of its host, no more of them than it takes.

    Each further field is the one that leaves the fewest others. What is the same work on the same device cannot be
    told apart.
    """
    picked = [filter_values(case.case) for case in job.cases]
    wanted = {field: tuple(dict.fromkeys(values[field] for values in picked)) for field in picked[0]}
    keys = {case.case.key for case in job.cases}
    others = [filter_values(case.case) for case in unmeasured if case.case.key not in keys]
    fields = list(job.fields)
    others = [values for values in others if all(values[field] in wanted[field] for field in fields)]
    while others:
        left = {field: [values for values in others if values[field] in wanted[field]] for field in wanted}
        best = min(left, key=lambda field: len(left[field]))
        if len(left[best]) == len(others):
            break
        fields.append(best)
        others = left[best]
    return (f"--only {shlex.quote(f'{field}={value}')}" for field in fields for value in wanted[field])
