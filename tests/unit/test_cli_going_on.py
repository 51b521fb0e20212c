"""`resume`, `rerun --stale`, and what is put aside, over simulated labs and a real store."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.cli.app import call
from orchestrator.cli.keeping import Keeping
from orchestrator.config.schema import LimitsConfig
from orchestrator.dispatch.messages import PutAside
from orchestrator.errors import ExitCode
from orchestrator.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.results import Run

CONFIG = """\
version: 1
name: lab
cluster: {mode: ssh}
hosts:
  - {name: "gpu[01-02]", devices: [gpu:0-1]}
workloads: [{model: alexnet, passes: forward, batch_size: [64, 128]}]
measure: {warmup: 2, steps: 5}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "lab.yaml").write_text(CONFIG)
    return tmp_path


def run(*arguments: str) -> str:
    """Run the lab in simulation and return the run's id."""
    assert call(["run", "lab.yaml", "--simulate", "--no-progress", *arguments]) == ExitCode.OK
    with open_store("sqlite:///muster.db") as store:
        return store.runs()[0].id


def stored(name: str = "latest") -> Run:
    with open_store("sqlite:///muster.db") as store:
        return store.run(name)


def spoil(statement: str, *values: Any) -> None:
    """Change the store as a head leaves it that is killed."""
    with sqlite3.connect("muster.db") as database:
        database.execute(statement, values)


def cut_off(run_id: str, after: int) -> None:
    """Make it a run that was cut off after so many of its cases."""
    spoil("update runs set state = 'running', finished_at = null where id = ?", run_id)
    for table in ("samples where attempt_id in (select id from attempts where case_id in", "attempts where case_id in"):
        brackets = ")" * (table.count("(") + 1)
        spoil(f"delete from {table} (select id from cases where position >= ?{brackets}", after)
    spoil("update cases set verdict = null, reason = null where position >= ?", after)


# --- resume ----------------------------------------------------------------------------------------------------


def test_resume_runs_what_has_no_verdict_under_the_same_id_and_leaves_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_id = run()
    whole = stored(run_id)
    cut_off(run_id, after=3)
    before = stored(run_id)

    assert call(["resume", "--no-progress"]) == ExitCode.OK

    after = stored(run_id)
    assert after.cases[:3] == before.cases[:3] == whole.cases[:3]
    assert [(case.case.key, case.verdict) for case in after.cases] == [(c.case.key, c.verdict) for c in whole.cases]
    assert [len(case.attempts) for case in after.cases] == [1] * 8
    assert after.state.value == "finished"
    assert after.finished_at is not None
    assert len(json.loads(_out(capsys, "runs", "--json"))) == 1


def test_a_figure_whose_verdict_the_last_head_could_not_keep_is_not_measured_again() -> None:
    run_id = run()
    whole = stored(run_id)
    spoil("update cases set verdict = null where position in (0, 5)")
    spoil("update runs set state = 'running', finished_at = null where id = ?", run_id)

    assert call(["resume", run_id, "--no-progress"]) == ExitCode.OK

    assert stored(run_id).cases == whole.cases


def test_resume_counts_attempts_on_from_those_that_are_kept() -> None:
    run_id = run()
    spoil("update cases set verdict = null where position = 0")
    spoil("update attempts set verdict = 'crashed' where case_id = (select id from cases where position = 0)")
    spoil("update runs set state = 'running' where id = ?", run_id)

    assert call(["resume", run_id, "--no-progress"]) == ExitCode.OK

    assert [attempt.number for attempt in stored(run_id).cases[0].attempts] == [1, 2]


@pytest.mark.parametrize("verdict", ["cancelled", "not_run"])
def test_resume_tries_what_was_merely_stopped(verdict: str) -> None:
    run_id = run()
    cut_off(run_id, after=7)
    spoil("update cases set verdict = ?, reason = 'stopped by Ctrl-C' where position = 7", verdict)

    assert call(["resume", "--no-progress"]) == ExitCode.OK

    assert stored(run_id).cases[7].verdict is not None
    assert str(stored(run_id).cases[7].verdict.value) == "ok"  # type: ignore[union-attr]


def test_resume_leaves_failures_alone_and_says_how_to_try_them(capsys: pytest.CaptureFixture[str]) -> None:
    run_id = run()
    spoil("update cases set verdict = 'host_down', reason = 'unplugged' where position = 1")

    assert call(["resume", "--no-progress"]) == ExitCode.USAGE

    err = capsys.readouterr().err
    assert f"run {run_id} has ended" in err
    assert f"muster rerun {run_id} --failed" in err


def test_resume_of_a_run_that_is_still_written_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    run_id = run()
    cut_off(run_id, after=5)
    with open_store("sqlite:///muster.db") as store, store.written_by(run_id):
        assert call(["resume", run_id, "--no-progress"]) == ExitCode.USAGE
    assert f"run {run_id} is still going on" in capsys.readouterr().err
    assert [case.verdict for case in stored(run_id).cases[5:]] == [None] * 3


def test_an_interrupted_run_is_told_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    run_id = run()
    cut_off(run_id, after=3)
    capsys.readouterr()

    out = _out(capsys, "show", run_id)

    assert "interrupted" in out


# --- rerun -----------------------------------------------------------------------------------------------------


def test_a_rerun_names_the_run_that_it_repeats() -> None:
    run_id = run()

    assert call(["rerun", "--no-progress", "--only", "host=gpu01"]) == ExitCode.OK

    assert stored().rerun_of == run_id
    assert {case.case.device.host for case in stored().cases} == {"gpu01"}


def test_stale_runs_the_cells_that_the_config_file_has_changed(folder: Path) -> None:
    run()
    (folder / "lab.yaml").write_text(CONFIG.replace("[64, 128]", "[64, 256]"))

    assert call(["rerun", "--stale", "--no-progress"]) == ExitCode.OK

    assert {case.case.workload.batch_size for case in stored().cases} == {256}
    assert len(stored().cases) == 4


def test_stale_runs_the_cells_that_have_no_figure() -> None:
    run()
    spoil("update cases set verdict = 'crashed', reason = 'x' where position = 2")
    failed = stored().cases[2].case.key

    assert call(["rerun", "--stale", "--no-progress"]) == ExitCode.OK

    assert [case.case.key for case in stored().cases] == [failed]


def test_stale_takes_the_stored_config_where_the_file_is_gone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    (folder / "lab.yaml").unlink()

    assert call(["rerun", "--stale", "--no-progress"]) == ExitCode.USAGE

    err = capsys.readouterr().err
    assert "lab.yaml is gone" in err
    assert "nothing has changed" in err


# --- quarantine ------------------------------------------------------------------------------------------------


def put_aside(target: str, *, simulated: bool = True, **limits: float) -> None:
    with open_store("sqlite:///muster.db") as store:
        keeping = Keeping(store, LimitsConfig.model_validate(limits), simulated=simulated)
        keeping.put_aside("an-old-run", PutAside(target=target, failures=3, reason="ended by SIGSEGV"))


def test_what_is_put_aside_gets_no_cases_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    put_aside("gpu01/gpu:1")

    assert call(["run", "lab.yaml", "--simulate", "--no-progress"]) == ExitCode.INCOMPLETE

    out = capsys.readouterr().out
    assert "ended by SIGSEGV" in out
    assert "muster quarantine release gpu01/gpu:1" in out
    ended = {case.case.device.id: case.verdict.value for case in stored().cases if case.verdict}
    assert ended == {"gpu01/gpu:0": "ok", "gpu01/gpu:1": "not_run", "gpu02/gpu:0": "ok", "gpu02/gpu:1": "ok"}


def test_a_host_that_is_put_aside_takes_its_devices_along() -> None:
    put_aside("gpu02")

    assert call(["run", "lab.yaml", "--simulate", "--no-progress"]) == ExitCode.INCOMPLETE

    idle = {case.case.device.host for case in stored().cases if case.verdict and case.verdict.value == "not_run"}
    assert idle == {"gpu02"}


def test_once_released_it_is_measured_and_the_run_gone_on_with() -> None:
    put_aside("gpu02")
    assert call(["run", "lab.yaml", "--simulate", "--no-progress"]) == ExitCode.INCOMPLETE
    with open_store("sqlite:///muster.db") as store:
        assert store.release("gpu02", simulated=True)

    assert call(["resume", "--no-progress"]) == ExitCode.OK

    assert {case.verdict.value for case in stored().cases if case.verdict} == {"ok"}


@pytest.mark.parametrize("given", [{"simulated": False}, {"quarantine_time": "1ms"}])
def test_a_real_lab_is_no_simulated_one_and_time_ends_it(given: dict[str, Any]) -> None:
    put_aside("gpu02", **given)

    assert call(["run", "lab.yaml", "--simulate", "--no-progress"]) == ExitCode.OK


def _out(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert call(list(arguments)) == ExitCode.OK
    return capsys.readouterr().out
