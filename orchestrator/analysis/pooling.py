"""Cases that differ in nothing but the fresh process they were measured in, taken as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.results import CaseResult
    from workers.protocol import Case, Company, Device, Environment, Result, Workload

#: The graver doubt is told where processes differ: the first of these that any of them has.
_GRAVEST_FIRST: Final = (Verdict.CONTENDED, Verdict.THROTTLED, Verdict.NOISY, Verdict.OK)


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledCase:
    """One workload on one device, in every fresh process that it was measured in."""

    #: At least one, in the order of their processes.
    cases: tuple[CaseResult, ...]

    @property
    def case(self) -> Case:
        """The first process's case; the others differ in process and key alone."""
        return self.cases[0].case

    @property
    def device(self) -> Device:
        """Where it was measured."""
        return self.case.device

    @property
    def workload(self) -> Workload:
        """What was measured."""
        return self.case.workload

    @property
    def company(self) -> Company | None:
        """Whether the host was otherwise idle, or all of its devices were at work; ``None`` where nobody asked."""
        return self.case.company

    @property
    def measured(self) -> tuple[Result, ...]:
        """The results that have a figure, doubtful ones too."""
        return tuple(
            known.result
            for known in self.cases
            if known.result is not None and known.verdict is not None and known.verdict.has_figure
        )

    @property
    def processes_ms(self) -> tuple[tuple[float, ...], ...]:
        """The counted steps of each process that has a figure, milliseconds."""
        return tuple(result.samples_ms for result in self.measured)

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """The counted steps of all processes one after the other, milliseconds."""
        return tuple(sample for samples in self.processes_ms for sample in samples)

    @property
    def verdict(self) -> Verdict | None:
        """The gravest verdict of those with a figure; else the first that says why there is none."""
        found = tuple(known.verdict for known in self.cases if known.verdict is not None)
        return next((verdict for verdict in _GRAVEST_FIRST if verdict in found), next(iter(found), None))

    @property
    def environment(self) -> Environment | None:
        """Where the last process with a figure was measured; ``None`` where none has one."""
        return self.measured[-1].environment if self.measured else None


def pooled(cases: Iterable[CaseResult]) -> tuple[PooledCase, ...]:
    """Return the cases of a run by device, workload and company, in the order of their first processes.

    Two devices in one place, one after the other, are two: identity is the device's id and its UUID. Of one process
    there is one case in a pool; the same once more opens another.
    """
    groups: dict[tuple[object, ...], list[CaseResult]] = {}
    for known in cases:
        case = known.case
        peers = tuple((peer.id, peer.uuid) for peer in case.peers)
        same = (case.device.id, case.device.uuid, case.workload, case.company, case.method_version, peers)
        again = 0
        while any(other.case.process == case.process for other in groups.get((*same, again), ())):
            again += 1
        groups.setdefault((*same, again), []).append(known)
    return tuple(
        PooledCase(cases=tuple(sorted(group, key=lambda known: known.case.process))) for group in groups.values()
    )
