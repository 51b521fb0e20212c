"""What company costs: rows of devices that were measured alone, and then with all of their host at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.analysis import references
from orchestrator.report.build import build_table
from orchestrator.report.plots.bars import bars
from tests.builders import a_case, a_device, a_workload
from tests.runs import a_case_result, a_case_without_attempt, a_run
from workers.protocol import NETWORK_PASSES, Company, Pass, Verdict

if TYPE_CHECKING:
    from orchestrator.report.table import Cell, Table
    from orchestrator.results import CaseResult

GPUS = tuple(a_device("a", f"gpu:{number}") for number in range(2))


def column(table: Table, key: str) -> list[Cell]:
    place = [column.key for column in table.columns].index(key)
    return [row.cells[place] for row in table.rows]


def figure(company: Company | None, ms: float, place: int = 0, pass_: Pass = Pass.FORWARD) -> CaseResult:
    case = a_case(GPUS[place], a_workload(pass_=pass_), key=f"{place}{pass_}{company}", company=company)
    return a_case_result(case, samples_ms=(ms, ms))


def test_the_penalty_is_how_much_longer_a_step_takes_together_than_alone() -> None:
    cases = [
        figure(company, ms, place, pass_)
        for company, place, pass_, ms in (
            (Company.ALONE, 0, Pass.FORWARD, 10.0),
            (Company.ALONE, 0, Pass.FORWARD_BACKWARD, 30.0),
            (Company.ALONE, 1, Pass.FORWARD, 20.0),
            (Company.TOGETHER, 0, Pass.FORWARD, 12.5),
            (Company.TOGETHER, 0, Pass.FORWARD_BACKWARD, 33.0),
            (Company.TOGETHER, 1, Pass.FORWARD, 19.0),
        )
    ]
    table = build_table(a_run(*cases), references=references.load(["seed"])[:1])
    assert [column.heading for column in table.columns][6:] == [
        "Forward penalty together (%)",
        "Forward-backward penalty together (%)",
    ]
    forward, forward_backward = (column(table, f"{pass_.value}_penalty_percent") for pass_ in NETWORK_PASSES)
    assert [cell.text for cell in forward] == ["", "+25.0", "", "-5.0", ""]
    assert forward[1].value == pytest.approx(25.0)
    assert forward[0].reason == forward[4].reason == "not measured together with others"
    assert [cell.text for cell in forward_backward] == ["", "+10.0", "", "", ""]
    assert forward_backward[3].reason == "this pass was not asked for"
    details = [cell.text for cell in column(table, "details")]
    assert ["alone on its host" in text for text in details] == [True, False, True, False, False]
    assert ["together with its host's others" in text for text in details] == [False, True, False, True, False]
    assert dict(table.rows[1].definition)["company"] == "together"


def test_there_is_no_penalty_without_both_figures() -> None:
    lost = a_case(GPUS[0], key="lost", company=Company.ALONE)
    table = build_table(a_run(a_case_without_attempt(lost, Verdict.OOM, "too big"), figure(Company.TOGETHER, 10.0)))
    assert column(table, "forward_penalty_percent")[1].reason == "no figure of it alone"
    lost = a_case(GPUS[0], key="lost", company=Company.TOGETHER)
    table = build_table(a_run(figure(Company.ALONE, 10.0), a_case_without_attempt(lost, Verdict.OOM, "too big")))
    assert column(table, "forward_penalty_percent")[1].reason == "too big"


def test_a_run_that_compares_no_company_has_no_such_column() -> None:
    keys = [column.key for column in build_table(a_run(figure(None, 10.0)), wide=True).columns]
    assert not [key for key in keys if "penalty" in key]


def test_a_ratio_is_to_the_row_in_the_same_company() -> None:
    cases = [
        figure(company, ms, place)
        for company, place, ms in (
            (Company.ALONE, 0, 10.0),
            (Company.ALONE, 1, 20.0),
            (Company.TOGETHER, 0, 20.0),
            (Company.TOGETHER, 1, 80.0),
        )
    ]
    table = build_table(a_run(*cases), relative_to="a/gpu:0")
    assert [cell.value for cell in column(table, "forward_ratio")] == pytest.approx([1.0, 1.0, 0.5, 0.25])


def test_a_picture_tells_the_rows_apart() -> None:
    picture = bars(a_run(figure(Company.ALONE, 10.0), figure(Company.TOGETHER, 12.0)))
    labels = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    assert [label.rpartition(", ")[2] for label in labels] == ["alone", "together"]
