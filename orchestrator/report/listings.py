"""What the store has, as data for machines: the same for the command line's ``--json`` and for the web's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import TypedDict

if TYPE_CHECKING:
    from orchestrator.report.environments import TakenIn
    from orchestrator.results import Baseline, Quarantine, RunSummary


class RunData(TypedDict):
    """One line of `muster runs`; times are ISO 8601 with their zone."""

    id: str
    name: str
    created_at: str
    finished_at: str | None
    state: str
    simulated: bool
    cases: int
    figures: int
    rerun_of: str | None
    imported_from: str | None
    schedule: str | None


def run_data(summary: RunSummary) -> RunData:
    """Return a run's line."""
    return {
        "id": summary.id,
        "name": summary.name,
        "created_at": summary.created_at.isoformat(),
        "finished_at": summary.finished_at.isoformat() if summary.finished_at else None,
        "state": summary.state.value,
        "simulated": summary.simulated,
        "cases": summary.cases,
        "figures": summary.figures,
        "rerun_of": summary.rerun_of,
        "imported_from": None if summary.imported is None else summary.imported.source,
        "schedule": summary.schedule,
    }


class BaselineData(TypedDict):
    """One line of `muster baseline list`."""

    name: str
    run_id: str
    set_at: str


def baseline_data(one: Baseline) -> BaselineData:
    """Return a baseline's line."""
    return {"name": one.name, "run_id": one.run_id, "set_at": one.set_at.isoformat()}


class QuarantineData(TypedDict):
    """One line of `muster quarantine list`."""

    target: str
    since: str
    until: str
    failures: int
    reason: str
    run_id: str
    simulated: bool


def quarantine_data(one: Quarantine, *, simulated: bool) -> QuarantineData:
    """Return the line of a device or host that is put aside."""
    return {
        "target": one.target,
        "since": one.since.isoformat(),
        "until": one.until.isoformat(),
        "failures": one.failures,
        "reason": one.reason,
        "run_id": one.run_id,
        "simulated": simulated,
    }


class FactData(TypedDict):
    """One fact of an environment; without a value there is a reason."""

    value: str | int | float | bool | None
    reason: str | None


class EnvironmentData(TypedDict):
    """One environment, and where it was."""

    hash: str
    devices: list[str]
    facts: dict[str, FactData]


def environment_data(taken_in: TakenIn) -> EnvironmentData:
    """Return an environment and the devices whose figures were taken in it."""
    return {
        "hash": taken_in.hash,
        "devices": list(taken_in.device_ids),
        "facts": {name: {"value": fact.value, "reason": fact.reason} for name, fact in taken_in.environment.facts},
    }
