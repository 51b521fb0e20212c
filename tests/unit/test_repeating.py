from __future__ import annotations

import pytest

from orchestrator.cli.execution import Executed, Order
from orchestrator.cli.repeating import rerun_of
from orchestrator.config.load import load_text
from orchestrator.errors import ExitCode, StoreFullError
from tests.builders import a_case, a_device
from tests.runs import a_case_result, a_case_without_attempt, a_run
from workers.protocol import Verdict

CASES = {verdict: a_case(a_device(selector=f"gpu:{number}")) for number, verdict in enumerate(Verdict)}


def order(rule: str) -> Order:
    text = f"version: 1\nname: lab\nworkloads: [{{model: alexnet}}]\nrerun: {rule}\n"
    return Order(loaded=load_text(text, "lab.yaml"))


def ended(*verdicts: Verdict, code: ExitCode = ExitCode.INCOMPLETE, **given: object) -> Executed:
    cases = [
        a_case_result(CASES[each]) if each.has_figure else a_case_without_attempt(CASES[each], each)
        for each in verdicts
    ]
    return Executed(run=a_run(*cases, id="7f3a9c"), store="sqlite://", exit_code=code, **given)  # type: ignore[arg-type]


def test_never_is_never() -> None:
    assert rerun_of(order("never"), ended(Verdict.CRASHED)) is None


def test_on_failure_runs_what_has_no_figure_and_may_have_one_next_time() -> None:
    again = rerun_of(order("on_failure"), ended(Verdict.OK, Verdict.CRASHED, Verdict.OOM, Verdict.HOST_DOWN))
    assert again is not None
    assert again.cases == (CASES[Verdict.CRASHED], CASES[Verdict.HOST_DOWN])
    assert again.rerun_of == "7f3a9c"


def test_on_failure_leaves_a_run_alone_that_has_all_it_can_have() -> None:
    assert rerun_of(order("on_failure"), ended(Verdict.OK, code=ExitCode.OK)) is None
    assert rerun_of(order("on_failure"), ended(Verdict.OK, Verdict.DEVICE_MISSING)) is None


def test_always_runs_all_of_it_once_more() -> None:
    again = rerun_of(order("always"), ended(Verdict.OK, code=ExitCode.OK))
    assert again is not None
    assert (again.cases, again.rerun_of) == (None, "7f3a9c")


@pytest.mark.parametrize("rule", ["on_failure", "always"])
def test_a_run_that_was_stopped_or_lost_its_store_is_not_run_again(rule: str) -> None:
    assert rerun_of(order(rule), ended(Verdict.CRASHED, code=ExitCode.INTERRUPTED)) is None
    assert rerun_of(order(rule), ended(Verdict.CRASHED, store_error=StoreFullError("full"))) is None
