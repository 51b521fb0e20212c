"""Hosts held against each other: figures of different versions are each right, and not comparable."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.diagnosis.findings import Finding, Level
from orchestrator.diagnosis.software import pip, text_fact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.diagnosis.software import Software
    from workers.protocol import HostReport


@dataclass(frozen=True, kw_only=True, slots=True)
class _Oddity:
    """A host has a version that others have not."""

    #: The version that it should rather have.
    rather: str
    #: Who has that one.
    why: str


def compare(reports: Sequence[HostReport], head: Software) -> tuple[Finding, ...]:
    """Return, for each host, whether its frameworks are those of most hosts and of the head, and its driver likewise.

    Hosts without a framework, or without a GPU, have no finding about it here.
    """
    names = dict.fromkeys(framework.name for report in reports for framework in report.frameworks)
    return (
        *(each for name in names for each in _compare_framework(reports, name, dict(head.frameworks).get(name))),
        *_compare_drivers(reports),
    )


def _compare_framework(reports: Sequence[HostReport], name: str, head: str | None) -> list[Finding]:
    by_host = {report.host: report for report in reports}
    versions = {
        report.host: framework.version
        for report in reports
        for framework in report.frameworks
        if framework.name == name and framework.reason is None and framework.version is not None
    }
    return _compared(name, versions, head, lambda host, rather: _install(by_host[host], name, rather))


def _compare_drivers(reports: Sequence[HostReport]) -> list[Finding]:
    versions = {
        report.host: version
        for report in reports
        if report.gpus and (version := text_fact(report, "gpu.driver")) is not None
    }
    return _compared(
        "driver",
        versions,
        None,
        lambda _, rather: f"install NVIDIA's driver {rather} there, the way that the other one came",
    )


def _compared(
    check: str, versions: Mapping[str, str], head: str | None, remedy: Callable[[str, str], str]
) -> list[Finding]:
    """Return a finding for each host; ``remedy`` is told the host and the version that it should rather have."""
    odd = _oddities(versions, head)
    findings = []
    for host, version in versions.items():
        if host in odd:
            text = f"{version}, and {odd[host].why}: their figures are not comparable"
            mended = remedy(host, odd[host].rather)
            findings.append(Finding(host=host, check=check, level=Level.WARNING, text=text, remedy=mended))
        else:
            findings.append(Finding(host=host, check=check, level=Level.OK, text=version))
    return findings


def _oddities(versions: Mapping[str, str], head: str | None) -> dict[str, _Oddity]:
    """Return the hosts that differ from most, and where they do not, from the head; among equals the head decides."""
    if not versions:
        return {}
    counts = Counter(versions.values())
    common = max(counts, key=lambda version: (counts[version], version == head))
    majority = _Oddity(rather=common, why=f"{counts[common]} of {len(versions)} hosts have {common}")
    odd = {host: majority for host, version in versions.items() if version != common}
    if head is not None and head != common:
        rest = _Oddity(rather=head, why=f"the head has {head}")
        odd |= {host: rest for host, version in versions.items() if version == common}
    return odd


def _install(report: HostReport, framework: str, version: str) -> str:
    """Return the command for the package that the framework came in: TensorFlow for CPUs has one of its own."""
    cpu = f"{framework}-cpu"
    return pip(report, cpu if text_fact(report, f"package.{cpu}") is not None else framework, version)
