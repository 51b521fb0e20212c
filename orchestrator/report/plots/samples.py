"""The steps of one case as they were taken, and what was seen of its device meanwhile."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from orchestrator.errors import UsageError
from orchestrator.report.plots.style import faint, ink, new_figure, shown, tidy
from orchestrator.report.workloads import in_words
from workers.protocol import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestrator.results import CaseResult
    from workers.protocol import Result

#: What is drawn below the steps, by kind of device: series and how the axis is called. Those that were read are shown.
_PANELS: Final = {
    DeviceKind.GPU: (
        ("gpu.clock_mhz", "clock (MHz)"), ("gpu.temperature_c", "temperature (°C)"), ("gpu.power_w", "power (W)"),
        ("cpu.others_percent", "others on the host (%)"),
    ),
    DeviceKind.CPU: (
        ("cpu.frequency_mhz", "clock (MHz)"), ("cpu.temperature_c", "temperature (°C)"),
        ("cpu.use_percent", "used (%)"), ("cpu.others_percent", "by others (%)"), ("cpu.steal_percent", "stolen (%)"),
    ),
}  # fmt: skip

_MOST_PANELS: Final = 4


def samples(case: CaseResult) -> Figure:
    """Return a dot for each step over time, warm-up apart, and below it clocks, temperatures and load on the same axis.

    Time is seconds since the child was started, where telemetry says when the counted steps began, else since the first
    step. Raises :class:`orchestrator.errors.UsageError` for a case without steps.
    """
    result = case.result
    if result is None or not result.samples_ms:
        verdict = "it has not ended" if case.verdict is None else case.verdict.value
        raise UsageError(f"{case.case.device.id} has no steps to draw: {verdict}", remedy="see which have: muster show")
    panels = _panels(case, result)
    figure = new_figure(9.0, 3.2 + 1.1 * len(panels))
    rows = figure.subplots(1 + len(panels), 1, sharex=True, squeeze=False, height_ratios=[3.0, *[1.0] * len(panels)])
    axes = [row[0] for row in rows]
    _draw_steps(axes[0], result)
    for below, (label, points) in zip(axes[1:], panels, strict=True):
        _draw_series(below, label, points)
    title = f"{case.case.device.id}: {in_words(case.case.workload, case.case.company)}, process {case.case.process}"
    doubts = "" if case.reason is None else f"\n{shown(case.reason)}"
    axes[0].set_title(shown(title) + doubts, loc="left", fontsize=9)
    axes[-1].set_xlabel("time (s)")
    return figure


def _panels(case: CaseResult, result: Result) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return what each panel is called, and its readings over time; of series that were read at all."""
    seen = result.telemetry
    if seen is None:
        return []
    found = []
    for name, label in _PANELS[case.case.device.kind]:
        points = [(at, value) for at, value in zip(seen.at_s, seen.named(name), strict=False) if value is not None]
        if points:
            found.append((label, points))
    return found[:_MOST_PANELS]


def _draw_steps(axes: Axes, result: Result) -> None:
    seen = result.telemetry
    warmup_s, counted_s = sum(result.warmup_ms) / 1e3, sum(result.samples_ms) / 1e3
    begin_s = warmup_s if seen is None or seen.measure_from_s is None else seen.measure_from_s
    warmup_at = [begin_s - warmup_s + at / 1e3 for at in accumulate(result.warmup_ms)]
    counted_at = [begin_s + at / 1e3 for at in accumulate(result.samples_ms)]
    axes.plot(warmup_at, result.warmup_ms, "x", color=faint(0.55), markersize=4, label="warm-up")
    axes.plot(counted_at, result.samples_ms, ".", color=ink(), markersize=3, label="counted")
    axes.axvspan(begin_s, begin_s + counted_s, color=faint(0.94), zorder=0)
    # Warm-up steps may take many times as long: what is measured is to be seen.
    axes.set_ylim(0, 1.15 * max(result.samples_ms))
    axes.set_ylabel("step (ms)")
    axes.legend(frameon=False, loc="lower right", ncols=2, fontsize=8)
    tidy(axes)


def _draw_series(axes: Axes, label: str, points: Sequence[tuple[float, float]]) -> None:
    axes.plot(*zip(*points, strict=True), color=ink(), linewidth=1.0, drawstyle="steps-pre")
    axes.set_ylabel(label, fontsize=7)
    axes.tick_params(labelsize=7)
    tidy(axes)
