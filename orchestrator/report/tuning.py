"""What a search for the best settings found, as a table: a row for each device, model and pass."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from orchestrator.analysis.statistics import images_per_s, summarise
from orchestrator.report.figures import rounded
from orchestrator.report.table import Align, Cell, Column, Row, RowKind, Table
from orchestrator.report.workloads import in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.analysis.pooling import PooledCase
    from workers.protocol import Case, Pass, Workload

#: Device id, model and pass: what is searched for by itself.
Group: TypeAlias = tuple[str, str, "Pass"]


class Objective(str, enum.Enum):
    """What the best setting has most of."""

    IMAGES_PER_S = "images/s"
    IMAGES_PER_J = "images/J"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A combination of settings and how good it was, the last time that it was measured."""

    workload: Workload
    #: Images a second, or a joule.
    score: float
    #: Of a median step.
    step_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What was found for one device, model and pass."""

    group: Group
    #: ``None`` where no combination has a figure.
    winner: Candidate | None
    #: The config's first combination that has a figure.
    first: Candidate | None
    #: How many combinations were tried, and of these how many had no figure.
    tried: int
    failed: int
    #: Seconds of counted steps that were taken, and that every combination with all steps would take.
    taken_s: float
    whole_s: float
    #: Fresh processes that all rounds took; the whole sweep takes one for each combination.
    processes: int = 0
    #: The best of the whole sweep, where it was measured to check.
    checked: Candidate | None = None


def group_of(case: Case) -> Group:
    """Return what is searched for by itself."""
    return case.device.id, case.workload.model, case.workload.pass_


def measured_candidate(pool: PooledCase, objective: Objective) -> Candidate | None:
    """Return how good a combination was; ``None`` where there is no figure, or no energy was counted."""
    if not pool.samples_ms:
        return None
    batch_size = pool.measured[-1].batch_size or pool.workload.batch_size
    median_ms = summarise(pool.samples_ms).median_ms
    score: float | None = images_per_s(batch_size, median_ms)
    if objective is Objective.IMAGES_PER_J:
        joules = _joules_per_step(pool)
        score = None if joules is None else batch_size / joules
    return None if score is None else Candidate(workload=pool.workload, score=score, step_s=median_ms / 1e3)


def _joules_per_step(pool: PooledCase) -> float | None:
    energies = [result.telemetry.energy if result.telemetry is not None else None for result in pool.measured]
    joules = [energy.joules for energy in energies if energy is not None and energy.joules is not None]
    return sum(joules) / len(pool.samples_ms) if len(joules) == len(energies) and sum(joules) > 0 else None


def tuned_table(tuned: Sequence[Tuned], objective: Objective, *, title: str, simulated: bool, steps: int) -> Table:
    """Return a row for each search: the best settings, how good they are, and what finding them took."""
    kind = RowKind.SIMULATED if simulated else RowKind.MEASURED
    is_checked = any(each.checked is not None for each in tuned)
    columns = (*_columns(objective), *((_CHECKED,) if is_checked else ()))
    rows = tuple(
        Row(
            kind=kind,
            cells=(*_cells(number, each), *((_checked(each),) if is_checked else ())),
            definition=(("device_id", each.group[0]), ("model", each.group[1]), ("pass", each.group[2].value)),
        )
        for number, each in enumerate(tuned, start=1)
    )
    return Table(title=title, columns=columns, rows=rows, notes=_notes(tuned, steps))


#: What is said where the whole sweep has the same winner.
_SAME: Final = "the same"

_CHECKED: Final = Column(key="checked", heading="The whole sweep's best")


def _columns(objective: Objective) -> tuple[Column, ...]:
    key = "images_per_s" if objective is Objective.IMAGES_PER_S else "images_per_j"
    return (
        Column(key="num", heading="Num"),
        Column(key="device_id", heading="Device"),
        Column(key="settings", heading="Best settings"),
        Column(key=key, heading=objective.value, unit=objective.value, align=Align.RIGHT),
        Column(key="gain", heading="Times the first", align=Align.RIGHT),
        Column(key="tried", heading="Tried", align=Align.RIGHT),
        Column(key="saved_percent", heading="Saved (%)", unit="%", align=Align.RIGHT),
    )


def _cells(number: int, each: Tuned) -> tuple[Cell, ...]:
    reason = f"none of {each.tried} combinations has a figure"
    winner, saved = each.winner, _saved_percent(each)
    words = reason if winner is None else in_words(winner.workload)
    gain = None if winner is None or each.first is None else winner.score / each.first.score
    return (
        Cell(text=str(number), value=number),
        Cell(text=each.group[0], value=each.group[0]),
        Cell(text=words, value=None if winner is None else words),
        _figure(None if winner is None else winner.score, reason),
        Cell(text="" if gain is None else f"x{gain:.2f}", value=gain, reason=reason if gain is None else None),
        Cell(text=str(each.tried), value=each.tried),
        Cell(text="" if saved is None else f"{saved:.0f}", value=saved, reason=reason if saved is None else None),
    )


def _figure(value: float | None, reason: str) -> Cell:
    return Cell(text="", value=None, reason=reason) if value is None else Cell(text=rounded(value), value=value)


def _saved_percent(each: Tuned) -> float | None:
    return 100 * (1 - each.taken_s / each.whole_s) if each.whole_s > 0 else None


def _checked(each: Tuned) -> Cell:
    if each.checked is None or each.winner is None:
        return Cell(text="", value=None, reason="not measured")
    if each.checked.workload == each.winner.workload:
        return Cell(text=_SAME, value=_SAME)
    ahead = 100 * (each.checked.score / each.winner.score - 1)
    words = f"{in_words(each.checked.workload)}: {ahead:.1f} % more"
    return Cell(text=words, value=words)


def _notes(tuned: Sequence[Tuned], steps: int) -> tuple[str, ...]:
    taken, whole = sum(each.taken_s for each in tuned), sum(each.whole_s for each in tuned)
    said = ["Times the first: of the first combination that the config names and that has a figure."]
    if whole > 0:
        said.append(
            f"Successive halving took {taken:.3g} s of counted steps; every combination with {steps} steps would take"
            f" {whole:.3g} s: {100 * (1 - taken / whole):.0f} % were saved."
        )
        processes, combinations = sum(each.processes for each in tuned), sum(each.tried for each in tuned)
        said.append(
            f"It took {processes} processes where the sweep takes {combinations}: where steps are short, starting these"
            " is what takes the time."
        )
    failed = sum(each.failed for each in tuned)
    if failed:
        said.append(f"{failed} combinations have no figure: see the first round's run for why.")
    checked = [_checked(each).value for each in tuned if each.checked is not None]
    if checked:
        same = sum(value == _SAME for value in checked)
        said.append(f"The whole sweep was measured as well: it has the same winner in {same} of {len(checked)} rows.")
    return tuple(said)
