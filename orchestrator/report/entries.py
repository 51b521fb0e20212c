"""What a row of the table stands for, before it is drawn: a device with a workload, or a published row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from orchestrator.analysis import statistics
from orchestrator.analysis.noise import floor_for, floor_share, pooled_between_sd
from orchestrator.analysis.pooling import pooled
from orchestrator.report.figures import mean_and_sd, memory_size, rounded
from orchestrator.report.printable import printable
from orchestrator.report.table import Link, RowKind
from orchestrator.report.workloads import in_threads
from orchestrator.results import RunState
from workers import works
from workers.protocol import (
    NETWORK_PASSES,
    Company,
    Compiler,
    DeviceKind,
    Environment,
    Fetch,
    Layout,
    Pass,
    Precision,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.analysis.pooling import PooledCase
    from orchestrator.analysis.references import PublishedFigure, Reference
    from orchestrator.analysis.statistics import Summary
    from orchestrator.report.table import CellValue
    from orchestrator.results import CaseResult, NoiseFloor, Run
    from workers.protocol import Case, Device, Result, Workload
    from workers.telemetry.series import Doubt

NOT_ASKED: Final = "not asked"
NOT_ENDED: Final = "not ended"

#: How frameworks write their own names; others are written as configs do.
_SPELLINGS: Final = {"tensorflow": "TensorFlow", "torch": "PyTorch", "jax": "JAX"}

#: What Details says of a row's company.
_COMPANIES: Final = {
    None: None,
    Company.ALONE: "alone on its host",
    Company.TOGETHER: "together with its host's others",
}

#: Characters of a reason that Details has room for; the whole of it is in the notes.
_REASON_LENGTH: Final = 80
_CUT_OFF: Final = " ..."


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """One pass of an entry: its figure, or why there is none."""

    #: What the seed's column shows.
    text: str
    mean_ms: float | None = None
    #: ``None`` also where a single step was timed.
    sd_ms: float | None = None
    verdict: Verdict | None = None
    #: Why there is no figure, or why it is doubtful.
    reason: str | None = None
    #: ``None`` for published figures, whose samples are not known.
    summary: Summary | None = None
    peak_flops: float | None = None
    peak_reason: str | None = None
    copy_bytes_per_s: float | None = None
    copy_reason: str | None = None
    #: How often it was tried; ``None`` where it was never to be.
    attempts: int | None = None
    #: The batch that was measured, where it was searched for and found.
    batch_size: int | None = None
    #: What speaks against the figure.
    doubts: tuple[Doubt, ...] = ()
    #: Fresh processes whose steps the figure is of; 0 for a published one, and where there is none.
    processes: int = 0
    #: Standard deviation of the processes' medians, as a share of their mean; ``None`` for fewer than two.
    between_sd: float | None = None
    #: What the device took for one step, joules; ``None`` with a reason where it was not counted.
    joules_per_step: float | None = None
    energy_reason: str | None = None
    #: By how much a figure must differ from another of this device to be another; ``None`` where nobody measured it.
    noise_floor: float | None = None

    @property
    def is_asked(self) -> bool:
        """True where there is a figure, or a verdict in its place."""
        return self.mean_ms is not None or self.verdict is not None or self.text == NOT_ENDED


#: In place of a figure that cannot be: a matrix product has no pass back.
_NO_SUCH_PASS: Final = Timing(text="", reason="there is no such pass")


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryDefinition:
    """What the figures of an entry are of, as far as its origin tells."""

    model: str
    #: ``None`` where the largest was looked for, and none was found or the passes have different ones.
    batch_size: int | None
    precision: str
    framework: str
    fetch: str
    layout: str | None = None
    compiler: str | None = None
    #: Whether the largest batch that fits was looked for.
    seeks_largest: bool = False
    #: ``None`` as the framework decided; the same for a published row.
    onednn: str | None = None
    #: ``None`` for all cores; the same for a published row.
    threads: int | None = None
    #: Whether the host's other devices were at work as well; ``None`` where nobody asked for a comparison.
    company: Company | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row to be."""

    kind: RowKind
    device_name: str
    memory: str | None
    definition: EntryDefinition
    #: Every pass, those that nobody asked for or published as well.
    by_pass: tuple[tuple[Pass, Timing], ...]
    details: str
    #: Name and version as people write them; of a published row as far as it is known.
    framework: str
    links: tuple[Link, ...] = ()
    #: ``None`` for a published row, as are the next two.
    host: str | None = None
    selector: str | None = None
    device_id: str | None = None
    #: What of the run the row shows; empty for a published row.
    cases: tuple[CaseResult, ...] = ()

    def timing(self, pass_: Pass) -> Timing:
        """Return what is known of one pass."""
        return dict(self.by_pass)[pass_]

    def batch_size(self, pass_: Pass) -> int | None:
        """Return the batch of one pass; ``None`` where it was searched for and not found."""
        return self.timing(pass_).batch_size or self.definition.batch_size

    @property
    def is_part(self) -> bool:
        """True for a layer by itself and for an operation."""
        return works.is_part(self.definition.model)

    def flop(self, pass_: Pass) -> int | None:
        """Return the operations of one step as the model's layers need them; ``None`` for a model that is not here."""
        batch_size = self.batch_size(pass_)
        try:
            work = works.find(self.definition.model)
        except works.UNKNOWN:
            return None
        return None if batch_size is None else work.flop(batch_size, pass_)

    @property
    def reduced_bytes(self) -> int | None:
        """The bytes that the devices of a sum give together; ``None`` for anything else."""
        model = self.definition.model
        if not works.is_collective(model):
            return None
        return works.reduced_bytes(model, Precision(self.definition.precision).itemsize)

    def intensity(self, pass_: Pass) -> float | None:
        """Return the operations for each byte that a step moves at the least; ``None`` where either is not known."""
        flop, batch_size = self.flop(pass_), self.batch_size(pass_)
        if not flop or batch_size is None:
            return None
        itemsize = Precision(self.definition.precision).itemsize
        return flop / works.find(self.definition.model).bytes(batch_size, pass_, itemsize)

    def facts(self) -> tuple[tuple[str, CellValue], ...]:
        """Return what identifies the entry, by name, for machines."""
        definition = self.definition
        return (
            ("device_id", self.device_id),
            ("model", definition.model),
            ("batch_size", definition.batch_size),
            ("precision", definition.precision),
            ("layout", definition.layout),
            ("compiler", definition.compiler),
            ("framework", definition.framework),
            ("fetch", definition.fetch),
            *(self._searched() if definition.seeks_largest else ()),
            *((("onednn", definition.onednn),) if definition.onednn is not None else ()),
            *((("threads", definition.threads),) if definition.threads is not None else ()),
            *((("company", definition.company.value),) if definition.company is not None else ()),
        )

    def _searched(self) -> tuple[tuple[str, CellValue], ...]:
        """Return what was looked for, and what was found for each pass."""
        found = ((f"{pass_.value}_batch_size", self.timing(pass_).batch_size) for pass_ in NETWORK_PASSES)
        return (("seeks_largest", True), *found)


def passes_of(entries: Sequence[Entry]) -> tuple[Pass, ...]:
    """Return the passes that have a column: a network's two, unless all entries are parts, and those with figures."""
    asked = {pass_ for entry in entries for pass_, timing in entry.by_pass if timing.is_asked}
    if not entries or not all(entry.is_part for entry in entries):
        asked |= set(NETWORK_PASSES)
    return tuple(pass_ for pass_ in Pass if pass_ in asked)


def measured(run: Run, floors: Sequence[NoiseFloor] = ()) -> tuple[Entry, ...]:
    """Return an entry for each device and workload of a run, its passes side by side; devices in the plan's order.

    Several processes of a case are one figure, of all their steps. ``floors`` are the noise floors that are known.
    """
    return tuple(_entry(run, tuple(row), floors) for row in _grouped(pooled(run.cases)))


def published(references: Sequence[Reference]) -> tuple[Entry, ...]:
    """Return an entry for each reference, in their order."""
    return tuple(_published_entry(reference) for reference in references)


# --- grouping --------------------------------------------------------------------------------------------------


def _grouped(cases: Sequence[PooledCase]) -> list[list[PooledCase]]:
    """Cases that differ in their pass alone stand together; a pass that is there already opens a row of its own."""
    devices: dict[str, list[list[PooledCase]]] = {}
    for case in cases:
        rows = devices.setdefault(case.device.id, [])
        row = next((row for row in rows if _has_room(row, case)), None)
        if row is None:
            rows.append([case])
        else:
            row.append(case)
    return [row for rows in devices.values() for row in rows]


def _has_room(row: Sequence[PooledCase], case: PooledCase) -> bool:
    workload = case.workload
    return all(
        replace(other.workload, pass_=workload.pass_) == workload
        and other.workload.pass_ != workload.pass_
        and other.company is case.company
        for other in row
    )


# --- measured rows ---------------------------------------------------------------------------------------------


def _entry(run: Run, pools: Sequence[PooledCase], floors: Sequence[NoiseFloor]) -> Entry:
    device, workload = pools[0].device, pools[0].workload
    by_pass = {pool.workload.pass_: _with_tries(_timing(run, pool, floors), pool) for pool in pools}
    cases = tuple(case for pool in pools for case in pool.cases)
    not_asked = Timing(text=NOT_ASKED, reason="this pass was not asked for")
    has = _passes_of(workload.model)
    said = (*_details(run, device, workload, cases, by_pass), *_processes(by_pass), *_tries(by_pass))
    return Entry(
        kind=RowKind.SIMULATED if run.simulated else RowKind.MEASURED,
        device_name=_names(pools[0].case),
        memory=_memory(device),
        definition=_definition(workload, {timing.batch_size for timing in by_pass.values()}, pools[0].company),
        by_pass=tuple((pass_, by_pass.get(pass_, not_asked if pass_ in has else _NO_SUCH_PASS)) for pass_ in Pass),
        details=" / ".join((*said, *_reasons(by_pass))),
        framework=_framework(workload, _environment(cases)),
        host=device.host,
        selector=device.selector,
        device_id=device.id,
        cases=cases,
    )


def _names(case: Case) -> str:
    """Return what people call the devices of a case: ``4 x NVIDIA H100`` where it holds as many, each name once."""
    counted = Counter(device.name or device.selector for device in case.devices)
    if not case.peers:
        return next(iter(counted))
    return " + ".join(f"{number} x {name}" for name, number in counted.items())


def _passes_of(model: str) -> tuple[Pass, ...]:
    try:
        return works.find(model).passes
    except works.UNKNOWN:
        return NETWORK_PASSES


def _with_tries(timing: Timing, pool: PooledCase) -> Timing:
    return replace(timing, attempts=sum(len(case.attempts) for case in pool.cases))


def _timing(run: Run, pool: PooledCase, floors: Sequence[NoiseFloor]) -> Timing:
    verdict, measured = pool.verdict, tuple(result for result in pool.measured if result.samples_ms)
    if verdict is None:
        return _unended(run)
    if not verdict.has_figure:
        reason = _first(case.reason for case in pool.cases) or "no reason was recorded"
        return Timing(text=verdict.value, verdict=verdict, reason=reason)
    if not measured:
        return Timing(text="no samples", verdict=verdict, reason="no samples were recorded")
    summary = statistics.summarise(pool.samples_ms)
    spread = pooled_between_sd([pool.processes_ms])
    joules, energy_reason = _joules_per_step(measured)
    floor = floor_for(floors, pool.device, pool.workload)
    count = len(measured)
    return Timing(
        text=_figure_text(summary, verdict),
        mean_ms=summary.mean_ms,
        sd_ms=summary.sd_ms if summary.count > 1 else None,
        verdict=verdict,
        reason=_why_doubtful(pool, verdict),
        summary=summary,
        peak_flops=statistics.middle(result.peak_flops for result in measured),
        peak_reason=_first(result.peak_reason for result in measured),
        copy_bytes_per_s=statistics.middle(result.copy_bytes_per_s for result in measured),
        copy_reason=_first(result.copy_reason for result in measured),
        batch_size=measured[-1].batch_size,
        doubts=tuple({doubt.text: doubt for result in measured for doubt in result.doubts}.values()),
        processes=count,
        between_sd=None if spread is None else spread[0],
        joules_per_step=joules,
        energy_reason=energy_reason,
        noise_floor=None if floor is None else floor_share(floor.between_sd, floor.processes, count, count),
    )


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason), None)


def _why_doubtful(pool: PooledCase, verdict: Verdict) -> str | None:
    """Return why the figure is doubtful, or that some of its processes have none."""
    doubtful = _first(case.reason for case in pool.cases if case.verdict is verdict)
    failed = [case for case in pool.cases if case.verdict is not None and not case.verdict.has_figure]
    if not failed:
        return doubtful
    lost = f"{len(failed)} of {len(pool.cases)} processes without a figure: {failed[0].reason or 'no reason'}"
    return f"{doubtful}; {lost}" if doubtful else lost


def _joules_per_step(measured: Sequence[Result]) -> tuple[float | None, str | None]:
    """Return what a step took of all processes' counted ones; where one was not counted, why."""
    counted = [result.telemetry.energy if result.telemetry is not None else None for result in measured]
    joules = [energy.joules for energy in counted if energy is not None and energy.joules is not None]
    if len(joules) < len(counted):
        return None, _first(energy.reason for energy in counted if energy is not None) or "nobody looked"
    return sum(joules) / sum(len(result.samples_ms) for result in measured), None


def _unended(run: Run) -> Timing:
    if run.state is RunState.RUNNING:
        return Timing(text=NOT_ENDED, reason="the run is still going on")
    return Timing(text=Verdict.NOT_RUN.value, verdict=Verdict.NOT_RUN, reason="the run ended before this case did")


def _figure_text(summary: Summary, verdict: Verdict) -> str:
    figure = mean_and_sd(summary.mean_ms, summary.sd_ms) if summary.count > 1 else rounded(summary.mean_ms)
    marks = ["one sample"] if summary.count == 1 else []
    if verdict is not Verdict.OK:
        marks.append(verdict.value)
    return f"{figure} ({', '.join(marks)})" if marks else figure


def _memory(device: Device) -> str | None:
    if device.memory is None and device.memory_bytes is not None:
        return memory_size(device.memory_bytes)
    return device.memory


def _definition(workload: Workload, found: set[int | None], company: Company | None) -> EntryDefinition:
    """Return what a row is of; ``found`` are the batches of its passes, where they were searched for."""
    batch_size = next(iter(found)) if len(found) == 1 else None
    return EntryDefinition(
        model=workload.model,
        batch_size=batch_size if workload.seeks_largest else workload.batch_size,
        precision=workload.precision.value,
        framework=workload.framework,
        fetch=workload.fetch.value,
        layout=workload.layout.value,
        compiler=workload.compiler.value,
        seeks_largest=workload.seeks_largest,
        onednn=workload.onednn and workload.onednn.value,
        threads=workload.threads,
        company=company,
    )


def _environment(cases: Sequence[CaseResult]) -> Environment:
    environment = Environment()
    for case in cases:
        if case.result is not None:
            environment = environment.merged(case.result.environment)
    return environment


def _details(
    run: Run, device: Device, workload: Workload, cases: Sequence[CaseResult], by_pass: dict[Pass, Timing]
) -> tuple[str, ...]:
    """The software, where it ran and what: in the seed's manner, and only what is not as usual."""
    environment = _environment(cases)
    place = ", ".join(
        each.host if each.selector == "cpu" else f"{each.host} {each.selector}" for each in cases[0].case.devices
    )
    parts = (
        "simulated" if run.simulated else None,
        place,
        _framework(workload, environment),
        _versioned("CUDA v", environment, "framework.cuda"),
        _versioned("cuDNN ", environment, "framework.cudnn"),
        _versioned("", environment, "collective.implementation"),
        # Of a part a column says it, its problem's sizes with it.
        None if works.is_part(workload.model) else workload.model,
        None if works.is_operation(workload.model) else _batch(workload, by_pass),
        workload.precision.value,
        "TF32 allowed" if _may_use_tf32(device, workload, environment) else None,
        workload.layout.value if workload.layout is not Layout.NHWC else None,
        workload.compiler.value if workload.compiler is not Compiler.NONE else None,
        f"oneDNN {workload.onednn.value}" if workload.onednn is not None else None,
        in_threads(workload.threads) if workload.threads is not None else None,
        f"fetch {workload.fetch.value}" if workload.fetch is not Fetch.DEVICE else None,
        _COMPANIES[cases[0].case.company],
    )
    return tuple(part for part in parts if part is not None)


def _batch(workload: Workload, by_pass: dict[Pass, Timing]) -> str:
    """The batch; of a search what it found, for each pass where they differ."""
    if not workload.seeks_largest:
        return f"batch {workload.batch_size}"
    found = {pass_: timing.batch_size for pass_, timing in by_pass.items() if timing.batch_size is not None}
    if not found:
        return f"batch max (from {workload.batch_size})"
    if len(set(found.values())) == 1 and len(found) == len(by_pass):
        return f"batch {next(iter(found.values()))} (largest that fits)"
    sizes = ", ".join(f"{pass_.value.replace('_', '-')} {size}" for pass_, size in found.items())
    return f"batch {sizes} (largest that fits)"


def _framework(workload: Workload, environment: Environment) -> str:
    name = _SPELLINGS.get(workload.framework, workload.framework)
    version = environment.get("framework.version").value
    return name if version is None else f"{name} {version}"


def _may_use_tf32(device: Device, workload: Workload, environment: Environment) -> bool:
    """Whether float32 products may be rounded to TF32, as GPUs since Ampere do where the framework lets them."""
    is_float32_on_gpu = device.kind is DeviceKind.GPU and workload.precision is Precision.FLOAT32
    return is_float32_on_gpu and environment.get("framework.tf32").value is True


def _versioned(prefix: str, environment: Environment, fact: str) -> str | None:
    value = environment.get(fact).value
    return None if value is None else f"{prefix}{value}"


def _processes(by_pass: dict[Pass, Timing]) -> tuple[str, ...]:
    """How many fresh processes a figure is of, and how far apart they were."""
    return _said({pass_: _spread(timing) for pass_, timing in by_pass.items()})


def _spread(timing: Timing) -> str | None:
    if timing.between_sd is None:
        return None
    return f"{timing.processes} processes, sd between them {100 * timing.between_sd:.2g} %"


def _tries(by_pass: dict[Pass, Timing]) -> tuple[str, ...]:
    """How often figures were tried for, where once was not enough."""
    return _said({pass_: _attempts(timing) for pass_, timing in by_pass.items()})


def _attempts(timing: Timing) -> str | None:
    is_late = timing.mean_ms is not None and timing.attempts is not None and timing.attempts > max(timing.processes, 1)
    return f"{timing.attempts} attempts" if is_late else None


def _reasons(by_pass: dict[Pass, Timing]) -> tuple[str, ...]:
    """Why there are no figures, or doubtful ones."""
    return _said({pass_: _reason(timing) for pass_, timing in by_pass.items()})


def _said(by_pass: dict[Pass, str | None]) -> tuple[str, ...]:
    """What is to be said of each pass; once where it is the same of all."""
    if len(set(by_pass.values())) == 1:
        return tuple(words for words in set(by_pass.values()) if words)
    return tuple(f"{pass_.value.replace('_', '-')} {words}" for pass_, words in by_pass.items() if words)


def _reason(timing: Timing) -> str | None:
    if not timing.reason:
        return None
    word = timing.verdict.value if timing.verdict else timing.text
    return f"{word}: {shortened(timing.reason)}"


def shortened(reason: str) -> str:
    """Return a reason as one line with room in Details, its end cut off where it is too long."""
    line = printable(reason)
    if len(line) <= _REASON_LENGTH:
        return line
    start = line[: _REASON_LENGTH - len(_CUT_OFF)]
    return (start.rpartition(" ")[0] or start) + _CUT_OFF


# --- published rows --------------------------------------------------------------------------------------------


def _published_entry(reference: Reference) -> Entry:
    definition = reference.definition
    return Entry(
        kind=RowKind.REFERENCE,
        device_name=reference.device,
        memory=reference.memory,
        definition=EntryDefinition(
            model=definition.model,
            batch_size=definition.batch_size,
            precision=definition.precision,
            framework=definition.framework,
            fetch=definition.fetch,
        ),
        by_pass=tuple(_published_passes(reference)),
        details=reference.details,
        framework=_SPELLINGS.get(definition.framework, definition.framework),
        links=tuple(Link(text=link.text, url=link.url) for link in reference.links),
    )


def _published_passes(reference: Reference) -> Iterator[tuple[Pass, Timing]]:
    has = _passes_of(reference.definition.model)
    for pass_ in Pass:
        figure = reference.figure(pass_)
        is_possible = pass_ in has or figure is not None
        yield pass_, _published_timing(figure) if is_possible else _NO_SUCH_PASS


def _published_timing(figure: PublishedFigure | None) -> Timing:
    if figure is None:
        return Timing(text="not published", reason="no figure was published for this pass")
    return Timing(text=figure.text, mean_ms=figure.mean_ms, sd_ms=figure.sd_ms)
