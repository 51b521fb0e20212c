"""From a run and its references to one table: the seed's columns first, our rows above the published ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from orchestrator.errors import UsageError
from orchestrator.report.columns import (
    collective_fields,
    framework_fields,
    penalty_fields,
    ratio_fields,
    seed_fields,
    wide_fields,
    with_parts,
    work_field,
)
from orchestrator.report.entries import measured, passes_of, published
from orchestrator.report.figures import rows
from orchestrator.report.notes import notes
from orchestrator.report.table import Row, RowKind, Table
from orchestrator.results import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from orchestrator.analysis.references import Reference
    from orchestrator.report.columns import Field
    from orchestrator.report.entries import Entry, EntryDefinition
    from orchestrator.results import NoiseFloor, Run

_STATES: Final = {RunState.RUNNING: "still running", RunState.FINISHED: None, RunState.INTERRUPTED: "interrupted"}


def build_table(
    run: Run,
    *,
    references: Sequence[Reference] = (),
    relative_to: str | None = None,
    wide: bool = False,
    store: str | None = None,
    floors: Sequence[NoiseFloor] = (),
    beside: Sequence[Run] = (),
) -> Table:
    """Return the table of a run.

    One row for each device and workload, its passes side by side, then one for each reference; ``Num`` counts them
    all. A figure is ``mean +/- sd`` in milliseconds (:func:`orchestrator.report.figures.mean_and_sd`), as published
    for a reference. Without a figure the cell says the verdict (``oom``), its value is ``None``, and the reason stands
    in the cell, in Details and, where it is long, in the notes. ``not asked`` marks a pass that the config left out.

    A run of more than one framework has a column for these.

    Where devices were measured alone and together, a column for each pass says what company costs:
    :func:`orchestrator.report.columns.penalty_fields`. ``wide`` adds columns to the seed's six: see
    :func:`orchestrator.report.columns.wide_fields`. ``relative_to`` names a device, as the table shows it or as
    ``host/device``, and adds for each pass how many times as fast each row is, in images a second: against the chosen
    device's row of the same workload, or else its only row of the same model. ``store`` is the URL that the commands in
    the notes have to name; ``None`` where they need not. ``floors`` are the noise floors of devices that are known. The
    rows of the runs ``beside`` it stand between its own and the references.

    Raises :class:`orchestrator.errors.UsageError` where no row, or rows of more than one device, answer to
    ``relative_to``.
    """
    ours = measured(run, floors)
    shown, left_out = _comparable(ours, references)
    theirs = published(shown)
    others = [(other, tuple(_named(entry, other) for entry in measured(other))) for other in beside]
    measured_ones = (*ours, *(entry for _, found in others for entry in found))
    entries = (*measured_ones, *theirs)
    fields = (
        *_before_details(_first_fields(entries, wide=wide), measured_ones),
        *penalty_fields(ours),
        *(wide_fields(passes_of(entries)) if wide else ()),
        *_ratio_fields(entries, relative_to),
    )
    return Table(
        title=title(run),
        columns=tuple(field.column for field in fields),
        rows=tuple(_row(number, entry, fields) for number, entry in enumerate(entries, start=1)),
        notes=(*notes(run, ours, shown, store=store), *left_out, *_about_others(len(ours), others)),
    )


def _first_fields(entries: Sequence[Entry], *, wide: bool) -> tuple[Field, ...]:
    """Return the seed's columns; where rows are of layers and operations, which these are and their rates as well."""
    passes = passes_of(entries)
    if any(entry.is_part for entry in entries):
        return with_parts(entries, passes, wide=wide)
    fields = seed_fields(passes)
    # A published row's details do not say of which network it is.
    is_told = len({entry.definition.model for entry in entries if entry.kind is RowKind.REFERENCE}) > 1
    return (*fields[:3], work_field(), *fields[3:]) if is_told else fields


def _comparable(
    ours: Sequence[Entry], references: Sequence[Reference]
) -> tuple[tuple[Reference, ...], tuple[str, ...]]:
    """Return the published rows of what was measured here, and for each table why rows of it are left out.

    A row belongs beside one of the same model at the same precision; how else two differ the notes say.
    """
    measured_here = {(entry.definition.model, entry.definition.precision) for entry in ours}
    if not measured_here:
        return tuple(references), ()
    kept: list[Reference] = []
    left_out: dict[str, list[Reference]] = {}
    for each in references:
        is_kept = (each.definition.model, each.definition.precision) in measured_here
        (kept if is_kept else left_out.setdefault(each.table, [])).append(each)
    shown = {each.table for each in kept}
    models = {model for model, _ in measured_here}
    told = (_why_left_out(rows, models, is_shown=rows[0].table in shown) for rows in left_out.values())
    return tuple(kept), tuple(each for each in told if each is not None)


def _why_left_out(rows: Sequence[Reference], models: Collection[str], *, is_shown: bool) -> str | None:
    """Return why rows of a table are not shown; nothing of other models' rows where some are."""
    title = rows[0].table_title
    others = [each for each in rows if each.definition.model in models]
    if others:
        precisions = ", ".join(dict.fromkeys(each.definition.precision for each in others))
        return f"{len(others)} rows of {title} are not shown: they are in {precisions}, and none of these rows is."
    if is_shown:
        return None
    return f"{title[:1].upper()}{title[1:]} is not shown: none of its rows is of what was measured."


def _before_details(fields: tuple[Field, ...], entries: Sequence[Entry]) -> tuple[Field, ...]:
    """Return the fields with those before a row's details that only some runs have: see :mod:`columns`."""
    return (*fields[:-1], *collective_fields(entries), *framework_fields(entries), fields[-1])


def _named(entry: Entry, run: Run) -> Entry:
    """Return another run's row, which says so."""
    return replace(entry, details=f"run {run.id} / {entry.details}")


def _about_others(before: int, others: Sequence[tuple[Run, Sequence[Entry]]]) -> Iterator[str]:
    for run, entries in others:
        if entries:
            numbers = range(before + 1, before + 1 + len(entries))
            yield f"{rows(tuple(numbers))}: {title(run)}."
        before += len(entries)


def _row(number: int, entry: Entry, fields: Sequence[Field]) -> Row:
    return Row(kind=entry.kind, cells=tuple(field.cell(number, entry) for field in fields), definition=entry.facts())


def title(run: Run) -> str:
    """Return a run's name, id and time, and whether it is simulated or has not come to its end."""
    parts = (
        run.name,
        f"run {run.id}",
        run.created_at.strftime("%Y-%m-%d %H:%M %Z").rstrip(),
        "simulated" if run.simulated else None,
        f"imported from {run.imported.source}" if run.imported is not None else None,
        _STATES[run.state],
    )
    return ", ".join(part for part in parts if part)


# --- the row that others are held against ----------------------------------------------------------------------


def _ratio_fields(entries: Sequence[Entry], relative_to: str | None) -> tuple[Field, ...]:
    if relative_to is None:
        return ()
    chosen = _chosen(entries, relative_to)
    return ratio_fields(chosen[0].device_name, lambda entry: _counterpart(chosen, entry), passes_of(entries))


def _chosen(entries: Sequence[Entry], name: str) -> tuple[Entry, ...]:
    """The rows of the one device that answers to ``name``; raises UsageError for none or several."""
    found = tuple(entry for entry in entries if name in (entry.device_name, _full_name(entry)))
    full_names = tuple(dict.fromkeys(map(_full_name, found)))
    if not found:
        known = dict.fromkeys(map(_full_name, entries))
        raise UsageError(f"no row is called {name!r}", remedy=f"there are: {', '.join(known) or 'none'}")
    if len(full_names) > 1:
        raise UsageError(
            f"{len(full_names)} devices are called {name!r}", remedy=f"use one of: {', '.join(full_names)}"
        )
    return found


def _full_name(entry: Entry) -> str:
    return entry.device_id or f"{entry.device_name} (reference)"


def _counterpart(chosen: Sequence[Entry], entry: Entry) -> Entry | None:
    same_workload = [row for row in chosen if _work(row) == _work(entry)]
    same_model = [row for row in chosen if row.definition.model == entry.definition.model]
    if same_workload:
        return same_workload[0]
    return same_model[0] if len(same_model) == 1 else None


def _work(entry: Entry) -> EntryDefinition:
    """Return what an entry is of; of the largest batch that fits not which it is, for each device has its own."""
    definition = entry.definition
    return replace(definition, batch_size=None) if definition.seeks_largest else definition
