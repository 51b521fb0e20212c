"""A history of one workload on one device, as a table and as a line of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.analysis.history import points_of, reasons
from orchestrator.analysis.noise import floor_for
from orchestrator.analysis.trend import change_points
from orchestrator.report.figures import rounded
from orchestrator.report.table import Align, Cell, Column, Row, RowKind, Table
from orchestrator.report.workloads import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.analysis.trend import ChangePoint, TrendPoint
    from orchestrator.results import NoiseFloor, Past
    from workers.protocol import Case

_COLUMNS: Final = (
    Column(key="num", heading="Num"),
    Column(key="run_id", heading="Run"),
    Column(key="created_at", heading="Began (UTC)"),
    Column(key="median_ms", heading="Step (ms)", unit="ms", align=Align.RIGHT),
    Column(key="change_percent", heading="Change (%)", unit="%", align=Align.RIGHT),
    Column(key="remark", heading="Remark"),
)

_BLOCKS: Final = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """How one workload on one device went."""

    title: str
    points: tuple[TrendPoint, ...]
    changes: tuple[ChangePoint, ...]
    table: Table


def trend_of(case: Case, past: Sequence[Past], floors: Iterable[NoiseFloor], *, simulated: bool) -> Trend:
    """Return the figures of a case's workload on its device over ``past``, oldest first, and where they changed."""
    floor = floor_for(floors, case.device, case.workload)
    points = points_of(past, case.device)
    changes = change_points(points, between_sd=None if floor is None else floor.between_sd)
    title = title_of(case)
    table = trend_table(title, points, changes, simulated=simulated, why=reasons(past, points, changes))
    return Trend(title=title, points=points, changes=changes, table=table)


def title_of(case: Case) -> str:
    """Return what a history is of."""
    return f"{case.device.id}: {in_words(case.workload)}"


def trend_table(
    title: str,
    points: Sequence[TrendPoint],
    changes: Sequence[ChangePoint],
    *,
    simulated: bool,
    why: Mapping[int, Sequence[str]],
) -> Table:
    """Return a row for each run, oldest first; where a new level begins the row says by how much, and ``why`` below.

    ``why`` has what differs in the environment between a change's run and the one before, by the change's place.
    """
    by_place = {change.place: change for change in changes}
    kind = RowKind.SIMULATED if simulated else RowKind.MEASURED
    notes = [sparkline([point.median_ms for point in points])]
    for change in changes:
        run_id = points[change.place].run_id
        reasons = "; ".join(why.get(change.place, ())) or "nothing that is known of the host or device"
        notes.append(f"Since run {run_id} a step takes {100 * change.share:+.1f} %. What differs: {reasons}.")
    return Table(
        title=title,
        columns=_COLUMNS,
        rows=tuple(_row(place, kind, point, by_place.get(place)) for place, point in enumerate(points)),
        notes=tuple(notes),
    )


def _row(place: int, kind: RowKind, point: TrendPoint, change: ChangePoint | None) -> Row:
    remarks = [
        "doubtful" if point.is_doubtful else "",
        "" if change is None else "a new level: slower" if change.share > 0 else "a new level: faster",
    ]
    remark = ", ".join(filter(None, remarks))
    cells = (
        Cell(text=str(place + 1), value=place + 1),
        Cell(text=point.run_id, value=point.run_id),
        Cell(text=point.created_at.strftime("%Y-%m-%d %H:%M"), value=point.created_at.isoformat()),
        Cell(text=rounded(point.median_ms), value=point.median_ms),
        Cell(text="", reason="no new level")
        if change is None
        else Cell(text=f"{100 * change.share:+.1f}", value=100 * change.share),
        Cell(text=remark, value=remark or None),
    )
    return Row(kind=kind, cells=cells, definition=(("run_id", point.run_id),))


def sparkline(values: Sequence[float]) -> str:
    """Return one block for each value, from the lowest to the highest; all alike where they are."""
    low, high = min(values), max(values)
    span = high - low
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1)) if span else 0] for value in values)
