"""`muster run` with real Ray, real TensorFlow and real signals."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil
import pytest

from tests.integration.muster import SMALL, descendants, muster, start, survivors

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where one small run has ended."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "small.yaml").write_text(SMALL)
    ended = muster("run", "small.yaml", cwd=folder)
    assert ended.code == 0, ended.err
    (folder / "out").write_text(ended.out)
    (folder / "err").write_text(ended.err)
    return folder


def test_a_run_prints_its_own_row_above_the_references(done: Path) -> None:
    lines = (done / "out").read_text().splitlines()
    rows = [line for line in lines if line[:1].isdigit()]
    assert len(rows) == 5
    assert "+/-" in rows[0]
    assert "batch 1" in rows[0]
    assert "Titan X" in rows[1]


def test_a_run_says_where_the_result_is_and_what_comes_next(done: Path) -> None:
    err = (done / "err").read_text()
    (summary,) = json.loads(muster("runs", "--json", cwd=done).out)
    assert f"run {summary['id']} is kept in sqlite:///muster.db" in err
    assert f"muster show {summary['id']}" in err
    assert f"muster rerun {summary['id']}" in err
    assert (summary["state"], summary["cases"], summary["figures"]) == ("finished", 2, 2)


def test_without_a_terminal_progress_is_plain_lines_on_stderr(done: Path) -> None:
    err = (done / "err").read_text()
    assert "localhost/cpu: alexnet forward b1 float32: starting" in err
    assert "[2/2]" in err
    assert "\x1b" not in err


def test_nothing_of_rays_own_chatter_reaches_the_terminal(done: Path) -> None:
    text = (done / "out").read_text() + (done / "err").read_text()
    assert "raylet" not in text
    assert "SIGTERM" not in text
    assert "oneDNN" not in text


def test_show_prints_the_same_table_as_the_run(done: Path) -> None:
    assert muster("show", cwd=done).out == (done / "out").read_text()


def test_show_keeps_every_sample_and_what_was_found_of_the_machine(done: Path) -> None:
    with sqlite3.connect(done / "muster.db") as database:
        counts = dict(database.execute("select kind, sum(count) from samples group by kind").fetchall())
    assert sorted(counts.values()) == [2, 6]


def test_markdown_has_the_header_of_the_seed(done: Path) -> None:
    lines = muster("show", "--format", "md", cwd=done).out.splitlines()
    header = next(line for line in lines if line.startswith("| Num"))
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "Num",
        "GPU/CPU",
        "Memory",
        "Forward pass (ms)",
        "Forward-backward pass (ms)",
        "Details",
    ]


def test_plan_knows_how_long_it_takes_once_it_was_measured(done: Path) -> None:
    cases = json.loads(muster("plan", "small.yaml", "--json", cwd=done).out)["cases"]
    assert all(case["estimate_s"] > 0 for case in cases)


def test_rerun_takes_the_config_from_the_store(done: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{done / 'muster.db'}"
    ended = muster("rerun", "--only", "pass=forward", "--store", store, cwd=tmp_path)
    assert ended.code == 0, ended.err
    newest = json.loads(muster("runs", "--json", "--store", store, cwd=tmp_path).out)[0]
    assert (newest["cases"], newest["figures"]) == (1, 1)


def test_rerun_failed_of_a_run_without_failures_says_so(done: Path) -> None:
    name = json.loads(muster("runs", "--json", cwd=done).out)[-1]["id"]
    ended = muster("rerun", name, "--failed", cwd=done)
    assert ended.code == 2
    assert "every case" in ended.err


def test_a_device_that_is_not_there_has_its_row_and_the_others_run(folder: Path) -> None:
    ended = muster("run", "small.yaml", "--set", "hosts.0.devices=[cpu, gpu:3]", "--only", "pass=forward", cwd=folder)
    assert ended.code == 3
    row = next(line for line in ended.out.splitlines() if "gpu:3" in line)
    assert "device_missing" in row
    assert "+/-" in ended.out.splitlines()[4]


def test_nothing_that_can_be_run_is_exit_4(folder: Path) -> None:
    ended = muster("run", "small.yaml", "--set", "hosts.0.devices=[gpu:3]", cwd=folder)
    assert ended.code == 4
    assert "device_missing" in ended.out


def test_a_batch_that_does_not_fit_is_oom_and_the_others_go_on(folder: Path) -> None:
    ended = muster(
        "run",
        "small.yaml",
        "--set",
        "workloads.0.batch_size=[10000000, 1]",
        "--only",
        "pass=forward",
        "--json",
        cwd=folder,
    )
    assert ended.code == 3, ended.err
    rows = [row for row in json.loads(ended.out)["rows"] if row["kind"] == "measured"]
    text = json.dumps(rows)
    assert "oom" in text
    assert sum(isinstance(row["cells"]["forward_ms"]["value"], float) for row in rows) == 1
    assert "oom" in ended.err


def test_no_tensorflow_is_exit_2_with_the_command_that_mends_it(folder: Path) -> None:
    blocker = folder / "site"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(
        "import importlib.util, importlib.metadata\n"
        "_find, _version = importlib.util.find_spec, importlib.metadata.version\n"
        "def find(name, package=None):\n"
        "    return None if name == 'tensorflow' else _find(name, package)\n"
        "def version(name):\n"
        "    if name.startswith('tensorflow'): raise importlib.metadata.PackageNotFoundError(name)\n"
        "    return _version(name)\n"
        "importlib.util.find_spec, importlib.metadata.version = find, version\n"
    )
    root = Path(__file__).parents[2]
    ended = muster("run", "small.yaml", cwd=folder, PYTHONPATH=f"{blocker}{os.pathsep}{root}")
    assert ended.code == 2
    assert "tensorflow cannot be used" in ended.err
    assert "muster-bench[cpu]" in ended.err
    assert not (folder / "muster.db").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process(folder: Path, number: signal.Signals) -> None:
    with start(
        "run", "small.yaml", "--set", "measure.steps=100000", "--set", "workloads.0.passes=[forward]", cwd=folder
    ) as process:
        assert process.stderr is not None
        _read_until(process.stderr, "starting")
        below = _wait_for_child(process)
        process.send_signal(number)
        if number is signal.SIGINT:
            _read_until(process.stderr, "Ctrl-C again to stop now")
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert survivors(below) == []
    assert "cancelled" in out
    assert "muster resume" in err
    assert not list(Path("/tmp").glob(f"muster-*/ray/session_*_{process.pid}"))
    (summary,) = json.loads(muster("runs", "--json", cwd=folder).out)
    assert summary["state"] == "interrupted"


@pytest.mark.slow
def test_of_two_runs_at_once_the_second_waits_for_the_device_and_one_store_holds_both(folder: Path) -> None:
    long = ("--set", "measure.steps=100000", "--set", "workloads.0.passes=[forward]")
    with start("run", "small.yaml", *long, cwd=folder) as first:
        assert first.stderr is not None
        _read_until(first.stderr, "starting")
        _wait_for_child(first)
        with start("run", "small.yaml", cwd=folder) as second:
            assert second.stderr is not None
            waiting = _read_until(second.stderr, "held by")
            first.send_signal(signal.SIGINT)
            _read_until(first.stderr, "Ctrl-C again to stop now")
            first.send_signal(signal.SIGINT)
            first.communicate(timeout=60)
            out, err = second.communicate(timeout=120)
    assert "localhost/cpu" in waiting
    assert (first.returncode, second.returncode) == (130, 0), out + err
    states = {run["state"] for run in json.loads(muster("runs", "--json", cwd=folder).out)}
    assert states == {"interrupted", "finished"}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with almost no room."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True)
    if mounted.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail(f"CI must be able to mount a tmpfs: {mounted.stderr.decode()}")
        pytest.skip("needs root, to mount a small tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_fills_up_ends_the_run_and_shows_what_was_measured(folder: Path, tiny_disk: Path) -> None:
    ended = muster(
        "run",
        "small.yaml",
        "--simulate",
        "--set",
        "measure.steps=20000",
        "--store",
        f"sqlite:///{tiny_disk}/muster.db",
        cwd=folder,
    )
    assert ended.code == 3, ended.err
    assert "no space" in ended.err.lower()
    assert "+/-" in ended.out.splitlines()[4]
    summaries = json.loads(muster("runs", "--json", "--store", f"sqlite:///{tiny_disk}/muster.db", cwd=folder).out)
    assert [summary["state"] for summary in summaries] == ["interrupted"]


def test_the_commands_are_there_after_an_install() -> None:
    ended = subprocess.run([Path(sys.executable).with_name("muster"), "--version"], capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stdout.startswith("muster ")


def _read_until(stream: IO[str], text: str) -> str:
    """Return the first line that has ``text`` in it."""
    for line in stream:
        if text in line:
            return line
    raise AssertionError(f"the run ended without saying {text!r}")


def _wait_for_child(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return every process below the run once its measuring child is one of them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        below = descendants(process.pid)
        if any("workers.child" in " ".join(_command(one)) for one in below):
            return below
        # Nothing tells of a new process; look again in a moment.
        time.sleep(0.05)
    raise AssertionError("no measuring child appeared")


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
