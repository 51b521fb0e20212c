"""Three hosts, a schedule, a planted slowdown: it fires by itself, a webhook is told, the dashboard shows it.

The steps are the scripted framework's, which sleep for what a file on each host says: what is planted is known, and
three hosts on one machine do not slow each other. Hosts, SSH, Ray, leases, scheduler, webhook and browser are real.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from playwright.sync_api import expect

from tests.browser import chromium, page_of, serving, violations
from tests.integration.muster import ROOT
from tests.integration.test_child import FAKES
from tests.lab.environments import GOOD
from tests.lab.hosts import HOME, UID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lab.hosts import Host, Started
    from tests.lab.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = ("h1", "h2", "h3")
DEADLINE_S = 400.0
PORT = 8099

#: Read by every Python of a host's environment: our framework, and where it reads how long a step takes.
CUSTOMIZE = f"""\
import os, runpy
os.environ.setdefault("SCRIPTED_STEP_FILE", "{HOME}/pace")
runpy.run_path("{FAKES}/sitecustomize.py")
"""


@pytest.fixture
def scripted(lab: Lab) -> Iterator[dict[str, Path]]:
    """Give three hosts the framework, and return the file of each that says how long a step takes."""
    paces = {name: lab[name].home / "pace" for name in NAMES}
    customs = [site_packages(lab[name]) / "sitecustomize.py" for name in NAMES]
    for pace, custom in zip(paces.values(), customs, strict=True):
        pace.write_text("0.02")
        custom.write_text(CUSTOMIZE)
        os.chown(pace, UID, UID)
    yield paces
    for path in (*paces.values(), *customs):
        path.unlink()
        shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)


def site_packages(host: Host) -> Path:
    (found,) = (host.home / GOOD).glob("lib/python*/site-packages")
    return found


def config_of(lab: Lab) -> str:
    content = yaml.safe_load(
        lab.config(
            {name: {"devices": ["cpu:0"]} for name in NAMES},
            name="night",
            workloads=[{"model": "alexnet", "batch_size": 1, "passes": "forward", "framework": "scripted"}],
            measure={"warmup": 1, "steps": 40},
            # How long a run takes here depends on what else the machine does: one that is due meanwhile is queued.
            schedule={"cron": "*/15 * * * * *", "overlap": "queue"},
            notify={"webhook": {"url": f"http://127.0.0.1:{PORT}/hook"}},
        )
    )
    return str(yaml.safe_dump(content, sort_keys=False))


class Site:
    """A folder of the head with the schedule in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cwd = lab.write_config(config_of(lab))
        #: The same folder, from outside.
        self.folder = lab.head.home / "work" / self.cwd.rpartition("/")[2]
        self.env: dict[str, Any] = {"PYTHONPATH": f"{FAKES}:{ROOT}"}
        added = lab.muster("schedule", "add", "lab.yaml", cwd=self.cwd, **self.env)
        assert added.code == 0, added.err

    def done(self) -> list[dict[str, Any]]:
        """The times that are over, the earliest first."""
        told = self.lab.muster("schedule", "history", "night", "--json", cwd=self.cwd, **self.env)
        assert told.code == 0, told.err
        return [each for each in reversed(json.loads(told.out)) if each["state"] == "done"]

    def until(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        deadline = time.monotonic() + DEADLINE_S
        while not holds(found := self.done()):
            assert time.monotonic() < deadline, found
            time.sleep(1.0)
        return found


@contextlib.contextmanager
def hook(lab: Lab) -> Iterator[Started]:
    """A webhook's receiver on the head, whose loopback is its own."""
    command = (sys.executable, "-m", "tests.lab.hook", str(PORT))
    with lab.head.start(*command, cwd=str(ROOT), env={"PYTHONPATH": str(ROOT)}) as started:
        assert line_of(started) == "listening"
        yield started


def line_of(started: Started) -> str:
    assert started.popen.stdout is not None
    return started.popen.stdout.readline().strip()


def test_a_schedule_fires_three_times_and_the_third_s_slowdown_is_told_and_shown(
    lab: Lab, scripted: dict[str, Path]
) -> None:
    with hook(lab) as receiver:
        site = Site(lab)
        with lab.start_muster("schedule", "start", "--json", cwd=site.cwd, **site.env) as scheduler:
            site.until(lambda done: len(done) >= 2)
            scripted["h2"].write_text("0.03")
            done = site.until(lambda done: any(each["outcome"] == "regression" for each in done))
            ended = scheduler.end(signal.SIGTERM)
        assert ended.code == 0, ended.err
        notice = json.loads(line_of(receiver))
    assert [each["outcome"] for each in done[:2]] == ["ok", "ok"], done
    assert {each["cause"] for each in done} == {"time"}
    regression = next(each for each in done if each["outcome"] == "regression")
    assert (notice["event"], notice["schedule"], notice["run"]["id"]) == ("regression", "night", regression["run_id"])
    (slower,) = notice["regressions"]
    assert slower["device"] == "h2/cpu:0"
    assert 1.3 < slower["ratio"] < 1.7
    with chromium() as browser, serving(cwd=site.folder, **site.env) as address, page_of(browser) as page:
        page.goto(f"{address}/schedules/night")
        row = page.locator("tr", has_text=regression["run_id"])
        expect(row.locator(".chip")).to_have_text("regression")
        expect(row).to_contain_text("webhook: told")
        assert violations(page) == ""
        row.get_by_role("link").click()
        expect(page.locator("tr.measured")).to_have_count(3)
        page.goto(f"{address}/compare?before={done[0]['run_id']}&after={regression['run_id']}")
        expect(page.locator(".chip").first).to_have_text("1 regression")
        expect(page.locator("tr", has_text="h2/cpu:0").locator(".chip")).to_have_text("slower")
        expect(page.locator("tbody tr")).to_have_count(3)
        page.goto(f"{address}/lab")
        expect(page.get_by_role("status")).to_have_text("3 hosts, 3 devices")
