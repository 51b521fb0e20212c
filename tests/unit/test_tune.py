"""`muster tune` over a made-up lab, and its table."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.analysis.pooling import pooled
from orchestrator.cli.app import call
from orchestrator.errors import ExitCode
from orchestrator.report.tuning import Candidate, Objective, Tuned, group_of, measured_candidate, tuned_table
from orchestrator.store import open_store
from tests.builders import a_case, a_device, a_telemetry, a_workload
from tests.runs import a_case_result
from workers.protocol import Pass, Precision, Verdict
from workers.telemetry.series import Energy

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """version: 1
name: lab
hosts: [{name: "gpu[1-2]", devices: ["gpu:0"]}]
workloads:
  - {model: alexnet, batch_size: [8, 16, 32], precision: [float32, bfloat16], compiler: [none, xla]}
measure: {warmup: 1, steps: 24}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lab.yaml"
    path.write_text(CONFIG)
    return path


def tuned(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    code = call(["tune", *arguments, "--simulate", "--no-progress", "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err


def cells(table: dict[str, Any], key: str) -> list[Any]:
    return [row["cells"][key]["value"] for row in table["rows"]]


def test_every_device_model_and_pass_has_a_best_setting(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    code, table, err = tuned(capsys, str(config), "--check")
    assert code == ExitCode.OK
    assert cells(table, "device_id") == ["gpu1/gpu:0"] * 2 + ["gpu2/gpu:0"] * 2
    assert cells(table, "tried") == [12] * 4
    assert all(50 < saved < 100 for saved in cells(table, "saved_percent"))
    # The best of the first round is never behind the config's first combination by more than noise.
    assert all(gain > 0.95 for gain in cells(table, "gain"))
    assert "tune, round 1 of 5: 48 cases of 3 steps" in err
    assert "tune, round 5 of 5: 4 cases of 24 steps" in err
    assert "tune, the whole sweep: 48 cases of 24 steps" in err
    assert any("% were saved" in note for note in table["notes"])


def test_each_round_is_a_run_that_is_kept(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    tuned(capsys, str(config))
    with open_store("sqlite:///muster.db", create=False) as store:
        runs = [store.run(summary.id) for summary in store.runs()]
    by_name = {run.name: [len(case.attempts[0].result.samples_ms) for case in run.cases] for run in runs}
    assert by_name == {
        "lab (tune, round 1 of 5)": [3] * 48,
        "lab (tune, round 2 of 5)": [3] * 24,
        "lab (tune, round 3 of 5)": [6] * 12,
        "lab (tune, round 4 of 5)": [12] * 8,
        "lab (tune, round 5 of 5)": [24] * 4,
    }


def test_energy_that_nobody_counts_cannot_be_tuned_for(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    code, _, err = tuned(capsys, str(config), "--for", "images/J")
    assert code == ExitCode.USAGE
    assert "no case has images/J: none was measured, or no device counts its energy" in err
    assert "muster show" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--for", "speed"], "--for speed: expected one of images/s, images/J"),
        (["--set", "workloads[0].batch_size=max"], "batch_size: max cannot be tuned"),
        (["--only", "host=nobody"], "no case is left"),
    ],
)
def test_what_cannot_be_tuned_is_told(
    capsys: pytest.CaptureFixture[str], config: Path, arguments: list[str], message: str
) -> None:
    code, _, err = tuned(capsys, str(config), *arguments)
    assert code == ExitCode.USAGE
    assert message in err


# --- the table -------------------------------------------------------------------------------------------------


def candidate(score: float, **workload: Any) -> Candidate:
    return Candidate(workload=a_workload(**workload), score=score, step_s=0.1)


def a_search(**given: Any) -> Tuned:
    defaults: dict[str, Any] = {
        "group": ("h/cpu", "alexnet", Pass.FORWARD),
        "winner": candidate(300.0, batch_size=64),
        "first": candidate(200.0),
        "tried": 8,
        "failed": 0,
        "taken_s": 2.0,
        "whole_s": 8.0,
    }
    return Tuned(**{**defaults, **given})


def test_a_row_says_what_is_best_by_how_much_and_what_it_saved() -> None:
    table = tuned_table([a_search()], Objective.IMAGES_PER_S, title="t", simulated=False, steps=50)
    shown = {column.key: cell for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}
    assert shown["settings"].text == "alexnet forward batch 64 float32 NHWC"
    assert (shown["gain"].text, shown["saved_percent"].value) == ("x1.50", 75)
    assert "Successive halving took 2 s of counted steps; every combination with 50 steps would take 8 s" in str(
        table.notes
    )


def test_the_whole_sweep_s_winner_is_named_where_it_is_another() -> None:
    same = a_search(checked=candidate(299.0, batch_size=64))
    other = a_search(checked=candidate(309.0, batch_size=32))
    table = tuned_table([same, other], Objective.IMAGES_PER_S, title="t", simulated=False, steps=50)
    assert [row.cells[-1].text for row in table.rows] == [
        "the same",
        "alexnet forward batch 32 float32 NHWC: 3.0 % more",
    ]
    stopped = tuned_table([same, a_search()], Objective.IMAGES_PER_S, title="t", simulated=False, steps=50)
    assert stopped.rows[1].cells[-1].reason == "not measured"
    assert "it has the same winner in 1 of 2 rows" in table.notes[-1]


def test_without_any_figure_there_is_no_winner_but_a_reason() -> None:
    none = a_search(winner=None, first=None, failed=8, taken_s=0.0, whole_s=0.0)
    table = tuned_table([none], Objective.IMAGES_PER_J, title="t", simulated=False, steps=50)
    shown = {column.key: cell for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}
    assert shown["images_per_j"].reason == "none of 8 combinations has a figure"
    assert shown["settings"].text == "none of 8 combinations has a figure"
    assert "8 combinations have no figure" in table.notes[-1]


def test_a_joule_s_images_are_those_of_the_steps_that_it_was_counted_over() -> None:
    telemetry = replace(a_telemetry(), energy=Energy(joules=50.0, source="nvml"))
    case = a_case_result(a_case(workload=a_workload(batch_size=10)), samples_ms=(100.0, 100.0), telemetry=telemetry)
    (pool,) = pooled([case])
    (failed,) = pooled([a_case_result(a_case(), verdict=Verdict.OOM, samples_ms=())])
    assert measured_candidate(failed, Objective.IMAGES_PER_S) is None
    found = measured_candidate(pool, Objective.IMAGES_PER_J)
    assert found is not None
    assert found.score == pytest.approx(10 / 25)
    assert found.step_s == pytest.approx(0.1)
    fast = measured_candidate(pool, Objective.IMAGES_PER_S)
    assert fast is not None
    assert fast.score == pytest.approx(100)


def test_what_is_searched_for_by_itself_is_a_device_a_model_and_a_pass() -> None:
    one = a_case(a_device("h"), a_workload(precision=Precision.BFLOAT16))
    assert group_of(one) == ("h/cpu", "alexnet", Pass.FORWARD)
