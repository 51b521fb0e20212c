"""What a row without a figure says that one should type, held against what that command would run."""

from __future__ import annotations

import itertools
import re
import shlex
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning import filter_values, parse_filters
from orchestrator.report.build import build_table
from orchestrator.results import RunState
from tests.builders import a_case, a_device, a_workload
from tests.runs import a_case_result, a_case_without_attempt, a_run
from workers.protocol import Compiler, Fetch, Layout, Pass, Precision, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.results import CaseResult, Run


def notes_of(run: Run, store: str | None = None) -> list[str]:
    return [note for note in build_table(run, store=store).notes if ": muster " in note]


def commands_of(run: Run) -> dict[str, str]:
    """The command of each note that has one, by the rows that it is for."""
    found = {}
    for note in notes_of(run):
        rows, _, command = note.partition(": again with: ")
        found[rows] = command
    return found


def run_again_by(command: str, run: Run) -> list[CaseResult]:
    """What ``muster rerun --failed`` with these filters runs."""
    words = shlex.split(command)
    assert words[:4] == ["muster", "rerun", run.id, "--failed"]
    assert set(words[4::2]) <= {"--only"}
    filters = parse_filters(words[5::2])
    unmeasured = [case for case in run.cases if case.verdict is None or not case.verdict.has_figure]
    return [
        case
        for case in unmeasured
        if all(filter_values(case.case)[field] in values for field, values in filters.items())
    ]


def failed(
    host: str = "yew", selector: str = "gpu:0", verdict: Verdict = Verdict.OOM, **workload: object
) -> CaseResult:
    return a_case_without_attempt(a_case(a_device(host, selector), a_workload(**workload)), verdict, "why")


# --- failed rows -----------------------------------------------------------------------------------------------


def test_a_failed_row_names_its_host_and_its_device() -> None:
    run = a_run(a_case_result(a_case()), failed())
    assert notes_of(run) == ["Row 2: again with: muster rerun 7f3a9c --failed --only host=yew --only device=gpu:0"]


def test_a_row_that_failed_in_both_passes_has_one_command() -> None:
    cases = [failed(pass_=pass_) for pass_ in Pass]
    [command] = commands_of(a_run(*cases)).values()
    assert "pass" not in command
    assert run_again_by(command, a_run(*cases)) == cases


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        ({"model": "alexnet"}, {"model": "alexnet-owt"}, "model=alexnet"),
        ({"batch_size": 64}, {"batch_size": 128}, "batch_size=64"),
        ({"precision": Precision.FLOAT32}, {"precision": Precision.BFLOAT16}, "precision=float32"),
        ({"layout": Layout.NCHW}, {"layout": Layout.NHWC}, "layout=NCHW"),
        ({"compiler": Compiler.XLA}, {"compiler": Compiler.NONE}, "compiler=xla"),
        ({"framework": "tensorflow"}, {"framework": "other"}, "framework=tensorflow"),
        ({"fetch": Fetch.HOST}, {"fetch": Fetch.DEVICE}, "fetch=host"),
    ],
)
def test_what_tells_failed_rows_of_a_device_apart_is_named(
    one: dict[str, object], other: dict[str, object], named: str
) -> None:
    device = a_device("yew", "gpu:0")
    works = (a_workload(**one), a_workload(**other))
    run = a_run(*(a_case_without_attempt(a_case(device, work), Verdict.OOM, "why") for work in works))
    command = commands_of(run)["Row 1"]
    assert command == f"muster rerun 7f3a9c --failed --only host=yew --only device=gpu:0 --only {named}"
    assert run_again_by(command, run) == [run.cases[0]]


def test_nothing_is_named_that_a_row_with_a_figure_differs_in() -> None:
    run = a_run(a_case_result(a_case(a_device("yew", "gpu:0"), a_workload(batch_size=64))), failed(batch_size=128))
    assert "batch_size" not in commands_of(run)["Row 2"]


def test_a_pass_that_was_merely_stopped_is_left_to_resume() -> None:
    run = a_run(failed(pass_=Pass.FORWARD), failed(pass_=Pass.FORWARD_BACKWARD, verdict=Verdict.CANCELLED))
    command, resume = notes_of(run)
    assert command.endswith("--only host=yew --only device=gpu:0 --only pass=forward")
    assert resume == "Row 1: go on with: muster resume 7f3a9c"


def test_the_same_work_twice_cannot_be_told_apart() -> None:
    same = a_case(a_device("yew", "gpu:0"))
    cases = [a_case_without_attempt(case, Verdict.OOM, "why") for case in (same, a_case(same.device, key="another"))]
    assert set(commands_of(a_run(*cases)).values()) == {
        "muster rerun 7f3a9c --failed --only host=yew --only device=gpu:0"
    }


def test_a_command_can_be_pasted_into_a_shell_whatever_things_are_called() -> None:
    run = a_run(failed(model="it's; rm -rf $HOME"), failed(model="other"))
    command = commands_of(run)["Row 1"]
    assert run_again_by(command, run) == [run.cases[0]]
    assert shlex.split(command)[-1] == "model=it's; rm -rf $HOME"


def test_a_store_of_ones_own_is_named() -> None:
    run = a_run(failed(), failed("elm", verdict=Verdict.NOT_RUN))
    again, resume = notes_of(run, store="sqlite:///my lab.db")
    assert "--failed --store 'sqlite:///my lab.db' --only host=yew" in again
    assert resume.endswith("muster resume 7f3a9c --store 'sqlite:///my lab.db'")


def test_a_simulated_run_has_commands_too() -> None:
    assert len(notes_of(a_run(failed(), simulated=True))) == 1


# --- many failed rows ------------------------------------------------------------------------------------------


def test_many_failed_rows_of_a_host_have_one_command() -> None:
    down = [failed(selector=f"gpu:{index}", verdict=Verdict.HOST_DOWN, pass_=p) for index in range(4) for p in Pass]
    run = a_run(a_case_result(a_case()), *down, failed("elm"))
    found = commands_of(run)
    assert list(found) == ["Rows 2-5", "Row 6"]
    assert found["Rows 2-5"] == "muster rerun 7f3a9c --failed --only host=yew"
    assert run_again_by(found["Rows 2-5"], run) == down


def test_three_failed_rows_of_a_host_have_a_command_each() -> None:
    assert len(notes_of(a_run(*(failed(selector=f"gpu:{index}") for index in range(3))))) == 3


def test_failed_rows_of_a_host_where_others_are_still_open_keep_their_own_commands() -> None:
    cases = [failed(selector=f"gpu:{index}") for index in range(5)]
    run = a_run(*cases, failed(selector="cpu", verdict=Verdict.CANCELLED))
    found = commands_of(run)
    assert [run_again_by(found[f"Row {number}"], run) for number in range(1, 6)] == [[case] for case in cases]


def test_there_are_never_more_than_twenty_commands_and_one_for_the_rest() -> None:
    run = a_run(*(failed(f"host-{number}") for number in range(25)))
    notes = notes_of(run)
    assert len(notes) == 21
    assert notes[-1] == "Rows 21-25: again, with all others that failed: muster rerun 7f3a9c --failed"


# --- rows that did not end --------------------------------------------------------------------------------------


def test_rows_that_were_stopped_never_begun_or_cut_off_are_gone_on_with_once() -> None:
    stopped = (failed(verdict=Verdict.CANCELLED), failed("elm", verdict=Verdict.NOT_RUN))
    cut_off = a_case_without_attempt(a_case(a_device("oak")), None)
    run = a_run(a_case_result(a_case()), *stopped, cut_off, state=RunState.INTERRUPTED)
    assert notes_of(run) == ["Rows 2-4: go on with: muster resume 7f3a9c"]


def test_a_run_that_is_going_on_needs_nobody_to_go_on_with_it() -> None:
    run = a_run(a_case_without_attempt(a_case(), None), state=RunState.RUNNING)
    assert notes_of(run) == []


def test_a_run_without_a_failure_has_no_commands() -> None:
    assert notes_of(a_run(a_case_result(a_case(), verdict=Verdict.NOISY, reason="why"))) == []


# --- any run ---------------------------------------------------------------------------------------------------

_WORK = list(
    itertools.product(("elm", "yew"), ("cpu", "gpu:0"), (64, 128), (Precision.FLOAT32, Precision.BFLOAT16), tuple(Pass))
)
_VERDICTS = st.sampled_from([Verdict.OK, Verdict.OOM, Verdict.HOST_DOWN, Verdict.CANCELLED, None])


def a_run_of(verdicts: Sequence[Verdict | None]) -> Run:
    cases = []
    for (host, selector, batch_size, precision, pass_), verdict in zip(_WORK, verdicts, strict=True):
        workload = a_workload(batch_size=batch_size, precision=precision, pass_=pass_)
        case = a_case(a_device(host, selector), workload)
        cases.append(a_case_result(case) if verdict is Verdict.OK else a_case_without_attempt(case, verdict, "why"))
    return a_run(*cases)


@given(st.lists(_VERDICTS, min_size=len(_WORK), max_size=len(_WORK)))
def test_the_commands_together_run_every_failed_case_and_each_of_them_nothing_else(
    verdicts: list[Verdict | None],
) -> None:
    run = a_run_of(verdicts)
    by_row = commands_of(run)
    by_row.pop(next((rows for rows in by_row if "go on with" in rows), ""), None)
    again = [case for command in by_row.values() for case in run_again_by(command, run)]
    wanted = [case for case in run.cases if case.verdict in (Verdict.OOM, Verdict.HOST_DOWN)]
    assert sorted(case.case.key for case in again) == sorted(case.case.key for case in wanted)
    assert all(re.fullmatch(r"Rows? [\d, -]+", rows) for rows in by_row)
