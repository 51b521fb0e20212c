"""What pictures show, read off their SVG: never how many pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from orchestrator.analysis import references
from orchestrator.analysis.comparison import Comparison, compare
from orchestrator.errors import UsageError
from orchestrator.report.build import build_table
from orchestrator.report.plots.bars import MOST_ROWS, bars
from orchestrator.report.plots.changes import changes
from orchestrator.report.plots.roofline import roofline
from orchestrator.report.plots.samples import samples
from orchestrator.report.plots.scaling import scaling
from orchestrator.report.plots.style import Theme, drawn_for, forms, written
from tests.builders import a_case, a_device, a_telemetry, a_workload
from tests.runs import a_case_result, a_case_without_attempt, a_lab_run, a_run, both_passes
from tests.unit.test_comparison import A, B, figure
from workers.protocol import Precision, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from orchestrator.results import CaseResult

SVG = "{http://www.w3.org/2000/svg}"
C = a_device("c", "gpu:1")
STEADY = tuple(100.0 + i % 5 for i in range(40))


def words(figure: Figure) -> list[str]:
    root = ElementTree.fromstring(written(figure, "svg"))
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def a_lab_run_rows() -> list[str]:
    return [row.cells[1].text for row in build_table(a_lab_run(), references=references.load(["seed"])).rows]


def widths(axes: Axes) -> list[float]:
    """The lengths of an axes' bars, but for those that only the legend has."""
    return [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle) and bar.get_width()]


def xs(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_xdata())]


def ys(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]


# --- bars --------------------------------------------------------------------------------------------------------


def test_bars_show_every_row_figures_with_intervals_and_verdicts_where_there_are_none() -> None:
    figure = bars(a_lab_run(), references.load(["seed"]))
    shown = " ".join(words(figure))
    assert "oom" in shown
    assert "Titan X (published)" in shown
    assert "lab, run 7f3a9c" in shown
    (axes,) = figure.axes
    bottom, top = axes.get_ylim()
    assert all(top < at < bottom for at in axes.get_yticks())
    assert len(axes.get_yticks()) == len(a_lab_run_rows())


def test_a_bar_is_as_long_as_its_mean_and_its_whiskers_are_the_interval() -> None:
    run = a_run(*both_passes(a_device("h"), {}, STEADY, tuple(3 * ms for ms in STEADY)))
    (axes,) = bars(run).axes
    assert sorted({round(width, 6) for width in widths(axes)}) == [102.0, 306.0]
    whiskers = [one.get_segments()[0] for one in axes.collections if isinstance(one, LineCollection)]
    assert any(ends[0][0] < 102 < ends[1][0] for ends in whiskers)


def test_a_doubtful_bar_has_its_word() -> None:
    run = a_run(replace(a_case_result(a_case(), samples_ms=STEADY), verdict=Verdict.CONTENDED))
    assert "102 contended" in words(bars(run))


def test_a_single_step_has_a_bar_without_whiskers() -> None:
    (axes,) = bars(a_run(a_case_result(a_case(), samples_ms=(5.0,)))).axes
    assert widths(axes) == [5.0]


def test_a_simulated_picture_says_so() -> None:
    assert "lab, run 7f3a9c, simulated" in words(bars(a_run(a_case_result(a_case()), simulated=True)))


def test_no_rows_and_far_too_many_are_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match="has no rows to draw"):
        bars(a_run(), references.load(["seed"]))
    many = [a_case_result(a_case(a_device(f"h{number}"))) for number in range(MOST_ROWS + 1)]
    with pytest.raises(UsageError, match="121 rows do not fit on a picture"):
        bars(a_run(*many))


# --- steps -------------------------------------------------------------------------------------------------------


def watched(device: str = "gpu:0", **readings: list[float | None]) -> CaseResult:
    seen = a_telemetry(window_s=(10.0, 14.0), **readings)
    return a_case_result(a_case(a_device("h", device)), samples_ms=STEADY, telemetry=seen, warmup_ms=(900.0, 120.0))


def test_steps_lie_where_telemetry_says_that_they_were_taken_and_warm_up_before() -> None:
    (axes,) = samples(watched()).axes
    warmup, counted = axes.lines
    assert ys(counted) == list(STEADY)
    assert xs(counted)[0] == pytest.approx(10.1)
    assert xs(warmup)[-1] == pytest.approx(10.0)
    assert ys(warmup) == [900.0, 120.0]


def test_what_was_read_has_a_panel_and_what_was_not_has_none() -> None:
    figure = samples(watched(gpu__clock_mhz=[1980.0, None, 1975.0], gpu__power_w=[None, None, None]))
    assert [axes.get_ylabel() for axes in figure.axes] == ["step (ms)", "clock (MHz)"]
    assert ys(figure.axes[1].lines[0]) == [1980.0, 1975.0]
    cpu = samples(watched("cpu", cpu__others_percent=[1.0], cpu__use_percent=[90.0]))
    assert [axes.get_ylabel() for axes in cpu.axes[1:]] == ["used (%)", "by others (%)"]


def test_without_telemetry_time_begins_with_the_warm_up() -> None:
    (axes,) = samples(a_case_result(a_case(), samples_ms=STEADY, warmup_ms=(500.0,))).axes
    assert xs(axes.lines[1])[0] == pytest.approx(0.6)


def test_why_a_figure_is_doubtful_stands_above() -> None:
    doubtful = replace(watched(), reason="others used 38 % of its cores")
    assert "others used 38 % of its cores" in words(samples(doubtful))


@pytest.mark.parametrize(("verdict", "word"), [(Verdict.OOM, "oom"), (None, "it has not ended")])
def test_a_case_without_steps_is_refused(verdict: Verdict | None, word: str) -> None:
    with pytest.raises(UsageError, match=f"has no steps to draw: {word}"):
        samples(a_case_without_attempt(a_case(), verdict))


# --- scaling -----------------------------------------------------------------------------------------------------


def sweep(**steps_ms: float) -> list[CaseResult]:
    return [
        a_case_result(
            a_case(workload=a_workload(batch_size=int(size[1:]))), samples_ms=tuple(ms + i % 3 for i in range(20))
        )
        for size, ms in steps_ms.items()
    ]


def test_scaling_has_a_line_for_each_device_with_images_a_second() -> None:
    figure = scaling(a_run(*sweep(b64=31.0, b32=15.0, b128=127.0)))
    (axes,) = figure.axes
    line = axes.lines[0]
    assert xs(line) == [32, 64, 128]
    assert ys(line)[1] == pytest.approx(64 / 0.03195, rel=0.01)
    assert "localhost/cpu: alexnet forward float32 NHWC" in words(figure)
    assert {"32", "64", "128"} <= set(words(figure))


def test_an_interval_that_reaches_below_nothing_stays_on_the_picture() -> None:
    wild = a_case_result(a_case(workload=a_workload(batch_size=8)), samples_ms=(1.0, 500.0))
    assert scaling(a_run(wild, *sweep(b16=10.0))).axes


def test_a_single_step_is_drawn_without_an_interval() -> None:
    one = a_case_result(a_case(workload=a_workload(batch_size=8)), samples_ms=(4.0,))
    assert scaling(a_run(one, *sweep(b16=10.0), simulated=True)).axes


def test_one_batch_is_no_line() -> None:
    with pytest.raises(UsageError, match="has figures of two batches"):
        scaling(a_run(*sweep(b64=31.0), a_case_without_attempt(a_case(), Verdict.OOM)))


# --- written -----------------------------------------------------------------------------------------------------


def test_the_same_picture_is_the_same_bytes() -> None:
    run = a_run(a_case_result(a_case(), samples_ms=STEADY))
    assert forms() == ("png", "svg")
    for form in forms():
        assert written(bars(run), form) == written(bars(run), form)
    assert written(bars(run), "png").startswith(b"\x89PNG")


# --- roofline ----------------------------------------------------------------------------------------------------


def a_roof_case(device: str = "h", model: str = "gemm/m1000-n1000-k1000-nn", **given: object) -> CaseResult:
    peaks: dict[str, object] = {"samples_ms": (1.0, 1.0), "peak_flops": 4e12, "copy_bytes_per_s": 1e10}
    case = a_case(a_device(device), a_workload(model=model, batch_size=1))
    return a_case_result(case, **{**peaks, **given})


def test_a_roof_rises_with_the_memory_s_speed_and_ends_at_the_peak() -> None:
    (axes,) = roofline(a_run(a_roof_case())).axes
    roof, point, *_ = axes.lines
    assert max(ys(roof)) == pytest.approx(4.0)
    # 400 FLOP for each byte is where both are equally busy.
    assert all(y == pytest.approx(min(4.0, x * 1e10 / 1e12)) for x, y in zip(xs(roof), ys(roof), strict=True))
    # 2 m n k over the bytes of three square matrices; 2 GFLOP in 1 ms.
    assert xs(point) == pytest.approx([2e9 / 12e6])
    assert ys(point) == pytest.approx([2.0])


def test_each_device_has_a_picture_and_each_precision_a_roof() -> None:
    half = replace(a_roof_case(), case=a_case(a_device("h"), a_workload(precision=Precision.BFLOAT16, batch_size=1)))
    figure = roofline(a_run(a_roof_case(), half, a_roof_case("i")))
    assert len(figure.axes) == 2
    shown = words(figure)
    assert "float32: 4 TFLOP/s, 10 GB/s" in shown
    assert "bfloat16: 4 TFLOP/s, 10 GB/s" in shown
    assert "gemm/m1000-n1000-k1000-nn" in shown


def test_many_points_are_not_named_and_what_nobody_knows_is_no_point() -> None:
    cases = [a_roof_case(model=f"gemm/m{number}-n1000-k1000-nn") for number in range(100, 115)]
    (axes,) = roofline(a_run(*cases, a_roof_case(model="lenet"))).axes
    assert len([line for line in axes.lines if len(xs(line)) == 1]) == 15
    assert not axes.texts


def test_without_both_peaks_there_is_nothing_to_draw() -> None:
    for missing in ({"peak_flops": None}, {"copy_bytes_per_s": None}, {"samples_ms": ()}):
        with pytest.raises(UsageError, match="no device of run 7f3a9c has a figure with both peaks"):
            roofline(a_run(a_roof_case(**missing)))
    with pytest.raises(UsageError, match="no device"):
        roofline(a_run(a_roof_case(model="alexnet/pool1")))
    with pytest.raises(UsageError, match="13 devices do not fit"):
        roofline(a_run(*(a_roof_case(f"h{number}") for number in range(13))))


# --- changes -----------------------------------------------------------------------------------------------------


def test_changes_are_marks_with_intervals_the_largest_first() -> None:
    before = [figure(A, 100.0), figure(B, 100.0), figure(C, 100.0)]
    after = [figure(A, 100.0, seed=1), figure(B, 130.0, seed=1), figure(C, 80.0, seed=1)]
    comparison = compare(before, after)
    (axes,) = changes(comparison).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert [label.split(":")[0] for label in labels] == ["b/gpu", "c/gpu", "a/gpu"]
    marks = [line for line in axes.lines if line.get_marker() in ("<", ">", "o")]
    assert [line.get_marker() for line in marks] == [">", "<", "o"]
    assert [round(xs(line)[0]) for line in marks] == [30, -20, 0]
    # The noise floor lies around none.
    assert all(bar.get_x() == pytest.approx(-bar.get_width() / 2) for bar in axes.patches if isinstance(bar, Rectangle))
    bare = replace(comparison.cases[1], ratio_interval=None, floor=None)
    (axes,) = changes(Comparison(cases=(bare,), devices=())).axes
    assert not axes.patches


def test_runs_that_share_nothing_have_no_changes_to_draw() -> None:
    with pytest.raises(UsageError, match="no figure of one case"):
        changes(compare([figure(A)], [figure(B)]))


# --- what is on paper --------------------------------------------------------------------------------------------


def test_a_picture_for_a_dark_page_has_light_ink_and_the_light_one_is_as_ever() -> None:
    run = a_lab_run()
    plain = written(bars(run), "svg")
    with drawn_for(Theme.DARK):
        dark = written(bars(run), "svg")
    with drawn_for(Theme.LIGHT):
        assert written(bars(run), "svg") == plain
    assert b"#161616" in dark
    assert b"#ececec" in dark
    assert b"#161616" not in plain


def test_what_a_host_is_called_is_no_formula() -> None:
    device = a_device("a$\\frac{$", "gpu:0", name="x$y$\x1b[31m")
    run = a_run(*both_passes(device, {}, STEADY, STEADY), name="$\\bad{$")
    assert "x$y$\\x1b[31m" in " ".join(words(bars(run)))
