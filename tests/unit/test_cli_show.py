"""`muster show` and `muster runs` of runs with failures: attempts, and commands that name the store."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.cli.app import call
from orchestrator.cli.ending import show_executed
from orchestrator.cli.execution import Executed
from orchestrator.config.load import load_text
from orchestrator.errors import ExitCode
from orchestrator.results import RunState
from orchestrator.store import open_store
from tests.builders import a_case, a_device, a_new_run, a_result
from workers.protocol import Verdict

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
version: 1
name: lab
hosts: [{name: gpu01, devices: [gpu:0-1]}]
workloads: [{model: alexnet, batch_size: 128}]
"""

FAILED, TRIED_AGAIN = (a_case(a_device("gpu01", f"gpu:{index}")) for index in range(2))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_STORE", raising=False)
    return tmp_path


def make_run(url: str) -> None:
    """A run in which one case failed for good, and another at first, its result coming too late."""
    crashed: dict[str, Any] = {"verdict": Verdict.CRASHED, "reason": "SIGSEGV", "samples_ms": (), "stopped_by": None}
    with open_store(url) as store:
        store.begin_run(a_new_run("7f3a01", FAILED, TRIED_AGAIN, config_text=CONFIG, overrides=(), rerun_of="80bb02"))
        store.save_attempt("7f3a01", a_result(FAILED, **crashed))
        store.save_verdict("7f3a01", FAILED.key, Verdict.CRASHED, "SIGSEGV")
        store.save_attempt("7f3a01", a_result(TRIED_AGAIN, **crashed))
        store.save_late("7f3a01", a_result(TRIED_AGAIN))
        store.save_attempt("7f3a01", a_result(TRIED_AGAIN, 2))
        store.save_verdict("7f3a01", TRIED_AGAIN.key, Verdict.OK, None)
        store.finish_run("7f3a01", RunState.FINISHED, a_new_run().created_at)


def test_every_attempt_is_shown_in_any_form(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("sqlite:///muster.db")
    assert call(["show", "--attempts", "--format", "csv"]) == ExitCode.OK
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["device_id"], row["attempt"], row["verdict"], row["standing"]) for row in rows] == [
        ("gpu01/gpu:0", "1", "crashed", "last"),
        ("gpu01/gpu:1", "1", "crashed", "tried again"),
        ("gpu01/gpu:1", "1", "ok", "superseded"),
        ("gpu01/gpu:1", "2", "ok", "last"),
    ]
    assert call(["show", "7f3a01", "--attempts", "--json"]) == ExitCode.OK
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 4
    assert call(["show", "--attempts"]) == ExitCode.OK
    assert "ok (superseded)" in capsys.readouterr().out


def test_a_failed_row_prints_the_command_that_reruns_it(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("sqlite:///muster.db")
    assert call(["show", "--format", "md"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert "* Row 1: again with: muster rerun 7f3a01 --failed --only host=gpu01 --only device=gpu:0\n" in told
    assert told.count("muster rerun") == 1
    assert "/ 2 attempts" in told


@pytest.mark.parametrize("way", ["option", "variable"])
def test_commands_name_a_store_that_is_not_the_default(
    way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("sqlite:///my lab.db")
    if way == "variable":
        monkeypatch.setenv("MUSTER_STORE", "sqlite:///my lab.db")
    assert call(["show", "--json", *(["--store", "sqlite:///my lab.db"] if way == "option" else [])]) == ExitCode.OK
    [note] = [note for note in json.loads(capsys.readouterr().out)["notes"] if "muster rerun" in note]
    assert "7f3a01 --failed --store 'sqlite:///my lab.db' --only host=gpu01" in note


def test_the_table_at_the_end_of_a_run_names_its_store_too(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("sqlite:///lab.db")
    with open_store("sqlite:///lab.db") as store:
        run = store.run("latest")
    executed = Executed(run=run, exit_code=ExitCode.INCOMPLETE, store="sqlite:///lab.db", store_error=None)
    show_executed(executed, load_text(CONFIG, "lab.yaml", simulate=True).config.report, form="md", wide=False)
    assert "muster rerun 7f3a01 --failed --store sqlite:///lab.db --only host=gpu01" in capsys.readouterr().out


def test_runs_say_which_run_they_repeat(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("sqlite:///muster.db")
    assert call(["runs"]) == ExitCode.OK
    assert capsys.readouterr().out.endswith("1 of 2 cases with a figure  local  rerun of 80bb02\n")
    assert call(["runs", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)[0]["rerun_of"] == "80bb02"
