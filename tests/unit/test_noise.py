from __future__ import annotations

import datetime
import math
from dataclasses import replace

import pytest

from orchestrator.analysis.noise import (
    LEAST_FLOOR,
    UNKNOWN_FLOOR,
    floor_for,
    floor_share,
    noise_floor,
    pooled_between_sd,
    unknown_floor,
)
from orchestrator.analysis.pooling import pooled
from orchestrator.report.noise import noise_table
from orchestrator.results import CaseResult, NoiseFloor
from tests.builders import a_case, a_device, a_workload
from tests.goldens import assert_golden
from tests.runs import WHEN, a_case_result, a_case_without_attempt
from workers.protocol import Company, Verdict

GPU = a_device("b", "gpu:3")


def processes(*series: tuple[float, ...]) -> list[CaseResult]:
    return [
        a_case_result(replace(a_case(GPU), key=f"p{number}", process=number), samples_ms=samples)
        for number, samples in enumerate(series, start=1)
    ]


def a_floor(**given: object) -> NoiseFloor:
    defaults: dict[str, object] = {
        "device_id": GPU.id,
        "device_uuid": GPU.uuid,
        "workload": a_workload(),
        "measured_at": WHEN,
        "run_id": "7f3a9c",
        "processes": 5,
        "between_sd": 0.01,
        "within_sd": 0.004,
    }
    return NoiseFloor(**{**defaults, **given})  # type: ignore[arg-type]


# --- pooling -----------------------------------------------------------------------------------------------------


def test_processes_of_a_case_are_one_in_their_order() -> None:
    first, second = processes((10.0, 11.0, 12.0), (20.0, 21.0, 22.0))
    (pool,) = pooled([second, first])
    assert pool.cases == (first, second)
    assert pool.samples_ms == (10.0, 11.0, 12.0, 20.0, 21.0, 22.0)
    assert pool.processes_ms == ((10.0, 11.0, 12.0), (20.0, 21.0, 22.0))
    assert (pool.device, pool.workload, pool.company) == (GPU, a_workload(), None)
    assert pool.environment == first.attempts[0].result.environment


def test_what_differs_in_more_than_its_process_stands_apart() -> None:
    case = a_case(GPU)
    others = [
        replace(case, key="w", workload=a_workload(batch_size=64)),
        replace(case, key="d", device=a_device("a", "gpu:3")),
        replace(case, key="u", device=replace(GPU, uuid="GPU-other")),
        replace(case, key="c", company=Company.ALONE),
        replace(case, key="m", method_version=99),
        replace(case, key="again"),
    ]
    assert len(pooled(map(a_case_result, [case, *others]))) == 7


def test_the_gravest_verdict_of_those_with_a_figure_is_the_pools() -> None:
    fine, noisy, contended = (
        replace(one, verdict=verdict)
        for one, verdict in zip(
            processes((1.0,), (2.0,), (3.0,)), (Verdict.OK, Verdict.NOISY, Verdict.CONTENDED), strict=True
        )
    )
    (lost,) = [replace(one, verdict=Verdict.CRASHED) for one in processes((4.0,), (4.0,))[1:]]
    assert pooled([fine, noisy])[0].verdict is Verdict.NOISY
    assert pooled([contended, replace(noisy, case=replace(noisy.case, process=9))])[0].verdict is Verdict.CONTENDED
    assert pooled([lost, fine])[0].verdict is Verdict.OK
    assert pooled([lost])[0].verdict is Verdict.CRASHED
    assert pooled([lost])[0].measured == ()
    assert pooled([lost])[0].environment is None
    assert pooled([a_case_without_attempt(a_case(), None)])[0].verdict is None


# --- floors ------------------------------------------------------------------------------------------------------


def test_a_floor_tells_between_and_within_apart() -> None:
    (pool,) = pooled(processes((99.0, 100.0, 101.0), (101.0, 102.0, 103.0), (103.0, 104.0, 105.0)))
    floor = noise_floor(pool, run_id="7f3a9c", measured_at=WHEN)
    assert floor is not None
    assert (floor.device_id, floor.device_uuid, floor.workload) == (GPU.id, GPU.uuid, a_workload())
    assert floor.processes == 3
    assert floor.between_sd == pytest.approx(2 / 102)
    assert floor.within_sd == pytest.approx(1.4826 / 102, rel=1e-4)


def test_one_process_has_no_floor() -> None:
    (pool,) = pooled(processes((1.0, 2.0)))
    assert noise_floor(pool, run_id="x", measured_at=WHEN) is None


def test_a_floor_is_students_and_falls_with_more_processes() -> None:
    # t at 99 % for 4 degrees of freedom is 3.747 (NIST/SEMATECH e-Handbook, 1.3.6.7.2).
    assert floor_share(0.01, 5, 1, 1) == pytest.approx(0.03747 * 2**0.5, rel=1e-3)
    assert floor_share(0.01, 5, 4, 4) == pytest.approx(floor_share(0.01, 5, 1, 1) / 2)
    assert floor_share(0.0, 5, 1, 1) == LEAST_FLOOR


@pytest.mark.parametrize(("processes", "before", "after"), [(1, 1, 1), (5, 0, 1), (5, 1, 0)])
def test_a_floor_of_nothing_is_refused(processes: int, before: int, after: int) -> None:
    with pytest.raises(ValueError, match="processes"):
        floor_share(0.01, processes, before, after)


def test_where_nobody_measured_a_default_stands_in() -> None:
    assert unknown_floor(1, 1) == UNKNOWN_FLOOR
    assert unknown_floor(4, 4) == UNKNOWN_FLOOR / 2
    assert unknown_floor(10_000, 10_000) == LEAST_FLOOR


def test_the_newest_floor_of_that_very_device_counts() -> None:
    older = a_floor(between_sd=0.02)
    newer = a_floor(measured_at=WHEN + datetime.timedelta(days=1))
    other_card = a_floor(device_uuid="GPU-other", measured_at=WHEN + datetime.timedelta(days=2))
    assert floor_for([newer, older, other_card], GPU, a_workload()) == newer
    assert floor_for([other_card], GPU, a_workload()) is None
    assert floor_for([newer], GPU, a_workload(batch_size=64)) is None


def test_a_deviation_is_pooled_over_groups_by_their_degrees_of_freedom() -> None:
    steady = [(100.0,), (100.0,), (100.0,)]
    apart = [(98.0,), (102.0,)]
    found = pooled_between_sd([steady, apart, [(5.0,)]])
    assert found is not None
    assert found[0] == pytest.approx(math.sqrt(0.0008 / 3))
    assert found[1] == 4
    assert pooled_between_sd([[(5.0,)], [(6.0,)]]) is None


def test_floors_as_a_table() -> None:
    from orchestrator.report import renderers

    table = noise_table(
        [a_floor(), a_floor(device_id="a/cpu", device_uuid=None, between_sd=0.0, processes=3)],
        title="noise floors, lab, run 7f3a9c",
        simulated=False,
        notes=["c/cpu, alexnet: no floor."],
    )
    assert_golden("report/noise.txt", renderers.load("table")(table, width=120, color=False))
    assert noise_table([], title="", simulated=True).rows == ()
