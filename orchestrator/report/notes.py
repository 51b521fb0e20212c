"""What must be said below the table so that nobody reads more into it than was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.analysis.outliers import odd_ones
from orchestrator.analysis.pooling import pooled
from orchestrator.report.entries import shortened
from orchestrator.report.figures import rows
from orchestrator.report.remedies import remedies
from orchestrator.report.workloads import in_words
from workers.protocol import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.analysis.references import Definition, Reference
    from orchestrator.report.entries import Entry
    from orchestrator.results import Run

SIMULATED: Final = "Simulated: the figures of this run's rows are invented; nothing was measured."

#: Devices that are not like their equals; more would bury the table.
_MOST_ODD: Final = 10

#: What two rows must share to be compared, and how the notes call it.
_COMPARED: Final = (
    ("model", "model"),
    ("batch_size", "batch"),
    ("precision", "precision"),
    ("framework", "framework"),
    ("fetch", "fetch"),
)


def notes(
    run: Run, ours: Sequence[Entry], references: Sequence[Reference], *, store: str | None = None
) -> tuple[str, ...]:
    """Return the notes of a table: simulated or not, long reasons, commands, what may be compared with references.

    ``store`` is the URL that the commands have to name.
    """
    said = [
        *_long_reasons(ours),
        *_odd_ones(run),
        *_noise_floors(ours),
        *remedies(run, ours, store=store),
        *_about_references(ours, references),
    ]
    if run.simulated:
        said.insert(0, SIMULATED)
    return tuple(said)


def _long_reasons(ours: Sequence[Entry]) -> list[str]:
    """Each reason that Details had to cut, once, with the rows that it is about."""
    found: dict[str, list[int]] = {}
    for number, entry in enumerate(ours, start=1):
        reasons = {entry.timing(pass_).reason or "" for pass_ in Pass}
        for reason in sorted(reasons):
            if " ".join(reason.split()) != shortened(reason):
                found.setdefault(reason, []).append(number)
    return [f"{rows(numbers)}: {reason}" for reason, numbers in found.items()]


def _odd_ones(run: Run) -> list[str]:
    """Each device that is not like its peers: the largest difference first, and few of them."""
    found = sorted(odd_ones(pooled(run.cases)), key=lambda odd: -abs(odd.z))
    said = [
        f"{odd.pooled.device.id} is {100 * abs(odd.share):.2g} % {'slower' if odd.share < 0 else 'faster'} than"
        f" the median of {odd.peers} equal ones (robust z {odd.z:.1f}):"
        f" {in_words(odd.pooled.workload, odd.pooled.company)}."
        for odd in found[:_MOST_ODD]
    ]
    rest = len(found) - _MOST_ODD
    return said if rest <= 0 else [*said, f"… and {rest} more that differ from their equals."]


def _noise_floors(ours: Sequence[Entry]) -> list[str]:
    """What differences mean nothing, by row, where it was measured."""
    floors: dict[str, list[int]] = {}
    for number, entry in enumerate(ours, start=1):
        known = {pass_: entry.timing(pass_).noise_floor for pass_ in Pass}
        words = ", ".join(
            f"{pass_.value.replace('_', '-')} {100 * floor:.2g} %"
            for pass_, floor in known.items()
            if floor is not None
        )
        if words:
            floors.setdefault(words, []).append(number)
    return [
        f"{rows(numbers)}: noise floor {words}; what differs by less is not different."
        for words, numbers in floors.items()
    ]


def _about_references(ours: Sequence[Entry], references: Sequence[Reference]) -> list[str]:
    tables: dict[str, list[Reference]] = {}
    for reference in references:
        tables.setdefault(reference.table, []).append(reference)
    return [line for one in tables.values() for line in (*_comparability(ours, one), *_caveats(one))]


def _comparability(ours: Sequence[Entry], table: Sequence[Reference]) -> list[str]:
    """Which of our rows are of the same work as rows of the table, and how the others differ from the nearest."""
    by_difference: dict[str, list[int]] = {}
    for number, entry in enumerate(ours, start=1):
        of_its_model = [each for each in table if each.definition.model == entry.definition.model] or table
        difference = min((_differences(entry, reference) for reference in of_its_model), key=len)
        by_difference.setdefault(", ".join(difference), []).append(number)
    same, title = by_difference.pop("", None), table[0].table_title
    definitions = {reference.definition for reference in table}
    lines = []
    if same:
        kind = f" ({_in_words(next(iter(definitions)))})" if len(definitions) == 1 else ""
        lines.append(f"{rows(same)}: same definition as {title if kind else f'rows of {title}'}{kind}.")
    lines.extend(
        f"{rows(numbers)}: not the definition of {title}: {difference}."
        for difference, numbers in by_difference.items()
    )
    return lines


def _in_words(definition: Definition) -> str:
    return f"{definition.model}, batch {definition.batch_size}, {definition.precision}, fetch {definition.fetch}"


def _differences(entry: Entry, reference: Reference) -> tuple[str, ...]:
    ours, theirs = entry.definition, reference.definition
    found = tuple(
        f"{word} {getattr(ours, name) or 'max'} (there {getattr(theirs, name)})"
        for name, word in _COMPARED
        if getattr(ours, name) != getattr(theirs, name)
    )
    return found if theirs.beyond is None else (*found, f"a step there has {theirs.beyond} as well")


def _caveats(references: Sequence[Reference]) -> list[str]:
    devices: dict[str, list[str]] = {}
    for reference in references:
        if reference.caveat:
            devices.setdefault(reference.caveat, []).append(reference.device)
    about_rows = [f"{', '.join(names)}: {caveat}." for caveat, names in devices.items()]
    return [*about_rows, *references[0].table_caveats]
