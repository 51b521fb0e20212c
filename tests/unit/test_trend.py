from __future__ import annotations

import datetime
import json
import random
from typing import TYPE_CHECKING

import pytest

from orchestrator.analysis.trend import ChangePoint, TrendPoint, change_points
from orchestrator.cli.app import call
from orchestrator.config.schema import ReportConfig
from orchestrator.errors import ExitCode
from orchestrator.report import renderers
from orchestrator.report.plots.trend import trend_figure
from orchestrator.report.trend import sparkline, trend_table
from orchestrator.store import open_store
from tests.builders import a_case, a_new_run, a_result, a_workload, an_environment
from tests.goldens import assert_golden
from tests.unit.test_plots import words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FIRST = datetime.datetime(2026, 11, 1, 3, 0, tzinfo=datetime.timezone.utc)


def history(figures: Sequence[float], doubtful: Sequence[int] = ()) -> list[TrendPoint]:
    return [
        TrendPoint(
            run_id=f"{place:06x}", created_at=FIRST + datetime.timedelta(days=place), median_ms=ms,
            is_doubtful=place in doubtful,
        )
        for place, ms in enumerate(figures)
    ]  # fmt: skip


def noisy(chance: random.Random, level: float, count: int, sd: float = 0.01) -> list[float]:
    return [level * (1 + chance.gauss(0, sd)) for _ in range(count)]


def test_a_planted_step_is_found_where_it_is() -> None:
    chance, found = random.Random(5), 0
    for _ in range(100):
        changes = change_points(history([*noisy(chance, 100, 12), *noisy(chance, 105, 12)]))
        found += any(
            abs(change.place - 12) <= 1 and change.share == pytest.approx(0.05, abs=0.02) for change in changes
        )
    assert found >= 95


@pytest.mark.parametrize("count", [8, 30, 100])
def test_pure_noise_hardly_ever_has_a_change(count: int) -> None:
    chance = random.Random(6)
    flagged = sum(bool(change_points(history(noisy(chance, 100, count)), between_sd=0.01)) for _ in range(200))
    assert flagged <= 6


def test_a_level_that_comes_back_is_two_changes() -> None:
    chance = random.Random(7)
    figures = [*noisy(chance, 100, 10, 0.003), *noisy(chance, 110, 10, 0.003), *noisy(chance, 100, 10, 0.003)]
    assert [change.place for change in change_points(history(figures))] == [10, 20]


def test_levels_closer_than_anybody_cares_about_are_one() -> None:
    assert change_points(history([100.0, 100.01] * 5 + [100.6, 100.61] * 5)) == ()


def test_few_figures_show_no_change() -> None:
    assert change_points(history([100.0, 200.0, 200.0])) == ()


def test_a_history_as_people_see_it() -> None:
    points = history([100.0, 101.0, 100.5, 110.0, 111.0], doubtful=[1])
    changes = [ChangePoint(place=3, before_ms=100.0, after_ms=110.0)]
    why = {3: ("NVIDIA driver 550 -> 560", "kernel 1 -> 2")}
    table = trend_table("a/gpu:0: alexnet", points, changes, simulated=False, why=why)
    assert_golden("report/trend.txt", renderers.load("table")(table, width=120, color=False))
    assert (
        trend_table("x", points, changes, simulated=True, why={})
        .notes[1]
        .endswith("What differs: nothing that is known of the host or device.")
    )
    faster = trend_table("x", points, [ChangePoint(place=3, before_ms=2.0, after_ms=1.0)], simulated=False, why={})
    assert faster.rows[3].cells[5].text == "a new level: faster"


def test_a_line_of_blocks_goes_from_lowest_to_highest() -> None:
    assert sparkline([1.0, 2.0, 8.0]) == "▁▂█"
    assert sparkline([3.0, 3.0]) == "▁▁"


def test_a_history_as_a_picture_marks_its_changes() -> None:
    points = history([100.0, 101.0, 100.5, 110.0, 111.0], doubtful=[1])
    figure = trend_figure("a/gpu:0", points, [ChangePoint(place=3, before_ms=100.0, after_ms=110.0)])
    assert "+10.0 %" in words(figure)
    assert "doubtful" in words(figure)
    assert "doubtful" not in words(trend_figure("x", history([1.0, 2.0]), []))


# --- from the command line ---------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight nights on one device, slower since the fifth, when a driver changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    cases = [a_case(), a_case(workload=a_workload(batch_size=64))]
    with open_store("sqlite:///muster.db") as store:
        for night in range(8):
            run_id = f"a{night}"
            store.begin_run(a_new_run(run_id, *cases, created_at=FIRST + datetime.timedelta(days=night)))
            for case in cases:
                ms = 100.0 + night % 2 * 0.1 + (20.0 if night >= 4 else 0.0)
                environment = an_environment({"gpu.driver": "560" if night >= 4 else "550"})
                result = a_result(case, samples_ms=(ms, ms, ms), environment=environment)
                store.save_attempt(run_id, result)
                store.save_verdict(run_id, case.key, result.verdict, None)
    return tmp_path


def test_a_trend_tells_since_when_and_why(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["trend", "--only", "batch_size=64"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "Since run a4 a step takes +20.0 %. What differs: NVIDIA driver 550 -> 560." in out
    assert "▁" in out
    assert call(["trend", "--only", "batch_size=64", "--last", "3", "--json"]) == ExitCode.OK
    assert [row["cells"]["run_id"]["value"] for row in json.loads(capsys.readouterr().out)["rows"]] == [
        "a5",
        "a6",
        "a7",
    ]


@pytest.mark.parametrize("form", ["svg", "png"])
def test_a_trend_as_a_picture(kept: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["trend", "--only", "batch_size=64", "-o", f"trend.{form}"]) == ExitCode.OK
    assert capsys.readouterr().err == f"trend.{form}\n"
    assert (kept / f"trend.{form}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trend"], "2 histories could be meant: localhost/cpu alexnet forward batch 128 float32 NHWC; "),
        (["trend", "--only", "batch_size=7"], "no run has a figure of that"),
        (["trend", "--only", "batch_size=64", "-o", "x.pdf"], "pictures are written as .png or .svg"),
        (["trend", "--only", "batch_size=64", "-o", "no/x.svg"], "no/x.svg cannot be written: No such file"),
        (["plot", "--only", "host=nowhere"], "no case of run a7 is left by --only host=nowhere"),
        (["plot", "--kind", "samples"], "2 cases could be drawn: localhost/cpu alexnet forward batch 128"),
        (["plot", "-o", "x.jpg"], "pictures are written as .png or .svg"),
    ],
)
def test_what_is_wrong_is_told(
    kept: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments) == ExitCode.USAGE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        ([], "muster.svg"),
        (["--kind", "scaling", "-o", "s.png"], "s.png"),
        (["--kind", "samples", "--only", "batch_size=64", "-o", "t.svg"], "t.svg"),
    ],
)
def test_a_run_as_a_picture(
    kept: Path, arguments: list[str], file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What these runs were made of is no config: the table's references are the default's.
    monkeypatch.setattr("orchestrator.report.asked.report_of", lambda run: ReportConfig())
    assert call(["plot", *arguments]) == ExitCode.OK
    assert capsys.readouterr().err == f"{file}\n"
    assert (kept / file).stat().st_size > 1000


def test_a_picture_on_stdout_is_svg(kept: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert call(["plot", "--kind", "scaling", "-o", "-"]) == ExitCode.OK
    assert b"<svg" in capfdbinary.readouterr().out
