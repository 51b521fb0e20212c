from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.analysis.comparison import Change, Comparison, FloorSource, compare
from orchestrator.analysis.explanation import Difference, explain
from orchestrator.report import renderers
from orchestrator.report.comparison import comparison_table, summary
from orchestrator.report.table import RowKind
from tests.builders import a_case, a_device, a_telemetry, a_workload
from tests.goldens import assert_golden
from tests.runs import a_case_result, a_case_without_attempt, an_environment
from tests.unit.test_noise import a_floor
from workers.protocol import Company, Pass, Verdict

if TYPE_CHECKING:
    from orchestrator.results import CaseResult
    from workers.protocol import Device, Environment
    from workers.telemetry.series import Telemetry

A, B = a_device("a", "gpu:0"), a_device("b", "gpu:3")


def figure(
    device: Device = A,
    ms: float = 100.0,
    *,
    process: int = 1,
    pass_: Pass = Pass.FORWARD,
    seed: int = 0,
    environment: Environment | None = None,
    telemetry: Telemetry | None = None,
    verdict: Verdict = Verdict.OK,
) -> CaseResult:
    chance = random.Random(f"{device.id}{seed}{process}{pass_}")
    case = a_case(device, a_workload(pass_=pass_))
    result = a_case_result(
        replace(case, key=f"{case.key}{process}", process=process),
        samples_ms=tuple(chance.gauss(ms, 1.0) for _ in range(100)),
        environment=environment or an_environment(),
        telemetry=telemetry,
    )
    return replace(result, verdict=verdict)


def change(before: list[CaseResult], after: list[CaseResult]) -> Change:
    (found,) = compare(before, after).cases
    return found.change


def test_slower_by_more_than_the_floor_is_slower_and_the_other_way_round_faster() -> None:
    before, after = [figure(ms=100.0)], [figure(ms=110.0, seed=1)]
    (found,) = compare(before, after).cases
    assert found.change is Change.SLOWER
    assert found.ratio == pytest.approx(1.1, abs=0.01)
    assert found.ratio_interval is not None
    assert found.ratio_interval.low < 1.1 < found.ratio_interval.high
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert (found.floor, found.floor_source) == (0.05, FloorSource.ASSUMED)
    assert change(after, before) is Change.FASTER


def test_a_difference_below_the_floor_is_none_however_sure_the_samples_are() -> None:
    assert change([figure(ms=100.0)], [figure(ms=103.0, seed=1)]) is Change.NO_DIFFERENCE


def test_a_floor_that_was_measured_decides() -> None:
    before, after = [figure(ms=100.0)], [figure(ms=103.0, seed=1)]
    floor = a_floor(device_id=A.id, device_uuid=A.uuid, between_sd=0.003)
    (found,) = compare(before, after, floors=[floor]).cases
    assert (found.change, found.floor_source) == (Change.SLOWER, FloorSource.MEASURED)
    wide = replace(floor, between_sd=0.05)
    assert compare(before, after, floors=[wide]).cases[0].change is Change.NO_DIFFERENCE


def test_runs_of_several_processes_show_their_floor_themselves() -> None:
    def run(ms: float, seed: int) -> list[CaseResult]:
        return [figure(ms=ms + 0.2 * process, process=process, seed=seed) for process in range(1, 6)]

    (found,) = compare(run(100.0, 0), run(104.0, 1)).cases
    assert (found.change, found.floor_source) == (Change.SLOWER, FloorSource.RUNS)
    assert found.floor is not None
    assert found.floor < 0.02
    assert compare(run(100.0, 0), run(100.0, 1)).cases[0].change is Change.NO_DIFFERENCE


def test_a_noisier_day_than_the_one_of_the_floor_counts_for_what_it_is_worth() -> None:
    def run(seed: int) -> list[CaseResult]:
        return [figure(ms=100.0 + 4 * (process % 3), process=process, seed=seed) for process in range(1, 7)]

    floor = a_floor(device_id=A.id, device_uuid=A.uuid, between_sd=0.001)
    known = compare([figure()], [figure(seed=1)], floors=[floor]).cases[0].floor
    pooled = compare(run(0), run(1), floors=[floor]).cases[0].floor
    assert known is not None
    assert pooled is not None
    assert pooled > known


def test_the_same_run_is_no_difference() -> None:
    same = [figure(), figure(B), figure(pass_=Pass.FORWARD_BACKWARD)]
    assert {case.change for case in compare(same, same).cases} == {Change.NO_DIFFERENCE}


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ([figure(replace(A, uuid="GPU-new"))],
         "another device is in its place: Example GPU GPU-a-gpu:0 before, Example GPU GPU-new now"),
        ([figure(replace(A, name="Other GPU"))],
         "another device is in its place: Example GPU before, Other GPU now"),
        ([a_case_without_attempt(a_case(A), Verdict.OOM)], "no figure in the second run: oom"),
        ([a_case_without_attempt(a_case(A), None)], "no figure in the second run: it has not ended"),
        ([], "only in the first run"),
    ],
)  # fmt: skip
def test_what_is_not_of_the_same_thing_is_not_comparable_and_says_why(after: list[CaseResult], reason: str) -> None:
    (found,) = compare([figure()], after).cases
    assert (found.change, found.reason, found.ratio) == (Change.NOT_COMPARABLE, reason, None)
    assert not found.is_regression(None)


def test_another_method_of_taking_time_is_not_comparable() -> None:
    before = figure()
    later = replace(before, case=replace(before.case, method_version=before.case.method_version + 1))
    (found,) = compare([before], [later]).cases
    assert found.reason == "time was taken by another method: 1 before, 2 now"


def test_largest_batches_that_differ_are_not_comparable() -> None:
    def searched(size: int) -> CaseResult:
        known = figure()
        attempt = replace(known.attempts[0], result=replace(known.attempts[0].result, batch_size=size))
        return replace(known, attempts=(attempt,))

    (found,) = compare([searched(256)], [searched(512)]).cases
    assert found.reason == "the largest batch was 256 before, 512 now"


def test_what_is_new_is_told_with_its_figure() -> None:
    (found,) = compare([], [figure()]).cases
    assert (found.change, found.reason, found.before_ms) == (Change.NOT_COMPARABLE, "only in the second run", None)
    assert found.after_ms == pytest.approx(100.0, abs=0.5)


def test_company_keeps_cases_apart() -> None:
    known = figure()
    together = replace(known, case=replace(known.case, key="t", company=Company.TOGETHER))
    assert len(compare([known, together], [known, together]).comparable) == 2


def test_a_doubtful_figure_is_compared_and_is_no_regression() -> None:
    comparison = compare([figure()], [figure(ms=120.0, verdict=Verdict.CONTENDED)])
    (found,) = comparison.cases
    assert (found.change, found.reason, found.is_doubtful) == (Change.SLOWER, "now it was contended", True)
    assert comparison.regressions(None) == ()


@pytest.mark.parametrize(("threshold", "count"), [(None, 1), (0.08, 1), (0.2, 0)])
def test_a_threshold_says_from_when_on_slower_is_a_regression(threshold: float | None, count: int) -> None:
    comparison = compare([figure(), figure(B)], [figure(ms=110.0, seed=1), figure(B, seed=1)])
    assert len(comparison.regressions(threshold)) == count


def test_a_devices_cases_are_drawn_together_by_their_geometric_mean() -> None:
    before = [figure(), figure(pass_=Pass.FORWARD_BACKWARD)]
    after = [figure(ms=121.0, seed=1), figure(pass_=Pass.FORWARD_BACKWARD, seed=1)]
    (device,) = compare(before, after).devices
    assert (device.device_id, device.cases) == (A.id, 2)
    assert device.ratio == pytest.approx(1.1, abs=0.005)
    assert device.ratio_interval.low < device.ratio < device.ratio_interval.high


def test_of_very_few_steps_no_difference_can_be_shown_and_it_says_so() -> None:
    def run(*steps_ms: float) -> list[CaseResult]:
        return [a_case_result(a_case(A), samples_ms=steps_ms)]

    (found,) = compare(run(100.0, 101.0, 102.0), run(200.0, 201.0, 202.0)).cases
    assert (found.change, found.is_doubtful) == (Change.NO_DIFFERENCE, False)
    assert found.reason == "too few independent steps to tell: 3 before, 3 now"
    assert compare([figure()], [figure(seed=1)]).cases[0].reason is None


def test_cases_of_a_device_are_drawn_apart() -> None:
    chance = random.Random(0)
    steps_ms = tuple(chance.gauss(100.0, 3.0) for _ in range(200))

    def run(*factors: float) -> list[CaseResult]:
        cases = [a_case(A, a_workload(batch_size=size)) for size in (32, 64)]
        return [
            a_case_result(case, samples_ms=tuple(factor * step for step in steps_ms))
            for case, factor in zip(cases, factors, strict=True)
        ]

    comparison = compare(run(1.0, 1.0), run(1.1, 1.1))
    (device,) = comparison.devices
    for case in comparison.cases:
        # Two that are drawn alike would be as uncertain together as each alone.
        assert case.ratio_interval is not None
        width = case.ratio_interval.high - case.ratio_interval.low
        assert device.ratio_interval.high - device.ratio_interval.low < 0.9 * width


def test_order_of_cases_changes_nothing() -> None:
    before = [figure(), figure(B), figure(pass_=Pass.FORWARD_BACKWARD)]
    after = [figure(ms=110.0, seed=1), figure(B, seed=1), figure(pass_=Pass.FORWARD_BACKWARD, seed=1)]
    assert set(compare(before, after).cases) == set(compare(before[::-1], after[::-1]).cases)


# --- why ---------------------------------------------------------------------------------------------------------

THEN = an_environment(
    gpu__power_limit_w=400.0, gpu__driver="550.54", host__kernel="6.1.0", framework__version="2.20.0", gpu__ecc=True,
    process__strays=None, gpu__memory_bytes=85899345920,
)  # fmt: skip
NOW = an_environment(
    gpu__power_limit_w=300.0, gpu__driver="560.28", host__kernel="6.1.9", framework__version="2.21.0", gpu__ecc=False,
    process__strays="python", gpu__memory_bytes=85899345921,
)  # fmt: skip


def differences(before: list[CaseResult], after: list[CaseResult]) -> tuple[Difference, ...]:
    return explain(compare(before, after), before, after)


def test_what_differs_is_told_most_likely_first() -> None:
    before = [figure(environment=THEN, telemetry=a_telemetry(gpu__clock_mhz=[1410.0] * 5))]
    after = [figure(ms=120.0, seed=1, environment=NOW, telemetry=a_telemetry(gpu__clock_mhz=[1275.0] * 5))]
    assert [str(each) for each in differences(before, after)] == [
        "GPU clock while measuring 1410 MHz -> 1275 MHz",
        "GPU power limit 400 W -> 300 W",
        "NVIDIA driver 550.54 -> 560.28",
        "TensorFlow 2.20.0 -> 2.21.0",
        "GPU ecc on -> off",
        "GPU memory 85899345920 bytes -> 85899345921 bytes",
        "kernel 6.1.0 -> 6.1.9",
    ]


def test_what_differs_only_where_figures_changed_comes_before_what_differs_everywhere() -> None:
    before = [
        figure(environment=an_environment(host__kernel="1", gpu__power_limit_w=400)),
        figure(B, environment=an_environment(host__kernel="1", gpu__power_limit_w=400)),
    ]
    after = [
        figure(ms=120.0, seed=1, environment=an_environment(host__kernel="2", gpu__power_limit_w=300)),
        figure(B, seed=1, environment=an_environment(host__kernel="1", gpu__power_limit_w=300)),
    ]
    first, second = differences(before, after)
    assert (first.name, first.device_ids, first.contrast) == ("host.kernel", (A.id,), 1.0)
    assert (second.name, second.device_ids, second.contrast) == ("gpu.power_limit_w", (A.id, B.id), 0.0)


def test_readings_that_are_nearly_as_they_were_are_not_told() -> None:
    def seen(clock: float, temperature: float, throttle: float) -> Telemetry:
        return a_telemetry(
            gpu__clock_mhz=[clock] * 4, gpu__temperature_c=[temperature] * 4, gpu__throttle=[throttle, 0, 0, 0]
        )

    before, near = [figure(telemetry=seen(1410, 60, 0))], [figure(telemetry=seen(1400, 63, 0))]
    assert differences(before, near) == ()
    far = [figure(telemetry=seen(1410, 70, 1))]
    assert [each.what for each in differences(before, far)] == [
        "share of readings in which the GPU slowed itself down", "GPU temperature while measuring",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("package__numpy", "numpy 1 -> 2"),
        ("env__TF_XLA_FLAGS", "TF_XLA_FLAGS 1 -> 2"),
        ("process__env__OMP_NUM_THREADS", "OMP_NUM_THREADS 1 -> 2"),
        ("library__cudnn", "cudnn 1 -> 2"),
        ("cpu__governor", "CPU governor 1 -> 2"),
        ("muster__commit", "muster's commit 1 -> 2"),
        ("never__heard_of", "never heard of 1 -> 2"),
    ],
)
def test_facts_are_called_what_people_call_them(name: str, words: str) -> None:
    (found,) = differences(
        [figure(environment=an_environment(**{name: "1"}))], [figure(environment=an_environment(**{name: "2"}))]
    )
    assert str(found) == words


def test_what_only_one_run_knew_is_told_as_none() -> None:
    (found,) = differences([figure()], [figure(environment=an_environment(gpu__mig=True))])
    assert str(found) == "GPU mig none -> on"


# --- as people see it --------------------------------------------------------------------------------------------


def a_comparison() -> tuple[Comparison, tuple[Difference, ...]]:
    before = [
        figure(environment=THEN), figure(pass_=Pass.FORWARD_BACKWARD, environment=THEN), figure(B, environment=THEN),
        figure(a_device("c")),
    ]  # fmt: skip
    after = [
        figure(ms=120.0, seed=1, environment=NOW),
        figure(ms=88.0, seed=1, pass_=Pass.FORWARD_BACKWARD, environment=NOW, verdict=Verdict.NOISY),
        figure(B, seed=1, environment=THEN),
        a_case_without_attempt(a_case(a_device("c")), Verdict.CRASHED),
    ]
    comparison = compare(before, after)
    return comparison, explain(comparison, before, after)


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_a_comparison_in_every_form(form: str) -> None:
    table = comparison_table(*a_comparison(), before="baseline night (run 7f3a9c)", after="run 80bb02", threshold=0.03)
    suffix = {"table": "txt"}.get(form, form)
    assert_golden(f"report/comparison.{suffix}", renderers.load(form)(table, width=160, color=False))


def test_only_what_changed() -> None:
    table = comparison_table(*a_comparison(), before="a", after="b", only_changed=True)
    assert [row.cells[10].text for row in table.rows] == ["slower", "faster (doubtful)"]


def test_made_up_figures_are_called_so() -> None:
    table = comparison_table(*a_comparison(), before="a", after="b", simulated=True)
    assert {row.kind for row in table.rows} == {RowKind.SIMULATED}
    assert table.notes[0] == "Simulated: the figures of both runs are invented; nothing was measured."


def test_a_comparison_of_nothing_says_so() -> None:
    empty = compare([], [])
    assert summary(empty, None) == "nothing to compare; no regression"
    assert comparison_table(empty, (), before="a", after="b").rows == ()


def test_slower_without_any_difference_that_is_known_says_so() -> None:
    comparison = compare([figure(), figure(B)], [figure(ms=120.0, seed=1), figure(B, ms=120.0, seed=1)])
    notes = comparison_table(comparison, (), before="a", after="b").notes
    assert notes[-1] == "What is known of the hosts and devices is the same in both runs."
    assert summary(comparison, None) == "2 slower; 2 regressions"


def test_what_differs_on_all_devices_needs_no_names() -> None:
    before = [figure(environment=THEN), figure(B, environment=THEN)]
    after = [figure(ms=120.0, seed=1, environment=NOW), figure(B, ms=120.0, seed=1, environment=NOW)]
    comparison = compare(before, after)
    notes = comparison_table(comparison, explain(comparison, before, after), before="a", after="b").notes
    assert "Differs: GPU power limit 400 W -> 300 W." in notes


def test_very_many_differences_and_devices_do_not_bury_the_table() -> None:
    many = tuple(
        Difference(
            name=f"n{i}", what=f"fact {i}", before="1", now="2", device_ids=tuple(f"h{i}/cpu" for i in range(6)),
            contrast=0.0,
        )
        for i in range(20)
    )  # fmt: skip
    comparison = compare(
        [figure(a_device(f"h{i}")) for i in range(7)], [figure(a_device(f"h{i}"), seed=1) for i in range(7)]
    )
    notes = comparison_table(comparison, many, before="a", after="b").notes
    assert "Differs: fact 0 1 -> 2 on h0/cpu, h1/cpu, h2/cpu, h3/cpu and 2 more." in notes
    assert notes[-1] == "… and 5 more differences: muster env."
