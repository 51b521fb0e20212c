"""How many images a second go through by batch, a line for each device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.analysis.pooling import pooled
from orchestrator.analysis.statistics import images_per_s, summarise
from orchestrator.errors import UsageError
from orchestrator.report.plots.style import heading, line, new_figure, shown, tidy
from orchestrator.report.workloads import in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from orchestrator.analysis.pooling import PooledCase
    from orchestrator.results import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    batch_size: int
    #: Images a second, of the mean and of both ends of its 95 % interval.
    rate: float
    low: float
    high: float


def scaling(run: Run) -> Figure:
    """Return images a second against the batch, with 95 % intervals; both axes by powers of two and ten.

    Raises :class:`orchestrator.errors.UsageError` where no device has figures of two batches.
    """
    lines = {label: points for label, points in _lines(run).items() if len(points) > 1}
    if not lines:
        raise UsageError(
            f"no device of run {run.id} has figures of two batches", remedy="sweep them: batch_size: [32, 64, 128]"
        )
    figure = new_figure(8.0, 5.0)
    axes = figure.add_subplot()
    for number, (label, points) in enumerate(lines.items()):
        colour, marker, style = line(number)
        sizes, rates = [point.batch_size for point in points], [point.rate for point in points]
        errors = [[point.rate - point.low for point in points], [point.high - point.rate for point in points]]
        axes.errorbar(sizes, rates, errors, color=colour, marker=marker, linestyle=style, capsize=3, label=shown(label))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({point.batch_size for points in lines.values() for point in points})
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.set_xlabel("batch (images)")
    axes.set_ylabel("images a second")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter("{x:,.0f}")
    axes.tick_params(axis="y", which="both", labelsize=8)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center")
    axes.set_title(heading(run), loc="left", fontsize=10)
    tidy(axes)
    return figure


def _lines(run: Run) -> dict[str, list[_Point]]:
    found: dict[str, list[_Point]] = {}
    for each in pooled(run.cases):
        if each.samples_ms:
            found.setdefault(_label(each), []).append(_point(each))
    return {label: sorted(points, key=lambda point: point.batch_size) for label, points in found.items()}


def _label(each: PooledCase) -> str:
    """Return what a line is called: the device, and the workload but for its batch."""
    return f"{each.device.id}: {in_words(replace(each.workload, batch_size=1), each.company).replace(' batch 1 ', ' ')}"


def _point(each: PooledCase) -> _Point:
    batch_size = each.measured[-1].batch_size or each.workload.batch_size
    summary = summarise(each.samples_ms)
    slow, fast = summary.ci95_high_ms or summary.mean_ms, summary.ci95_low_ms or summary.mean_ms
    return _Point(
        batch_size=batch_size,
        rate=images_per_s(batch_size, summary.mean_ms),
        low=images_per_s(batch_size, slow),
        # An interval of few, wild samples may reach below nothing.
        high=images_per_s(batch_size, fast if fast > 0 else summary.min_ms),
    )
