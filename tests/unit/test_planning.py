from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.config.schema import Config
from orchestrator.diagnosis import Gap
from orchestrator.errors import MissingFrameworkError, UsageError
from orchestrator.inventory import Inventory, take_inventory
from orchestrator.planning import (
    Plan,
    PlannedCase,
    case_key,
    continued,
    estimate_s,
    make_plan,
    with_cases_of,
    without_put_aside,
)
from orchestrator.results import Pace, Quarantine
from tests.builders import a_case, a_device, a_host_report, a_sampling, a_workload
from workers.protocol import GpuReport, Layout, Pass, Verdict


def _config(**given: object) -> Config:
    defaults: dict[str, object] = {
        "version": 1,
        "name": "test",
        "hosts": [{"name": "a", "devices": ["cpu"]}, {"name": "b", "devices": ["cpu"]}],
        "workloads": [{"model": "alexnet"}],
    }
    return Config.model_validate({**defaults, **given})


def _inventory(config: Config, **given: str) -> Inventory:
    reports = [a_host_report(host.name, framework_reason=given.get(host.name)) for host in config.hosts]
    return take_inventory(config.hosts, reports)


def _plan(config: Config, *only: str) -> Plan:
    return make_plan(config, _inventory(config), only=only)


def _short(plan: Plan) -> list[str]:
    return [f"{item.case.device.host} {item.case.workload.pass_.value}" for item in plan.cases]


def test_interleaved_goes_round_the_devices() -> None:
    assert _short(_plan(_config())) == ["a forward", "b forward", "a forward_backward", "b forward_backward"]


def test_sequential_finishes_a_device_first() -> None:
    plan = _plan(_config(policy={"order": "sequential"}))
    assert _short(plan) == ["a forward", "a forward_backward", "b forward", "b forward_backward"]


def _short_processes(plan: Plan) -> list[str]:
    return [f"{item.case.device.host} {item.case.workload.pass_.value} {item.case.process}" for item in plan.cases]


def test_several_processes_go_round_and_round_with_everything_else_in_between() -> None:
    config = _config(measure={"processes": 2})

    assert _short_processes(_plan(config)) == [
        "a forward 1", "b forward 1", "a forward_backward 1", "b forward_backward 1",
        "a forward 2", "b forward 2", "a forward_backward 2", "b forward_backward 2",
    ]  # fmt: skip


def test_one_device_after_the_other_still_has_other_workloads_between_the_processes_of_one() -> None:
    config = _config(measure={"processes": 2}, policy={"order": "sequential"})

    assert _short_processes(_plan(config)) == [
        "a forward 1", "a forward_backward 1", "a forward 2", "a forward_backward 2",
        "b forward 1", "b forward_backward 1", "b forward 2", "b forward_backward 2",
    ]  # fmt: skip


def test_a_host_may_have_another_number_of_processes() -> None:
    config = _config(
        hosts=[{"name": "a", "devices": "cpu", "measure": {"processes": 3}}, {"name": "b", "devices": "cpu"}],
        workloads=[{"model": "alexnet", "passes": "forward"}],
    )

    assert _short_processes(_plan(config)) == ["a forward 1", "b forward 1", "a forward 2", "a forward 3"]


def test_the_first_process_has_the_key_of_a_case_without_others() -> None:
    alone, several = _plan(_config()), _plan(_config(measure={"processes": 2}))

    assert [item.case for item in several.cases[:4]] == [item.case for item in alone.cases]
    assert len({item.case.key for item in several.cases}) == 8
    assert _short_processes(_plan(_config(measure={"processes": 2}), "process=2", "host=a")) == [
        "a forward 2",
        "a forward_backward 2",
    ]


def test_random_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    workloads = [{"model": "alexnet", "batch_size": list(range(1, 20))}]
    first, again, other = (
        _plan(_config(workloads=workloads, policy={"order": "random", "seed": seed})) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.cases != other.cases
    assert sorted(item.case.key for item in first.cases) == sorted(item.case.key for item in other.cases)


def test_layout_auto_is_settled_by_the_kind_of_device() -> None:
    config = _config(hosts=[{"name": "a", "devices": ["cpu", "gpu:0"]}], workloads=[{"model": "alexnet"}])
    report = a_host_report("a", gpus=(GpuReport(index=0, uuid="GPU-1", name="H100", memory_bytes=None),))
    plan = make_plan(config, take_inventory(config.hosts, [report]))
    assert {(case.device.selector, case.workload.layout) for case in plan.runnable} == {
        ("cpu", Layout.NHWC),
        ("gpu:0", Layout.NCHW),
    }


def test_a_layout_that_is_named_twice_in_other_words_is_one_case() -> None:
    plan = _plan(_config(workloads=[{"model": "alexnet", "layout": ["auto", "NHWC"], "passes": "forward"}]))
    assert _short(plan) == ["a forward", "b forward"]


def test_a_host_can_be_measured_with_other_steps() -> None:
    config = _config(
        hosts=[{"name": "a", "devices": ["cpu"], "measure": {"steps": 5}}, {"name": "b", "devices": ["cpu"]}],
        measure={"warmup": 3, "steps": 50},
    )
    steps = {item.case.device.host: item.case.sampling for item in _plan(config).cases}
    assert (steps["a"].warmup, steps["a"].max_steps) == (3, 5)
    assert (steps["b"].warmup, steps["b"].max_steps) == (3, 50)


def test_a_missing_device_keeps_its_cases_with_the_reason() -> None:
    config = _config(hosts=[{"name": "a", "devices": ["cpu", "gpu:3"]}])
    plan = _plan(config)
    gaps = [item.gap for item in plan.cases if item.case.device.selector == "gpu:3"]
    assert [gap.verdict for gap in gaps if gap] == [Verdict.DEVICE_MISSING, Verdict.DEVICE_MISSING]
    assert len(plan.runnable) == 2
    assert [device.id for device in plan.devices] == ["a/cpu"]


def test_a_host_without_the_framework_is_unsupported_while_another_runs() -> None:
    config = _config()
    plan = make_plan(config, _inventory(config, a="TensorFlow is not installed: pip install …"))
    assert {item.case.device.host: item.gap and item.gap.verdict for item in plan.cases} == {
        "a": Verdict.UNSUPPORTED,
        "b": None,
    }


def test_a_framework_that_is_nowhere_is_an_error_with_its_remedy() -> None:
    config = _config()
    with pytest.raises(MissingFrameworkError, match=r"tensorflow cannot be used on a, b: not installed: pip install x"):
        make_plan(config, _inventory(config, a="not installed: pip install x", b="not installed: pip install x"))


def test_a_host_that_cannot_be_used_is_not_a_missing_framework() -> None:
    config = _config()
    gap = Gap(verdict=Verdict.UNSUPPORTED, reason="python: 3.10.4, and the head has 3.11.9")
    reports = [a_host_report("a"), a_host_report("b", framework_reason="not installed: pip install x")]
    plan = make_plan(config, take_inventory(config.hosts, reports, {"a": gap, "b": gap}))
    assert plan.runnable == ()
    assert {planned.gap for planned in plan.cases} == {gap}


def test_a_framework_is_missing_where_the_hosts_that_could_be_used_lack_it() -> None:
    config = _config()
    gap = Gap(verdict=Verdict.UNSUPPORTED, reason="python: 3.10.4, and the head has 3.11.9")
    reports = [a_host_report("a"), a_host_report("b", framework_reason="not installed: pip install x")]
    with pytest.raises(MissingFrameworkError, match=r"tensorflow cannot be used on b: not installed: pip install x"):
        make_plan(config, take_inventory(config.hosts, reports, {"a": gap}))


def test_a_missing_device_alone_is_not_a_missing_framework() -> None:
    config = _config(hosts=[{"name": "a", "devices": ["gpu:0"]}])
    plan = make_plan(config, _inventory(config))
    assert plan.runnable == ()


@pytest.mark.parametrize(
    ("only", "left"),
    [
        (["host=a"], ["a forward", "a forward_backward"]),
        (["pass=forward"], ["a forward", "b forward"]),
        (["host=a", "pass=forward"], ["a forward"]),
        (["host=a", "host=b", "pass=forward"], ["a forward", "b forward"]),
        (["kind=cpu", "device=cpu", "model=alexnet", "batch_size=128", "pass=forward", "host=b"], ["b forward"]),
        (["precision=float32", "layout=NHWC", "compiler=none", "framework=tensorflow", "fetch=device", "host=a"],
         ["a forward", "a forward_backward"]),
    ],
)  # fmt: skip
def test_only_keeps_the_cases_that_fit_every_field(only: list[str], left: list[str]) -> None:
    assert _short(_plan(_config(), *only)) == left


def test_only_calls_the_search_for_the_largest_batch_by_its_word() -> None:
    plan = _plan(_config(workloads=[{"model": "alexnet", "batch_size": "max"}]), "batch_size=max", "host=a")
    assert [(item.case.workload.batch_size, item.case.workload.seeks_largest) for item in plan.cases] == [
        (128, True),
        (128, True),
    ]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("modle=alexnet", r"--only modle=alexnet: expected FIELD=VALUE; did you mean 'model'\?"),
        ("model", r"--only model: expected FIELD=VALUE$"),
        ("model=", r"--only model=: expected FIELD=VALUE$"),
        ("xyzzy=1", r"--only xyzzy=1: expected FIELD=VALUE$"),
        ("host=elsewhere", r"no case is left by --only host=elsewhere"),
    ],
)
def test_a_filter_that_is_wrong_or_leaves_nothing_is_told(only: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _plan(_config(), only)


def test_the_key_of_a_case_is_its_content() -> None:
    key = case_key(a_device(), a_workload(), a_sampling())
    assert key == case_key(a_device(), a_workload(), a_sampling())
    others = {
        case_key(a_device(host="other"), a_workload(), a_sampling()),
        case_key(a_device(cores=(0,)), a_workload(), a_sampling()),
        case_key(a_device(selector="gpu:0", uuid="GPU-1"), a_workload(), a_sampling()),
        case_key(a_device(selector="gpu:0", uuid="GPU-2"), a_workload(), a_sampling()),
        case_key(a_device(), a_workload(pass_=Pass.FORWARD_BACKWARD), a_sampling()),
        case_key(a_device(), a_workload(), a_sampling(warmup=0)),
    }
    assert len(others | {key}) == 7


def test_what_a_device_is_called_does_not_change_the_key() -> None:
    assert case_key(a_device(name="A", memory="1 GB"), a_workload(), a_sampling()) == case_key(
        a_device(name="B", memory="2 GB"), a_workload(), a_sampling()
    )


def test_the_key_is_the_same_in_two_interpreters_with_different_hash_seeds() -> None:
    program = (
        "from tests.builders import *; from orchestrator.planning import case_key;"
        "import json; print(json.dumps(case_key(a_device(), a_workload(), a_sampling())))"
    )
    keys = {
        json.loads(
            subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONHASHSEED": seed},
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for seed in ("1", "2")
    }
    assert keys == {case_key(a_device(), a_workload(), a_sampling())}


def test_the_key_of_a_known_case_does_not_change_between_versions() -> None:
    # Written down once: a change of the key would separate every stored result from its rerun.
    assert case_key(a_device(), a_workload(), a_sampling()) == KNOWN_KEY


def test_looking_for_the_largest_batch_is_another_case_than_the_batch_that_it_begins_with() -> None:
    assert case_key(a_device(), a_workload(seeks_largest=True), a_sampling()) != KNOWN_KEY


def test_an_estimate_counts_start_warm_up_and_steps() -> None:
    pace = Pace(startup_s=5.0, step_ms=100.0)
    assert estimate_s(a_sampling(warmup=10, min_steps=100, max_steps=100), pace) == pytest.approx(5 + 1 + 10)


def test_an_estimate_knows_the_cap_on_time() -> None:
    pace = Pace(startup_s=5.0, step_ms=1000.0)
    sampling = a_sampling(warmup=0, min_steps=2, max_steps=100, relative_ci=0.01, max_time_s=10.0)
    assert estimate_s(sampling, pace) == pytest.approx(5 + 10 + 1)


def test_a_plan_sums_what_is_known_host_by_host() -> None:
    config = _config(measure={"warmup": 0, "steps": 10})
    inventory = _inventory(config)
    known = {
        ("a/cpu", a_workload(pass_=Pass.FORWARD)): Pace(startup_s=1.0, step_ms=100.0),
        ("a/cpu", a_workload(pass_=Pass.FORWARD_BACKWARD)): Pace(startup_s=1.0, step_ms=300.0),
        ("b/cpu", a_workload(pass_=Pass.FORWARD)): Pace(startup_s=1.0, step_ms=200.0),
    }
    plan = make_plan(config, inventory, paces=known)
    assert plan.known_s == pytest.approx((1 + 1) + (1 + 3))
    assert plan.unknown == 1


def test_a_plan_of_nothing_known_has_no_estimate() -> None:
    plan = _plan(_config())
    assert (plan.known_s, plan.unknown) == (0.0, 4)


def test_a_part_of_a_plan_keeps_its_order() -> None:
    plan = _plan(_config())
    cases = [plan.cases[place].case for place in (3, 0)]
    assert _short(with_cases_of(plan, cases)) == ["a forward", "b forward_backward"]


def _without(*hosts: str) -> Plan:
    """The plan while these hosts do not answer."""
    config = _config()
    reports = [a_host_report(host.name) for host in config.hosts if host.name not in hosts]
    return make_plan(config, take_inventory(config.hosts, reports))


def test_a_case_is_found_again_though_more_is_known_of_its_device_now() -> None:
    before, now = _without("b"), _plan(_config())
    failed = [planned.case for planned in before.cases if planned.gap is not None]
    assert failed[0].key not in {planned.case.key for planned in now.cases}
    assert _short(with_cases_of(now, failed)) == ["b forward", "b forward_backward"]


# --- a run that is gone on with --------------------------------------------------------------------------------


def test_what_is_left_of_a_run_is_planned_in_its_order() -> None:
    plan = _plan(_config())
    left = [plan.cases[place].case for place in (2, 1)]
    assert continued(plan, left) == Plan(cases=(plan.cases[2], plan.cases[1]))


def test_what_is_left_on_a_host_that_is_away_now_has_its_gap_and_stays_the_case_that_it_was() -> None:
    left = [planned.case for planned in _plan(_config()).cases]
    plan = continued(_without("b"), left)
    assert [planned.case for planned in plan.cases] == left
    gaps = [planned.gap and planned.gap.verdict for planned in plan.cases]
    assert gaps == [None, Verdict.HOST_DOWN, None, Verdict.HOST_DOWN]


def test_what_is_left_on_a_device_that_is_another_one_by_now_is_not_run_there() -> None:
    config = _config()
    reports = [a_host_report("a", cores=(0, 1, 2, 3)), a_host_report("b")]
    now = make_plan(config, take_inventory(config.hosts, reports))
    plan = continued(now, [planned.case for planned in _plan(config).cases])
    reasons = [planned.gap and planned.gap.reason for planned in plan.cases]
    assert reasons == ["it is another device by now than when the run began", None] * 2


def test_what_is_left_and_not_asked_for_any_more_is_told() -> None:
    gone = a_case(a_device("c"))
    (planned,) = continued(_plan(_config()), [gone]).cases
    assert planned == PlannedCase(
        case=gone, gap=Gap(verdict=Verdict.DEVICE_MISSING, reason="the run's config names it no more")
    )


# --- what is put aside -----------------------------------------------------------------------------------------

NIGHT = datetime.datetime(2026, 11, 23, 3, 0, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize("target", ["b", "b/cpu"])
def test_what_is_put_aside_has_a_gap_that_says_until_when_and_how_to_let_it_in(target: str) -> None:
    quarantine = Quarantine(
        target=target, since=NIGHT, until=NIGHT, failures=3, reason="ended by SIGSEGV", run_id="7f3a9c"
    )
    plan = without_put_aside(_plan(_config()), [quarantine])
    assert [planned.gap is None for planned in plan.cases] == [True, False, True, False]
    assert plan.cases[1].gap == Gap(
        verdict=Verdict.NOT_RUN,
        reason="put aside until 2026-11-23 03:00 UTC, for 3 cases in a row failed there in run 7f3a9c, the last: "
        f"ended by SIGSEGV; `muster quarantine release {target}` lets it in again",
    )


def test_a_gap_that_is_there_already_stays() -> None:
    quarantine = Quarantine(target="b", since=NIGHT, until=NIGHT, failures=3, reason="x", run_id="7f3a9c")
    plan = without_put_aside(_without("b"), [quarantine])
    assert [planned.gap and planned.gap.verdict for planned in plan.cases][1] is Verdict.HOST_DOWN


KNOWN_KEY = "1db3d36f31647b344466fa1c975f4f42056e317aa82fff45d0e215a9ada9253c"
