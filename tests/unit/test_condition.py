from __future__ import annotations

import os
import pwd
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.builders import a_device
from workers.condition import condition_facts, parse_available, parse_loadavg
from workers.lease import Lease, claims_of
from workers.lockfiles import FOLDER_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a host with a little to do, and a home."""
    monkeypatch.setenv("HOME", "/home/bench")
    for name, content in {
        "proc/loadavg": "3.25 1.00 0.50 2/345 6789\n",
        "proc/meminfo": "MemTotal:       16303452 kB\nMemAvailable:    8000000 kB\n",
        "tmp/x": "",
        "home/bench/x": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_load_is_that_of_the_last_minute() -> None:
    assert parse_loadavg("0.00 1.00 2.00 1/2 3") == 0.0
    assert parse_loadavg("12.34 1.00 2.00 1/2 3") == 12.34
    assert parse_loadavg("") is None


def test_available_memory_is_more_than_what_is_free() -> None:
    assert parse_available("MemFree: 1 kB\nMemAvailable:   24 kB\n") == 24 * 1024
    assert parse_available("MemFree: 1 kB\n") is None


def test_a_captured_host_tells_how_it_is_doing(captured: Path) -> None:
    values = {name: fact.value for name, fact in condition_facts(captured).items()}
    free = shutil.disk_usage(captured).free
    assert values["cpu.load"] == 3.25
    assert values["memory.available_bytes"] == 8000000 * 1024
    for name in ("disk.home_free_bytes", "disk.tmp_free_bytes"):
        assert values[name] == pytest.approx(free, rel=0.05)
    assert values["host.user"] == pwd.getpwuid(os.getuid()).pw_name
    assert values["python.executable"] == sys.executable


def test_what_cannot_be_found_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/nobody-here")
    facts = condition_facts(tmp_path)
    missing = {name: fact for name, fact in facts.items() if fact.value is None}
    assert set(missing) == {
        "cpu.load",
        "memory.available_bytes",
        "disk.home_free_bytes",
        "disk.tmp_free_bytes",
        "host.leases",
    }
    del missing["host.leases"]
    assert all("No such file" in (fact.reason or "") for fact in missing.values())


def test_who_measures_on_the_host_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "leases"))
    assert condition_facts()["host.leases"].value == ""
    claims = claims_of(a_device(cores=(0, 1)), is_alone=False)
    with Lease(claims, run_id="3f2a", head="head01") as lease:
        assert lease.take(1.0, pause=lambda _: True, tell=print)
        told = str(condition_facts()["host.leases"].value)
        assert "run 3f2a of head01" in told
        assert told.count("3f2a") == 1
    assert condition_facts()["host.leases"].value == ""
    (tmp_path / "leases").chmod(0o777)
    assert "chmod" in (condition_facts()["host.leases"].reason or "")


def test_files_that_say_something_else_are_a_reason_too(captured: Path) -> None:
    (captured / "proc/loadavg").write_text("?\n")
    (captured / "proc/meminfo").write_text("MemTotal: 5 kB\n")
    facts = condition_facts(captured)
    assert facts["cpu.load"].reason == "/proc/loadavg has no load"
    assert facts["memory.available_bytes"].reason == "/proc/meminfo has no MemAvailable"


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a container that is started with a user of its own.
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert condition_facts()["host.user"].reason == "user 4000000 has no name"
    monkeypatch.delenv("HOME")
    assert condition_facts()["disk.home_free_bytes"].value is None
