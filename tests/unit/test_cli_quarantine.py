"""`muster quarantine`: what is put aside is told, and let in again."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING

import pytest

from orchestrator.cli.app import call
from orchestrator.errors import ExitCode
from orchestrator.results import Quarantine
from orchestrator.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.datetime.now(datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)


def a_quarantine(target: str, **given: object) -> Quarantine:
    defaults: dict[str, object] = {
        "since": NOW - HOUR,
        "until": NOW + HOUR,
        "failures": 3,
        "reason": "crashed: SIGSEGV\nin libcuda",
        "run_id": "7f3a01",
    }
    return Quarantine(target=target, **{**defaults, **given})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_STORE", raising=False)
    with open_store("sqlite:///muster.db") as opened:
        opened.put_aside(a_quarantine("gpu01/gpu:0"), simulated=False)
        opened.put_aside(a_quarantine("attic", failures=5), simulated=False)
        opened.put_aside(a_quarantine("over", until=NOW - HOUR / 2), simulated=False)
        opened.put_aside(a_quarantine("gpu01/gpu:0"), simulated=True)


def put_aside(*, simulated: bool = False) -> list[str]:
    with open_store("sqlite:///muster.db") as opened:
        return [one.target for one in opened.quarantines(NOW, simulated=simulated)]


def test_what_is_put_aside_is_listed_with_its_time_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["quarantine", "list"]) == ExitCode.OK
    attic, gpu, simulated = capsys.readouterr().out.splitlines()
    assert attic.startswith("attic  since ")
    assert f"until {(NOW + HOUR).astimezone():%Y-%m-%d %H:%M}" in attic
    assert "5 failures, the last: crashed: SIGSEGV in libcuda  run 7f3a01" in attic
    assert gpu.startswith("gpu01/gpu:0  since ")
    assert not gpu.endswith("simulated")
    assert simulated == f"{gpu}  simulated"


def test_what_is_put_aside_comes_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["quarantine", "list", "--json"]) == ExitCode.OK
    data = json.loads(capsys.readouterr().out)
    assert [(one["target"], one["simulated"]) for one in data] == [
        ("attic", False),
        ("gpu01/gpu:0", False),
        ("gpu01/gpu:0", True),
    ]
    assert datetime.datetime.fromisoformat(data[0]["until"]) == NOW + HOUR
    assert (data[0]["failures"], data[0]["reason"], data[0]["run_id"]) == (5, "crashed: SIGSEGV\nin libcuda", "7f3a01")


def test_nothing_put_aside_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    open_store("sqlite:///empty.db").close()
    assert call(["quarantine", "list", "--store", "sqlite:///empty.db"]) == ExitCode.OK
    assert capsys.readouterr().out == "nothing is put aside\n"
    assert call(["quarantine", "release", "attic", "--store", "sqlite:///empty.db"]) == ExitCode.USAGE
    assert "there are: none" in capsys.readouterr().err


def test_what_is_released_gets_cases_again_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["quarantine", "release", "attic"]) == ExitCode.OK
    until = f"{(NOW + HOUR).astimezone():%Y-%m-%d %H:%M}"
    assert capsys.readouterr().out == f"attic: released; it was put aside until {until}\n"
    assert put_aside() == ["gpu01/gpu:0"]


def test_a_device_is_released_in_the_made_up_lab_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["quarantine", "release", "gpu01/gpu:0", "--json"]) == ExitCode.OK
    assert [one["simulated"] for one in json.loads(capsys.readouterr().out)] == [False, True]
    assert (put_aside(), put_aside(simulated=True)) == (["attic"], [])


@pytest.mark.parametrize("target", ["gpu01", "over", "nope"])
def test_what_is_not_put_aside_is_met_with_what_is(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["quarantine", "release", target]) == ExitCode.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert f"{target} is not put aside" in told.err
    assert "there are: attic, gpu01/gpu:0\n" in told.err
    assert put_aside() == ["attic", "gpu01/gpu:0"]


@pytest.mark.parametrize("arguments", [["list"], ["release", "attic"]])
def test_without_a_store_they_say_how_to_make_one(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["quarantine", *arguments, "--store", "sqlite:///nowhere.db"]) == ExitCode.USAGE
    assert "muster run" in capsys.readouterr().err
