"""A bar for each figure of a run, with its interval, and the published rows below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator.errors import UsageError
from orchestrator.report.entries import measured, published
from orchestrator.report.plots.style import PASSES, PUBLISHED, heading, ink, new_figure, shown, tidy
from orchestrator.report.table import RowKind
from workers.protocol import Pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestrator.analysis.references import Reference
    from orchestrator.report.entries import Entry, Timing
    from orchestrator.results import Run

#: More rows than this nobody can read on one picture.
MOST_ROWS: Final = 120

_ROW_HEIGHT: Final = 0.55
_BAR: Final = 0.38


def bars(run: Run, references: Sequence[Reference] = ()) -> Figure:
    """Return a horizontal bar for each pass of each row: the mean step, milliseconds, with its 95 % interval.

    Shorter is faster. A doubtful figure has its word behind it, and where there is none the verdict stands in place of
    the bar. Raises :class:`orchestrator.errors.UsageError` for a run without rows, or with too many for a picture.
    """
    entries = (*measured(run), *published(references))
    if not any(entry.kind is not RowKind.REFERENCE for entry in entries):
        raise UsageError(f"run {run.id} has no rows to draw", remedy="see what it has: muster show")
    if len(entries) > MOST_ROWS:
        raise UsageError(f"{len(entries)} rows do not fit on a picture", remedy="take some: --only host=NAME")
    passes = [pass_ for pass_ in Pass if any(_is_asked(entry, pass_) for entry in entries)]
    figure = new_figure(9.0, 1.4 + _ROW_HEIGHT * len(entries))
    axes = figure.add_subplot()
    for row, entry in enumerate(entries):
        for place, pass_ in enumerate(passes):
            _bar(axes, row + (place - (len(passes) - 1) / 2) * _BAR, entry, pass_)
    axes.set_yticks(range(len(entries)), [_label(entry) for entry in entries])
    # The first row on top, and room for rows without a bar, which matplotlib does not count.
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.set_xlim(0, 1.12 * axes.get_xlim()[1])
    axes.set_xlabel("step (ms), mean with its 95 % interval; of published rows the standard deviation")
    for pass_ in passes:
        colour, hatch, *_ = PASSES[pass_]
        label = pass_.value.replace("_", "-")
        axes.barh([0], [0], color=colour, hatch=hatch, edgecolor=ink(), linewidth=0.6, label=label)
    axes.legend(frameon=False, loc="best")
    axes.set_title(heading(run), loc="left", fontsize=10)
    tidy(axes)
    return figure


def _is_asked(entry: Entry, pass_: Pass) -> bool:
    timing = entry.timing(pass_)
    return timing.mean_ms is not None or timing.verdict is not None


def _bar(axes: Axes, at: float, entry: Entry, pass_: Pass) -> None:
    timing = entry.timing(pass_)
    colour, hatch, *_ = PASSES[pass_]
    if timing.mean_ms is None:
        axes.text(0, at, f" {timing.text}", va="center", ha="left", fontsize=8, style="italic")
        return
    error = _error(timing)
    is_published = entry.kind is RowKind.REFERENCE
    axes.barh(
        at, timing.mean_ms, height=_BAR, color=PUBLISHED if is_published else colour, hatch=hatch, edgecolor=ink(),
        linewidth=0.6, xerr=error, error_kw={"capsize": 2, "linewidth": 0.9, "ecolor": ink()},
    )  # fmt: skip
    word = f"{timing.mean_ms:.4g}"
    if timing.verdict is not None and timing.verdict.is_doubtful:
        word += f" {timing.verdict.value}"
    reach = timing.mean_ms + (0.0 if error is None else error[1][0])
    axes.annotate(word, (reach, at), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)


def _error(timing: Timing) -> list[list[float]] | None:
    """Return how far the interval reaches to either side; of a published figure its standard deviation."""
    mean, summary = timing.mean_ms or 0.0, timing.summary
    if summary is not None and summary.ci95_low_ms is not None and summary.ci95_high_ms is not None:
        return [[mean - summary.ci95_low_ms], [summary.ci95_high_ms - mean]]
    return None if timing.sd_ms is None else [[min(timing.sd_ms, mean)], [timing.sd_ms]]


def _label(entry: Entry) -> str:
    if entry.kind is RowKind.REFERENCE:
        return shown(f"{entry.device_name} (published)")
    definition = entry.definition
    company = "" if definition.company is None else f", {definition.company.value}"
    place = shown(f"{entry.device_id}, batch {definition.batch_size}, {definition.precision}{company}")
    return f"{shown(entry.device_name)}\n{place}"
