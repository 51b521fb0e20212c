"""`compare`, `baseline` and `noise` in this process, over simulated runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from orchestrator.cli.app import call
from orchestrator.errors import ExitCode
from orchestrator.store import open_store
from tests.builders import a_case, a_new_run, a_result, a_workload

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
version: 1
name: lab
hosts: [{name: gpu01, devices: ["gpu:0", "gpu:1"]}]
workloads: [{model: alexnet, batch_size: 64, passes: forward}]
measure: {warmup: 2, steps: 40}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "lab.yaml").write_text(CONFIG)
    return tmp_path


def simulate(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the lab in simulation and return the run's id."""
    assert call(["run", "lab.yaml", "--simulate", "--no-progress", *arguments]) == ExitCode.OK
    capsys.readouterr()
    assert call(["runs", "--json"]) == ExitCode.OK
    return str(json.loads(capsys.readouterr().out)[0]["id"])


def measured(run_id: str, *steps_ms: float) -> None:
    """Keep a run as if it had been measured, with a case of so many milliseconds a step for each."""
    cases = [a_case(workload=a_workload(batch_size=size)) for size, _ in enumerate(steps_ms, start=1)]
    with open_store("sqlite:///muster.db") as store:
        store.begin_run(a_new_run(run_id, *cases))
        for case, ms in zip(cases, steps_ms, strict=True):
            result = a_result(case, samples_ms=tuple(ms + i % 3 for i in range(40)))
            store.save_attempt(run_id, result)
            store.save_verdict(run_id, case.key, result.verdict, None)


def test_a_run_against_another_that_is_like_it_has_no_regression(capsys: pytest.CaptureFixture[str]) -> None:
    first = simulate(capsys)
    simulate(capsys)
    assert call(["compare", first]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "2 no difference shown; no regression" in out
    assert "gpu01/gpu:0" in out
    assert "Simulated: the figures of both runs are invented" in out


def test_a_regression_is_exit_code_1_and_a_threshold_may_let_it_pass(capsys: pytest.CaptureFixture[str]) -> None:
    measured("a1", 100.0)
    measured("b2", 120.0)
    assert call(["compare", "a1", "b2"]) == ExitCode.FOUND
    assert "1 slower; 1 regression" in capsys.readouterr().out
    assert call(["compare", "a1", "b2", "--threshold", "30%"]) == ExitCode.OK
    assert call(["compare", "a1", "b2", "--threshold", "0.1"]) == ExitCode.FOUND
    assert call(["compare", "b2", "a1"]) == ExitCode.OK


def test_a_comparison_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    measured("a1", 100.0)
    measured("b2", 120.0)
    call(["compare", "a1", "b2", "--json"])
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["cells"]["verdict"]["value"] == "slower"
    assert row["cells"]["change_percent"]["value"] == pytest.approx(100 * (121 / 101 - 1))


def test_markdown_has_what_changed_first_and_the_rest_folded_away(capsys: pytest.CaptureFixture[str]) -> None:
    measured("a1", 100.0, 100.0, 100.0)
    measured("b2", 120.0, 100.0, 100.0)
    assert call(["compare", "a1", "b2", "--format", "md"]) == ExitCode.FOUND
    first, _, rest = capsys.readouterr().out.partition("<details><summary>All 3 cases</summary>")
    assert first.startswith("### run b2 against run a1: 1 slower, 2 no difference shown; 1 regression")
    assert first.count("| localhost/cpu") == 1
    assert rest.count("| localhost/cpu") == 3
    assert rest.rstrip().endswith("</details>")


def test_markdown_folds_nothing_away_where_there_is_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    measured("a1", 100.0)
    measured("b2", 120.0)
    call(["compare", "a1", "b2", "--format", "md"])
    assert "<details>" not in capsys.readouterr().out


def test_a_baseline_is_compared_with_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    measured("a1", 100.0)
    measured("b2", 120.0)
    assert call(["baseline", "set", "night", "a1"]) == ExitCode.OK
    assert capsys.readouterr().out == "night: run a1\n"
    assert call(["compare", "night", "b2"]) == ExitCode.FOUND
    assert "run b2 against baseline night (run a1)" in capsys.readouterr().out
    assert call(["compare", "baseline:night", "b2"]) == ExitCode.FOUND
    capsys.readouterr()
    assert call(["baseline", "list"]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("night  run a1  set ")
    assert call(["baseline", "list", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)[0]["run_id"] == "a1"
    assert call(["baseline", "rm", "night"]) == ExitCode.OK
    assert capsys.readouterr().out == "night: forgotten; its run is still there\n"
    assert call(["baseline", "list"]) == ExitCode.OK
    assert "there are no baselines" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message", "remedy"),
    [
        (["compare", "nowhere", "a1"], "there is no run 'nowhere'", "Name one of these: a1"),
        (["compare", "baseline:night", "a1"], "there is no baseline 'night'", "none yet: muster baseline set NAME RUN"),
        (["compare", "a1", "a1"], "both are run a1", "name another one: muster runs"),
        (["compare", "a1", "--threshold", "x"], "--threshold x: expected a share", "such as 3% or 0.03"),
        (["compare", "a1", "--threshold", "1"], "--threshold 1: expected a share", "such as 3% or 0.03"),
        (["baseline", "set", "a b"], "'a b' is no name for a baseline", "letters, digits, dots, dashes, underscores"),
        (["baseline", "set", "latest"], "'latest' always means the newest run", "take another name"),
        (["baseline", "set", "x", "nowhere"], "there is no run 'nowhere'", "Name one of these: a1"),
        (["baseline", "rm", "x"], "there is no baseline 'x'", "there are: none"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_type(
    arguments: list[str], message: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    measured("a1", 100.0)
    assert call(arguments) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert message in error
    assert remedy in error


def test_made_up_figures_are_not_held_against_measured_ones(capsys: pytest.CaptureFixture[str]) -> None:
    measured("a1", 100.0)
    made_up = simulate(capsys)
    assert call(["compare", "a1", made_up]) == ExitCode.USAGE
    assert f"run {made_up} is simulated, and the other is not" in capsys.readouterr().err


def test_nothing_that_can_be_compared_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    measured("a1", 100.0)
    with open_store("sqlite:///muster.db") as store:
        store.begin_run(a_new_run("b2", a_case(key="k")))
    assert call(["compare", "a1", "b2"]) == ExitCode.INCOMPLETE


def test_noise_is_measured_kept_and_told_below_later_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["noise", "lab.yaml", "--simulate", "--no-progress", "--processes", "3", "--json"]) == ExitCode.OK
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["cells"]["device_id"]["value"] for row in rows] == ["gpu01/gpu:0", "gpu01/gpu:1"]
    assert {row["cells"]["processes"]["value"] for row in rows} == {3}
    assert {row["kind"] for row in rows} == {"simulated"}

    assert call(["noise", "lab.yaml", "--simulate", "--known"]) == ExitCode.OK
    assert "noise floors that are kept" in capsys.readouterr().out
    assert call(["run", "lab.yaml", "--simulate", "--no-progress"]) == ExitCode.OK
    assert "noise floor forward" in capsys.readouterr().out
    assert call(["show"]) == ExitCode.OK
    assert "noise floor forward" in capsys.readouterr().out


def test_noise_takes_the_configs_number_of_processes_or_five(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def processes(*arguments: str) -> set[int]:
        assert call(["noise", "lab.yaml", "--simulate", "--no-progress", "--json", *arguments]) == ExitCode.OK
        return {row["cells"]["processes"]["value"] for row in json.loads(capsys.readouterr().out)["rows"]}

    assert processes() == {5}
    assert processes("--set", "measure.processes=2") == {2}
    assert processes("--set", "measure.processes=2", "--processes", "4") == {4}
