from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pyte

from orchestrator.cli.progress import LiveView, PlainView, QuietView, label, view
from orchestrator.dispatch.messages import (
    CaseFinished,
    CaseStarted,
    DeviceLost,
    PrepareDevice,
    RecordVerdict,
    StartCase,
    StopRequested,
)
from tests.builders import a_case, a_result
from workers.protocol import Case, Phase, Progress, Verdict

if TYPE_CHECKING:
    import pytest


class Terminal(io.StringIO):
    """What stderr is when somebody looks."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines that are left to be seen."""
        screen = pyte.Screen(120, 30)
        pyte.Stream(screen).feed(self.getvalue().replace("\n", "\r\n"))
        return [line.rstrip() for line in screen.display if line.strip()]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Not a fixture: pytest takes stderr back between a fixture and its test."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return terminal


def _measuring(case: Case) -> Progress:
    return Progress(case_key=case.key, attempt=1, phase=Phase.MEASURE, step=34, max_steps=100, last_ms=52.21)


def test_a_case_is_called_by_what_is_measured() -> None:
    assert label(a_case()) == "alexnet forward b128 float32"


def test_the_view_fits_where_stderr_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    assert isinstance(view([], quiet=False), LiveView)
    assert isinstance(view([], quiet=True), QuietView)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(view([], quiet=False), PlainView)


def test_a_terminal_shows_the_running_case_with_its_step_and_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    case = a_case()
    with view([case], quiet=False) as shown:
        shown.heard(PrepareDevice(device=case.device))
        shown.heard(StartCase(case=case, attempt=1))
        shown.heard(CaseStarted(at=1.0, case_key=case.key, attempt=1))
        shown.heard(_measuring(case))
    drawn = terminal.getvalue()
    for text in ("cases", "0/1", "localhost/cpu alexnet forward b128 float32", "34/100", "52.21 ms"):
        assert text in drawn, text


def test_a_terminal_keeps_the_finished_lines_and_loses_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    good, bad = a_case(key="good"), a_case(key="bad")
    with view([good, bad], quiet=False) as shown:
        shown.heard(StartCase(case=good, attempt=1))
        shown.heard(CaseFinished(at=2.0, case_key="good", attempt=1, result=a_result(good)))
        shown.heard(RecordVerdict(case_key="good", verdict=Verdict.OK, reason=None))
        shown.heard(StartCase(case=bad, attempt=1))
        shown.heard(StartCase(case=bad, attempt=2))
        shown.heard(RecordVerdict(case_key="bad", verdict=Verdict.OOM, reason="too little [red]memory"))
        shown.say("ending")
    assert terminal.screen() == [
        "localhost/cpu: alexnet forward b128 float32: 100 ms a step over 3 steps",
        "localhost/cpu: alexnet forward b128 float32: oom: too little [red]memory",
        "ending",
    ]


def test_progress_of_a_case_that_is_not_shown_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    case = a_case()
    with view([case], quiet=False) as shown:
        shown.heard(_measuring(case))
        shown.heard(RecordVerdict(case_key=case.key, verdict=Verdict.NOT_RUN, reason="stopped"))
    assert terminal.screen() == ["localhost/cpu: alexnet forward b128 float32: not_run: stopped"]


def test_elsewhere_every_event_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    case = a_case(key="one")
    with view([case], quiet=False) as shown:
        shown.heard(StartCase(case=case, attempt=2))
        shown.heard(_measuring(case))
        shown.heard(DeviceLost(at=1.0, device_id="localhost/cpu", reason="gone"))
        shown.heard(StopRequested(at=1.0, now=True, reason="stopped by Ctrl-C"))
        shown.heard(CaseFinished(at=2.0, case_key="one", attempt=2, result=a_result(case, verdict=Verdict.CRASHED)))
        shown.heard(RecordVerdict(case_key="one", verdict=Verdict.CRASHED, reason="SIGSEGV"))
    assert capsys.readouterr().err.splitlines() == [
        "1 case",
        "[0/1] localhost/cpu: alexnet forward b128 float32: starting (attempt 2)",
        "[0/1] localhost/cpu: lost: gone",
        "[0/1] stopping: stopped by Ctrl-C",
        "[1/1] localhost/cpu: alexnet forward b128 float32: crashed: SIGSEGV",
    ]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    case = a_case()
    with view([case], quiet=True) as shown:
        shown.heard(StartCase(case=case, attempt=1))
        shown.say("anything")
    assert capsys.readouterr().err == ""
