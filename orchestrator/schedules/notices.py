"""What is said of a scheduled run: its outcome, and the document that others are told. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from orchestrator.config.scheduling import Occasion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.analysis.comparison import ComparedCase
    from orchestrator.results import Firing, Run

SCHEMA_VERSION: Final = 1

OK: Final = "ok"

#: Cases that are named in a notice; the rest is counted.
MOST_NAMED: Final = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A scheduled run that has ended, and how it stands to what it is compared with."""

    firing: Firing
    #: ``None`` where there was none.
    run: Run | None
    #: Why there was no run, or why it is none that counts.
    reason: str | None = None
    #: What it was compared with, in words; ``None`` where there was nothing.
    compared_with: str | None = None
    regressions: tuple[ComparedCase, ...] = ()
    #: The outcome of the schedule's last run before it; ``None`` for the first.
    before: str | None = None

    @property
    def outcome(self) -> str:
        """``failure``, ``regression``, ``recovery`` or ``ok``, the gravest first."""
        if self.run is None or self.reason is not None or _without_figure(self.run):
            return Occasion.FAILURE.value
        if self.regressions:
            return Occasion.REGRESSION.value
        has_recovered = self.before in (Occasion.FAILURE.value, Occasion.REGRESSION.value)
        return Occasion.RECOVERY.value if has_recovered else OK


def is_told(outcome: str, on: Sequence[Occasion]) -> bool:
    """Return whether somebody who is told ``on`` some occasions is told of this outcome."""
    return Occasion.ALWAYS in on or outcome in {each.value for each in on}


def document(ended: Ended, *, store: str) -> dict[str, Any]:
    """Return the notice as JSON data; ``docs/reference/notices.md`` says what each key means.

    ``store`` is what a command has to name; it holds no password, for a store's URL has none.
    """
    run, firing = ended.run, ended.firing
    failed = [] if run is None else _without_figure(run)
    return {
        "schema_version": SCHEMA_VERSION,
        "event": ended.outcome,
        "text": in_words(ended),
        "schedule": firing.schedule,
        "due_at": firing.due_at.isoformat(),
        "cause": firing.cause.value,
        "run": None if run is None else _about(run, len(failed)),
        "reason": ended.reason,
        "compared_with": ended.compared_with,
        "regressions": [_slower(case) for case in ended.regressions[:MOST_NAMED]],
        "regression_count": len(ended.regressions),
        "failures": failed[:MOST_NAMED],
        "failure_count": len(failed),
        "commands": {} if run is None else {"show": f"muster show {run.id} --store {store}"},
    }


def in_words(ended: Ended) -> str:
    """Return the notice as one line."""
    name, run = ended.firing.schedule, ended.run
    if run is None:
        return f"{name}: no run: {ended.reason}"
    failed, regressions = len(_without_figure(run)), len(ended.regressions)
    said = [f"{name}, run {run.id}: {ended.outcome}"]
    if ended.reason is not None:
        said.append(ended.reason)
    if failed:
        said.append(f"{failed} of {len(run.cases)} cases without a figure")
    if regressions:
        worst = max(ended.regressions, key=lambda case: case.ratio or 0.0)
        by = 100 * ((worst.ratio or 1.0) - 1)
        what = f"{worst.device.id} {worst.workload.model} {worst.workload.pass_.value} by {by:.1f} %"
        said.append(f"{regressions} slower than {ended.compared_with}, the most {what}")
    return "; ".join(said)


def _about(run: Run, failed: int) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state.value,
        "simulated": run.simulated,
        "created_at": run.created_at.isoformat(),
        "finished_at": run.finished_at and run.finished_at.isoformat(),
        "cases": len(run.cases),
        "figures": len(run.cases) - failed,
    }


def _slower(case: ComparedCase) -> dict[str, Any]:
    return {
        "device": case.device.id,
        "model": case.workload.model,
        "pass": case.workload.pass_.value,
        "batch_size": case.workload.batch_size,
        "precision": case.workload.precision.value,
        "before_ms": case.before_ms,
        "after_ms": case.after_ms,
        "ratio": case.ratio,
    }


def _without_figure(run: Run) -> list[dict[str, Any]]:
    return [
        {
            "device": known.case.device.id,
            "model": known.case.workload.model,
            "pass": known.case.workload.pass_.value,
            "verdict": known.verdict and known.verdict.value,
            "reason": known.reason,
        }
        for known in run.cases
        if known.verdict is None or not known.verdict.has_figure
    ]
