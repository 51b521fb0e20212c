"""The line that comes and goes while hosts are reached, on a terminal of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyte

from orchestrator.cli.waiting import waiting
from orchestrator.cluster.base import no_stage

if TYPE_CHECKING:
    import io

    import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = r"""
from orchestrator.cli.waiting import waiting
with waiting() as stage:
    stage("reaching [red]hosts\x1b[2J", 3, 8)
"""


def test_on_a_terminal_the_stage_is_shown_as_it_is_and_then_gone() -> None:
    ours, theirs = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stderr=theirs, cwd=ROOT, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    )
    os.close(theirs)
    told = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while chunk := _read(terminal):
            told += chunk
    assert child.wait(timeout=30) == 0
    assert rb"reaching [red]hosts\x1b[2J 3/8" in told
    screen = pyte.Screen(80, 10)
    pyte.Stream(screen).feed(told.decode())
    assert [line for line in screen.display if line.strip()] == []


def test_one_who_wants_quiet_has_it_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with waiting(quiet=True) as stage:
        assert stage is no_stage


def _read(terminal: io.RawIOBase) -> bytes:
    try:
        return terminal.read(4096) or b""
    except OSError:  # what Linux says when nobody holds the other side any more
        return b""


def test_elsewhere_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with waiting() as stage:
        stage("reaching hosts", 3, 8)
    assert capfd.readouterr() == ("", "")
