from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.cluster import simulated as simulated_cluster
from orchestrator.config.schema import HostConfig
from orchestrator.dispatch.messages import (
    CancelCase,
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeviceLost,
    DeviceReady,
    PrepareDevice,
    StartCase,
)
from orchestrator.engine.invented import FIRST_STEP_RATIO, SPEED_RANGE, Timing, speed_of, timing_of
from orchestrator.engine.simulated import Fault, SimulatedEngine
from tests.builders import a_case, a_device, a_sampling, a_workload
from workers import models
from workers.codec import to_json
from workers.protocol import DeviceKind, Pass, Progress, StoppedBy, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.engine.base import Act, Occurrence
    from workers.protocol import Case, HostReport, Result, Sampling

CASE = a_case(a_device("gpu01", "gpu:0"), a_workload(batch_size=64))
FLOP = models.get("alexnet").flop(64, Pass.FORWARD)


def play(engine: SimulatedEngine, *acts: Act, for_s: float = 1e6) -> list[Occurrence]:
    """Everything that happens in so many seconds of virtual time after the acts, begun together."""

    async def scene() -> list[Occurrence]:
        for act in acts:
            await engine.start(act)
        heard: list[Occurrence] = []
        until = engine.now() + for_s
        while news := await engine.occurrences(until):
            heard.extend(news)
        return heard

    return asyncio.run(scene())


def attempt(engine: SimulatedEngine, case: Case = CASE, number: int = 1) -> list[Occurrence]:
    play(engine, PrepareDevice(device=case.device), for_s=10.0)
    return play(engine, StartCase(case=case, attempt=number))


def result_of(heard: Sequence[Occurrence]) -> Result:
    (result,) = (occurrence.result for occurrence in heard if isinstance(occurrence, CaseFinished))
    return result


def kinds(heard: Sequence[Occurrence]) -> list[type[Occurrence]]:
    return [type(occurrence) for occurrence in heard]


# --- invented figures ------------------------------------------------------------------------------------------


def timing(sampling: Sampling, noise: float = 0.01, **given: Any) -> Timing:
    case = a_case(CASE.device, CASE.workload, sampling)
    return timing_of(case, given.pop("attempt", 1), speed=FLOP * 100.0, noise=noise, seed=given.pop("seed", 0))


def test_a_step_takes_its_flop_divided_by_the_speed() -> None:
    found = timing(a_sampling(min_steps=400, max_steps=400))
    assert statistics.fmean(found.samples_ms) == pytest.approx(10.0, rel=0.005)
    assert statistics.stdev(found.samples_ms) == pytest.approx(0.1, rel=0.2)


def test_the_first_step_is_slow() -> None:
    found = timing(a_sampling(warmup=3), noise=0.0)
    assert found.warmup_ms == (10.0 * FIRST_STEP_RATIO, 10.0, 10.0)
    assert timing(a_sampling(warmup=0)).warmup_ms == ()


def test_steps_take_time_however_great_the_noise() -> None:
    assert min(timing(a_sampling(min_steps=200, max_steps=200), noise=50.0).samples_ms) > 0


def test_fixed_steps_are_taken_to_the_last() -> None:
    found = timing(a_sampling(min_steps=7, max_steps=7))
    assert (len(found.samples_ms), found.stopped_by) == (7, StoppedBy.STEPS)


def test_sampling_ends_when_the_mean_is_known_well_enough() -> None:
    found = timing(a_sampling(min_steps=5, max_steps=500, relative_ci=0.01), noise=0.05)
    assert found.stopped_by is StoppedBy.PRECISION
    assert 30 < len(found.samples_ms) < 300  # (1.96 * 0.05 / 0.01)^2 is 96


def test_sampling_takes_the_fewest_steps_asked_for_and_the_most() -> None:
    few = timing(a_sampling(min_steps=20, max_steps=50, relative_ci=0.5))
    assert (len(few.samples_ms), few.stopped_by) == (20, StoppedBy.PRECISION)
    many = timing(a_sampling(min_steps=20, max_steps=50, relative_ci=1e-6))
    assert (len(many.samples_ms), many.stopped_by) == (50, StoppedBy.STEPS)


def test_sampling_ends_when_its_time_is_over() -> None:
    for sampling in (
        a_sampling(min_steps=5, max_steps=500, relative_ci=1e-9, max_time_s=0.105),
        a_sampling(min_steps=1000, max_steps=1000, max_time_s=0.105),
    ):
        found = timing(sampling)
        assert (len(found.samples_ms), found.stopped_by) == (11, StoppedBy.TIME)


def test_a_timing_cut_short_keeps_the_steps_that_were_over() -> None:
    whole = Timing(warmup_ms=(50.0, 10.0), samples_ms=(10.0, 10.0), stopped_by=StoppedBy.STEPS)
    assert (whole.warmup_s, whole.measure_s) == (0.06, 0.02)
    cut = [whole.until(elapsed_s) for elapsed_s in (0.0, 0.055, 0.0601, 0.0701, 9.0)]
    assert [(len(part.warmup_ms), len(part.samples_ms)) for part in cut] == [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]


def test_devices_of_one_name_are_about_as_fast_as_each_other() -> None:
    ids = [(f"h{index}", f"gpu:{index % 4}") for index in range(20)]
    speeds = [speed_of(a_device(host, selector), 0) for host, selector in ids]
    assert len(set(speeds)) == 20
    assert max(speeds) / min(speeds) < 1.1


@pytest.mark.parametrize("kind", list(DeviceKind))
def test_speeds_lie_in_the_range_of_their_kind(kind: DeviceKind) -> None:
    low, high = SPEED_RANGE[kind]
    selector = "cpu" if kind is DeviceKind.CPU else "gpu:0"
    speeds = [speed_of(a_device("h", selector, name=f"make {number}"), 0) for number in range(50)]
    assert low * 0.9 < min(speeds) < max(speeds) < high * 1.1
    assert max(speeds) / min(speeds) > 2


def test_seed_case_and_attempt_decide_the_samples() -> None:
    sampling = a_sampling()
    assert timing(sampling) == timing(sampling)
    assert len({timing(sampling, seed=seed, attempt=number) for seed in (0, 1) for number in (1, 2)}) == 4


def test_figures_are_the_same_in_every_process() -> None:
    script = (
        "from tests.unit.test_simulated import *\n"
        "print(to_json(result_of(attempt(SimulatedEngine(seed=3)))))\n"
        "print(to_json(simulated_cluster.reports([a_host('gpu:all', 'cpu')])[0]))"
    )
    outputs = set()
    for hash_seed in ("1", "2"):
        given = {**os.environ, "PYTHONHASHSEED": hash_seed}
        outputs.add(subprocess.run([sys.executable, "-c", script], env=given, capture_output=True, check=True).stdout)
    here = f"{to_json(result_of(attempt(SimulatedEngine(seed=3))))}\n{to_json(reports_of('gpu:all', 'cpu'))}\n"
    assert outputs == {here.encode()}


# --- the engine ------------------------------------------------------------------------------------------------


def test_time_is_virtual_and_jumps_to_what_happens_next() -> None:
    slow = SimulatedEngine(speeds={CASE.device.id: FLOP / 3600.0})  # an hour a step
    heard = attempt(slow)
    assert kinds(heard) == [CaseStarted, Progress, CaseMeasured, CaseFinished]
    result = result_of(heard)
    assert result.duration_s == pytest.approx(114 * 3600, rel=0.01)
    assert slow.now() == 10.0 + 1e6


def test_a_result_says_that_it_is_simulated_and_of_what() -> None:
    result = result_of(attempt(SimulatedEngine(speeds={CASE.device.id: 1e12}, epoch_s=1_800_000_000.0)))
    facts = {name: fact.value for name, fact in result.environment.facts}
    assert facts == {
        "framework.device": "Example GPU",
        "framework.name": "simulated",
        "simulated": True,
        "simulated.speed_flops": 1e12,
    }
    assert result.peak_flops == pytest.approx(1.6e12)
    assert result.started_at == 1_800_000_010.0
    assert sum(phase.seconds for phase in result.phases) == pytest.approx(result.duration_s, abs=0.1)


def test_what_happens_at_one_instant_is_told_together() -> None:
    devices = [a_device("gpu01", f"gpu:{index}") for index in range(3)]
    engine = SimulatedEngine()

    async def scene() -> Sequence[Occurrence]:
        for device in devices:
            await engine.start(PrepareDevice(device=device))
        return await engine.occurrences(None)

    assert asyncio.run(scene()) == tuple(DeviceReady(at=1.0, device_id=device.id) for device in devices)


def test_waiting_for_nothing_for_ever_is_refused() -> None:
    with pytest.raises(RuntimeError, match="nothing under way"):
        asyncio.run(SimulatedEngine().occurrences(None))


def test_a_crash_comes_on_the_attempts_that_were_named() -> None:
    engine = SimulatedEngine(faults={CASE.device.id: Fault(crash_on_attempts=(1, 3))})
    endings = [result_of(attempt(engine, number=number)) for number in (1, 2, 3)]
    assert [ending.verdict for ending in endings] == [Verdict.CRASHED, Verdict.OK, Verdict.CRASHED]
    crashed = endings[0]
    assert (crashed.ending.signal, crashed.peak_flops, crashed.stopped_by) == ("SIGSEGV", None, None)
    assert 0 < len(crashed.samples_ms) < 100


def test_a_fault_of_one_case_leaves_the_others_alone() -> None:
    other = a_case(CASE.device, a_workload(batch_size=32))
    engine = SimulatedEngine(faults={CASE.key: Fault(crash_on_attempts=(1,))})
    assert result_of(attempt(engine)).verdict is Verdict.CRASHED
    assert result_of(attempt(engine, other)).verdict is Verdict.OK


@pytest.mark.parametrize(("limit", "verdict"), [(63, Verdict.OOM), (64, Verdict.OK)])
def test_a_batch_above_the_limit_does_not_fit(limit: int, verdict: Verdict) -> None:
    heard = attempt(SimulatedEngine(faults={CASE.device.id: Fault(oom_above_batch_size=limit)}))
    assert result_of(heard).verdict is verdict
    assert (CaseStarted in kinds(heard)) is (verdict is Verdict.OK)


@pytest.mark.parametrize(
    ("limit", "found"), [(None, 16 * 2**30 // (32 * 2**20)), (100, 100), (1, 1)], ids=["memory", "fault", "one image"]
)
def test_the_largest_batch_that_fits_is_measured(limit: int | None, found: int) -> None:
    case = a_case(CASE.device, a_workload(batch_size=64, seeks_largest=True))
    engine = SimulatedEngine(
        faults={CASE.device.id: Fault(oom_above_batch_size=limit)}, speeds={CASE.device.id: 1e12}, noise=0.0
    )
    result = result_of(attempt(engine, case))
    assert (result.verdict, result.batch_size) == (Verdict.OK, found)
    step_ms = models.get("alexnet").flop(found, Pass.FORWARD) / 1e12 * 1e3
    assert result.samples_ms == pytest.approx([step_ms] * len(result.samples_ms))


def test_where_nothing_fits_there_is_no_largest_batch() -> None:
    case = a_case(CASE.device, a_workload(batch_size=64, seeks_largest=True))
    result = result_of(attempt(SimulatedEngine(faults={CASE.device.id: Fault(oom_above_batch_size=0)}), case))
    assert (result.verdict, result.batch_size) == (Verdict.OOM, None)


def test_a_hanging_child_is_silent_until_it_is_cancelled() -> None:
    engine = SimulatedEngine(faults={CASE.key: Fault(hangs=True)})
    assert kinds(attempt(engine)) == [CaseStarted]
    cancel = CancelCase(case_key=CASE.key, attempt=1, verdict=Verdict.TIMEOUT, reason="too long")
    heard = play(engine, cancel)
    result = result_of(heard)
    assert (result.verdict, result.reason, result.samples_ms) == (Verdict.TIMEOUT, "too long", ())


def test_a_cancel_that_is_ignored_changes_nothing() -> None:
    engine = SimulatedEngine(faults={CASE.key: Fault(hangs=True, ignores_cancel=True)})
    attempt(engine)
    cancel = CancelCase(case_key=CASE.key, attempt=1, verdict=Verdict.TIMEOUT, reason="too long")
    assert play(engine, cancel) == []


def test_a_cancelled_case_keeps_the_samples_so_far() -> None:
    engine = SimulatedEngine(speeds={CASE.device.id: float(FLOP)}, noise=0.0)  # a second a step; the first takes five
    play(engine, PrepareDevice(device=CASE.device), for_s=2.0)
    play(engine, StartCase(case=CASE, attempt=1), for_s=4.0 + 14.0 + 3.5)
    cancel = CancelCase(case_key=CASE.key, attempt=1, verdict=Verdict.CANCELLED, reason="Ctrl-C")
    result = result_of(play(engine, cancel))
    assert (len(result.warmup_ms), len(result.samples_ms)) == (10, 3)
    assert result.peak_reason


def test_a_measured_case_cannot_be_cancelled() -> None:
    engine = SimulatedEngine()
    play(engine, PrepareDevice(device=CASE.device), for_s=2.0)

    async def scene() -> Sequence[Occurrence]:
        await engine.start(StartCase(case=CASE, attempt=1))
        while not any(isinstance(occurrence, CaseMeasured) for occurrence in await engine.occurrences(None)):
            pass
        await engine.start(CancelCase(case_key=CASE.key, attempt=1, verdict=Verdict.CANCELLED, reason="Ctrl-C"))
        return await engine.occurrences(None)

    assert result_of(asyncio.run(scene())).verdict is Verdict.OK


def test_a_slow_start_is_slow() -> None:
    usual, slow = (
        attempt(SimulatedEngine(faults={CASE.key: Fault(start_delay_s=delay_s)}))[0] for delay_s in (0.0, 60.0)
    )
    assert isinstance(usual, CaseStarted)
    assert isinstance(slow, CaseStarted)
    assert slow.at == usual.at + 60.0


def test_a_device_that_another_muster_has_is_waited_for() -> None:
    usual = attempt(SimulatedEngine())
    waited = attempt(SimulatedEngine(faults={CASE.device.id: Fault(held_for_s=90.0)}))
    assert kinds(waited) == [CaseWaiting, CaseGranted, *kinds(usual)]
    waiting, granted, started = waited[:3]
    assert isinstance(waiting, CaseWaiting)
    assert isinstance(granted, CaseGranted)
    assert isinstance(started, CaseStarted)
    assert isinstance(usual[0], CaseStarted)
    assert waiting.reason == "simulated: the device is held by somebody else"
    assert granted.at == waiting.at + 90.0
    assert started.at == usual[0].at + 90.0
    assert result_of(waited).duration_s == pytest.approx(result_of(usual).duration_s + 90.0)


def test_a_device_that_another_muster_keeps_is_busy() -> None:
    heard = attempt(SimulatedEngine(faults={CASE.key: Fault(held_for_s=90.1)}, lease_timeout_s=90.0))
    assert kinds(heard) == [CaseWaiting, CaseFinished]
    result = result_of(heard)
    assert (result.verdict, result.samples_ms, result.duration_s) == (Verdict.BUSY, (), 90.0)
    assert result.reason == "simulated: the device is held by somebody else, and was not free within 90 s"


def test_a_wait_for_a_device_can_be_cancelled() -> None:
    engine = SimulatedEngine(faults={CASE.key: Fault(held_for_s=90.0)})
    play(engine, PrepareDevice(device=CASE.device), for_s=10.0)
    assert kinds(play(engine, StartCase(case=CASE, attempt=1), for_s=10.0)) == [CaseWaiting]
    heard = play(engine, CancelCase(case_key=CASE.key, attempt=1, verdict=Verdict.CANCELLED, reason="enough"))
    assert kinds(heard) == [CaseFinished]
    assert result_of(heard).verdict is Verdict.CANCELLED


def test_a_device_may_never_be_ready() -> None:
    engine = SimulatedEngine(faults={CASE.device.id: Fault(never_prepares=True)})
    assert play(engine, PrepareDevice(device=CASE.device)) == []


def test_a_lost_device_takes_its_case_with_it_and_hears_no_more() -> None:
    engine = SimulatedEngine(faults={CASE.device.id: Fault(lost_after_s=5.5)})
    play(engine, PrepareDevice(device=CASE.device), for_s=1.0)
    heard = play(engine, StartCase(case=CASE, attempt=1))
    assert kinds(heard) == [CaseStarted, DeviceLost]
    assert heard[1] == DeviceLost(at=5.5, device_id=CASE.device.id, reason="simulated: lost after 5.5 s")
    assert play(engine, StartCase(case=CASE, attempt=2)) == []


# --- the lab ---------------------------------------------------------------------------------------------------


def a_host(*devices: str, name: str = "gpu01") -> HostConfig:
    return HostConfig.model_validate({"name": name, "devices": list(devices)})


def reports_of(*devices: str, name: str = "gpu01") -> HostReport:
    (report,) = simulated_cluster.reports([a_host(*devices, name=name)])
    return report


@pytest.mark.parametrize(
    ("devices", "numbers"),
    [
        (("cpu",), []),
        (("gpu:any",), []),
        (("gpu:all",), [0, 1, 2, 3]),
        (("gpu:0-2",), [0, 1, 2]),
        (("gpu:5", "gpu:1"), [1, 5]),
        (("gpu:all", "gpu:5"), [0, 1, 2, 3, 5]),
        (("gpu:GPU-1a2b",), [0]),
        (("gpu:2", "gpu:GPU-1a2b"), [2, 3]),
    ],
)
def test_a_host_has_the_gpus_that_it_declares(devices: tuple[str, ...], numbers: list[int]) -> None:
    gpus = reports_of(*devices).gpus
    assert [gpu.index for gpu in gpus] == numbers
    assert len({gpu.uuid for gpu in gpus}) == len(gpus)
    assert all(gpu.name.startswith("Simulated GPU ") for gpu in gpus)


def test_a_gpu_that_is_declared_by_its_uuid_has_it() -> None:
    (gpu,) = reports_of("gpu:GPU-1A2b").gpus
    assert gpu.uuid.startswith("GPU-1A2b")
    assert len(gpu.uuid) == 40


@pytest.mark.parametrize(
    ("device", "cores", "nodes"),
    [("cpu", 16, 1), ("cpu:0-7", 16, 1), ("cpu:40", 41, 1), ("cpu:numa0", 16, 2), ("cpu:numa3", 16, 4)],
)
def test_a_host_has_the_cpus_that_it_declares(device: str, cores: int, nodes: int) -> None:
    cpu = reports_of(device).cpu
    assert cpu.cores == tuple(range(cores))
    assert [node for node, _ in cpu.numa] == list(range(nodes))
    assert [core for _, share in cpu.numa for core in share] == list(range(cores))
    assert cpu.model.startswith("Simulated CPU ")


def test_hosts_are_reported_in_order_and_differ() -> None:
    hosts = [a_host("gpu:all", name=f"gpu{number:02}") for number in range(12)]
    found = simulated_cluster.reports(hosts, ["tensorflow", "another"])
    assert [report.host for report in found] == [host.name for host in hosts]
    assert len({report.gpus[0].name for report in found}) > 1
    assert [framework.name for framework in found[0].frameworks] == ["tensorflow", "another"]
    assert all(report.environment.get("simulated").value is True for report in found)


def test_reports_go_through_json() -> None:
    assert json.loads(to_json(reports_of("gpu:all", "cpu:numa1")))["gpus"][3]["index"] == 3
