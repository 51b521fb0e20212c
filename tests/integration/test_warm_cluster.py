"""`muster cluster`: a cluster that outlives the commands that use it, and goes when it is told to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.integration.muster import SMALL, Ended, muster, start, survivors

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

#: Seconds for a cluster to come up on a machine with much else to do.
PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Lab:
    """A folder with a config, and a place of its own for what is kept."""

    folder: Path

    def muster(self, *arguments: str, **extra: str) -> Ended:
        return muster(*arguments, cwd=self.folder, timeout_s=120.0, **{**self.extra, **extra})

    def status(self) -> tuple[int, dict[str, Any]]:
        ended = self.muster("cluster", "status", "small.yaml", "--json")
        found: dict[str, Any] = json.loads(ended.out)
        return ended.code, found

    @property
    def extra(self) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.folder / "state")}

    def written(self) -> list[Path]:
        """Return every file of what is kept."""
        return [path for path in (self.folder / "state").rglob("*") if path.is_file()]

    def record(self) -> dict[str, Any] | None:
        for path in self.written():
            if path.name == "state.json":
                found: dict[str, Any] = json.loads(path.read_text())
                return found
        return None


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "small.yaml").write_text(SMALL)
    made = Lab(tmp_path)
    yield made
    # Whatever the test came to: nothing is kept after it.
    made.muster("cluster", "down", "small.yaml")


@pytest.fixture
def up(lab: Lab) -> Lab:
    """A lab whose cluster is kept."""
    ended = lab.muster("cluster", "up", "small.yaml")
    assert ended.code == 0, ended.err
    assert ended.out == "small: up: localhost\n"
    return lab


def _held_by(pid: int) -> list[psutil.Process]:
    holder = psutil.Process(pid)
    return [holder, *holder.children(recursive=True)]


def _child(holder: int) -> psutil.Process | None:
    """Return the measuring child below a holder."""
    for process in _held_by(holder):
        with contextlib.suppress(psutil.Error):
            if "workers.child" in process.cmdline():
                return process
    return None


def test_a_cluster_is_kept_used_by_runs_and_taken_down_without_a_trace(up: Lab) -> None:
    code, state = up.status()
    assert (code, state["state"], state["problem"]) == (0, "up", None)
    assert state["hosts"] == [{"name": "localhost", "alive": True, "ip": "127.0.0.2", "reason": None}]
    processes = _held_by(state["pid"])
    daemons = [one for one in processes if one.name() in ("raylet", "gcs_server")]
    assert len(daemons) == 2
    record = up.record()
    assert record is not None
    token = Path(record["cluster"]["token_file"])

    again = up.muster("cluster", "up", "small.yaml")
    assert (again.code, again.out) == (0, f"small: up already, since {state['since']}: localhost\n")

    ran = up.muster("run", "small.yaml", "--set", "hosts.0.devices=[cpu:0]", "--only", "pass=forward")
    assert ran.code == 0, ran.err
    assert "+/-" in ran.out
    assert all(one.is_running() for one in daemons)
    assert up.status() == (0, state), "a run leaves the cluster as it was"

    assert token.exists()
    down = up.muster("cluster", "down", "small.yaml")
    assert (down.code, down.out, down.err) == (0, "small: down\n", "")
    assert survivors(processes) == []
    assert not token.parent.exists()
    assert up.written() == []
    assert up.status()[0] == 4


def test_a_run_goes_to_the_cluster_that_is_kept_and_starts_none(up: Lab) -> None:
    state = up.status()[1]
    child: psutil.Process | None = None
    with start("run", "small.yaml", "--set", "measure.steps=100000", cwd=up.folder, **up.extra) as process:
        deadline = time.monotonic() + PATIENCE_S
        while child is None and time.monotonic() < deadline:
            # Nothing tells of a new process; look again in a moment.
            time.sleep(0.1)
            child = _child(state["pid"])
        below = [one.name() for one in psutil.Process(process.pid).children(recursive=True)]
        # A single Ctrl-C would wait for the case.
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert child is not None, "no child measured below the holder"
    assert survivors([child]) == []
    assert "raylet" not in below
    assert process.returncode == 130
    assert up.status()[1] == state


@pytest.mark.long
def test_a_holder_that_was_killed_is_noticed_and_what_it_left_is_removed(up: Lab) -> None:
    record = up.record()
    assert record is not None
    processes = _held_by(record["pid"])
    os.kill(record["pid"], signal.SIGKILL)
    # Ray's daemons go at once; of their helpers some look after them but once a minute.
    assert survivors(processes, within_s=PATIENCE_S) == []
    code, state = up.status()
    assert (code, state["state"]) == (4, "died")
    assert up.record() is None
    assert not Path(record["cluster"]["token_file"]).parent.exists()
    assert up.status()[1]["state"] == "down"
    assert up.muster("cluster", "down", "small.yaml").out == "small: not up\n"


def test_down_ends_nobody_who_got_a_dead_holders_process_id(lab: Lab) -> None:
    lab.muster("cluster", "up", "small.yaml")
    record = lab.record()
    assert record is not None
    holder = psutil.Process(record["pid"])
    (path,) = [path for path in lab.written() if path.name == "state.json"]
    path.write_text(json.dumps({**record, "started": record["started"] + 1}))
    assert lab.muster("cluster", "down", "small.yaml").out == "small: not up\n"
    assert holder.is_running()
    path.write_text(json.dumps(record))


def test_ctrl_c_while_it_comes_up_leaves_nothing(lab: Lab) -> None:
    with start("cluster", "up", "small.yaml", cwd=lab.folder, **lab.extra) as process:
        deadline = time.monotonic() + PATIENCE_S
        while (record := lab.record()) is None and time.monotonic() < deadline:
            # Nothing tells of a new file; look again in a moment.
            time.sleep(0.02)
        assert record is not None
        processes = _held_by(record["pid"])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert survivors(processes) == []
    assert lab.written() == []


def test_a_cluster_that_does_not_come_up_says_why_and_is_not_kept(lab: Lab) -> None:
    site = lab.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nif 'workers.probe' in sys.orig_argv: sys.exit(3)\n")
    root = Path(__file__).parents[2]
    ended = lab.muster("cluster", "up", "small.yaml", PYTHONPATH=f"{site}{os.pathsep}{root}")
    assert ended.code == 4
    assert "the probe of this machine failed" in ended.err
    assert "Traceback" not in ended.err
    assert lab.record() is None
    assert lab.status()[1]["state"] == "down"


def test_somebody_elses_cluster_is_not_ours_to_keep(lab: Lab) -> None:
    (lab.folder / "theirs.yaml").write_text(SMALL + 'cluster: {mode: address, address: "ray-head.example:6379"}\n')
    ended = lab.muster("cluster", "up", "theirs.yaml")
    assert ended.code == 2
    assert "somebody else keeps the cluster at ray-head.example:6379" in ended.err
    assert lab.written() == []
