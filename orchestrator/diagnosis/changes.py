"""What has changed on hosts since some results were taken: figures of before and after are not of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.results import CaseResult
    from workers.protocol import Environment, FactValue, HostReport

#: Facts that a figure hangs on and that a person changes, by what people call them.
WATCHED: Final = {
    "gpu.driver": "NVIDIA driver",
    "package.tensorflow": "TensorFlow",
    "package.tensorflow-cpu": "TensorFlow (CPU build)",
    "package.torch": "PyTorch",
    "package.jax": "JAX",
    "package.jaxlib": "JAX's library",
    "package.numpy": "numpy",
    "python.version": "Python",
    "cpu.model": "CPU",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One thing that is not as it was."""

    host: str
    #: What people call it.
    what: str
    #: ``None`` where there was none.
    before: FactValue
    now: FactValue

    def __str__(self) -> str:
        return f"{self.host}: {self.what} {_shown(self.before)} -> {_shown(self.now)}"


def changes(results: Iterable[CaseResult], reports: Iterable[HostReport]) -> tuple[Change, ...]:
    """Return what differs between the environments of results and what hosts report now, host by host.

    Of several attempts on a host the last one counts. What one side did not record is no change. Pure.
    """
    before = _environments(results)
    return tuple(
        change for report in reports if report.host in before for change in changes_of(before[report.host], report)
    )


def changes_of(before: Environment, report: HostReport) -> tuple[Change, ...]:
    """Return what differs between the environment of one result and what its host reports now. Pure."""
    then, now = dict(before.facts), dict(report.environment.facts)
    return tuple(
        Change(host=report.host, what=what, before=then[name].value, now=now[name].value)
        for name, what in WATCHED.items()
        if name in then and name in now and then[name].value != now[name].value
    )


def is_fresh(earlier: CaseResult | None, reports: Mapping[str, HostReport]) -> bool:
    """Return whether an earlier result of a case still holds: it has a figure, and its host is as it was. Pure."""
    if earlier is None or earlier.result is None or earlier.verdict is None or not earlier.verdict.has_figure:
        return False
    report = reports.get(earlier.case.device.host)
    return report is None or not changes_of(earlier.result.environment, report)


def _environments(results: Iterable[CaseResult]) -> dict[str, Environment]:
    found: dict[str, tuple[float, Environment]] = {}
    for result in results:
        for attempt in result.attempts:
            host, taken = result.case.device.host, attempt.result
            if taken.environment.facts and taken.started_at >= found.get(host, (0.0, None))[0]:
                found[host] = (taken.started_at, taken.environment)
    return {host: environment for host, (_, environment) in found.items()}


def _shown(value: FactValue) -> str:
    return "none" if value is None else str(value)
