"""The columns of the table: the seed's, the wide ones, and the ratio to a chosen row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from orchestrator.analysis import statistics
from orchestrator.report.figures import rounded
from orchestrator.report.table import Align, Cell, Column
from workers.protocol import NETWORK_PASSES, Company, Pass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.analysis.statistics import Summary
    from orchestrator.report.entries import Entry, EntryDefinition, Timing

#: Of a figure whose batch was searched for, and not recorded.
_NO_BATCH: Final = "the batch that was measured is not known"

_PREFIXES: Final = {
    Pass.FORWARD: "Forward",
    Pass.FORWARD_BACKWARD: "Forward-backward",
    Pass.BACKWARD_DATA: "Backward data",
    Pass.BACKWARD_WEIGHTS: "Backward weights",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A column and how an entry fills it; ``number`` counts rows from 1."""

    column: Column
    cell: Callable[[int, Entry], Cell]


def seed_fields(passes: Sequence[Pass] = NETWORK_PASSES) -> tuple[Field, ...]:
    """Return the seed's six columns, headings to the letter; with other passes a column for each of these."""
    return (
        Field(
            column=Column(key="num", heading="Num"),
            cell=lambda number, _: Cell(text=str(number), value=number),
        ),
        Field(
            column=Column(key="device", heading="GPU/CPU"),
            cell=lambda _, entry: Cell(text=entry.device_name, value=entry.device_name),
        ),
        Field(
            column=Column(key="memory", heading="Memory"),
            cell=lambda _, entry: _text(entry.memory, "the amount of memory is not known"),
        ),
        *map(_timing_field, passes),
        Field(
            column=Column(key="details", heading="Details"),
            cell=lambda _, entry: Cell(text=entry.details, value=entry.details, links=entry.links),
        ),
    )


def with_parts(entries: Sequence[Entry], passes: Sequence[Pass], *, wide: bool) -> tuple[Field, ...]:
    """Return the seed's columns for layers and operations by themselves: which it is, and a rate beside each time.

    ``wide`` has the rates already, and where nothing multiplies there are none.
    """
    fields = seed_fields(passes)
    is_rated = not wide and any(entry.flop(pass_) for entry in entries for pass_ in passes)
    timings = zip(fields[3:-1], passes, strict=True)
    rated = (
        each for timing, pass_ in timings for each in (timing, *((_short_tflops_field(pass_),) if is_rated else ()))
    )
    return (*fields[:3], work_field(), *rated, fields[-1])


def work_field() -> Field:
    """Return the column that says which layer or operation a row is of."""
    return Field(
        column=Column(key="work", heading="Work"),
        cell=lambda _, entry: Cell(text=entry.definition.model, value=entry.definition.model),
    )


def collective_fields(entries: Sequence[Entry]) -> tuple[Field, ...]:
    """Return a column for the bandwidth of sums over several devices as DeepBench gives it, where there are any.

    The bytes that all devices give together, by the time of a call:
    :meth:`workers.ops.collective.AllReduce.reduced_bytes`.
    """
    if not any(entry.reduced_bytes is not None for entry in entries):
        return ()
    field = _rate(Pass.FORWARD, "reduced_gb_per_s", "GB/s", "GB/s", _reduced_gb_per_s)
    return (replace(field, column=replace(field.column, heading="Sum GB/s")),)


def framework_fields(entries: Sequence[Entry]) -> tuple[Field, ...]:
    """Return a column for what ran each row, with its version, where the run has more than one framework."""
    if len({entry.definition.framework for entry in entries}) < 2:
        return ()
    return (
        Field(
            column=Column(key="framework", heading="Framework"),
            cell=lambda _, entry: Cell(text=entry.framework, value=entry.framework),
        ),
    )


def wide_fields(passes: Sequence[Pass] = NETWORK_PASSES) -> tuple[Field, ...]:
    """Return what ``--wide`` adds: where the row was measured, then everything known of each pass."""
    return (
        Field(
            column=Column(key="host", heading="Host"),
            cell=lambda _, entry: _text(entry.host, "a published row"),
        ),
        Field(
            column=Column(key="selector", heading="Device"),
            cell=lambda _, entry: _text(entry.selector, "a published row"),
        ),
        *(field for pass_ in passes for field in _pass_fields(pass_)),
    )


def ratio_fields(
    chosen_name: str, chosen_for: Callable[[Entry], Entry | None], passes: Sequence[Pass] = NETWORK_PASSES
) -> tuple[Field, ...]:
    """Return a column a pass that says how many times as many images a second go through as on the chosen row.

    ``chosen_for`` gives the row that an entry is held against, ``None`` where there is none of the same model.
    """
    return tuple(_ratio_field(pass_, chosen_name, chosen_for) for pass_ in passes)


def penalty_fields(entries: Sequence[Entry]) -> tuple[Field, ...]:
    """Return a column a pass that says how much longer a step takes together with the host's others than alone.

    By the rows' means, percent; none for a pass that no row was to be measured in company.
    """
    alone = {_apart_from_company(entry): entry for entry in entries if entry.definition.company is Company.ALONE}
    together = [entry for entry in entries if entry.definition.company is Company.TOGETHER]
    return tuple(
        _penalty_field(pass_, lambda entry: alone.get(_apart_from_company(entry)))
        for pass_ in Pass
        if any(entry.timing(pass_).is_asked for entry in together)
    )


# --- one pass --------------------------------------------------------------------------------------------------


def _timing_field(pass_: Pass) -> Field:
    def cell(_: int, entry: Entry) -> Cell:
        timing = entry.timing(pass_)
        return Cell(
            text=timing.text, value=timing.mean_ms, sd=timing.sd_ms, verdict=timing.verdict, reason=timing.reason
        )

    heading = f"{_PREFIXES[pass_]} pass (ms)"
    return Field(column=Column(key=f"{pass_.value}_ms", heading=heading, unit="ms", has_spread=True), cell=cell)


def _pass_fields(pass_: Pass) -> tuple[Field, ...]:
    def verdict(_: int, entry: Entry) -> Cell:
        timing = entry.timing(pass_)
        if timing.verdict is None:
            return _missing(timing.reason or "a published row")
        return Cell(text=timing.verdict.value, value=timing.verdict.value, verdict=timing.verdict, reason=timing.reason)

    key, prefix = f"{pass_.value}_verdict", _PREFIXES[pass_]
    return (
        Field(column=Column(key=key, heading=f"{prefix} verdict"), cell=verdict),
        _attempts_field(pass_),
        _statistic(pass_, "samples", "samples", None, lambda summary: summary.count),
        _statistic(pass_, "median_ms", "median (ms)", "ms", lambda summary: summary.median_ms),
        _statistic(pass_, "p5_ms", "p5 (ms)", "ms", lambda summary: summary.p5_ms),
        _statistic(pass_, "p95_ms", "p95 (ms)", "ms", lambda summary: summary.p95_ms),
        _statistic(pass_, "min_ms", "min (ms)", "ms", lambda summary: summary.min_ms),
        _statistic(pass_, "mad_ms", "MAD (ms)", "ms", lambda summary: summary.mad_ms),
        _statistic(pass_, "effective_samples", "effective samples", None, lambda summary: summary.effective_count),
        _statistic(pass_, "ci95_low_ms", "95 % CI low (ms)", "ms", lambda summary: summary.ci95_low_ms),
        _statistic(pass_, "ci95_high_ms", "95 % CI high (ms)", "ms", lambda summary: summary.ci95_high_ms),
        _processes_field(pass_),
        _evidence(pass_, "between_sd_percent", "sd between processes (%)", "%", _between_sd),
        _evidence(pass_, "noise_floor_percent", "noise floor (%)", "%", _noise_floor),
        _evidence(pass_, "energy_j", "energy a batch (J)", "J", _energy),
        _rate(pass_, "images_per_j", "images/J", "1/J", _images_per_j),
        _rate(pass_, "images_per_s", "images/s", "1/s", _images_per_s),
        _tflops_field(pass_),
        _rate(pass_, "share_of_peak_percent", "share of peak (%)", "%", _share_of_peak_percent),
        _evidence(pass_, "memory_gb_per_s", "memory peak (GB/s)", "GB/s", _memory_gb_per_s),
        _rate(pass_, "share_of_roof_percent", "share of roof (%)", "%", _share_of_roof_percent),
    )


def _processes_field(pass_: Pass) -> Field:
    def cell(_: int, entry: Entry) -> Cell:
        timing = entry.timing(pass_)
        return _figure(timing.processes) if timing.processes else _missing(timing.reason or "a published row")

    return Field(column=_right(pass_, "processes", "processes", None), cell=cell)


def _evidence(pass_: Pass, key: str, heading: str, unit: str, figure: Callable[[Timing], float | str]) -> Field:
    """A figure from beside the samples; a ``str`` in its place says why there is none."""

    def cell(_: int, entry: Entry) -> Cell:
        timing = entry.timing(pass_)
        if timing.summary is None:
            return _missing(timing.reason or "a published row")
        value = figure(timing)
        return _missing(value) if isinstance(value, str) else _figure(value)

    return Field(column=_right(pass_, key, heading, unit), cell=cell)


def _between_sd(timing: Timing) -> float | str:
    return "one process only: measure.processes" if timing.between_sd is None else 100 * timing.between_sd


def _noise_floor(timing: Timing) -> float | str:
    return "not measured: muster noise CONFIG" if timing.noise_floor is None else 100 * timing.noise_floor


def _energy(timing: Timing) -> float | str:
    return timing.energy_reason or "not counted" if timing.joules_per_step is None else timing.joules_per_step


def _attempts_field(pass_: Pass) -> Field:
    def cell(_: int, entry: Entry) -> Cell:
        timing = entry.timing(pass_)
        return _missing(timing.reason or "a published row") if timing.attempts is None else _figure(timing.attempts)

    return Field(column=_right(pass_, "attempts", "attempts", None), cell=cell)


def _statistic(
    pass_: Pass, key: str, heading: str, unit: str | None, figure: Callable[[Summary], float | None]
) -> Field:
    def cell(_: int, entry: Entry) -> Cell:
        timing = entry.timing(pass_)
        if timing.summary is None:
            return _missing(timing.reason or "not published")
        value = figure(timing.summary)
        return _missing("a single sample has no interval") if value is None else _figure(value)

    return Field(column=_right(pass_, key, heading, unit), cell=cell)


def _rate(pass_: Pass, key: str, heading: str, unit: str, figure: Callable[[Entry, Pass, float], float | str]) -> Field:
    """A figure that follows from the mean; a ``str`` in its place says why there is none."""

    def cell(_: int, entry: Entry) -> Cell:
        timing = entry.timing(pass_)
        if timing.mean_ms is None:
            return _missing(timing.reason or "no figure")
        value = figure(entry, pass_, timing.mean_ms)
        return _missing(value) if isinstance(value, str) else _figure(value)

    return Field(column=_right(pass_, key, heading, unit), cell=cell)


def _short_tflops_field(pass_: Pass) -> Field:
    field = _tflops_field(pass_)
    return replace(field, column=replace(field.column, heading=f"{_PREFIXES[pass_]} TFLOP/s"))


def _tflops_field(pass_: Pass) -> Field:
    return _rate(pass_, "effective_tflops", "effective TFLOP/s", "TFLOP/s", _effective_tflops)


def _images_per_s(entry: Entry, pass_: Pass, mean_ms: float) -> float | str:
    batch_size = entry.batch_size(pass_)
    return _NO_BATCH if batch_size is None else statistics.images_per_s(batch_size, mean_ms)


def _images_per_j(entry: Entry, pass_: Pass, mean_ms: float) -> float | str:
    batch_size, timing = entry.batch_size(pass_), entry.timing(pass_)
    if batch_size is None:
        return _NO_BATCH
    if timing.joules_per_step is None:
        return timing.energy_reason or "not counted"
    return batch_size / timing.joules_per_step


def _effective_tflops(entry: Entry, pass_: Pass, mean_ms: float) -> float | str:
    flop = entry.flop(pass_)
    if not flop:
        return _why_no_flop(entry, pass_)
    return statistics.effective_flops(flop, mean_ms) / 1e12


def _share_of_peak_percent(entry: Entry, pass_: Pass, mean_ms: float) -> float | str:
    timing, flop = entry.timing(pass_), entry.flop(pass_)
    if timing.peak_flops is None:
        return _why_no_peak(timing)
    if not flop:
        return _why_no_flop(entry, pass_)
    return 100 * statistics.share_of_peak(statistics.effective_flops(flop, mean_ms), timing.peak_flops)


def _memory_gb_per_s(timing: Timing) -> float | str:
    return _why_no_memory(timing) if timing.copy_bytes_per_s is None else timing.copy_bytes_per_s / 1e9


def _share_of_roof_percent(entry: Entry, pass_: Pass, mean_ms: float) -> float | str:
    """Return the share of what the device attains with as many operations for each byte."""
    timing, flop, intensity = entry.timing(pass_), entry.flop(pass_), entry.intensity(pass_)
    if timing.peak_flops is None:
        return _why_no_peak(timing)
    if timing.copy_bytes_per_s is None:
        return _why_no_memory(timing)
    if not flop or intensity is None:
        return _why_no_flop(entry, pass_)
    roof = statistics.roof_flops(intensity, timing.peak_flops, timing.copy_bytes_per_s)
    return 100 * statistics.effective_flops(flop, mean_ms) / roof


def _reduced_gb_per_s(entry: Entry, pass_: Pass, mean_ms: float) -> float | str:
    return "no sum over devices" if entry.reduced_bytes is None else entry.reduced_bytes / mean_ms / 1e6


def _why_no_memory(timing: Timing) -> str:
    return timing.copy_reason or "the memory's peak was not measured"


def _why_no_flop(entry: Entry, pass_: Pass) -> str:
    if entry.batch_size(pass_) is None:
        return _NO_BATCH
    if entry.flop(pass_) == 0:
        return "it multiplies nothing"
    return f"the layers of {entry.definition.model!r} are not known here"


def _why_no_peak(timing: Timing) -> str:
    if timing.summary is None:
        return "no peak was published"
    return timing.peak_reason or "the peak was not measured"


def _ratio_field(pass_: Pass, chosen_name: str, chosen_for: Callable[[Entry], Entry | None]) -> Field:
    def figure(entry: Entry, pass_: Pass, mean_ms: float) -> float | str:
        chosen = chosen_for(entry)
        if chosen is None:
            return f"{chosen_name} has no row to hold this one against"
        chosen_ms = chosen.timing(pass_).mean_ms
        if chosen_ms is None:
            return f"{chosen_name} has no figure for this pass"
        rate, chosen_rate = _images_per_s(entry, pass_, mean_ms), _images_per_s(chosen, pass_, chosen_ms)
        if isinstance(rate, str) or isinstance(chosen_rate, str):
            return _NO_BATCH
        return rate / chosen_rate

    return _rate(pass_, "ratio", f"speed over {chosen_name}", "x", figure)


def _apart_from_company(entry: Entry) -> tuple[str | None, EntryDefinition]:
    return entry.device_id, replace(entry.definition, company=None)


def _penalty_field(pass_: Pass, alone_for: Callable[[Entry], Entry | None]) -> Field:
    def cell(_: int, entry: Entry) -> Cell:
        alone = alone_for(entry)
        if entry.definition.company is not Company.TOGETHER:
            return _missing("not measured together with others")
        mean_ms = entry.timing(pass_).mean_ms
        alone_ms = None if alone is None else alone.timing(pass_).mean_ms
        if mean_ms is None:
            return _missing(entry.timing(pass_).reason or "no figure")
        if alone_ms is None:
            return _missing("no figure of it alone")
        value = 100 * (mean_ms / alone_ms - 1)
        return Cell(text=f"{value:+.1f}", value=value)

    return Field(column=_right(pass_, "penalty_percent", "penalty together (%)", "%"), cell=cell)


# --- cells -----------------------------------------------------------------------------------------------------


def _right(pass_: Pass, key: str, heading: str, unit: str | None) -> Column:
    return Column(key=f"{pass_.value}_{key}", heading=f"{_PREFIXES[pass_]} {heading}", unit=unit, align=Align.RIGHT)


def _text(text: str | None, reason: str) -> Cell:
    return _missing(reason) if text is None else Cell(text=text, value=text)


def _figure(value: float) -> Cell:
    return Cell(text=str(value) if isinstance(value, int) else rounded(value), value=value)


def _missing(reason: str) -> Cell:
    """No figure: an empty cell with its reason, never a number."""
    return Cell(text="", reason=reason)
