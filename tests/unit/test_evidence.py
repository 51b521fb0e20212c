"""What the head makes of what was seen beside a figure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.analysis.evidence import judge, judged
from orchestrator.config.quality import QualityConfig
from tests.builders import a_case, a_device, a_result, a_telemetry
from workers.protocol import Company, Result, Verdict
from workers.telemetry.series import DeviceEvent, DoubtKind, EventKind, ForeignProcess, Telemetry

if TYPE_CHECKING:
    from workers.protocol import Case

CPU, GPU = a_case(), a_case(a_device("h", "gpu:0"))
QUALITY = QualityConfig()
UNLIMITED = QualityConfig.model_validate(dict.fromkeys(QualityConfig.model_fields))
NEIGHBOUR = ForeignProcess(pid=4242, user="alice", name="python", cores=0.9)

#: Steps with nothing wrong about them.
STEADY = tuple(100.0 + (i * 7 % 5) for i in range(100))


def found(result: Result, case: Case = CPU) -> tuple[Verdict, list[DoubtKind]]:
    judgement = judge(case, result, QUALITY)
    return judgement.verdict, [doubt.kind for doubt in judgement.doubts]


def with_telemetry(telemetry: Telemetry, verdict: Verdict = Verdict.OK) -> Result:
    return a_result(samples_ms=STEADY, telemetry=telemetry, verdict=verdict)


def test_a_steady_figure_on_a_quiet_machine_is_ok() -> None:
    seen = a_telemetry(cpu__others_percent=[2.0] * 10, cpu__steal_percent=[0.0] * 10, cpu__frequency_mhz=[3000.0] * 10)
    assert found(with_telemetry(seen)) == (Verdict.OK, [])
    assert judged(CPU, with_telemetry(seen), QUALITY) == with_telemetry(seen)


def test_what_is_no_figure_is_not_judged() -> None:
    seen = a_telemetry(cpu__others_percent=[90.0] * 10)
    assert found(with_telemetry(seen, verdict=Verdict.OOM)) == (Verdict.OOM, [])


def test_others_on_the_cores_make_a_figure_contended_and_are_named() -> None:
    seen = replace(a_telemetry(cpu__others_percent=[38.0] * 10), foreign=(NEIGHBOUR,))
    result = judged(CPU, with_telemetry(seen), QUALITY)
    assert result.verdict is Verdict.CONTENDED
    assert result.reason == "others used 38 % of its cores (10 % allowed), most of all python (pid 4242, alice)"
    (doubt,) = result.doubts
    assert doubt.value == pytest.approx(0.38)
    assert doubt.limit == 0.1


def test_a_share_just_over_its_limit_is_told_with_the_digits_that_show_it() -> None:
    seen = a_telemetry(cpu__others_percent=[10.004] * 10)
    assert judged(CPU, with_telemetry(seen), QUALITY).reason == "others used 10.004 % of its cores (10 % allowed)"


def test_only_what_was_read_while_the_steps_ran_counts_each_reading_for_its_time() -> None:
    seen = replace(
        a_telemetry(cpu__others_percent=[90.0, 0.0, 100.0, 90.0], window_s=(0.0, 10.0)),
        at_s=(0.0, 9.0, 10.0, 11.0),
    )
    # 9 s of nothing and 1 s of everything.
    assert judge(CPU, with_telemetry(seen), QUALITY).verdict is Verdict.OK
    assert judge(CPU, with_telemetry(replace(seen, at_s=(0.0, 8.0, 10.0, 11.0))), QUALITY).verdict is Verdict.CONTENDED


@pytest.mark.parametrize(
    "seen",
    [
        a_telemetry(window_s=None, cpu__others_percent=[90.0] * 3),
        a_telemetry(window_s=(1.0, 1.1), cpu__others_percent=[90.0]),
        a_telemetry(window_s=(1.0, 9.0), cpu__others_percent=[None] * 8),
    ],
)
def test_without_readings_over_long_enough_steps_nothing_is_said(seen: Telemetry) -> None:
    assert found(with_telemetry(seen)) == (Verdict.OK, [])


def test_company_that_was_asked_for_is_no_contention() -> None:
    seen = a_telemetry(cpu__others_percent=[50.0] * 10)
    together = replace(CPU, company=Company.TOGETHER)
    assert found(with_telemetry(seen), together) == (Verdict.OK, [])
    assert found(with_telemetry(seen), replace(CPU, company=Company.ALONE))[0] is Verdict.CONTENDED


def test_time_that_the_hypervisor_took_is_contention() -> None:
    seen = a_telemetry(cpu__steal_percent=[6.0] * 10)
    assert judge(CPU, with_telemetry(seen), QUALITY).reason == (
        "the hypervisor gave 6 % of its cores' time to other machines (5 % allowed)"
    )


def test_another_program_on_the_gpu_makes_a_figure_contended() -> None:
    others = (ForeignProcess(pid=7, user="bob", name="train", gpu_memory_bytes=1), ForeignProcess(pid=8))
    seen = replace(a_telemetry(gpu__clock_mhz=[1980.0] * 10), foreign=others)
    assert judge(GPU, with_telemetry(seen), QUALITY).reason == (
        "train (pid 7, bob), a process that cannot be seen (pid 8) were on the GPU as well"
    )
    alone = replace(seen, foreign=others[:1])
    assert judge(GPU, with_telemetry(alone), QUALITY).reason == "train (pid 7, bob) was on the GPU as well"


@pytest.mark.parametrize(("use", "others", "verdict"), [
    (95.0, 60.0, Verdict.CONTENDED), (95.0, 40.0, Verdict.OK), (60.0, 50.0, Verdict.OK), (None, 60.0, Verdict.OK),
])  # fmt: skip
def test_a_gpu_shares_its_host_and_only_a_starved_one_is_contended(
    use: float | None, others: float, verdict: Verdict
) -> None:
    seen = a_telemetry(cpu__use_percent=[use] * 10, cpu__others_percent=[others] * 10)
    assert found(with_telemetry(seen), GPU)[0] is verdict


def test_a_gpu_that_slowed_itself_down_is_throttled_with_its_reasons() -> None:
    seen = replace(
        a_telemetry(gpu__throttle=[0.0, 1.0, 1.0]),
        events=(
            DeviceEvent(at_s=12.0, kind=EventKind.THROTTLE, text="software thermal slowdown began"),
            DeviceEvent(at_s=13.0, kind=EventKind.XID, text="Xid 79"),
            DeviceEvent(at_s=19.0, kind=EventKind.THROTTLE, text="software thermal slowdown ended"),
            DeviceEvent(at_s=21.0, kind=EventKind.THROTTLE, text="power brake began"),
        ),
    )
    judgement = judge(GPU, with_telemetry(seen), QUALITY)
    assert judgement.verdict is Verdict.THROTTLED
    assert judgement.reason == "the GPU slowed itself down: software thermal slowdown"


def test_a_clock_that_falls_while_measuring_is_throttled() -> None:
    seen = a_telemetry(gpu__clock_mhz=[1980.0, 1980.0, 1900.0, 1500.0, 1500.0, 1500.0])
    judgement = judge(GPU, with_telemetry(seen), QUALITY)
    assert judgement.reason == "its clock fell from 1980 to 1500 MHz, by 24.2 % (10 % allowed)"
    capped = a_telemetry(gpu__clock_mhz=[1980.0, 1500.0, 1500.0, 1500.0], gpu__power_capped=[0.0, 1.0, 1.0, 1.0])
    assert found(with_telemetry(capped), GPU) == (Verdict.OK, [])
    few = a_telemetry(gpu__clock_mhz=[1980.0, 1500.0, 1500.0])
    assert found(with_telemetry(few), GPU) == (Verdict.OK, [])
    idle = a_telemetry(gpu__clock_mhz=[0.0] * 5)
    assert found(with_telemetry(idle), GPU) == (Verdict.OK, [])
    cpu = a_telemetry(cpu__frequency_mhz=[3000.0, 3000.0, 2000.0, 2000.0])
    assert found(with_telemetry(cpu)) == (Verdict.THROTTLED, [DoubtKind.THROTTLED])


def test_another_clock_than_in_the_cases_other_processes_is_told() -> None:
    earlier = [with_telemetry(a_telemetry(gpu__clock_mhz=[1980.0] * 3)) for _ in range(2)]
    earlier.append(a_result(samples_ms=STEADY))
    now = with_telemetry(a_telemetry(gpu__clock_mhz=[1800.0] * 3))
    judgement = judge(GPU, now, QUALITY, earlier)
    assert judgement.verdict is Verdict.NOISY
    assert judgement.reason == "its clock was 1800 MHz, and 1980 MHz in the case's other processes (5 % allowed)"
    assert judge(GPU, now, QUALITY, earlier[2:]).verdict is Verdict.OK
    nearly = with_telemetry(a_telemetry(gpu__clock_mhz=[1950.0] * 3))
    assert judge(GPU, nearly, QUALITY, earlier).verdict is Verdict.OK


def test_steps_that_spread_too_far_are_noisy() -> None:
    samples = tuple(100.0 + 40 * (i * 7 % 5 - 2) / 2 for i in range(100))
    judgement = judge(CPU, a_result(samples_ms=samples), QUALITY)
    assert judgement.verdict is Verdict.NOISY
    assert [doubt.kind for doubt in judgement.doubts] == [DoubtKind.NOISY]
    assert found(a_result(samples_ms=samples[:9])) == (Verdict.OK, [])


def test_one_outlier_makes_no_figure_noisy() -> None:
    assert found(a_result(samples_ms=(*STEADY[:99], 5000.0))) == (Verdict.OK, [])


@pytest.mark.parametrize(("slope", "way"), [(0.1, "slower"), (-0.1, "faster")])
def test_steps_that_become_slower_or_faster_all_the_time_are_told(slope: float, way: str) -> None:
    samples = tuple(value + slope * i for i, value in enumerate(STEADY))
    judgement = judge(CPU, a_result(samples_ms=samples), QUALITY)
    assert [doubt.kind for doubt in judgement.doubts] == [DoubtKind.DRIFTING]
    assert f"{way} from first to last" in str(judgement.reason)


def test_first_steps_that_were_still_slower_ask_for_a_longer_warm_up() -> None:
    samples = (*(130.0,) * 10, *STEADY[10:])
    judgement = judge(CPU, a_result(samples_ms=samples), QUALITY)
    assert [doubt.kind for doubt in judgement.doubts] == [DoubtKind.WARMING_UP]
    assert "warm up longer, measure.warmup" in str(judgement.reason)


def test_the_gravest_doubt_is_the_verdict_and_comes_first() -> None:
    samples = (*(130.0,) * 10, *STEADY[10:])
    seen = a_telemetry(cpu__others_percent=[38.0] * 10, cpu__frequency_mhz=[3000.0, 3000.0, 2000.0, 2000.0])
    judgement = judge(CPU, a_result(samples_ms=samples, telemetry=seen), QUALITY)
    assert judgement.verdict is Verdict.CONTENDED
    assert len(judgement.doubts) == 3
    assert str(judgement.reason).startswith("others used 38 %")
    only_slow = a_telemetry(cpu__frequency_mhz=[3000.0, 3000.0, 2000.0, 2000.0])
    assert judge(CPU, a_result(samples_ms=samples, telemetry=only_slow), QUALITY).verdict is Verdict.THROTTLED


def test_without_limits_nothing_is_doubted_but_what_has_none() -> None:
    seen = a_telemetry(
        cpu__others_percent=[99.0] * 10, cpu__steal_percent=[99.0] * 10, cpu__frequency_mhz=[3000.0, 1.0] * 5
    )
    wild = tuple(100.0 + 3 * i * (i % 2) for i in range(100))
    result = a_result(samples_ms=wild, telemetry=seen)
    assert judge(CPU, result, UNLIMITED, [with_telemetry(a_telemetry(cpu__frequency_mhz=[9.0] * 5))]).doubts == ()


def test_no_limit_on_what_the_hypervisor_may_take_lets_it_pass() -> None:
    quality = QUALITY.model_copy(update={"max_steal": None, "max_others": None})
    seen = a_telemetry(cpu__steal_percent=[50.0] * 10, cpu__others_percent=[50.0] * 10)
    assert judge(CPU, with_telemetry(seen), quality).verdict is Verdict.OK
