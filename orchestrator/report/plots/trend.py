"""The history of one workload on one device as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.report.plots.style import faint, ink, new_figure, shown, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from orchestrator.analysis.trend import ChangePoint, TrendPoint


def trend_figure(title: str, points: Sequence[TrendPoint], changes: Sequence[ChangePoint]) -> Figure:
    """Return the figures over runs, levels as lines, and a mark where a new one begins."""
    figure = new_figure(9.0, 4.0)
    axes = figure.add_subplot()
    places = range(len(points))
    axes.plot(places, [point.median_ms for point in points], ".-", color=faint(0.45), linewidth=0.8, label="step")
    doubtful = [place for place in places if points[place].is_doubtful]
    if doubtful:
        axes.plot(doubtful, [points[place].median_ms for place in doubtful], "x", color=ink(), label="doubtful")
    for change in changes:
        axes.axvline(change.place - 0.5, color=ink(), linewidth=1.0, linestyle="--")
        axes.annotate(
            f"{100 * change.share:+.1f} %", (change.place - 0.5, 1.0), xycoords=("data", "axes fraction"),
            xytext=(3, -10), textcoords="offset points", fontsize=8,
        )  # fmt: skip
    axes.set_xticks(places, [f"{point.created_at:%m-%d %H:%M}\n{point.run_id[:6]}" for point in points], fontsize=6)
    axes.tick_params(axis="x", rotation=90)
    axes.set_ylabel("step (ms)")
    axes.set_title(shown(title), loc="left", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    return figure
