from __future__ import annotations

import pytest

from orchestrator.cli.progress.drawing import ASCII, Drawing, Symbols
from orchestrator.cli.progress.picture import Picture
from orchestrator.dispatch.messages import (
    CaseFinished,
    CaseStarted,
    CaseWaiting,
    DeviceLost,
    HostSilent,
    PrepareDevice,
    RecordVerdict,
    ReleaseDevice,
    StartCase,
)
from tests.builders import a_case, a_device, a_result, a_sampling
from workers.protocol import Case, Phase, Progress, Verdict


class Lab:
    """A run of one case on each of some hosts, at 100 s on a clock that stands still."""

    def __init__(self, hosts: int, *, estimate_s: float | None = None, symbols: Symbols | None = None) -> None:
        self.now = 100.0
        self.picture = Picture(lambda: self.now)
        self.cases = [a_case(a_device(f"gpu{number:02}", "gpu:0"), key=str(number)) for number in range(hosts)]
        estimates = {} if estimate_s is None else {case.key: estimate_s for case in self.cases}
        self.picture.expect(self.cases, estimates)
        self.drawing = Drawing(self.picture, symbols or Symbols())

    def begin(self, number: int, *, step: int | None = None) -> None:
        case = self.cases[number]
        self.picture.heard(StartCase(case=case, attempt=1))
        if step is not None:
            self.picture.heard(
                Progress(case_key=case.key, attempt=1, phase=Phase.MEASURE, step=step, max_steps=100, last_ms=250.0)
            )

    def end(self, number: int, verdict: Verdict = Verdict.OK) -> None:
        case = self.cases[number]
        self.picture.heard(CaseFinished(at=0.0, case_key=case.key, attempt=1, result=a_result(case, verdict=verdict)))
        self.picture.heard(RecordVerdict(case_key=case.key, verdict=verdict, reason=None))
        self.picture.heard(ReleaseDevice(device_id=case.device.id))

    def lines(self, width: int = 100, height: int = 20) -> list[str]:
        return ["".join(text for text, _ in line).rstrip() for line in self.drawing.lines(width, height)]

    def hosts(self, height: int) -> list[str]:
        """The hosts that have a line, and what is said of the rest."""
        return [line.partition("/")[0] for line in self.lines(height=height)[1:]]


def test_a_device_at_work_has_its_case_step_time_and_what_is_left() -> None:
    lab = Lab(1)
    lab.begin(0, step=25)
    assert lab.lines()[1] == (
        "gpu00/gpu:0  alexnet forward b128 float32  ━━━─────────   25/100      250 ms         ~19 s"
    )


def test_the_bar_of_the_run_has_what_is_done_and_failed_and_how_much_longer() -> None:
    lab = Lab(4, estimate_s=60.0)
    lab.begin(0)
    lab.end(0, Verdict.OOM)
    lab.now += 75.0
    bar = "━" * 10 + "─" * 30
    assert lab.lines()[0] == f"cases  {bar}  1/4  1 failed  1 min 15 s  ETA 1 min 00 s"


def test_no_time_is_made_up() -> None:
    lab = Lab(2)
    lab.begin(0)
    assert lab.lines()[0].endswith("0/2  0 s  ETA unknown")


def test_a_run_that_is_over_has_no_time_to_come() -> None:
    lab = Lab(1)
    lab.begin(0)
    lab.end(0)
    assert lab.lines()[0].endswith("1/1  0 s")


def test_devices_that_are_not_at_work_say_why() -> None:
    lab = Lab(5)
    lab.begin(0)
    lab.end(0)
    lab.begin(1)
    lab.end(1, Verdict.OOM)
    lab.picture.heard(DeviceLost(at=0.0, device_id="gpu02/gpu:0", reason="no\x1b[2J answer"))
    lab.picture.heard(PrepareDevice(device=lab.cases[3].device))
    assert lab.lines()[1:] == [
        "gpu00/gpu:0  done",
        "gpu01/gpu:0  done, 1 failed",
        "gpu02/gpu:0  away: no\\x1b[2J answer",
        "gpu03/gpu:0  preparing",
        "gpu04/gpu:0  queued",
    ]


def test_what_comes_before_and_after_the_steps_is_said_in_words() -> None:
    lab = Lab(2)
    lab.begin(0)
    lab.begin(1)
    lab.picture.heard(CaseStarted(at=0.0, case_key="0", attempt=1))
    lab.picture.heard(CaseWaiting(at=0.0, case_key="1", attempt=1, reason="held by ann\x1b on head2"))
    assert lab.lines()[1:] == [
        "gpu00/gpu:0  alexnet forward b128 float32  warming up",
        "gpu01/gpu:0  alexnet forward b128 float32  waiting: held by ann\\x1b on head2",
    ]


def test_before_there_are_cases_stages_are_all_there_is() -> None:
    picture = Picture(lambda: 0.0)
    drawing = Drawing(picture, Symbols())
    assert drawing.lines(100, 20) == ()
    picture.stage("reaching hosts", 3, 8)
    picture.stage("installing on gpu01", None, None)
    lines = ["".join(text for text, _ in line) for line in drawing.lines(100, 20)]
    assert lines == ["reaching hosts 3/8  ━━━━────────", "installing on gpu01"]
    assert ["".join(text for text, _ in line) for line in drawing.lines(20, 1)] == ["reaching hosts 3/8"]


def test_devices_have_no_lines_until_something_begins() -> None:
    lab = Lab(3)
    lab.picture.stage("starting Ray", 1, 4)
    assert len(lab.lines()) == 2


def test_of_many_stages_some_are_shown_and_the_others_counted() -> None:
    lab = Lab(1)
    for number in range(9):
        lab.picture.stage(f"bringing wheels to gpu{number}", 1, 9)
    assert lab.lines()[-1] == "… 4 more"
    assert len(lab.lines()) == 1 + 5 + 1


def test_hosts_that_are_silent_are_counted_beside_the_run() -> None:
    lab = Lab(2)
    lab.picture.heard(HostSilent(at=0.0, host="gpu00"))
    assert "1 host silent" in lab.lines()[0]


def test_where_devices_do_not_fit_busy_ones_are_shown_and_the_rest_counted() -> None:
    lab = Lab(10)
    lab.begin(8, step=1)
    lab.begin(9, step=1)
    assert lab.hosts(height=4) == ["gpu08", "gpu09", "… 8 more queued"]
    for number in range(5):
        lab.begin(number, step=1)
    lab.picture.heard(DeviceLost(at=0.0, device_id="gpu07/gpu:0", reason="gone"))
    assert lab.hosts(height=4) == ["gpu08", "gpu09", "… 5 more measuring, 2 queued, 1 away"]


def test_a_device_keeps_its_line_while_it_is_busy() -> None:
    lab = Lab(6)
    for number in (3, 4, 5):
        lab.begin(number)
    assert lab.hosts(height=5)[:3] == ["gpu03", "gpu04", "gpu05"]
    lab.begin(0)
    lab.end(4)
    assert lab.hosts(height=5)[:3] == ["gpu03", "gpu00", "gpu05"]
    lab.end(3)
    # Nobody else is busy, so it keeps its line and says that it is done.
    assert lab.hosts(height=5)[:3] == ["gpu03", "gpu00", "gpu05"]


def test_a_terminal_that_grows_and_shrinks_leaves_busy_devices_where_they_are() -> None:
    lab = Lab(6)
    for number in (5, 4, 3):
        lab.begin(number)
    assert lab.hosts(height=4)[:2] == ["gpu05", "gpu04"]
    assert lab.hosts(height=6)[:4] == ["gpu05", "gpu04", "gpu03", "gpu00"]
    assert lab.hosts(height=3)[:1] == ["gpu05"]
    assert lab.hosts(height=7) == [f"gpu0{number}" for number in range(6)]


def test_on_one_line_only_the_run_is_shown() -> None:
    lab = Lab(3)
    lab.begin(0)
    assert len(lab.lines(height=1)) == 1


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (-1, -1)])
def test_a_terminal_without_room_shows_nothing(width: int, height: int) -> None:
    lab = Lab(3)
    lab.begin(0)
    assert lab.drawing.lines(width, height) == ()


def test_a_narrow_terminal_keeps_step_and_time_and_cuts_the_case() -> None:
    lab = Lab(2)
    lab.begin(0, step=25)
    assert lab.lines(width=60) == [
        f"cases  {'─' * 30}  0/2  0 s  ETA unknown",
        "gpu00/gpu:0  alexnet forward b128 floa…   25/100      250 ms",
        "gpu01/gpu:0  queued",
    ]
    assert lab.lines(width=34)[1] == "gpu00/gpu:0   25/100      250 ms"
    assert lab.lines(width=19)[1] == "gpu00/gpu:0   25/1…"


def test_a_host_with_a_long_name_is_cut_where_it_tells_least() -> None:
    picture = Picture(lambda: 0.0)
    case = a_case(a_device("a-host-with-a-very-long-name.lab.example", "gpu:7"))
    picture.expect([case], {})
    picture.heard(StartCase(case=case, attempt=1))
    (_, line) = Drawing(picture, Symbols()).lines(60, 5)
    assert line[0][0] == "a-host-with…/gpu:7"


def test_columns_stand_where_the_widest_case_needs_them() -> None:
    picture = Picture(lambda: 0.0)
    few = a_case(a_device("a", "gpu:0"), key="few", sampling=a_sampling(max_steps=10, min_steps=10))
    many = a_case(a_device("b", "gpu:0"), key="many", sampling=a_sampling(max_steps=10_000))
    picture.expect([few, many], {})

    def begin(case: Case) -> None:
        steps = case.sampling.max_steps
        picture.heard(StartCase(case=case, attempt=1))
        picture.heard(
            Progress(case_key=case.key, attempt=1, phase=Phase.MEASURE, step=steps - 1, max_steps=steps, last_ms=1.0)
        )

    begin(few)
    begin(many)
    first, second = ("".join(text for text, _ in line) for line in Drawing(picture, Symbols()).lines(80, 5)[1:])
    assert first.index(" ms") == second.index(" ms")


def test_terminals_that_know_no_other_characters_get_ascii() -> None:
    lab = Lab(5, symbols=ASCII)
    lab.begin(0, step=50)
    assert "\n".join(lab.lines(width=60, height=3)).isascii()
    assert "#" in lab.lines()[1]
