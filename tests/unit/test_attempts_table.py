"""Every attempt in one table: in order, with what it was to its case and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.report.attempts import attempts_table
from orchestrator.report.table import RowKind
from orchestrator.report.workloads import in_words
from orchestrator.results import CaseResult
from tests.builders import a_case, a_workload
from tests.runs import a_case_without_attempt, a_run, a_run_with_attempts, an_attempt
from workers.protocol import Compiler, Ending, Fetch, Layout, Pass, Precision, Verdict

if TYPE_CHECKING:
    from orchestrator.report.table import Cell, Table

TABLE = attempts_table(a_run_with_attempts())


def column(table: Table, key: str) -> list[Cell]:
    place = [column.key for column in table.columns].index(key)
    return [row.cells[place] for row in table.rows]


def values(table: Table, key: str) -> list[object]:
    return [cell.value for cell in column(table, key)]


def an_only_attempt(**result: object) -> Table:
    case = a_case()
    return attempts_table(a_run(CaseResult(case=case, position=0, attempts=(an_attempt(case, 1, **result),))))


def test_every_attempt_is_there_in_the_plans_order_with_those_that_came_too_late() -> None:
    assert values(TABLE, "num") == [1, 2, 3, 4, 5]
    assert values(TABLE, "attempt") == [1, 2, 1, 1, 2]
    assert values(TABLE, "verdict") == ["crashed", "ok", "host_down", "ok", "ok"]
    assert values(TABLE, "standing") == ["tried again", "last", "tried again", "superseded", "last"]
    assert [cell.text for cell in column(TABLE, "verdict")][3] == "ok (superseded)"
    assert [str(value).split(" ")[3] for value in values(TABLE, "workload")] == ["64", "64", "128", "128", "128"]
    assert set(values(TABLE, "device_id")) == {"gpu01/gpu:0"}


def test_an_attempt_says_when_it_began_how_long_it_took_and_how_its_process_ended() -> None:
    assert values(TABLE, "began_at")[1] == "2027-01-15T08:01:00.500+00:00"
    assert column(TABLE, "began_at")[1].text == "2027-01-15 08:01:00"
    assert values(TABLE, "took_s") == [1.5, 1.5, None, 1.5, 1.5]
    assert values(TABLE, "steps") == [0, 3, 0, 3, 3]
    assert values(TABLE, "process") == ["SIGSEGV", "exit 0", None, "exit 0", "exit 0"]
    assert values(TABLE, "reason")[0] == "SIGSEGV"


def test_what_nobody_saw_is_empty_and_says_why() -> None:
    for key in ("began_at", "took_s", "process"):
        given_up = column(TABLE, key)[2]
        assert (given_up.text, given_up.value) == ("", None)
        assert given_up.reason


@pytest.mark.parametrize("started_at", [1e20, -1e20, 1e308])
def test_a_clock_that_makes_no_sense_is_no_time(started_at: float) -> None:
    [cell] = column(an_only_attempt(started_at=started_at), "began_at")
    assert (cell.text, cell.value) == ("", None)
    assert "no clock shows" in (cell.reason or "")


def test_a_signal_says_more_than_the_exit_code_that_comes_with_it() -> None:
    [cell] = column(an_only_attempt(ending=Ending(exit_code=-9, signal="SIGKILL")), "process")
    assert cell.value == "SIGKILL"


def test_notes_say_what_superseded_means_and_what_was_never_tried() -> None:
    superseded, untried = TABLE.notes
    assert "in no figure" in superseded
    assert untried.startswith("Without an attempt: 1 of 3 cases")
    assert an_only_attempt().notes == ()


def test_a_simulated_run_says_so_in_every_row_and_first_of_all() -> None:
    table = attempts_table(a_run_with_attempts(simulated=True))
    assert {row.kind for row in table.rows} == {RowKind.SIMULATED}
    assert "simulated" in table.title
    assert table.notes[0].startswith("Simulated: ")


def test_a_run_without_attempts_has_an_empty_table() -> None:
    table = attempts_table(a_run(a_case_without_attempt(a_case(), Verdict.DEVICE_MISSING, "gone")))
    assert table.rows == ()
    assert table.title.endswith(", every attempt")


def test_a_row_says_for_machines_which_case_it_is_of() -> None:
    [row] = an_only_attempt().rows
    assert dict(row.definition) == {"case_key": a_case().key, "device_id": "localhost/cpu"}


def test_a_workload_in_words_names_what_is_not_usual() -> None:
    assert in_words(a_workload()) == "alexnet forward batch 128 float32 NHWC"
    odd = a_workload(
        pass_=Pass.FORWARD_BACKWARD,
        precision=Precision.BFLOAT16,
        layout=Layout.NCHW,
        compiler=Compiler.XLA,
        fetch=Fetch.HOST,
    )
    assert in_words(odd) == "alexnet forward_backward batch 128 bfloat16 NCHW xla fetch host"
