"""Where a run's figures were taken: every fact, and what is not the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.report.build import title
from orchestrator.report.printable import printable
from orchestrator.report.table import Cell, Column, Row, RowKind, Table
from orchestrator.results import environment_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.results import Run
    from workers.protocol import Environment, Fact

_COLUMNS: Final = (
    Column(key="fact", heading="Fact"),
    Column(key="value", heading="Value"),
    Column(key="where", heading="Where"),
)

_EVERYWHERE: Final = "everywhere"
_MOST_NAMED: Final = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenIn:
    """One environment, and the devices whose figures were taken in it."""

    #: The first characters of the SHA-256 of its JSON, as the store has it.
    hash: str
    environment: Environment
    device_ids: tuple[str, ...]


def environments(run: Run, device: str | None = None) -> tuple[TakenIn, ...]:
    """Return the different environments of a run's last attempts, in the plan's order.

    ``device`` keeps those of one device, by id or by host.
    """
    found: dict[str, tuple[Environment, dict[str, None]]] = {}
    for known in run.cases:
        device_id = known.case.device.id
        result = known.result
        if result is None or not result.environment.facts:
            continue
        if device is not None and device not in (device_id, known.case.device.host):
            continue
        name = environment_hash(result.environment)
        found.setdefault(name, (result.environment, {}))[1][device_id] = None
    return tuple(
        TakenIn(hash=name[:12], environment=environment, device_ids=tuple(ids))
        for name, (environment, ids) in found.items()
    )


def environments_table(run: Run, taken_in: Sequence[TakenIn]) -> Table:
    """Return a row for each value of each fact: what is so everywhere has one, and says so."""
    kind = RowKind.SIMULATED if run.simulated else RowKind.MEASURED
    rows = []
    for name in sorted({name for each in taken_in for name, _ in each.environment.facts}):
        by_value: dict[tuple[str, str | None], list[str]] = {}
        for each in taken_in:
            fact = dict(each.environment.facts).get(name)
            by_value.setdefault(_shown(fact), []).extend(each.device_ids)
        rows += [
            Row(kind=kind, cells=_cells(name, value, reason, ids, is_everywhere=len(by_value) == 1), definition=())
            for (value, reason), ids in by_value.items()
        ]
    notes = [f"Environment {each.hash}: {_named(each.device_ids)}." for each in taken_in]
    return Table(title=f"{title(run)}, environments", columns=_COLUMNS, rows=tuple(rows), notes=tuple(notes))


def _shown(fact: Fact | None) -> tuple[str, str | None]:
    if fact is None:
        return "", "not recorded"
    if fact.value is None:
        return "", fact.reason or "no reason was recorded"
    if isinstance(fact.value, bool):
        return ("yes" if fact.value else "no"), None
    return str(fact.value), None


def _cells(name: str, value: str, reason: str | None, ids: Sequence[str], *, is_everywhere: bool) -> tuple[Cell, ...]:
    text = printable(value) if reason is None else f"- ({printable(reason)})"
    where = _EVERYWHERE if is_everywhere else _named(ids)
    return (
        Cell(text=name, value=name),
        Cell(text=text, value=value if reason is None else None, reason=reason),
        Cell(text=where, value=where),
    )


def _named(ids: Sequence[str]) -> str:
    unique = tuple(dict.fromkeys(ids))
    rest = len(unique) - _MOST_NAMED
    return ", ".join(unique[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
