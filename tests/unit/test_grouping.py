"""Which devices a sum over several holds, and the cases that a plan has of it."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from orchestrator.config.schema import Config
from orchestrator.inventory import take_inventory
from orchestrator.planning import Plan, continued, make_plan, with_cases_of, without_put_aside
from orchestrator.results import Quarantine
from tests.builders import a_gpu, a_host_report
from tests.unit.test_planning_company import gaps


def a_plan(workload: dict[str, Any], *, gpus: int = 2, missing: tuple[str, ...] = (), **given: object) -> Plan:
    config = Config.model_validate(
        {
            "version": 1,
            "name": "test",
            "hosts": [
                {"name": "a", "devices": ["gpu:0", "gpu:1", "cpu:0", "cpu:0-1", "cpu:1"]},
                {"name": "b", "devices": ["gpu:0", "gpu:1"]},
                {"name": "c", "devices": ["cpu"]},
            ],
            "workloads": [{"model": "alexnet", "passes": "forward"}, workload],
            **given,
        }
    )
    reports = [
        a_host_report(host.name, gpus=tuple(map(a_gpu, range(gpus if host.name != "c" else 0))), cores=(0, 1))
        for host in config.hosts
        if host.name not in missing
    ]
    return make_plan(config, take_inventory(config.hosts, reports))


def held(plan: Plan) -> list[tuple[str, ...]]:
    return [
        (item.case.workload.model, *(device.id for device in item.case.devices))
        for item in plan.cases
        if item.case.workload.model.startswith("allreduce/")
    ]


def test_all_of_a_kind_on_each_host_and_on_all_and_none_that_share_cores() -> None:
    assert held(a_plan({"problems": "allreduce/n8"})) == [
        ("allreduce/n8-r2", "a/gpu:0", "a/gpu:1"),
        ("allreduce/n8-r2", "a/cpu:0", "a/cpu:1"),
        ("allreduce/n8-r2", "b/gpu:0", "b/gpu:1"),
        ("allreduce/n8-r4", "a/gpu:0", "a/gpu:1", "b/gpu:0", "b/gpu:1"),
        ("allreduce/n8-r3", "a/cpu:0", "a/cpu:1", "c/cpu"),
    ]


def test_as_many_as_the_name_says_from_each_host_in_turn() -> None:
    assert held(a_plan({"problems": ["allreduce/n8-r2", "allreduce/n8-r3"], "across": "hosts"})) == [
        ("allreduce/n8-r2", "a/gpu:0", "b/gpu:0"),
        ("allreduce/n8-r2", "a/cpu:0", "c/cpu"),
        ("allreduce/n8-r3", "a/gpu:0", "a/gpu:1", "b/gpu:0"),
        ("allreduce/n8-r3", "a/cpu:0", "a/cpu:1", "c/cpu"),
    ]


def test_they_stand_at_the_end_and_hold_the_devices_that_a_plan_has() -> None:
    plan = a_plan({"problems": "allreduce/n8", "across": "host"})
    assert [bool(item.case.peers) for item in plan.cases] == [False] * 8 + [True] * 3
    assert len({item.case.key for item in plan.cases}) == 11
    assert len(plan.devices) == 8


def test_where_there_are_too_few_each_device_says_so() -> None:
    plan = a_plan({"problems": "allreduce/n8-r9"})
    reason = "it takes 9 devices of one kind, and there are fewer"
    assert gaps(plan) == [(item.case.device.selector, "unsupported", reason) for item in plan.cases[8:]]
    assert len(plan.cases) == 16


def test_what_one_of_the_devices_lacks_is_told_of_the_whole() -> None:
    plan = a_plan({"problems": "allreduce/n8", "across": "hosts"}, missing=("c",))
    (gap,) = [item.gap for item in plan.cases if item.case.workload.model == "allreduce/n8-r3"]
    assert gap is not None
    assert gap.verdict.value == "host_down"


@pytest.mark.parametrize("target", ["b", "b/gpu:1"])
def test_a_device_that_is_put_aside_puts_the_whole_aside(target: str) -> None:
    night = datetime.datetime(2026, 5, 1, tzinfo=datetime.timezone.utc)
    aside = Quarantine(target=target, since=night, until=night, failures=3, reason="x", run_id="7f3a9c")
    plan = without_put_aside(a_plan({"problems": "allreduce/n8", "across": "hosts"}), [aside])
    assert [item.gap is not None for item in plan.cases if item.case.peers] == [True, False]


def test_what_is_gone_on_with_holds_the_same_devices() -> None:
    plan = a_plan({"problems": "allreduce/n8"})
    (case,) = [item.case for item in plan.cases if len(item.case.peers) == 3]
    assert [item.case for item in with_cases_of(plan, [case]).cases] == [case]
    assert continued(plan, [case]).runnable == (case,)
    now = a_plan({"problems": "allreduce/n8"}, gpus=1)
    (gone,) = continued(now, [case]).cases
    assert gone.gap is not None
    assert gone.gap.verdict.value == "device_missing"
