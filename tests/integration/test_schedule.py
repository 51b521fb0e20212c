"""A real scheduler, real runs: it fires by itself, is killed, and tells a real webhook of a planted slowdown."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.muster import ROOT, Started, muster, start
from tests.integration.test_child import FAKES
from tests.unit.test_telling import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DEADLINE_S = 200.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with contextlib.closing(Receiver()) as found:
        yield found


class Site:
    """A folder with a schedule in it, and the scheduler."""

    def __init__(self, folder: Path, hook: str, cron: str) -> None:
        self.folder = folder
        self.pace = folder / "pace"
        self.pace.write_text("0.02")
        self.env = {
            "PYTHONPATH": f"{FAKES}:{ROOT}",
            "SCRIPTED_STEP_FILE": str(self.pace),
            "MUSTER_SPOOL_FOLDER": str(folder / "spool"),
        }
        (folder / "lab.yaml").write_text(
            f"""\
version: 1
name: lab
hosts: [{{name: localhost, devices: [cpu]}}]
workloads: [{{model: alexnet, batch_size: 1, passes: forward, framework: scripted}}]
measure: {{warmup: 1, steps: 40}}
policy: {{busy: measure}}
# what other tests do beside it makes no figure doubtful
quality: {{max_dispersion: null, max_drift: null, max_warmup: null, max_clock_drop: null, max_clock_change: null,
  max_steal: null, max_others: null}}
schedule: {{cron: "{cron}"}}
notify: {{webhook: {{url: "{hook}/hook"}}}}
"""
        )
        self.muster("schedule", "add", "lab.yaml")

    def muster(self, *arguments: str) -> str:
        ended = muster(*arguments, cwd=self.folder, timeout_s=120.0, **self.env)
        assert ended.code == 0, ended.err
        return ended.out

    def scheduler(self) -> Started:
        return start("schedule", "start", "--json", cwd=self.folder, **self.env)

    def history(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.muster("schedule", "history", "lab", "--json"))
        return found[::-1]

    def until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        deadline = time.monotonic() + DEADLINE_S
        while not holds(found := self.history()):
            assert time.monotonic() < deadline, found
            time.sleep(0.5)
        return found


def done(firings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in firings if each["state"] == "done"]


def end(scheduler: Started) -> str:
    scheduler.send_signal(signal.SIGTERM)
    _, err = scheduler.communicate(timeout=150)
    assert scheduler.returncode == 0, err
    return err


@pytest.mark.long  # on three hosts: tests/lab/test_night.py
def test_it_fires_three_times_by_itself_and_the_third_s_slowdown_reaches_the_webhook(
    tmp_path: Path, receiver: Receiver
) -> None:
    site = Site(tmp_path, receiver.url, "*/10 * * * * *")
    with site.scheduler() as scheduler:
        site.until(lambda firings: len(done(firings)) >= 2)
        site.pace.write_text("0.03")
        firings = site.until(lambda firings: any(each["outcome"] == "regression" for each in firings))
        log = end(scheduler)
    outcomes = [each["outcome"] for each in done(firings)]
    assert outcomes[:2] == ["ok", "ok"]
    assert outcomes[-1] == "regression"
    assert {each["cause"] for each in firings} == {"time"}
    (_, _, body), *_ = receiver.got
    notice = json.loads(body)
    assert (notice["event"], notice["schedule"], notice["regression_count"]) == ("regression", "lab", 1)
    (slower,) = notice["regressions"]
    assert slower["device"] == "localhost/cpu"
    assert 1.3 < slower["ratio"] < 1.7
    assert json.loads(log.splitlines()[0])["event"] == "leading"


def test_a_scheduler_that_is_killed_neither_loses_nor_doubles_its_run(tmp_path: Path, receiver: Receiver) -> None:
    site = Site(tmp_path, receiver.url, "0 0 1 1 *")
    site.pace.write_text("0.2")
    site.muster("schedule", "run-now", "lab")
    with site.scheduler() as scheduler:
        site.until(lambda firings: bool(firings) and firings[0]["state"] == "running")
        scheduler.kill()
        scheduler.communicate()
    with site.scheduler() as first, site.scheduler() as second:
        (firing,) = site.until(lambda firings: firings[0]["state"] == "done")
        logs = [end(each) for each in (first, second)]
    assert firing["outcome"] == "ok"
    runs = json.loads(site.muster("runs", "--json"))
    assert [(run["id"], run["state"]) for run in runs] == [(firing["run_id"], "finished")]
    events = [[json.loads(line)["event"] for line in log.splitlines()] for log in logs]
    assert sorted(each[0] for each in events) == ["another scheduler leads", "leading"]


def test_a_scheduler_that_is_ended_stops_its_run_and_the_next_one_goes_on_with_it(
    tmp_path: Path, receiver: Receiver
) -> None:
    site = Site(tmp_path, receiver.url, "0 0 1 1 *")
    site.pace.write_text("0.3")
    site.muster("schedule", "run-now", "lab")
    with site.scheduler() as scheduler:
        site.until(lambda firings: bool(firings) and firings[0]["run_id"] is not None)
        deadline = time.monotonic() + DEADLINE_S
        while not json.loads(site.muster("runs", "--json") if (tmp_path / "muster.db").exists() else "[]"):
            assert time.monotonic() < deadline
        end(scheduler)
    (firing,) = site.history()
    site.pace.write_text("0.01")
    with site.scheduler() as again:
        (ended,) = site.until(lambda firings: firings[0]["state"] == "done")
        end(again)
    assert (ended["run_id"], ended["outcome"]) == (firing["run_id"], "ok")
