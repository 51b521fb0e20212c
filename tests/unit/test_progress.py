from __future__ import annotations

import asyncio
import io
import sys
import threading
from typing import TYPE_CHECKING

import pyte

from orchestrator.cli.progress import LiveView, PlainView, QuietView, label, view
from orchestrator.dispatch.messages import (
    CaseFinished,
    CaseStarted,
    DeviceLost,
    PrepareDevice,
    PutAside,
    RecordVerdict,
    StartCase,
    StopRequested,
)
from orchestrator.dispatch.settings import DispatchSettings
from orchestrator.engine.simulated import Fault, Silence, SimulatedEngine
from orchestrator.runner import Runner
from tests.builders import a_case, a_device, a_result, a_sampling, a_workload
from tests.goldens import assert_golden
from workers.protocol import Case, Phase, Progress, Result, Verdict

if TYPE_CHECKING:
    import pytest

#: Seconds within which something is drawn, or the test is given up.
DEADLINE_S = 20.0


class Terminal(io.StringIO):
    """What stderr is when somebody looks."""

    def __init__(self) -> None:
        super().__init__()
        self._has_come = threading.Condition()
        self.is_gone = False
        self.has_refused = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._has_come:
            if self.is_gone:
                self.has_refused.set()
                raise OSError("the terminal is gone")
            written = super().write(text)
            self._has_come.notify_all()
        return written

    def wait_for(self, text: str) -> None:
        """Return once ``text`` was drawn."""
        with self._has_come:
            assert self._has_come.wait_for(lambda: text in self.getvalue(), DEADLINE_S), f"{text!r} was not drawn"

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
    assert label(a_case(workload=a_workload(seeks_largest=True))) == "alexnet forward bmax float32"


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
    for text in ("cases", "0/1", "localhost/cpu  alexnet forward b128 float32", "34/100", "52.21 ms"):
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
        "localhost/cpu: alexnet forward b128 float32: starting (attempt 2)",
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
        shown.heard(CaseFinished(at=2.0, case_key="one", attempt=2, result=a_result(case, 2, verdict=Verdict.CRASHED)))
        shown.heard(RecordVerdict(case_key="one", verdict=Verdict.CRASHED, reason="SIGSEGV"))
    assert capsys.readouterr().err.splitlines() == [
        "1 case",
        "[0/1] localhost/cpu: alexnet forward b128 float32: starting (attempt 2)",
        "[0/1] localhost/cpu: away: gone",
        "[0/1] stopping: stopped by Ctrl-C",
        "[0/1] localhost/cpu: alexnet forward b128 float32: attempt 2 crashed",
        "[1/1] localhost/cpu: alexnet forward b128 float32: crashed: SIGSEGV",
    ]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    case = a_case()
    with view([case], quiet=True) as shown:
        shown.heard(StartCase(case=case, attempt=1))
        shown.say("anything")
    assert capsys.readouterr().err == ""


def test_a_terminal_without_a_cursor_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(view([], quiet=False), PlainView)


def test_colours_are_left_out_where_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    case = a_case()
    with view([case], quiet=False) as shown:
        shown.heard(RecordVerdict(case_key=case.key, verdict=Verdict.OOM, reason="too large"))
    assert "too large" in terminal.getvalue()
    assert "\x1b[31m" not in terminal.getvalue()


def test_what_went_wrong_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    case = a_case()
    with view([case], quiet=False) as shown:
        shown.heard(RecordVerdict(case_key=case.key, verdict=Verdict.OOM, reason="too large"))
    assert "\x1b[31mlocalhost/cpu: alexnet forward b128 float32: oom: too large" in terminal.getvalue()


def test_a_terminal_that_knows_only_ascii_gets_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    class AsciiTerminal(Terminal):
        @property
        def encoding(self) -> str:  # type: ignore[override]
            return "ascii"

    on_a_terminal(monkeypatch)
    terminal = AsciiTerminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    case = a_case()
    with view([case], quiet=False) as shown:
        shown.heard(StartCase(case=case, attempt=1))
        shown.heard(_measuring(case))
    assert "34/100" in terminal.getvalue()
    assert terminal.getvalue().isascii()


def test_the_cursor_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with view([a_case()], quiet=False):
        terminal.wait_for("\x1b[?25l")
    drawn = terminal.getvalue()
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")


def test_stages_are_drawn_before_there_are_cases_and_cases_once_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    case = a_case()
    with view(quiet=False) as shown:
        shown.stage("reaching hosts", 3, 8)
        terminal.wait_for("reaching hosts 3/8")
        shown.expect([case], estimates={case.key: 90.0})
        shown.heard(PrepareDevice(device=case.device))
        terminal.wait_for("ETA 1 min 30 s")
    assert terminal.screen() == []


def test_failures_come_while_a_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    case = a_case()
    with view([case], quiet=False) as shown:
        shown.heard(RecordVerdict(case_key=case.key, verdict=Verdict.NOT_RUN, reason="stopped"))
        terminal.wait_for("not_run: stopped")


def test_in_a_large_lab_only_what_went_wrong_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    cases = [a_case(a_device(f"gpu{number:02}", "gpu:0")) for number in range(100)]
    with view(cases, quiet=False) as shown:
        for case in cases:
            verdict = Verdict.OOM if case is cases[41] else Verdict.OK
            shown.heard(StartCase(case=case, attempt=1))
            shown.heard(CaseFinished(at=2.0, case_key=case.key, attempt=1, result=a_result(case, verdict=verdict)))
            shown.heard(RecordVerdict(case_key=case.key, verdict=verdict, reason=None))
    assert terminal.screen() == ["gpu41/gpu:0: alexnet forward b128 float32: oom"]


def test_a_terminal_that_goes_away_takes_no_run_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    case = a_case()
    with view([case], quiet=False) as shown:
        terminal.wait_for("cases")
        terminal.is_gone = True
        shown.heard(StartCase(case=case, attempt=1))
        assert terminal.has_refused.wait(DEADLINE_S)
        shown.say("nobody reads this")
    assert "nobody" not in terminal.getvalue()


def test_elsewhere_a_stage_is_one_line_whatever_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with view(quiet=False) as shown:
        for done in range(3):
            shown.stage("reaching hosts", done, 2)
        shown.stage("starting Ray", None, None)
        shown.stage("starting Ray", None, None)
        shown.expect([a_case()])
    assert capsys.readouterr().err.splitlines() == ["reaching hosts", "starting Ray", "1 case"]


def test_elsewhere_nothing_that_was_held_back_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    case = a_case()
    with view([case], quiet=False) as shown:
        shown.heard(RecordVerdict(case_key=case.key, verdict=Verdict.NOT_RUN, reason="stopped"))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "[1/1] localhost/cpu: alexnet forward b128 float32: not_run: stopped"
    ]


class Nowhere:
    """Keeps nothing."""

    def save_attempt(self, run_id: str, result: Result) -> None:
        pass

    def save_verdict(self, run_id: str, case_key: str, verdict: Verdict, reason: str | None) -> None:
        pass

    def save_late(self, run_id: str, result: Result) -> bool:
        return True

    def put_aside(self, run_id: str, command: PutAside) -> None:
        pass


def test_a_lab_s_run_elsewhere_is_one_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    devices = [a_device(host, selector) for host in ("one", "two") for selector in ("gpu:0", "gpu:1", "cpu")]
    sampling = a_sampling(min_steps=20, max_steps=20)
    cases = [
        a_case(device, a_workload(batch_size=size), sampling, key=f"{device.id} b{size}")
        for size in (32, 256)
        for device in devices
    ]
    faults = {
        "one/gpu:1": Fault(crash_on_attempts=(1,)),
        "one/cpu": Fault(held_for_s=30.0),
        "two/gpu:0": Fault(oom_above_batch_size=128),
        "two/gpu:1": Fault(lost_after_s=3.5, back_after_s=2.0),
        "two": Fault(silences=(Silence(from_s=10.0, for_s=15.0),)),
    }
    engine = SimulatedEngine(faults=faults)
    with view(cases, quiet=False) as shown:
        runner = Runner(
            run_id="run",
            cases=cases,
            settings=DispatchSettings(),
            engine=engine,
            recorder=Nowhere(),
            listeners=(shown,),
        )
        asyncio.run(runner.run())
    assert_golden("progress/plain.txt", capsys.readouterr().err)
