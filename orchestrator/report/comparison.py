"""A comparison of two runs as a table, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.analysis.comparison import Change, FloorSource
from orchestrator.report.figures import rounded
from orchestrator.report.printable import printable
from orchestrator.report.table import Align, Cell, Column, Row, RowKind, Table
from orchestrator.report.workloads import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.analysis.comparison import ComparedCase, Comparison, DeviceChange
    from orchestrator.analysis.explanation import Difference
    from orchestrator.analysis.statistics import Interval

_COLUMNS: Final = (
    Column(key="num", heading="Num"),
    Column(key="device_id", heading="Device"),
    Column(key="workload", heading="Workload"),
    Column(key="before_ms", heading="Before (ms)", unit="ms", align=Align.RIGHT),
    Column(key="now_ms", heading="Now (ms)", unit="ms", align=Align.RIGHT),
    Column(key="change_percent", heading="Change (%)", unit="%", align=Align.RIGHT),
    Column(key="low_percent", heading="95 % from", unit="%", align=Align.RIGHT),
    Column(key="high_percent", heading="to", unit="%", align=Align.RIGHT),
    Column(key="p_value", heading="p", align=Align.RIGHT),
    Column(key="floor_percent", heading="Noise floor (%)", unit="%", align=Align.RIGHT),
    Column(key="verdict", heading="Verdict"),
    Column(key="reason", heading="Why"),
)

#: Differences that are told; more would bury the first.
_MOST_DIFFERENCES: Final = 15
_MOST_DEVICES_NAMED: Final = 4

_SIMULATED: Final = "Simulated: the figures of both runs are invented; nothing was measured."
_DOUBTFUL: Final = "doubtful figures are told, and are no regressions"


def comparison_table(
    comparison: Comparison,
    differences: Sequence[Difference],
    *,
    before: str,
    after: str,
    threshold: float | None = None,
    only_changed: bool = False,
    simulated: bool = False,
) -> Table:
    """Return a comparison as a table: a row for each case, then in notes each device's mean, and what else differs.

    ``before`` and ``after`` are what the runs are called; ``threshold`` is the share from which on a slower case is a
    regression, where the person gave one. A change of +5 % is a step that takes 5 % longer. With ``only_changed`` only
    the faster and the slower cases have rows. ``simulated`` says that the figures of both runs are invented.
    """
    rows = [
        (number, case)
        for number, case in enumerate(comparison.cases, start=1)
        if not only_changed or case.change in (Change.FASTER, Change.SLOWER)
    ]
    kind = RowKind.SIMULATED if simulated else RowKind.MEASURED
    made_up = [_SIMULATED] if simulated else []
    return Table(
        title=f"{after} against {before}: {summary(comparison, threshold)}",
        columns=_COLUMNS,
        rows=tuple(_row(number, case, kind) for number, case in rows),
        notes=(
            *made_up,
            *map(_device_line, comparison.devices),
            *_floor_notes(comparison),
            *_explained(comparison, differences),
        ),
    )


def summary(comparison: Comparison, threshold: float | None) -> str:
    """Return the outcome in one line: ``1 slower, 2 faster, 5 no difference shown; 1 regression``."""
    counts = {change: sum(case.change is change for case in comparison.cases) for change in Change}
    parts = [f"{count} {change.value}" for change, count in counts.items() if count] or ["nothing to compare"]
    regressions = len(comparison.regressions(threshold))
    beyond = "" if threshold is None else f" beyond {100 * threshold:g} %"
    words = "no regression" if not regressions else "1 regression" if regressions == 1 else f"{regressions} regressions"
    return f"{', '.join(parts)}; {words}{beyond}"


def _row(number: int, case: ComparedCase, kind: RowKind) -> Row:
    words = in_words(case.workload, case.company)
    why = printable(case.reason) if case.reason else ""
    mark = " (doubtful)" if case.is_doubtful else ""
    cells = (
        Cell(text=str(number), value=number),
        Cell(text=case.device.id, value=case.device.id),
        Cell(text=words, value=words),
        _figure(case.before_ms, case.reason),
        _figure(case.after_ms, case.reason),
        _change(case.ratio, case.reason),
        _change(None if case.ratio_interval is None else case.ratio_interval.low, case.reason),
        _change(None if case.ratio_interval is None else case.ratio_interval.high, case.reason),
        _p_value(case.p_value, case.reason),
        _percent(case.floor, case.reason),
        Cell(text=f"{case.change.value}{mark}", value=case.change.value, reason=case.reason),
        Cell(text=why, value=case.reason),
    )
    return Row(kind=kind, cells=cells, definition=(("device_id", case.device.id),))


def _figure(value: float | None, reason: str | None) -> Cell:
    return Cell(text="", reason=reason) if value is None else Cell(text=rounded(value), value=value)


def _change(ratio: float | None, reason: str | None) -> Cell:
    if ratio is None:
        return Cell(text="", reason=reason)
    return Cell(text=_signed(ratio), value=100 * (ratio - 1))


def _percent(share: float | None, reason: str | None) -> Cell:
    return Cell(text="", reason=reason) if share is None else Cell(text=f"{100 * share:.1f}", value=100 * share)


def _p_value(value: float | None, reason: str | None) -> Cell:
    if value is None:
        return Cell(text="", reason=reason)
    return Cell(text="< 0.001" if value < 0.001 else f"{value:.3f}", value=value)


def _device_line(device: DeviceChange) -> str:
    cases = "1 case" if device.cases == 1 else f"geometric mean of {device.cases} cases"
    return f"{device.device_id}: {_signed(device.ratio)} % ({_range(device.ratio_interval)}), {cases}."


def _signed(ratio: float) -> str:
    """Return a change in percent; what rounds to nothing has no sign to mislead by."""
    percent = round(100 * (ratio - 1), 1)
    return f"{percent:+.1f}" if percent else "0.0"


def _range(interval: Interval) -> str:
    return f"95 %: {_signed(interval.low)} to {_signed(interval.high)} %"


def _floor_notes(comparison: Comparison) -> list[str]:
    sources = {case.floor_source for case in comparison.comparable}
    said = []
    if FloorSource.ASSUMED in sources:
        said.append(
            "Noise floor assumed, for nobody measured it and a run of one process each does not show it:"
            " muster noise CONFIG, or measure.processes."
        )
    if any(case.is_doubtful for case in comparison.comparable):
        said.append(f"{_DOUBTFUL[0].upper()}{_DOUBTFUL[1:]}.")
    return said


def _explained(comparison: Comparison, differences: Sequence[Difference]) -> list[str]:
    has_changed = any(case.change in (Change.FASTER, Change.SLOWER) for case in comparison.cases)
    if not differences:
        return ["What is known of the hosts and devices is the same in both runs."] if has_changed else []
    said = [f"Differs: {each}{_where(each.device_ids, comparison)}." for each in differences[:_MOST_DIFFERENCES]]
    rest = len(differences) - _MOST_DIFFERENCES
    return said if rest <= 0 else [*said, f"… and {rest} more differences: muster env."]


def _where(device_ids: Iterable[str], comparison: Comparison) -> str:
    """Return on which devices, where it is not all of them."""
    ids = tuple(device_ids)
    if len(ids) >= len({case.device.id for case in comparison.comparable}):
        return ""
    named = ", ".join(ids[:_MOST_DEVICES_NAMED])
    return f" on {named}" + (f" and {len(ids) - _MOST_DEVICES_NAMED} more" if len(ids) > _MOST_DEVICES_NAMED else "")
