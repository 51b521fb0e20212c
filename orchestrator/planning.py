"""From a config and what was found to the cases of a run, in order, each with a time estimate. Pure."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.config.schema import HostConcurrency, Order
from orchestrator.config.sweep import SweptWorkload, expand, resolve
from orchestrator.diagnosis import Gap
from orchestrator.errors import MissingFrameworkError, UsageError
from orchestrator.grouping import groups_of, too_few
from workers import codec, works
from workers.protocol import METHOD_VERSION, Case, Company, Layout, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from orchestrator.config.measurement import MeasureConfig
    from orchestrator.config.schema import Config
    from orchestrator.inventory import DeclaredDevice, Inventory
    from orchestrator.results import Pace, Quarantine
    from workers.protocol import Device, HostReport, Sampling, Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCase:
    """A case and what is known of it before the run."""

    case: Case
    #: Why it will not be run; it still gets its row.
    gap: Gap | None = None
    #: Seconds that it is expected to take; ``None`` where no earlier run tells, and where there is a gap.
    estimate_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The cases of a run in the order in which they are begun."""

    cases: tuple[PlannedCase, ...]

    @property
    def runnable(self) -> tuple[Case, ...]:
        """The cases without a gap."""
        return tuple(planned.case for planned in self.cases if planned.gap is None)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that have something to do, each once."""
        return tuple({device.id: device for case in self.runnable for device in case.devices}.values())

    @property
    def known_s(self) -> float:
        """Seconds that the cases with an estimate take one after the other, the busiest host's; others not counted.

        Hosts work side by side; what the devices of a host do beside each other is not counted on.
        """
        by_host: dict[str, float] = {}
        for planned in self.cases:
            for host in {device.host for device in planned.case.devices}:
                by_host[host] = by_host.get(host, 0.0) + (planned.estimate_s or 0.0)
        return max(by_host.values(), default=0.0)

    @property
    def unknown(self) -> int:
        """How many cases will be run and have no estimate."""
        return sum(planned.gap is None and planned.estimate_s is None for planned in self.cases)


def make_plan(
    config: Config,
    inventory: Inventory,
    *,
    only: Sequence[str] = (),
    paces: Mapping[tuple[str, Workload], Pace] | None = None,
) -> Plan:
    """Return every workload on every declared device, in the order that ``policy.order`` asks for.

    Each of ``measure.processes`` is a case of its own, and none follows on the one before where anything else is there
    to be measured in between. Where ``policy.host_concurrency`` is ``both``, a host of several devices has each case
    twice: alone, and then together with the same workload on its other devices. Cases that hold several devices stand
    at the end, unless the order is random: until then their devices need not wait for each other.

    ``only`` keeps the cases that fit all of its ``field=value`` filters; several values of one field are
    alternatives. ``paces`` are what earlier runs tell, by device id and workload.

    Raises :class:`UsageError` for a filter that names no field or leaves no case, and
    :class:`MissingFrameworkError` when a framework that is asked for is on no host that answered.
    """
    measure = {host.name: config.measure_for(host) for host in config.hosts}
    workloads = expand(config.workloads)
    planned = [
        _plan_case(slot, measure[slot.entry.device.host].sampling, inventory)
        for slot in (
            *_ordered(
                config.policy.order,
                [(entry, measure[entry.device.host].processes) for entry in inventory.declared],
                [one for one in workloads if one.across is None],
                is_compared=config.policy.host_concurrency is HostConcurrency.BOTH,
            ),
            *_held_at_once(inventory, [one for one in workloads if one.across is not None], measure),
        )
    ]
    if config.policy.order is Order.RANDOM:
        planned.sort(key=lambda item: _digest(f"{config.policy.seed}:{_shuffled_by(item.case)}"))
    # `layout: [auto, NHWC]` is one and the same case on a CPU.
    planned = list({item.case.key: item for item in planned}.values())
    filters = parse_filters(only)
    kept = _without_lonely([item for item in planned if fits(item.case, filters)])
    if not kept:
        raise UsageError(
            f"no case is left by --only {' --only '.join(only)}", remedy="see the cases: muster plan CONFIG"
        )
    _require_frameworks(kept, inventory)
    return Plan(cases=tuple(_with_estimate(item, paces or {}) for item in kept))


def case_key(
    device: Device,
    workload: Workload,
    sampling: Sampling,
    *,
    process: int = 1,
    company: Company | None = None,
    peers: Sequence[Device] = (),
) -> str:
    """Return the content hash of a case: SHA-256 over canonical JSON, hexadecimal.

    The same for the same content in every process and on every machine. What a device is called or how much memory
    it reports does not count, which device it is does.
    """
    content = {
        "device": _identity(device),
        "workload": codec.to_data(workload),
        "sampling": codec.to_data(sampling),
        "method_version": METHOD_VERSION,
        # Only where they say something: keys from before they were there are to stay the same.
        **({"process": process} if process > 1 else {}),
        **({"company": company.value} if company is not None else {}),
        **({"peers": [_identity(peer) for peer in peers]} if peers else {}),
    }
    return _digest(codec.to_json(content))


def _identity(device: Device) -> dict[str, object]:
    return {"host": device.host, "selector": device.selector, "uuid": device.uuid, "cores": list(device.cores)}


def with_cases_of(plan: Plan, cases: Collection[Case]) -> Plan:
    """Return the part of a plan that is the work of these cases: on the same devices by name, the same workloads.

    Not by key: what was not there when a case was planned may be there now, and then has more that identifies it. What
    was measured together is measured together again, the whole of it.
    """
    wanted = {_work_of(case) for case in cases}
    groups = {company_key(case) for case in cases if case.company is Company.TOGETHER}
    found = (item for item in plan.cases if _work_of(item.case) in wanted or company_key(item.case) in groups)
    return Plan(cases=tuple(found))


def continued(plan: Plan, open_cases: Sequence[Case]) -> Plan:
    """Return what is left of an earlier run, in its order: its open cases, as the plan of now finds them.

    A case that is not in the plan any more has a gap: that of its device, or that this is another one by now.
    """
    by_key = {planned.case.key: planned for planned in plan.cases}
    by_work = {_work_of(planned.case): planned for planned in plan.cases}
    return Plan(cases=tuple(by_key.get(case.key) or _gone(case, by_work.get(_work_of(case))) for case in open_cases))


def _work_of(case: Case) -> tuple[object, ...]:
    return tuple(device.id for device in case.devices), case.workload, case.sampling, case.process, case.company


def _gone(case: Case, now: PlannedCase | None) -> PlannedCase:
    if now is not None and now.gap is not None:
        return PlannedCase(case=case, gap=now.gap)
    reason = "it is another device by now than when the run began" if now else "the run's config names it no more"
    return PlannedCase(case=case, gap=Gap(verdict=Verdict.DEVICE_MISSING, reason=reason))


def without_put_aside(plan: Plan, quarantines: Sequence[Quarantine]) -> Plan:
    """Return the plan with a gap for every case on a device or host that is put aside."""
    return Plan(cases=tuple(_unless_put_aside(planned, quarantines) for planned in plan.cases))


def _unless_put_aside(planned: PlannedCase, quarantines: Sequence[Quarantine]) -> PlannedCase:
    ids = [device.id for device in planned.case.devices]
    found = next((each for each in quarantines if any(map(each.covers, ids))), None)
    if planned.gap is not None or found is None:
        return planned
    reason = (
        f"put aside until {found.until:%Y-%m-%d %H:%M} UTC, for {found.failures} cases in a row failed there in run"
        f" {found.run_id}, the last: {found.reason}; `muster quarantine release {found.target}` lets it in again"
    )
    return PlannedCase(case=planned.case, gap=Gap(verdict=Verdict.NOT_RUN, reason=reason))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slot:
    """A place in the order."""

    entry: DeclaredDevice
    swept: SweptWorkload
    process: int
    company: Company | None = None
    #: The other devices that it holds.
    peers: tuple[DeclaredDevice, ...] = ()
    #: Why there are none, though it takes several.
    gap: Gap | None = None


def _held_at_once(
    inventory: Inventory, workloads: Sequence[SweptWorkload], measure: Mapping[str, MeasureConfig]
) -> Iterator[_Slot]:
    """Give the cases that hold several devices, the processes of each as many as its first device's host has.

    Where there are too few devices for a workload, across one host and across all, each device says so.
    """
    served = {one.model for one in workloads if groups_of(inventory.declared, one)}
    for one in workloads:
        for first, *others in groups_of(inventory.declared, one):
            swept = replace(one, model=works.among(one.model, 1 + len(others)))
            for number in range(1, measure[first.device.host].processes + 1):
                yield _Slot(entry=first, swept=swept, process=number, peers=tuple(others))
        if one.model not in served:
            gap = Gap(verdict=Verdict.UNSUPPORTED, reason=too_few(one.model))
            yield from (_Slot(entry=entry, swept=one, process=1, gap=gap) for entry in inventory.declared)


def _ordered(
    order: Order,
    declared: Sequence[tuple[DeclaredDevice, int]],
    workloads: Sequence[SweptWorkload],
    *,
    is_compared: bool,
) -> list[_Slot]:
    """Return every device with every workload and process, from 1 up to as many as stand beside the device.

    What is measured together stands together, as soon as each device has measured it alone; in sequential order at the
    end of its host.
    """
    rounds = range(1, max((processes for _, processes in declared), default=0) + 1)
    sizes = Counter(entry.device.host for entry, _ in declared)

    def slots(
        given: Sequence[tuple[DeclaredDevice, int]], one: SweptWorkload, number: int, company: Company
    ) -> list[_Slot]:
        return [
            _Slot(entry=entry, swept=one, process=number, company=company if is_shared(entry) else None)
            for entry, most in given
            if number <= most and (company is Company.ALONE or is_shared(entry))
        ]

    def is_shared(entry: DeclaredDevice) -> bool:
        return is_compared and sizes[entry.device.host] > 1

    if order is not Order.SEQUENTIAL:
        found = (slots(declared, one, number, company) for number in rounds for one in workloads for company in Company)
        return [slot for group in found for slot in group]
    ordered = []
    for host in sizes:
        ours = [(entry, most) for entry, most in declared if entry.device.host == host]
        alone = (slots([each], one, number, Company.ALONE) for each in ours for number in rounds for one in workloads)
        together = (slots(ours, one, number, Company.TOGETHER) for number in rounds for one in workloads)
        ordered += [slot for group in (*alone, *together) for slot in group]
    return ordered


def company_key(case: Case) -> tuple[object, ...]:
    """Return what cases have in common that are measured together, on as many devices of one host.

    The layout is the device's own: ``auto`` is another one for each kind.
    """
    return case.device.host, replace(case.workload, layout=Layout.NHWC), case.process, case.company


def _shuffled_by(case: Case) -> str:
    """Return what decides a case's place in a random order: those that are measured together stay together."""
    if case.company is not Company.TOGETHER:
        return case.key
    workload = codec.to_json(replace(case.workload, layout=Layout.NHWC))
    return f"{case.device.host} {workload} {case.process}"


def _without_lonely(planned: Sequence[PlannedCase]) -> list[PlannedCase]:
    """Return the plan with a gap for each case that is to be measured together, and cannot be."""
    groups: dict[tuple[object, ...], list[Case]] = {}
    found: list[PlannedCase] = []
    for item in planned:
        reason = None
        if item.gap is None and item.case.company is Company.TOGETHER:
            group = groups.setdefault(company_key(item.case), [])
            reason = _why_not_together(item.case, group)
            group += [item.case] if reason is None else []
        gap = item.gap if reason is None else Gap(verdict=Verdict.UNSUPPORTED, reason=reason)
        found.append(replace(item, gap=gap))
    return [_unless_lonely(item, groups) for item in found]


def _why_not_together(case: Case, others: Sequence[Case]) -> str | None:
    if case.workload.seeks_largest:
        return "the largest batch that fits is looked for alone: name a batch to measure it together with others"
    for other in others:
        if set(case.device.cores) & set(other.device.cores):
            return f"it shares cores with {other.device.selector}, and only one of them can be at work at a time"
        if case.device.id == other.device.id:
            return f"it is measured together with others in layout {other.workload.layout.value} already"
    return None


def _unless_lonely(item: PlannedCase, groups: Mapping[tuple[object, ...], Sequence[Case]]) -> PlannedCase:
    is_together = item.gap is None and item.case.company is Company.TOGETHER
    if not is_together or len(groups[company_key(item.case)]) > 1:
        return item
    return replace(item, gap=lonely(item.case))


def lonely(case: Case) -> Gap:
    """Return why a case is not measured together with others: there are none."""
    reason = f"no other device of {case.device.host} is there to be measured together with"
    return Gap(verdict=Verdict.DEVICE_MISSING, reason=reason)


def _plan_case(slot: _Slot, sampling: Sampling, inventory: Inventory) -> PlannedCase:
    device = slot.entry.device
    workload = resolve(slot.swept, device.kind)
    peers = tuple(entry.device for entry in slot.peers)
    case = Case(
        key=case_key(device, workload, sampling, process=slot.process, company=slot.company, peers=peers),
        device=device,
        workload=workload,
        sampling=sampling,
        process=slot.process,
        company=slot.company,
        peers=peers,
    )
    gaps = (_gap_of(entry, workload.framework, inventory) for entry in (slot.entry, *slot.peers))
    return PlannedCase(case=case, gap=slot.gap or next((gap for gap in gaps if gap is not None), None))


def _gap_of(entry: DeclaredDevice, framework: str, inventory: Inventory) -> Gap | None:
    return entry.gap or _framework_gap(framework, inventory.report_of(entry.device.host))


def _framework_gap(framework: str, report: HostReport | None) -> Gap | None:
    """Return why a host cannot run a framework; a host that did not answer has a gap of its own already."""
    for found in report.frameworks if report is not None else ():
        if found.name == framework and found.reason is not None:
            return Gap(verdict=Verdict.UNSUPPORTED, reason=found.reason)
    return None


def _require_frameworks(planned: Sequence[PlannedCase], inventory: Inventory) -> None:
    """Raise when nothing at all could be run, and only because a framework is missing."""
    # A host that cannot be used at all has told why, and it is not the framework.
    usable = {entry.device.id for entry in inventory.declared if entry.gap is None}
    unsupported = [item for item in planned if item.gap is not None and item.case.device.id in usable]
    if not unsupported or any(item.gap is None for item in planned):
        return
    hosts = ", ".join(dict.fromkeys(item.case.device.host for item in unsupported))
    first = unsupported[0]
    reason = first.gap.reason if first.gap else ""
    raise MissingFrameworkError(f"{first.case.workload.framework} cannot be used on {hosts}: {reason}")


def _with_estimate(planned: PlannedCase, paces: Mapping[tuple[str, Workload], Pace]) -> PlannedCase:
    pace = paces.get((planned.case.device.id, planned.case.workload))
    if planned.gap is not None or pace is None:
        return planned
    return PlannedCase(case=planned.case, estimate_s=estimate_s(planned.case.sampling, pace))


def estimate_s(sampling: Sampling, pace: Pace) -> float:
    """Return seconds that a case takes at most if it goes at ``pace``: start, warm-up, and every counted step."""
    step_s = pace.step_ms / 1000
    counted_s = sampling.max_steps * step_s
    if sampling.max_time_s is not None:
        # Sampling looks at the clock after each step, so it ends up to one step late.
        counted_s = min(counted_s, sampling.max_time_s + step_s)
    return pace.startup_s + sampling.warmup * step_s + counted_s


# --- filters ---------------------------------------------------------------------------------------------------

#: What ``--only`` can name, and how it is read off a case.
_FIELDS: Mapping[str, Callable[[Case], str]] = {
    "host": lambda case: case.device.host,
    "device": lambda case: case.device.selector,
    "kind": lambda case: case.device.kind.value,
    "model": lambda case: case.workload.model,
    "pass": lambda case: case.workload.pass_.value,
    "batch_size": lambda case: "max" if case.workload.seeks_largest else str(case.workload.batch_size),
    "precision": lambda case: case.workload.precision.value,
    "layout": lambda case: case.workload.layout.value,
    "compiler": lambda case: case.workload.compiler.value,
    "onednn": lambda case: "auto" if case.workload.onednn is None else case.workload.onednn.value,
    "threads": lambda case: "all" if case.workload.threads is None else str(case.workload.threads),
    "framework": lambda case: case.workload.framework,
    "fetch": lambda case: case.workload.fetch.value,
    "process": lambda case: str(case.process),
    "company": lambda case: "none" if case.company is None else case.company.value,
}


def filter_values(case: Case) -> Mapping[str, str]:
    """Return what ``--only`` can name of a case: the value of each field."""
    return {field: value(case) for field, value in _FIELDS.items()}


def parse_filters(only: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return the values that each field may have; raises :class:`UsageError`."""
    filters: dict[str, frozenset[str]] = {}
    for text in only:
        field, equals, value = text.partition("=")
        if not equals or not value or field not in _FIELDS:
            close = difflib.get_close_matches(field, _FIELDS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close and close[0] != field else ""
            raise UsageError(f"--only {text}: expected FIELD=VALUE{hint}", remedy=f"fields are: {', '.join(_FIELDS)}")
        filters[field] = filters.get(field, frozenset()) | {value}
    return filters


def fits(case: Case, filters: Mapping[str, frozenset[str]]) -> bool:
    """Return whether a case has one of the values of each field, as :func:`parse_filters` gives them."""
    return all(_FIELDS[field](case) in values for field, values in filters.items())
