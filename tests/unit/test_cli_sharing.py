"""`export` and `import` in this process, over simulated runs, from one store to another."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from orchestrator.cli.app import call
from orchestrator.errors import ExitCode
from tests.unit.test_cli_comparing import folder, simulate

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["folder"]  # the fixture: a folder of its own, with a config

THERE = ("--store", "sqlite:///there.db")


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: ExitCode = ExitCode.OK) -> str:
    capsys.readouterr()
    assert call(arguments) == code
    captured = capsys.readouterr()
    return captured.out if code is ExitCode.OK else captured.err


def test_a_run_goes_from_one_store_to_another(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    run_id = simulate(capsys)
    said(capsys, "export", "latest", "-o", "lab.muster.zip")
    assert (folder / "lab.muster.zip").exists()
    assert not list(folder.glob(".*.part"))
    out = said(capsys, "import", "lab.muster.zip", *THERE)
    assert f"run {run_id} (lab) is taken in from lab.muster.zip: 2 of 2 cases with a figure, simulated" in out
    assert "is there already: lab.muster.zip changed nothing" in said(capsys, "import", "lab.muster.zip", *THERE)
    assert "imported from lab.muster.zip" in said(capsys, "runs", *THERE)
    assert json.loads(said(capsys, "runs", "--json", *THERE))[0]["imported_from"] == "lab.muster.zip"
    here, there = (
        said(capsys, "show", run_id, "--format", "csv"),
        said(capsys, "show", run_id, "--format", "csv", *THERE),
    )
    assert here == there
    assert "imported from lab.muster.zip" in said(capsys, "show", run_id, *THERE)


def test_it_is_shown_beside_and_compared_with_a_run_of_here(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    theirs = simulate(capsys)
    said(capsys, "export", theirs, "-o", "theirs.zip")
    (folder / "muster.db").unlink()
    ours = simulate(capsys)
    said(capsys, "import", "theirs.zip")
    out = said(capsys, "show", "--beside", theirs)
    assert out.startswith(f"lab, run {ours}")
    assert f"run {theirs} / simulated" in out
    assert f"* Rows 3-4: lab, run {theirs}" in out
    assert f"run {theirs} / simulated" in said(capsys, "show", ours, "--beside", "theirs.zip")
    assert f"run {ours} against theirs.zip (run {theirs})" in said(capsys, "compare", "theirs.zip", ours)
    assert f"run {ours} against run {theirs}" in said(capsys, "compare", theirs)
    err = said(capsys, "show", ours, "--beside", ours, code=ExitCode.USAGE)
    assert f"both are run {ours}" in err


def test_two_bundles_are_compared_without_a_store(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for name in ("a.zip", "b.zip"):
        said(capsys, "export", simulate(capsys), "-o", name)
    (folder / "muster.db").unlink()
    assert "no regression" in said(capsys, "compare", "a.zip", "b.zip")
    assert not (folder / "muster.db").exists()
    assert "c.zip cannot be read: No such file" in said(capsys, "compare", "a.zip", "c.zip", code=ExitCode.USAGE)


def test_an_imported_run_is_not_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    run_id = simulate(capsys)
    said(capsys, "export", run_id, "-o", "lab.zip")
    said(capsys, "import", "lab.zip", *THERE)
    err = said(capsys, "resume", run_id, *THERE, code=ExitCode.USAGE)
    assert f"run {run_id} was imported from lab.zip: its hosts are not here" in err
    assert f"muster rerun {run_id}" in err


def test_an_imported_run_is_no_history(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    simulate(capsys, "--only", "device=gpu:0")
    assert "no change" not in said(capsys, "trend", "--simulated")
    said(capsys, "export", "latest", "-o", "lab.zip")
    said(capsys, "import", "lab.zip", *THERE)
    assert "no run has a figure of that" in said(capsys, "trend", "--simulated", *THERE, code=ExitCode.USAGE)


def test_of_several_bundles_all_are_taken_in_or_none(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    said(capsys, "export", simulate(capsys), "-o", "good.zip")
    (folder / "bad.zip").write_bytes((folder / "good.zip").read_bytes()[:-100])
    err = said(capsys, "import", "good.zip", "bad.zip", *THERE, code=ExitCode.USAGE)
    assert "bad.zip: no zip that can be read" in err
    assert not (folder / "there.db").exists()
    told = json.loads(said(capsys, "import", "good.zip", "--json", *THERE))
    assert (told[0]["new"], told[0]["anonymous"], told[0]["cases"]) == (True, False, 2)


def test_an_anonymous_bundle_stands_beside_the_run_that_it_was(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    run_id = simulate(capsys)
    said(capsys, "export", run_id, "--anonymous")
    (path,) = folder.glob("*.muster.zip")
    assert run_id not in path.name
    told = json.loads(said(capsys, "import", str(path), "--json"))
    assert (told[0]["new"], told[0]["anonymous"]) == (True, True)
    out = said(capsys, "show", run_id, "--beside", told[0]["run"])
    assert "host1" in out
    with zipfile.ZipFile(path) as opened:
        assert b"gpu01" not in b"".join(opened.read(name) for name in opened.namelist())


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("run.json", b'{\n "cases"'),
        ("steps.csv", b"run_id,simulated,host"),
        ("steps.parquet", b"PAR1"),
        ("x.zip", b"PK"),
    ],
)
def test_the_ending_of_the_file_says_what_is_written(
    capsys: pytest.CaptureFixture[str], folder: Path, name: str, start: bytes
) -> None:
    simulate(capsys)
    said(capsys, "export", "-o", name)
    assert (folder / name).read_bytes().startswith(start)


def test_json_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    run_id = simulate(capsys)
    assert json.loads(said(capsys, "export", "-o", "-"))["run"]["id"] == run_id


def test_what_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    simulate(capsys)
    assert "runs are written as .zip, .json, .csv, .parquet" in said(
        capsys, "export", "-o", "lab.doc", code=ExitCode.USAGE
    )
    assert "cannot be written: No such file" in said(capsys, "export", "-o", "no/where.zip", code=ExitCode.USAGE)
    for command in ("plot", "report"):
        err = said(capsys, command, "-o", "no/where.svg", code=ExitCode.USAGE)
        assert "no/where.svg cannot be written: No such file" in err


@pytest.mark.parametrize("output", ["x.zip", "x.json", "x.svg", "x.html"])
def test_a_file_is_replaced_whole_or_left_as_it_was(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    simulate(capsys)
    (folder / "there").write_text("before")
    (folder / output).symlink_to("there")
    command = {"svg": "plot", "html": "report"}.get(output[2:], "export")

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_bytes", full)
        assert "cannot be written: No space left" in said(capsys, command, "-o", output, code=ExitCode.USAGE)
    assert (folder / "there").read_text() == "before"
    said(capsys, command, "-o", output)
    assert len((folder / "there").read_bytes()) > len("before")
    assert (folder / output).is_symlink()
    assert not list(folder.glob(".*.part"))


def test_nothing_takes_the_place_of_a_device(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    simulate(capsys)
    os.mkfifo(folder / "x.json")
    with subprocess.Popen(["cat", "x.json"], cwd=folder, stdout=subprocess.PIPE) as reader:
        said(capsys, "export", "-o", "x.json")
        out, _ = reader.communicate(timeout=30)
    assert json.loads(out)["format"] == "muster run"
    assert (folder / "x.json").is_fifo()


@pytest.mark.parametrize("command", [["env"], ["plot", "-o", "-"], ["report", "-o", "-"], ["export", "-o", "-"]])
def test_a_baseline_and_a_bundle_are_looked_at_as_a_run_is(
    capsys: pytest.CaptureFixture[str], folder: Path, command: list[str]
) -> None:
    word, *options = command
    run_id = simulate(capsys)
    said(capsys, "baseline", "set", "good", run_id)
    said(capsys, "export", run_id, "-o", "lab.zip")
    there = said(capsys, word, run_id, *options)
    assert there
    assert said(capsys, word, "good", *options) == there
    assert said(capsys, word, "baseline:good", *options) == there
    (folder / "muster.db").unlink()
    assert len(said(capsys, word, "lab.zip", *options)) > len(there) / 2
    assert not (folder / "muster.db").exists()
