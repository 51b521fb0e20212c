from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from orchestrator.cli.app import call
from orchestrator.errors import ExitCode
from orchestrator.report import renderers
from orchestrator.report.environments import environments, environments_table
from orchestrator.store import open_store
from tests.builders import a_case, a_device, a_new_run, a_result, an_environment
from tests.goldens import assert_golden
from tests.runs import a_case_result, a_case_without_attempt, a_run
from workers.protocol import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.results import Run
    from workers.protocol import FactValue


def a_lab(**given: object) -> Run:
    def facts(**own: FactValue) -> object:
        values = {"framework.version": "2.21.0", "gpu.ecc": True, "cpu.governor": None, **own}
        return an_environment({name.replace("__", "."): value for name, value in values.items()})

    cases = [
        a_case_result(a_case(a_device(f"h{number}", "gpu:0")), environment=facts(host__kernel="6.1"))
        for number in range(8)
    ]
    odd = a_case_result(
        a_case(a_device("odd", "gpu:0")), environment=facts(host__kernel="6.9", gpu__ecc=False, env__TF_XLA_FLAGS="x")
    )
    lost = a_case_without_attempt(a_case(a_device("lost")), Verdict.HOST_DOWN)
    empty = a_case_result(a_case(a_device("empty")))
    return a_run(*cases, odd, lost, empty, **given)


def test_one_environment_is_told_once_with_its_devices() -> None:
    same, odd = environments(a_lab())
    assert same.device_ids == tuple(f"h{number}/gpu:0" for number in range(8))
    assert odd.device_ids == ("odd/gpu:0",)
    assert len(same.hash) == 12
    assert same.hash != odd.hash


@pytest.mark.parametrize(("device", "found"), [("odd", 1), ("odd/gpu:0", 1), ("odd/gpu:1", 0), ("lost", 0), (None, 2)])
def test_one_device_or_host_can_be_looked_at_alone(device: str | None, found: int) -> None:
    assert len(environments(a_lab(), device)) == found


@pytest.mark.parametrize("simulated", [False, True])
def test_what_is_the_same_everywhere_has_one_row(simulated: bool) -> None:
    run = a_lab(simulated=simulated)
    table = environments_table(run, environments(run))
    rows = {(row.cells[0].text, row.cells[1].text): row.cells[2].text for row in table.rows}
    assert rows["framework.version", "2.21.0"] == "everywhere"
    assert rows["gpu.ecc", "no"] == "odd/gpu:0"
    assert rows["host.kernel", "6.1"] == "h0/gpu:0, h1/gpu:0, h2/gpu:0, h3/gpu:0, h4/gpu:0, h5/gpu:0 and 2 more"
    assert rows["env.TF_XLA_FLAGS", "- (not recorded)"].startswith("h0/gpu:0")
    if not simulated:
        assert_golden("report/environments.txt", renderers.load("table")(table, width=160, color=False))


# --- from the command line ---------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_STORE", raising=False)
    case = a_case()
    with open_store("sqlite:///muster.db") as store:
        store.begin_run(a_new_run("7f3a01", case))
        store.save_attempt("7f3a01", a_result(case, environment=an_environment({"cpu.model": "X", "gpu.mig": None})))
    return "7f3a01"


def test_environments_of_a_run(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["env", kept[:4]]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "cpu.model" in out
    assert "- (nobody looked)" in out
    assert call(["env", "--json"]) == ExitCode.OK
    data = json.loads(capsys.readouterr().out)
    assert data["run_id"] == kept
    assert data["environments"][0]["facts"]["gpu.mig"] == {"value": None, "reason": "nobody looked"}
    assert data["environments"][0]["devices"] == ["localhost/cpu"]


def test_a_device_that_the_run_has_not_is_met_with_those_that_it_has(
    kept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["env", "--device", "gpu09"]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert f"run {kept} kept no environment of gpu09" in error
    assert "its devices: localhost/cpu" in error
