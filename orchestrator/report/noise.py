"""Noise floors as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.analysis.noise import floor_share
from orchestrator.report.table import Align, Cell, Column, Row, RowKind, Table
from orchestrator.report.workloads import in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.results import NoiseFloor

_COLUMNS: Final = (
    Column(key="num", heading="Num"),
    Column(key="device_id", heading="Device"),
    Column(key="workload", heading="Workload"),
    Column(key="processes", heading="Processes", align=Align.RIGHT),
    Column(key="within_percent", heading="Within (%)", unit="%", align=Align.RIGHT),
    Column(key="between_percent", heading="Between (%)", unit="%", align=Align.RIGHT),
    Column(key="floor_percent", heading="Floor (%)", unit="%", align=Align.RIGHT),
    Column(key="measured_at", heading="Measured (UTC)"),
    Column(key="run_id", heading="Run"),
)

_NOTES: Final = (
    "Within: standard deviation of the steps of one process. Between: standard deviation of the processes' medians.",
    "Floor: what two figures of one process each must differ by to be two; of several processes each it is less.",
)


def noise_table(floors: Sequence[NoiseFloor], *, title: str, simulated: bool, notes: Sequence[str] = ()) -> Table:
    """Return a row for each floor; deviations are shares of the mean, in percent."""
    kind = RowKind.SIMULATED if simulated else RowKind.MEASURED
    return Table(
        title=title,
        columns=_COLUMNS,
        rows=tuple(_row(number, kind, floor) for number, floor in enumerate(floors, start=1)),
        notes=(*notes, *_NOTES),
    )


def _row(number: int, kind: RowKind, floor: NoiseFloor) -> Row:
    share = floor_share(floor.between_sd, floor.processes, 1, 1)
    words = in_words(floor.workload)
    cells = (
        Cell(text=str(number), value=number),
        Cell(text=floor.device_id, value=floor.device_id),
        Cell(text=words, value=words),
        Cell(text=str(floor.processes), value=floor.processes),
        _percent(floor.within_sd),
        _percent(floor.between_sd),
        _percent(share),
        Cell(text=floor.measured_at.strftime("%Y-%m-%d %H:%M"), value=floor.measured_at.isoformat()),
        Cell(text=floor.run_id, value=floor.run_id),
    )
    return Row(kind=kind, cells=cells, definition=(("device_id", floor.device_id),))


def _percent(share: float) -> Cell:
    return Cell(text=f"{100 * share:.2f}", value=100 * share)
