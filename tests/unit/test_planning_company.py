"""What is measured alone and then together: which cases a plan has, in which order, and where it has none."""

from __future__ import annotations

import pytest

from orchestrator.config.schema import Config
from orchestrator.inventory import take_inventory
from orchestrator.planning import Plan, continued, make_plan, with_cases_of
from tests.builders import a_gpu, a_host_report
from workers.protocol import Company, GpuReport, Verdict


def a_config(**given: object) -> Config:
    defaults: dict[str, object] = {
        "version": 1,
        "name": "test",
        "hosts": [{"name": "a", "devices": ["gpu:0", "gpu:1"]}, {"name": "b", "devices": ["cpu"]}],
        "workloads": [{"model": "alexnet", "batch_size": [1, 2], "passes": "forward"}],
        "policy": {"host_concurrency": "both"},
    }
    return Config.model_validate({**defaults, **given})


def gpus(count: int = 2) -> tuple[GpuReport, ...]:
    return tuple(a_gpu(index) for index in range(count))


def a_plan(config: Config, *only: str, found: tuple[GpuReport, ...] = gpus()) -> Plan:
    reports = [
        a_host_report(host.name, gpus=found if host.name == "a" else (), cores=(0, 1, 2)) for host in config.hosts
    ]
    return make_plan(config, take_inventory(config.hosts, reports), only=only)


def short(plan: Plan) -> list[str]:
    return [
        " ".join(
            (
                item.case.device.id,
                str(item.case.workload.batch_size),
                str(item.case.process),
                "-" if item.case.company is None else item.case.company.value,
            )
        )
        for item in plan.cases
    ]


def gaps(plan: Plan) -> list[tuple[str, str, str]]:
    return [(item.case.device.selector, item.gap.verdict.value, item.gap.reason) for item in plan.cases if item.gap]


def test_each_workload_is_measured_alone_on_all_devices_and_then_together() -> None:
    assert short(a_plan(a_config())) == [
        "a/gpu:0 1 1 alone", "a/gpu:1 1 1 alone", "b/cpu 1 1 -", "a/gpu:0 1 1 together", "a/gpu:1 1 1 together",
        "a/gpu:0 2 1 alone", "a/gpu:1 2 1 alone", "b/cpu 2 1 -", "a/gpu:0 2 1 together", "a/gpu:1 2 1 together",
    ]  # fmt: skip


def test_in_sequence_each_device_is_finished_first_and_what_is_together_comes_at_the_hosts_end() -> None:
    plan = a_plan(a_config(policy={"host_concurrency": "both", "order": "sequential"}, measure={"processes": 2}))
    assert short(plan)[:8] == [f"a/gpu:{n} {b} {p} alone" for n in (0, 1) for p in (1, 2) for b in (1, 2)]
    assert short(plan)[8:16] == [f"a/gpu:{n} {b} {p} together" for p in (1, 2) for b in (1, 2) for n in (0, 1)]
    assert short(plan)[16:] == [f"b/cpu {b} {p} -" for p in (1, 2) for b in (1, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_at_random_those_that_are_together_stay_so(seed: int) -> None:
    given = {
        "workloads": [{"model": "alexnet", "batch_size": list(range(1, 9))}],
        "hosts": [{"name": "a", "devices": ["cpu", "gpu:0"]}],
    }
    found = short(a_plan(a_config(policy={"host_concurrency": "both", "order": "random", "seed": seed}, **given)))
    places = [place for place, line in enumerate(found) if line.endswith("together")]
    assert len(places) == 32
    assert places[1::2] == [place + 1 for place in places[::2]]
    assert found != short(a_plan(a_config(**given)))
    assert sorted(found) == sorted(short(a_plan(a_config(**given))))


def test_a_host_of_one_device_and_other_policies_have_no_company() -> None:
    plain = a_config(policy={})
    assert {item.case.company for item in a_plan(plain).cases} == {None}
    assert {item.case.company for item in a_plan(a_config(), "host=b").cases} == {None}


def test_alone_and_together_are_cases_of_their_own_and_a_plan_without_has_its_keys_as_ever() -> None:
    both, plain = a_plan(a_config()), a_plan(a_config(policy={}))
    assert len({item.case.key for item in both.cases}) == len(both.cases) == 10
    assert {item.case.key for item in plain.cases} & {item.case.key for item in both.cases} == {
        item.case.key for item in plain.cases if item.case.device.host == "b"
    }


def test_one_that_is_left_without_others_has_a_gap_that_says_so() -> None:
    lonely = "no other device of a is there to be measured together with"
    assert gaps(a_plan(a_config(), "batch_size=1", "device=gpu:1")) == [("gpu:1", "device_missing", lonely)]
    assert ("gpu:0", "device_missing", lonely) in gaps(a_plan(a_config(), found=gpus(1)))
    assert gaps(a_plan(a_config(), "company=alone")) == []


def test_devices_that_share_cores_are_not_together_and_the_others_are() -> None:
    config = a_config(
        hosts=[{"name": "a", "devices": ["cpu:0-1", "cpu:1-2", "gpu:0"]}], workloads=[{"model": "alexnet"}]
    )
    shared = "it shares cores with cpu:0-1, and only one of them can be at work at a time"
    assert gaps(a_plan(config)) == [("cpu:1-2", "unsupported", shared)] * 2


def test_the_largest_batch_is_looked_for_alone() -> None:
    found = a_plan(
        a_config(workloads=[{"model": "alexnet", "passes": "forward", "batch_size": "max"}]), "batch_size=max"
    )
    assert [
        (item.case.company, item.gap and item.gap.verdict) for item in found.cases if item.case.device.host == "a"
    ] == [
        (Company.ALONE, None),
        (Company.ALONE, None),
        (Company.TOGETHER, Verdict.UNSUPPORTED),
        (Company.TOGETHER, Verdict.UNSUPPORTED),
    ]


def test_two_layouts_that_are_one_on_a_cpu_make_one_company() -> None:
    config = a_config(
        hosts=[{"name": "a", "devices": ["cpu", "gpu:0"]}],
        workloads=[{"model": "alexnet", "passes": "forward", "layout": ["auto", "NHWC"]}],
    )
    assert gaps(a_plan(config)) == [
        ("gpu:0", "unsupported", "it is measured together with others in layout NCHW already")
    ]


def test_whoever_wants_one_of_those_that_are_together_again_gets_all_of_them() -> None:
    plan = a_plan(a_config())
    one = next(item.case for item in plan.cases if item.case.company is Company.TOGETHER)
    assert short(with_cases_of(plan, [one])) == ["a/gpu:0 1 1 together", "a/gpu:1 1 1 together"]
    alone = plan.cases[0].case
    assert short(with_cases_of(plan, [alone])) == ["a/gpu:0 1 1 alone"]
    assert short(continued(plan, [one, alone])) == ["a/gpu:0 1 1 together", "a/gpu:0 1 1 alone"]
