"""`muster schedule` and `muster prune`, on a simulated lab."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.app import call
from orchestrator.cli.firing import busy_host
from orchestrator.errors import ExitCode
from orchestrator.results import FiringState
from orchestrator.schedules.service import BUSY
from orchestrator.store import open_store
from tests.builders import a_case, a_host_report, a_new_run
from workers.protocol import Environment, Fact

CONFIG = """\
version: 1
name: night
hosts: [{name: a, devices: [cpu]}]
workloads: [{model: alexnet, batch_size: 8, passes: forward}]
measure: {warmup: 2, steps: 50}
schedule: {cron: "0 3 * * *", timezone: Europe/Berlin}
"""
NOW = datetime.datetime.now(datetime.timezone.utc)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_STORE", raising=False)
    (tmp_path / "night.yaml").write_text(CONFIG)
    return tmp_path


def add(*more: str, text: str = CONFIG) -> int:
    Path("night.yaml").write_text(text)
    return call(["schedule", "add", "night.yaml", "--simulate", *more])


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert call(["schedule", "list", "--json"]) == ExitCode.OK
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def fire() -> int:
    """Ask for a run now, and do what its process would."""
    with open_store("sqlite:///muster.db") as store:
        asked = store.schedules.ask("night", datetime.datetime.now(datetime.timezone.utc))
    return call(["schedule", "fire", str(asked.id)])


def last(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = listed(capsys)[0]["last"]
    return found


def test_a_schedule_is_added_listed_paused_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert add() == ExitCode.OK
    assert "night: added; next: " in capsys.readouterr().out
    assert add() == ExitCode.OK
    assert "night: replaced" in capsys.readouterr().out
    (one,) = listed(capsys)
    assert (one["cron"], one["timezone"], one["is_paused"], one["last"]) == ("0 3 * * *", "Europe/Berlin", False, None)
    assert datetime.datetime.fromisoformat(one["next_at"]) > NOW
    assert call(["schedule", "pause", "night"]) == ExitCode.OK
    assert listed(capsys)[0]["next_at"] is None
    assert call(["schedule", "list"]) == ExitCode.OK
    assert "night  0 3 * * * Europe/Berlin  paused  not run yet" in capsys.readouterr().out
    assert call(["schedule", "unpause", "night"]) == ExitCode.OK
    assert listed(capsys)[0]["next_at"] is not None
    assert call(["schedule", "remove", "night"]) == ExitCode.OK
    assert listed(capsys) == []
    assert call(["schedule", "list"]) == ExitCode.OK
    assert "there are no schedules: muster schedule add CONFIG" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["pause", "unpause", "remove", "run-now", "history"])
def test_a_schedule_that_is_not_there_is_told_with_those_that_are(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    add()
    assert call(["schedule", command, "nigth"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "there is no schedule 'nigth'" in err
    assert "there are: night" in err


def test_a_config_without_a_schedule_and_a_name_that_is_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert add(text=CONFIG.partition("schedule:")[0]) == ExitCode.USAGE
    assert "night.yaml has no schedule" in capsys.readouterr().err
    assert add("--name", "no name/") == ExitCode.USAGE
    assert "'no name/' is no name for a schedule" in capsys.readouterr().err


def test_a_firing_is_an_ordinary_run_with_a_link_to_its_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    add()
    assert fire() == ExitCode.OK
    done = last(capsys)
    assert (done["state"], done["outcome"], done["reason"]) == ("done", "ok", None)
    with open_store("sqlite:///muster.db") as store:
        (run,) = store.runs()
    assert (run.id, run.schedule, run.figures) == (done["run_id"], "night", 1)
    assert call(["runs"]) == ExitCode.OK
    assert capsys.readouterr().out.rstrip().endswith("  night  by schedule night  simulated")
    assert call(["schedule", "history", "night"]) == ExitCode.OK
    assert f"ok  run {run.id}" in capsys.readouterr().out


def test_a_firing_that_is_done_is_not_done_again(capsys: pytest.CaptureFixture[str]) -> None:
    add()
    fire()
    assert call(["schedule", "fire", "1"]) == ExitCode.OK
    assert call(["schedule", "fire", "99"]) == ExitCode.OK
    with open_store("sqlite:///muster.db") as store:
        assert len(store.runs()) == 1


def test_a_run_that_was_made_before_the_crash_is_only_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    add(text=CONFIG + "notify: {on: always, command: [tee, told.json]}\n")
    fire()
    Path("told.json").unlink()
    with open_store("sqlite:///muster.db") as store:
        store.schedules.change(1, state=FiringState.RUNNING, outcome=None)
    assert call(["schedule", "fire", "1"]) == ExitCode.OK
    assert json.loads(Path("told.json").read_text())["event"] == "ok"
    with open_store("sqlite:///muster.db") as store:
        assert len(store.runs()) == 1


def test_runs_are_held_against_the_last_good_one_or_a_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    notify = "notify: {on: always, command: [tee, told.json]}\n"
    add(text=CONFIG + notify)
    fire()
    assert json.loads(Path("told.json").read_text())["compared_with"] is None
    first = last(capsys)["run_id"]
    fire()
    assert json.loads(Path("told.json").read_text())["compared_with"] == f"run {first}"
    call(["baseline", "set", "good", first])
    add(text=CONFIG.replace("Berlin}", "Berlin, baseline: good}") + notify)
    fire()
    assert json.loads(Path("told.json").read_text())["compared_with"] == f"baseline good (run {first})"
    add(text=CONFIG.replace("Berlin}", "Berlin, baseline: goood}") + notify)
    assert fire() == ExitCode.FOUND
    told = json.loads(Path("told.json").read_text())
    assert (told["event"], told["reason"]) == ("failure", "there is no baseline 'goood'")


def test_what_fails_is_told_and_then_what_is_well_again(capsys: pytest.CaptureFixture[str]) -> None:
    notify = "notify: {command: [tee, told.json]}\n"
    add(text=CONFIG + notify)
    with open_store("sqlite:///muster.db") as store:
        (kept,) = store.schedules.every()
        store.schedules.put(dataclasses.replace(kept, config_text="version: 2\n"))
    assert fire() == ExitCode.FOUND
    assert (last(capsys)["outcome"], Path("told.json").exists()) == ("failure", False)
    assert call(["schedule", "list"]) == ExitCode.OK
    assert "night  cannot be read any more: " in capsys.readouterr().out
    add(text=CONFIG + notify)
    assert fire() == ExitCode.OK
    assert json.loads(Path("told.json").read_text())["event"] == "recovery"


def test_only_so_many_runs_of_a_schedule_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    call(["run", "night.yaml", "--simulate", "--no-progress"])
    add(text=CONFIG.replace("Berlin}", "Berlin, keep_runs: 2}"))
    for _ in range(4):
        fire()
    with open_store("sqlite:///muster.db") as store:
        assert [run.schedule for run in store.runs()] == ["night", "night", None]


def test_a_schedule_that_waits_for_idle_hosts_waits_for_other_runs_too() -> None:
    add(text=CONFIG.replace("Berlin}", "Berlin, when_idle: true}"))
    assert fire() == ExitCode.OK
    with open_store("sqlite:///muster.db") as store:
        store.begin_run(a_new_run("busy", a_case()))
        with store.written_by("busy"):
            assert fire() == BUSY


def test_hosts_are_busy_by_their_load() -> None:
    def loaded(load: float) -> Environment:
        return Environment(facts=(("cpu.load", Fact(value=load)),))

    idle, busy = (dataclasses.replace(a_host_report(cores=(0, 1, 2, 3)), condition=loaded(load)) for load in (2.0, 2.1))
    assert busy_host([idle]) is None
    leased = Environment(facts=(("host.leases", Fact(value="eve (run 3f2a of oak)")),))
    held = dataclasses.replace(idle, condition=leased)
    assert busy_host([idle, held]) == "localhost: held by eve (run 3f2a of oak)"
    assert busy_host([idle, busy]) == "localhost: 2.1 of 4 cores were busy over the last minute"


def test_a_unit_is_written_and_what_else_there_is_is_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    add()
    assert call(["schedule", "install"]) == ExitCode.OK
    unit = (folder / "config/systemd/user/muster-scheduler.service").read_text()
    assert f"WorkingDirectory={folder}" in unit
    out = capsys.readouterr().out
    assert "systemctl --user daemon-reload && systemctl --user enable --now muster-scheduler.service" in out
    assert "0 3 * * * cd " in out
    assert "kind: CronJob" in out
    assert call(["schedule", "install", "--print"]) == ExitCode.OK
    assert unit in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit_and_would_refuse_a_wrong_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    add()
    assert call(["schedule", "install"]) == ExitCode.OK
    unit = folder / "config/systemd/user/muster-scheduler.service"
    verify = ["systemd-analyze", "verify", "--user"]
    assert subprocess.run([*verify, unit], capture_output=True).returncode == 0
    wrong = folder / "wrong.service"
    wrong.write_text(unit.read_text().replace("ExecStart=", "ExecStart=/no/such/program "))
    assert subprocess.run([*verify, wrong], capture_output=True).returncode != 0


# --- muster prune ----------------------------------------------------------------------------------------------


def run_ids() -> list[str]:
    with open_store("sqlite:///muster.db") as store:
        return [run.id for run in store.runs()]


def test_prune_lists_and_removes_only_when_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        call(["run", "night.yaml", "--simulate", "--no-progress"])
    newest, _, oldest = run_ids()
    capsys.readouterr()
    assert call(["prune", "--keep-runs", "1"]) == ExitCode.OK
    assert "2 runs would be removed: the same with --apply removes them" in capsys.readouterr().out
    assert len(run_ids()) == 3
    call(["baseline", "set", "good", oldest])
    assert call(["prune", "--keep-runs", "1", "--apply"]) == ExitCode.OK
    assert "1 run removed" in capsys.readouterr().out
    assert run_ids() == [newest, oldest]
    assert call(["prune", "--keep-for", "90d", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"runs": [], "removed": 0}


def test_prune_takes_its_limits_from_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    call(["run", "night.yaml", "--simulate", "--no-progress"])
    Path("night.yaml").write_text(CONFIG + "retention: {keep_for: 30d}\n")
    assert call(["prune", "night.yaml"]) == ExitCode.OK
    assert "no run is to be removed" in capsys.readouterr().out


def test_prune_has_to_be_told_what_to_keep(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["prune"]) == ExitCode.USAGE
    assert "it is not said which runs to keep" in capsys.readouterr().err
    Path("night.yaml").write_text(CONFIG + "retention: {}\n")
    assert call(["prune", "night.yaml"]) == ExitCode.USAGE
    assert "it says neither keep_runs nor keep_for" in capsys.readouterr().err
    assert call(["prune", "--keep-for", "soon"]) == ExitCode.USAGE
    assert "--keep-for soon" in capsys.readouterr().err
