"""How much longer or shorter a step takes than in another run: a mark and its interval for each case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.analysis.comparison import Change
from orchestrator.errors import UsageError
from orchestrator.report.plots.style import faint, ink, new_figure, shown, tidy
from orchestrator.report.workloads import in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestrator.analysis.comparison import ComparedCase, Comparison

#: More cases than this nobody can read on one picture; those that changed most are drawn.
_MOST_ROWS: Final = 60
_ROW_HEIGHT: Final = 0.32

#: Colour and marker: told apart by shape as well.
_MARKS: Final = {Change.SLOWER: ("#d55e00", ">"), Change.FASTER: ("#009e73", "<")}


def changes(comparison: Comparison) -> Figure:
    """Return each case's change in percent with its 95 % interval, and the noise floor as a shade around none.

    Right is slower. Raises :class:`orchestrator.errors.UsageError` where nothing can be compared.
    """
    found = sorted(
        (case for case in comparison.comparable if case.ratio is not None), key=lambda case: -abs((case.ratio or 1) - 1)
    )[:_MOST_ROWS]
    if not found:
        raise UsageError("the two runs have no figure of one case", remedy="see what each has: muster show")
    figure = new_figure(9.0, 1.2 + _ROW_HEIGHT * len(found))
    axes = figure.add_subplot()
    for row, case in enumerate(found):
        _mark(row, case, axes)
    axes.axvline(0.0, color=ink(), linewidth=0.8)
    axes.set_yticks(range(len(found)), [_label(case) for case in found], fontsize=7)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlabel("change of a step (%), with its 95 % interval; shade: noise floor; right is slower")
    tidy(axes)
    return figure


def _mark(row: int, case: ComparedCase, axes: Axes) -> None:
    change = _percent(case.ratio or 1.0)
    if case.floor is not None:
        axes.barh(row, 200 * case.floor, left=-100 * case.floor, height=0.8, color=faint(0.88), zorder=0)
    interval = case.ratio_interval
    error = None if interval is None else [[change - _percent(interval.low)], [_percent(interval.high) - change]]
    colour, marker = _MARKS.get(case.change, (ink(), "o"))
    axes.errorbar(change, row, xerr=error, color=colour, marker=marker, markersize=5, capsize=2, linestyle="")


def _percent(ratio: float) -> float:
    return 100 * (ratio - 1)


def _label(case: ComparedCase) -> str:
    return shown(f"{case.device.id}: {in_words(case.workload, case.company)}")
