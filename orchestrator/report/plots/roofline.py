"""What each device reaches, under the roof of what it attains: FLOP/s against FLOP for each byte, a picture a device.

Williams, Waterman, Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures", CACM 52
(2009).
The roof is measured, not a maker's: a large matrix product, and a large array read and written, in the same processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from orchestrator.analysis.pooling import pooled
from orchestrator.analysis.statistics import effective_flops, middle, roof_flops, summarise
from orchestrator.errors import UsageError
from orchestrator.report.plots.style import PASSES, heading, ink, line, new_figure, shown, tidy
from workers import works

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestrator.analysis.pooling import PooledCase
    from orchestrator.results import Run
    from workers.protocol import Device, Pass, Precision

#: More devices do not fit on one picture.
MOST_DEVICES: Final = 12

#: More points are not named, for their names would lie on each other.
_MOST_NAMES: Final = 14


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    name: str
    pass_: Pass
    #: FLOP for each byte that the work moves at the least.
    intensity: float
    flops: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Roof:
    """What a device attains at one precision, and what was reached under it."""

    device: Device
    precision: Precision
    flops: float
    bytes_per_s: float
    points: tuple[_Point, ...]


def roofline(run: Run) -> Figure:
    """Return a picture for each device: its roof for each precision, and a point for each figure under it.

    Raises :class:`orchestrator.errors.UsageError` where no device has both peaks and a figure, or too many have.
    """
    roofs = _roofs(run)
    by_device: dict[str, list[_Roof]] = {}
    for roof in roofs:
        by_device.setdefault(roof.device.id, []).append(roof)
    if not by_device:
        raise UsageError(
            f"no device of run {run.id} has a figure with both peaks beside it",
            remedy="see why: muster show --wide; runs from before muster measured memory have none",
        )
    if len(by_device) > MOST_DEVICES:
        raise UsageError(f"{len(by_device)} devices do not fit on a picture", remedy="take some: --only host=NAME")
    columns = 1 if len(by_device) == 1 else 2
    lines = math.ceil(len(by_device) / columns)
    figure = new_figure(8.0 if columns == 1 else 12.0, 1.0 + 4.6 * lines)
    for place, (name, found) in enumerate(by_device.items(), start=1):
        axes = figure.add_subplot(lines, columns, place)
        _draw(axes, found)
        axes.set_title(shown(f"{found[0].device.name}, {name}"), loc="left", fontsize=9)
    figure.suptitle(heading(run), x=0.01, ha="left", fontsize=10)
    return figure


def _draw(axes: Axes, roofs: Sequence[_Roof]) -> None:
    everything = [point.intensity for roof in roofs for point in roof.points]
    corners = [roof.flops / roof.bytes_per_s for roof in roofs]
    span = np.geomspace(min(*everything, *corners) / 3, max(*everything, *corners) * 3, 200)
    for number, roof in enumerate(roofs):
        colour, _, style = line(number)
        heights = [roof_flops(intensity, roof.flops, roof.bytes_per_s) / 1e12 for intensity in span]
        label = f"{roof.precision.value}: {roof.flops / 1e12:.3g} TFLOP/s, {roof.bytes_per_s / 1e9:.3g} GB/s"
        axes.plot(span, heights, color=colour, linestyle=style, label=label)
        for point in roof.points:
            _, _, marker, _ = PASSES[point.pass_]
            axes.plot(point.intensity, point.flops / 1e12, marker=marker, color=colour, linestyle="", fillstyle="none")
            if len(everything) <= _MOST_NAMES:
                axes.annotate(
                    point.name,
                    (point.intensity, point.flops / 1e12),
                    xytext=(5, -3),
                    textcoords="offset points",
                    fontsize=6,
                )
    for pass_ in dict.fromkeys(point.pass_ for roof in roofs for point in roof.points):
        label = pass_.value.replace("_", "-")
        axes.plot([], [], marker=PASSES[pass_][2], color=ink(), linestyle="", fillstyle="none", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP for each byte that must be moved")
    axes.set_ylabel("TFLOP/s")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="both", which="both", labelsize=8)
    axes.legend(frameon=False, fontsize=7, loc="best")
    tidy(axes)


def _roofs(run: Run) -> tuple[_Roof, ...]:
    grouped: dict[tuple[str, Precision], list[PooledCase]] = {}
    for each in pooled(run.cases):
        if each.samples_ms:
            grouped.setdefault((each.device.id, each.workload.precision), []).append(each)
    found = (_roof(cases) for cases in grouped.values())
    return tuple(roof for roof in found if roof is not None)


def _roof(cases: Sequence[PooledCase]) -> _Roof | None:
    results = [result for each in cases for result in each.measured]
    flops = middle(result.peak_flops for result in results)
    # Memory is the same whatever lies in it.
    bytes_per_s = middle(result.copy_bytes_per_s for result in results)
    points = tuple(_points(cases))
    if flops is None or bytes_per_s is None or not points:
        return None
    return _Roof(
        device=cases[0].device,
        precision=cases[0].workload.precision,
        flops=flops,
        bytes_per_s=bytes_per_s,
        points=points,
    )


def _points(cases: Sequence[PooledCase]) -> Iterable[_Point]:
    for each in cases:
        workload, batch_size = each.workload, each.measured[-1].batch_size or each.workload.batch_size
        try:
            work = works.find(workload.model)
        except works.UNKNOWN:
            continue
        flop = work.flop(batch_size, workload.pass_)
        if not flop:
            continue
        yield _Point(
            name=workload.model,
            pass_=workload.pass_,
            intensity=flop / work.bytes(batch_size, workload.pass_, workload.precision.itemsize),
            flops=effective_flops(flop, summarise(each.samples_ms).mean_ms),
        )
