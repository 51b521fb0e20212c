"""The command line in this process: everything that needs neither Ray nor TensorFlow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.app import call
from orchestrator.config.overrides import as_typed, from_typed
from orchestrator.errors import ExitCode
from orchestrator.report.words import seconds

CONFIG = """\
version: 1
name: lab
hosts:
  - {name: "gpu[01-02]", devices: [gpu:0-1]}
  - {name: attic, devices: [cpu]}
workloads: [{model: alexnet, batch_size: [64, 128]}]
measure: {warmup: 2, steps: 5}
"""

LOCAL = """\
version: 1
name: here
hosts: [{name: localhost, devices: [cpu]}]
workloads: [{model: alexnet, batch_size: 4}]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "lab.yaml").write_text(CONFIG)
    (tmp_path / "here.yaml").write_text(LOCAL)
    return tmp_path


@pytest.fixture
def simulated(capsys: pytest.CaptureFixture[str]) -> str:
    """Run the lab in simulation and return the run's id."""
    assert call(["run", "lab.yaml", "--simulate", "--no-progress"]) == ExitCode.OK
    capsys.readouterr()
    assert call(["runs", "--json"]) == ExitCode.OK
    name: str = json.loads(capsys.readouterr().out)[0]["id"]
    return name


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--help"]) == ExitCode.OK
    out = capsys.readouterr().out
    for command in ("init", "check", "devices", "plan", "run", "runs", "show", "rerun"):
        assert re.search(rf"^  {command} ", out, re.MULTILINE), command


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--version"]) == ExitCode.OK
    assert re.fullmatch(r"muster \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize("arguments", [["--help"], ["check", "here.yaml"], ["plan", "here.yaml"]])
def test_what_must_be_quick_loads_nothing_heavy(arguments: list[str], folder: Path) -> None:
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "orchestrator.cli.app", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert traced.returncode == 0, traced.stderr
    loaded = {line.rsplit("|", 1)[1].strip() for line in traced.stderr.splitlines() if line.startswith("import time")}
    assert "orchestrator.cli.app" in loaded or "orchestrator.cli.options" in loaded
    assert not loaded & {"ray", "tensorflow", "numpy", "scipy", "sqlalchemy", "alembic", "matplotlib", "rich.progress"}


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["run"], ["run", "lab.yaml", "--frobnicate"], ["show", "a", "b"]]
)
def test_a_wrong_command_line_is_exit_2_on_stderr(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(arguments) == ExitCode.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert "Error" in told.err


@pytest.mark.parametrize("command", ["check", "devices", "plan", "run"])
def test_a_missing_config_is_exit_2_with_a_remedy(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([command, "nowhere.yaml"]) == ExitCode.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert "nowhere.yaml: no such file" in told.err
    assert "muster init" in told.err


def test_all_that_is_wrong_with_a_config_is_told_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text(
        "version: 1\nname: bad\nworkloads:\n  - {model: alexnett, batch_size: 0}\nmesure: {steps: 3}\n"
    )
    assert call(["check", "bad.yaml"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert re.search(r"bad\.yaml:4:\d+: .*alexnett.*alexnet", err)
    assert re.search(r"bad\.yaml:4:\d+: .*batch_size: 0", err)
    assert re.search(r"bad\.yaml:5:1: unknown key 'mesure'; did you mean 'measure'\?", err)


def test_check_offline_says_what_is_in_a_config_that_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["check", "here.yaml", "--offline"]) == ExitCode.OK
    assert capsys.readouterr().out == "here.yaml: fine: 1 host, 2 workloads\n"
    assert call(["check", "here.yaml", "--offline", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {
        "config": "here.yaml",
        "hosts": 1,
        "workloads": 2,
        "notes": [],
        "findings": [],
    }


def test_check_looks_at_the_hosts_and_has_a_line_for_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["check", "here.yaml"]) == ExitCode.OK
    told = capsys.readouterr().out
    for check in ("python", "ray", "tensorflow", "numpy", "load", "memory", "disk", "gpus"):
        assert re.search(rf"^  (ok|warning) +{check} +\S", told, re.MULTILINE), check
    assert re.search(r"^  ok +devices +cpu$", told, re.MULTILINE)
    assert re.search(r"^1 host: 1 (fine|with warnings)", told.splitlines()[-1])


def test_check_ends_with_1_where_a_device_is_missing_and_says_what_mends_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing = ["--set", "hosts.0.devices=[cpu, gpu:7]"]
    assert call(["check", "here.yaml", *missing]) == ExitCode.FOUND
    told = capsys.readouterr()
    assert re.search(r"^  problem +devices +.*\n +→ .*muster devices", told.out, re.MULTILINE)
    assert told.err == ""
    assert call(["check", "here.yaml", "--json", *missing]) == ExitCode.FOUND
    (problem,) = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["level"] == "problem"]
    assert (problem["host"], problem["check"]) == ("localhost", "devices")


def test_check_prints_the_grammar(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["check", "--schema"]) == ExitCode.OK
    assert {"version", "hosts", "workloads"} <= set(json.loads(capsys.readouterr().out)["properties"])


def test_check_without_a_config_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["check"]) == ExitCode.USAGE
    assert "muster check lab.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["--offline", "--simulate"])
def test_check_can_be_told_to_contact_nobody(folder: Path, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ssh.yaml").write_text(CONFIG + "cluster: {mode: ssh}\n")
    assert call(["check", "ssh.yaml", way]) == ExitCode.OK
    assert capsys.readouterr().out == "ssh.yaml: fine: 3 hosts, 4 workloads\n"


def test_devices_shows_what_is_there_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["devices", "here.yaml"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert re.search(r"^here\n└── localhost  .+, Python 3\..+\n    ├── cpu  .+, .+, \d+ cores? \(.+\)", told)
    assert told.splitlines()[-1] == "1 host, 1 device to be measured"
    assert call(["devices", "here.yaml", "--set", "hosts.0.devices=[gpu:7]"]) == ExitCode.INCOMPLETE
    told = capsys.readouterr().out
    assert "gpu:7  device_missing: " in told
    assert told.splitlines()[-1] == "1 host, 0 devices to be measured, 1 that cannot be"


def test_devices_as_data_has_hosts_and_gaps(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["devices", "lab.yaml", "--simulate", "--json"]) == ExitCode.OK
    data = json.loads(capsys.readouterr().out)
    assert [device["selector"] for device in data["declared"]] == ["gpu:0", "gpu:1", "gpu:0", "gpu:1", "cpu"]
    assert {host["host"] for host in data["hosts"]} == {"gpu01", "gpu02", "attic"}
    assert {device["verdict"] for device in data["declared"]} == {None}


def test_devices_mentions_what_the_config_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["devices", "lab.yaml", "--simulate"]) == ExitCode.OK
    assert "(not in the config)" in capsys.readouterr().out


def test_plan_shows_cases_in_order_and_says_that_nothing_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", "here.yaml"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"1  localhost/cpu  alexnet forward batch 4 float32 NHWC +10\+100 steps  not measured before", lines[0]
    )
    assert lines[-1] == "2 cases on 1 device; no estimate: nothing was measured yet"


def test_plan_says_why_a_case_cannot_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", "here.yaml", "--set", "hosts.0.devices=[cpu, gpu:3]"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "device_missing: " in out
    assert "2 cases on 1 device, 2 that cannot be run" in out


def test_plan_as_data_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", "lab.yaml", "--simulate", "--json", "--only", "host=attic"]) == ExitCode.OK
    data = json.loads(capsys.readouterr().out)
    assert [case["case"]["workload"]["batch_size"] for case in data["cases"]] == [64, 64, 128, 128]
    assert all(re.fullmatch(r"[0-9a-f]{64}", case["case"]["key"]) for case in data["cases"])
    assert data["devices"] == ["attic/cpu"]
    assert data["total"] == {"known_s": 0.0, "without_estimate": 4}


def test_plan_estimates_from_what_the_store_remembers(simulated: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", "lab.yaml", "--simulate"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "not measured before" not in out
    assert re.search(r"20 cases on 5 devices; at most .+ by what earlier runs tell", out)


def test_a_local_config_with_two_hosts_is_refused_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", "lab.yaml"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert re.search(r"lab\.yaml:4:3: hosts: 3 hosts, and mode local is this machine alone", err)
    assert "mode: ssh" in err


def test_a_simulated_run_has_a_row_for_every_device_and_says_that_it_is_simulated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(["run", "lab.yaml", "--simulate"]) == ExitCode.OK
    told = capsys.readouterr()
    rows = [line for line in told.out.splitlines() if re.match(r"\d", line)]
    assert len(rows) == 10 + 4
    assert told.out.lower().count("simulated") >= 10
    assert "20 cases" in told.err


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_every_form_says_that_a_run_was_simulated(
    simulated: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["show", simulated, "--format", form]) == ExitCode.OK
    assert capsys.readouterr().out.lower().count("simulated") >= 10


def test_show_finds_a_run_by_the_beginning_of_its_name(simulated: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["show", simulated[:5], "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["schema_version"] == 1


def test_show_of_no_such_run_says_which_there_are(simulated: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["show", "nonesuch"]) == ExitCode.USAGE
    assert "nonesuch" in capsys.readouterr().err


def test_an_unknown_form_is_refused_before_anything_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "lab.yaml", "--simulate", "--format", "pdf"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert all(name in err for name in ("csv", "json", "md", "table"))
    assert not Path("muster.db").exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [("report.references=[sead]", "seed"), ("report.relative_to=Titan Z", "Titan X")],
)
def test_a_report_that_cannot_be_drawn_is_refused_before_anything_is_run(
    override: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["run", "lab.yaml", "--simulate", "--set", override]) == ExitCode.USAGE
    assert told in capsys.readouterr().err
    assert not Path("muster.db").exists()


def test_runs_lists_the_newest_first(simulated: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "lab.yaml", "--simulate", "--no-progress", "--only", "host=attic"]) == ExitCode.OK
    capsys.readouterr()
    assert call(["runs"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [re.split(r"  +", line)[3] for line in lines] == [
        "4 of 4 cases with a figure",
        "20 of 20 cases with a figure",
    ]
    assert all(line.endswith("simulated") for line in lines)


@pytest.mark.parametrize("command", [["runs"], ["show"], ["rerun"]])
def test_without_a_store_they_say_how_to_make_one(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command) == ExitCode.USAGE
    assert "muster run" in capsys.readouterr().err


def test_rerun_of_a_simulated_run_is_simulated_with_the_same_overrides(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--set", "measure.steps=7", "--only", "host=attic", "--only", "pass=forward"]
    assert call(["run", "lab.yaml", "--simulate", "--no-progress", *arguments]) == ExitCode.OK
    Path("lab.yaml").unlink()
    capsys.readouterr()
    assert call(["rerun", "--no-progress", "--json"]) == ExitCode.OK
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["kind"] == "simulated"]
    assert len(rows) == 2
    assert {row["cells"]["forward_samples"]["value"] for row in rows} == {7}


def test_rerun_only_replaces_the_filters_of_the_run(simulated: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["rerun", "--no-progress", "--only", "host=gpu01", "--json"]) == ExitCode.OK
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["kind"] == "simulated"]
    assert {row["cells"]["host"]["value"] for row in rows} == {"gpu01"}


def test_the_store_can_be_named_by_option_and_by_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["run", "lab.yaml", "--simulate", "--no-progress", "--store", "sqlite:///other.db"]) == ExitCode.OK
    assert "--store sqlite:///other.db" in capsys.readouterr().err
    assert not (folder / "muster.db").exists()
    monkeypatch.setenv("MUSTER_STORE", "sqlite:///other.db")
    assert call(["runs"]) == ExitCode.OK
    assert "20 of 20" in capsys.readouterr().out


def test_init_writes_a_config_that_runs_and_does_not_overwrite(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["init", "mine.yaml"]) == ExitCode.OK
    assert "muster run mine.yaml" in capsys.readouterr().out
    assert call(["check", "mine.yaml"]) == ExitCode.OK
    assert call(["init", "mine.yaml"]) == ExitCode.USAGE
    assert "is there already" in capsys.readouterr().err
    assert call(["init", "mine.yaml", "--force"]) == ExitCode.OK


def test_init_says_why_it_cannot_write(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["init", "no/such/folder.yaml"]) == ExitCode.USAGE
    assert "cannot be written" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_failure(simulated: str, folder: Path) -> None:
    piped = subprocess.run(
        f"{sys.executable} -m orchestrator.cli.app show --wide | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert piped.stderr == ""
    assert piped.stdout.startswith("lab")


@pytest.mark.parametrize(
    ("value", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")]
)
def test_durations_are_for_people(value: float, text: str) -> None:
    assert seconds(value) == text


def test_overrides_are_kept_as_they_were_typed_and_come_back() -> None:
    kept = as_typed(["measure.steps=3", "name=a --only b"], ["model=alexnet"])
    assert kept == ("--set measure.steps=3", "--set name=a --only b", "--only model=alexnet")
    assert from_typed(kept) == (("measure.steps=3", "name=a --only b"), ("model=alexnet",))
