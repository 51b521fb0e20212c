"""What is said of scheduled runs, which runs are old, and the units that start a scheduler."""

from __future__ import annotations

import datetime
import shlex
from dataclasses import replace
from typing import Any

import pytest
import yaml

from orchestrator.analysis.comparison import Change, ComparedCase
from orchestrator.results import Cause, Firing, FiringState, RunState, RunSummary
from orchestrator.schedules.notices import Ended, document, in_words
from orchestrator.schedules.retention import old_runs
from orchestrator.schedules.units import cron_job, cron_line, systemd_unit
from tests.builders import a_case, a_device, a_workload
from tests.goldens import assert_golden
from tests.runs import a_case_result, a_case_without_attempt, a_run
from workers.protocol import Verdict

WHEN = datetime.datetime(2026, 5, 1, 3, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)

FIRING = Firing(
    id=3,
    schedule="night",
    due_at=WHEN,
    begins_at=WHEN,
    cause=Cause.TIME,
    state=FiringState.RUNNING,
    run_id="7f3a9c",
)
GOOD = a_run(a_case_result(a_case()))
SLOWER = ComparedCase(
    device=a_device("gpu01", "gpu:0"),
    workload=a_workload(),
    company=None,
    change=Change.SLOWER,
    before_ms=100.0,
    after_ms=125.0,
    ratio=1.25,
)


def an_ended(**given: Any) -> Ended:
    return Ended(**{"firing": FIRING, "run": GOOD, **given})


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (an_ended(), "ok"),
        (an_ended(before="ok"), "ok"),
        (an_ended(before="failure"), "recovery"),
        (an_ended(before="regression"), "recovery"),
        (an_ended(regressions=(SLOWER,), before="failure"), "regression"),
        (an_ended(run=None, reason="no host answers"), "failure"),
        (an_ended(reason="the disk is full"), "failure"),
        (an_ended(run=a_run(a_case_without_attempt(a_case(), Verdict.OOM)), regressions=(SLOWER,)), "failure"),
    ],
)
def test_the_gravest_of_what_happened_is_the_outcome(ended: Ended, outcome: str) -> None:
    assert ended.outcome == outcome
    assert document(ended, store="sqlite:///muster.db")["event"] == outcome


def test_the_notice_of_a_regression_names_it() -> None:
    import json

    failed = a_case_without_attempt(a_case(a_device("b")), Verdict.HOST_DOWN, "no route to b")
    ended = an_ended(run=a_run(*GOOD.cases, failed), regressions=(SLOWER,), compared_with="baseline good (run 80bb02)")
    text = json.dumps(document(ended, store="sqlite:///muster.db"), indent=2, ensure_ascii=False)
    assert_golden("schedules/notice.json", text + "\n")


def test_what_a_notice_says_in_a_line() -> None:
    assert in_words(an_ended()) == "night, run 7f3a9c: ok"
    assert in_words(an_ended(run=None, reason="no host answers")) == "night: no run: no host answers"
    assert in_words(an_ended(reason="the disk is full")) == "night, run 7f3a9c: failure; the disk is full"
    assert in_words(an_ended(regressions=(SLOWER,), compared_with="run 80bb02")) == (
        "night, run 7f3a9c: regression; 1 slower than run 80bb02, the most gpu01/gpu:0 alexnet forward by 25.0 %"
    )


def a_summary(run_id: str, age_days: float, state: RunState = RunState.FINISHED) -> RunSummary:
    return RunSummary(
        id=run_id,
        name="night",
        created_at=WHEN - age_days * DAY,
        finished_at=None,
        state=state,
        simulated=False,
        cases=1,
        figures=1,
    )


RUNS = [a_summary("a", 1), a_summary("b", 2), a_summary("c", 30), a_summary("d", 40), a_summary("e", 50)]


@pytest.mark.parametrize(
    ("limits", "baselines", "expected"),
    [
        ({"keep_runs": 2}, (), ["e", "d", "c"]),
        ({"keep_runs": 9}, (), []),
        ({"keep_for": 35 * DAY}, (), ["e", "d"]),
        ({"keep_runs": 4, "keep_for": 10 * DAY}, (), ["e", "d", "c"]),
        ({"keep_runs": 1}, ("a", "d"), ["e", "c"]),
        ({}, (), []),
    ],
)
def test_runs_beyond_the_number_or_the_age_are_old_and_baselines_never(
    limits: dict[str, Any], baselines: tuple[str, ...], expected: list[str]
) -> None:
    given = {"keep_runs": None, "keep_for": None, **limits}
    found = old_runs(RUNS, now=WHEN, baselines=baselines, **given)
    assert [run.id for run in found] == expected


def test_a_run_that_is_at_work_is_never_old() -> None:
    at_work = replace(RUNS[-1], state=RunState.RUNNING)
    found = old_runs([*RUNS[:-1], at_work], now=WHEN, keep_runs=1, keep_for=None, baselines=())
    assert [run.id for run in found] == ["d", "c", "b"]


COMMAND = ["/opt/my python/bin/python", "-m", "orchestrator.cli", "--store", "sqlite:///100%.db", "$HOME"]


def test_the_unit_says_every_word_as_it_is() -> None:
    unit = systemd_unit(COMMAND, "/srv/50% lab")
    assert 'ExecStart="/opt/my python/bin/python" -m orchestrator.cli --store sqlite:///100%%.db $$HOME\n' in unit
    assert "WorkingDirectory=/srv/50%% lab\n" in unit
    assert 'ExecStart="a\\"b\\\\c"\n' in systemd_unit(['a"b\\c'], "/")


def test_the_cron_line_is_one_command_of_the_shell() -> None:
    line = cron_line("0 3 * * *", COMMAND, "/srv/my lab")
    assert line.startswith("0 3 * * * cd '/srv/my lab' && ")
    # cron makes a percent sign of an escaped one.
    assert shlex.split(line.replace("\\%", "%"))[8:] == COMMAND


def test_the_cron_job_is_one_that_kubernetes_reads() -> None:
    job = yaml.safe_load(cron_job("night", "0 3 * * *", "Europe/Berlin", ["muster", "run", "night.yaml"]))
    assert (job["apiVersion"], job["kind"], job["metadata"]) == ("batch/v1", "CronJob", {"name": "night"})
    assert (job["spec"]["schedule"], job["spec"]["timeZone"]) == ("0 3 * * *", "Europe/Berlin")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["muster", "run", "night.yaml"]
