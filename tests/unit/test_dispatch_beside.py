from __future__ import annotations

import pytest

from orchestrator.dispatch.messages import (
    StartCase,
)
from orchestrator.dispatch.policies import HostLoad, may_start, must_be_alone, turn
from orchestrator.dispatch.settings import HostConcurrency
from tests.unit.bench import (
    EXCLUSIVE,
    TOGETHER,
    Bench,
    case_on,
    release,
    verdict,
)
from workers.protocol import Company, DeviceKind, Verdict


def test_gpus_of_a_host_work_side_by_side() -> None:
    first, second = case_on("gpu:0"), case_on("gpu:1")
    bench = Bench(first, second)
    assert bench.ready("gpu:0", "gpu:1") == (StartCase(case=first, attempt=1), StartCase(case=second, attempt=1))


def test_a_cpu_device_waits_until_the_gpus_of_its_host_have_ended() -> None:
    cpu, first, second = case_on("cpu"), case_on("gpu:0", 1), case_on("gpu:0", 2)
    bench = Bench(cpu, first, second)
    assert bench.ready("cpu", "gpu:0") == (StartCase(case=first, attempt=1),)
    assert bench.finished(first) == (verdict(first, Verdict.OK), StartCase(case=second, attempt=1))
    assert bench.finished(second) == (verdict(second, Verdict.OK), release(), StartCase(case=cpu, attempt=1))


def test_a_gpu_begins_beside_other_gpus_and_never_beside_a_cpu_device() -> None:
    busy_cpu = HostLoad(preparing=0, active_cpus=1, active_gpus=0)
    assert not may_start(DeviceKind.GPU, busy_cpu, HostConcurrency.CONCURRENT)
    assert may_start(DeviceKind.GPU, HostLoad(preparing=1, active_cpus=0, active_gpus=3), HostConcurrency.CONCURRENT)


def test_cpu_devices_of_a_host_work_one_after_the_other() -> None:
    first, second = case_on("cpu:0-7"), case_on("cpu:8-15")
    bench = Bench(first, second)
    assert bench.ready("cpu:0-7", "cpu:8-15") == (StartCase(case=first, attempt=1),)
    assert StartCase(case=second, attempt=1) in bench.finished(first)


def test_hosts_do_not_wait_for_each_other() -> None:
    here, there = case_on("cpu"), case_on("cpu", host="attic")
    bench = Bench(here, there)
    assert bench.ready("cpu") == (StartCase(case=here, attempt=1),)
    assert bench.ready("cpu", host="attic") == (StartCase(case=there, attempt=1),)


def test_an_exclusive_host_works_on_one_case_at_a_time_in_the_plans_order() -> None:
    plan = [case_on("gpu:1", 1), case_on("cpu", 1), case_on("gpu:1", 2), case_on("cpu", 2)]
    bench = Bench(*plan, settings=EXCLUSIVE)
    assert bench.ready("cpu") == ()  # not beside an agent that starts
    begun = [command for command in bench.ready("gpu:1") if isinstance(command, StartCase)]
    for case in plan:
        assert begun == [StartCase(case=case, attempt=1)]
        begun = [command for command in bench.finished(case) if isinstance(command, StartCase)]
    assert bench.dispatcher.is_done


@pytest.mark.parametrize("kind", list(DeviceKind))
@pytest.mark.parametrize("load", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_an_exclusive_host_must_be_quiet(kind: DeviceKind, load: tuple[int, int, int]) -> None:
    preparing, cpus, gpus = load
    given = HostLoad(preparing=preparing, active_cpus=cpus, active_gpus=gpus)
    assert not may_start(kind, given, HostConcurrency.EXCLUSIVE)
    assert may_start(kind, HostLoad(preparing=0, active_cpus=0, active_gpus=0), HostConcurrency.EXCLUSIVE)


def test_together_all_devices_of_a_host_work_at_once_in_the_plans_order() -> None:
    first, cpu, other = case_on("gpu:0"), case_on("cpu"), case_on("cpu:0-7")
    bench = Bench(cpu, first, other, settings=TOGETHER)
    assert bench.ready("cpu", "gpu:0", "cpu:0-7") == tuple(StartCase(case=c, attempt=1) for c in (cpu, first, other))


def test_what_must_be_alone_on_its_host_keeps_other_musters_out_as_well() -> None:
    alone = {(kind, concurrency) for kind in DeviceKind for concurrency in HostConcurrency} - {
        (DeviceKind.GPU, HostConcurrency.CONCURRENT),
        (DeviceKind.GPU, HostConcurrency.TOGETHER),
        (DeviceKind.CPU, HostConcurrency.TOGETHER),
    }
    assert {(k, c) for k in DeviceKind for c in HostConcurrency if must_be_alone(k, c)} == alone


@pytest.mark.parametrize("kind", list(DeviceKind))
def test_what_is_measured_in_company_has_others_beside_it(kind: DeviceKind) -> None:
    assert must_be_alone(kind, HostConcurrency.BOTH, Company.ALONE)
    assert not must_be_alone(kind, HostConcurrency.BOTH, Company.TOGETHER)


def test_gpus_go_before_cpus_only_where_devices_work_side_by_side() -> None:
    side_by_side = [
        turn(DeviceKind.CPU, 0, HostConcurrency.CONCURRENT),
        turn(DeviceKind.GPU, 1, HostConcurrency.CONCURRENT),
    ]
    assert side_by_side[1] < side_by_side[0]
    for concurrency in (HostConcurrency.EXCLUSIVE, HostConcurrency.TOGETHER):
        assert turn(DeviceKind.CPU, 0, concurrency) < turn(DeviceKind.GPU, 1, concurrency)
