from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from orchestrator.analysis import references
from orchestrator.errors import UsageError
from orchestrator.report.build import build_table
from orchestrator.report.table import RowKind
from orchestrator.results import Attempt, NoiseFloor, RunState
from tests.builders import a_case, a_device, a_result, a_telemetry, a_workload
from tests.runs import a_case_result, a_case_without_attempt, a_lab_run, a_run, an_environment, both_passes
from workers import models
from workers.protocol import NETWORK_PASSES, Compiler, Fetch, Layout, Pass, Precision, Verdict
from workers.telemetry.series import Energy

if TYPE_CHECKING:
    from orchestrator.report.table import Cell, Table
    from orchestrator.results import CaseResult
    from workers.telemetry.series import Telemetry

SEED = references.load(["seed"])


def column(table: Table, key: str) -> list[Cell]:
    place = [column.key for column in table.columns].index(key)
    return [row.cells[place] for row in table.rows]


def texts(table: Table, key: str) -> list[str]:
    return [cell.text for cell in column(table, key)]


def only(table: Table, key: str) -> Cell:
    (cell,) = column(table, key)
    return cell


# --- columns and rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wide", [False, True])
def test_the_seeds_columns_come_first(wide: bool) -> None:
    headings = [column.heading for column in build_table(a_lab_run(), wide=wide).columns]
    assert headings[:6] == [
        "Num", "GPU/CPU", "Memory", "Forward pass (ms)", "Forward-backward pass (ms)", "Details",
    ]  # fmt: skip
    assert len(headings) == len(set(headings))
    assert (len(headings) > 6) == wide


def test_our_rows_stand_above_the_references_and_all_are_counted() -> None:
    table = build_table(a_lab_run(), references=SEED)
    assert [row.kind for row in table.rows] == [RowKind.MEASURED] * 5 + [RowKind.REFERENCE] * 4
    assert [cell.value for cell in column(table, "num")] == list(range(1, 10))


def test_passes_of_a_workload_share_a_row() -> None:
    table = build_table(a_run(*both_passes(a_device(), {}, (10.0, 12.0), (30.0, 32.0))))
    assert (only(table, "forward_ms").value, only(table, "forward_backward_ms").value) == (11.0, 31.0)


def test_rows_of_a_device_stand_together_in_the_plans_order() -> None:
    one, two = a_device("b"), a_device("a")
    cases = [a_case_result(a_case(device, a_workload(batch_size=batch))) for batch in (64, 32) for device in (one, two)]
    details = texts(build_table(a_run(*cases)), "details")
    assert [line[: line.index(" / float32")] for line in details] == [
        f"{host} / TensorFlow / alexnet / batch {batch}" for host in "ba" for batch in (64, 32)
    ]


def test_the_same_pass_twice_gets_a_row_of_its_own() -> None:
    case = a_case()
    cases = [a_case_result(replace(case, key=key), samples_ms=(ms, ms + 2)) for key, ms in (("a", 10.0), ("b", 20.0))]
    assert [cell.value for cell in column(build_table(a_run(*cases)), "forward_ms")] == [11.0, 21.0]


def test_two_devices_of_one_name_are_told_apart() -> None:
    cases = [a_case_result(a_case(a_device("gpu01", f"gpu:{index}"))) for index in (0, 1)]
    first, second = texts(build_table(a_run(*cases)), "details")
    assert first.startswith("gpu01 gpu:0 / ")
    assert second.startswith("gpu01 gpu:1 / ")


def test_a_run_without_cases_has_the_references_alone() -> None:
    assert texts(build_table(a_run(), references=SEED), "device") == [row.device for row in SEED]


# --- figures ---------------------------------------------------------------------------------------------------


def test_a_figure_is_mean_and_sd() -> None:
    cell = only(build_table(a_run(a_case_result(a_case(), samples_ms=(368.2, 378.6)))), "forward_ms")
    assert cell.text == "373.4 +/- 5.2"
    assert cell.value == pytest.approx(373.4)
    assert cell.sd == pytest.approx(5.2)
    assert (cell.verdict, cell.reason) == (Verdict.OK, None)


def test_a_single_sample_has_no_spread() -> None:
    cell = only(build_table(a_run(a_case_result(a_case(), samples_ms=(373.41,)))), "forward_ms")
    assert (cell.text, cell.value, cell.sd) == ("373.4 (one sample)", 373.41, None)


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict.has_figure and verdict != "ok"])
def test_a_doubtful_figure_is_marked_and_says_why(verdict: Verdict) -> None:
    case = a_case_result(a_case(), samples_ms=(368.2, 378.6), verdict=verdict, reason="it was not alone")
    table = build_table(a_run(case))
    assert only(table, "forward_ms").text == f"373.4 +/- 5.2 ({verdict.value})"
    assert only(table, "forward_ms").reason == "it was not alone"
    assert only(table, "details").text.endswith(f" / {verdict.value}: it was not alone")


def test_marks_of_a_figure_stand_together() -> None:
    case = a_case_result(a_case(), samples_ms=(5.0,), verdict=Verdict.NOISY, reason="why")
    assert only(build_table(a_run(case)), "forward_ms").text == "5.000 (one sample, noisy)"


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if not verdict.has_figure])
def test_without_a_figure_the_cell_is_the_verdict_and_never_a_number(verdict: Verdict) -> None:
    # Steps that were taken before it failed are no figure.
    case = a_case_result(a_case(), samples_ms=(1.0, 2.0), verdict=verdict, reason="for a reason")
    table = build_table(a_run(case), wide=True)
    cell = only(table, "forward_ms")
    assert (cell.text, cell.value, cell.sd, cell.verdict) == (verdict.value, None, None, verdict)
    assert cell.reason == "for a reason"
    assert f"{verdict.value}: for a reason" in only(table, "details").text
    assert only(table, "forward_verdict").value == verdict.value
    for key in ("samples", "median_ms", "images_per_s", "effective_tflops", "share_of_peak_percent"):
        missing = only(table, f"forward_{key}")
        assert (missing.text, missing.value, missing.reason) == ("", None, "for a reason")


def test_a_declared_device_that_is_missing_has_its_row() -> None:
    case = a_case_without_attempt(
        a_case(a_device("gpu02", "gpu:3", name="", memory=None, memory_bytes=None)),
        Verdict.DEVICE_MISSING,
        "gpu02 has 2 GPUs",
    )
    table = build_table(a_run(case))
    assert only(table, "device").text == "gpu:3"
    assert (only(table, "memory").text, only(table, "memory").value) == ("", None)
    assert only(table, "memory").reason
    assert only(table, "forward_ms").text == "device_missing"


def test_a_failure_without_a_reason_says_that() -> None:
    case = a_case_without_attempt(a_case(), Verdict.CANCELLED)
    assert only(build_table(a_run(case)), "forward_ms").reason == "no reason was recorded"


def test_a_pass_that_was_not_asked_for_says_so() -> None:
    cell = only(build_table(a_run(a_case_result(a_case()))), "forward_backward_ms")
    assert (cell.text, cell.value, cell.verdict) == ("not asked", None, None)


@pytest.mark.parametrize(
    ("state", "text", "verdict"),
    [(RunState.RUNNING, "not ended", None), (RunState.INTERRUPTED, "not_run", Verdict.NOT_RUN)],
)
def test_a_case_that_has_not_ended(state: RunState, text: str, verdict: Verdict | None) -> None:
    cell = only(build_table(a_run(a_case_without_attempt(a_case(), None), state=state)), "forward_ms")
    assert (cell.text, cell.value, cell.verdict) == (text, None, verdict)
    assert cell.reason


def test_a_figure_whose_samples_are_lost_is_none() -> None:
    lost = a_case_without_attempt(a_case(), Verdict.OK)
    empty = a_case_result(a_case(a_device("other")), samples_ms=())
    for cell in column(build_table(a_run(lost, empty)), "forward_ms"):
        assert (cell.text, cell.value, cell.reason) == ("no samples", None, "no samples were recorded")


def test_references_print_as_published() -> None:
    table = build_table(a_run(), references=SEED)
    assert texts(table, "forward_ms") == ["70 +/- 0.1", "145 +/- 1.5", "536 +/- 2", "2473 +/- 34"]
    assert [cell.value for cell in column(table, "forward_backward_ms")] == [244, 480, 1466, 7091]
    assert [cell.sd for cell in column(table, "forward_backward_ms")] == [30, 48, 18, 117]


def test_a_reference_may_have_published_one_pass_alone() -> None:
    (cell,) = column(build_table(a_run(), references=[replace(SEED[0], figures=SEED[0].figures[1:])]), "forward_ms")
    assert (cell.text, cell.value) == ("not published", None)
    assert cell.reason


# --- details and memory ----------------------------------------------------------------------------------------


def test_details_of_a_usual_workload_are_short() -> None:
    case = a_case_result(a_case(), environment=an_environment(framework__version="2.21.0", framework__cuda=None))
    assert only(build_table(a_run(case)), "details").text == (
        "localhost / TensorFlow 2.21.0 / alexnet / batch 128 / float32"
    )


def test_details_name_all_that_is_not_usual() -> None:
    workload = a_workload(
        precision=Precision.BFLOAT16, layout=Layout.NCHW, compiler=Compiler.XLA, fetch=Fetch.HOST, framework="other"
    )
    facts = an_environment(framework__version="1.0", framework__cuda="12.5", framework__cudnn="9.3")
    case = a_case_result(a_case(a_device("gpu01", "gpu:0"), workload), environment=facts)
    assert only(build_table(a_run(case)), "details").text == (
        "gpu01 gpu:0 / other 1.0 / CUDA v12.5 / cuDNN 9.3 / alexnet / batch 128 / bfloat16 / NCHW / xla / fetch host"
    )


@pytest.mark.parametrize(
    ("selector", "precision", "tf32", "is_said"),
    [
        ("gpu:0", Precision.FLOAT32, True, True),
        ("gpu:0", Precision.FLOAT32, False, False),
        ("gpu:0", Precision.FLOAT32, None, False),
        ("gpu:0", Precision.BFLOAT16, True, False),
        ("cpu", Precision.FLOAT32, True, False),
    ],
)
def test_float32_that_may_be_tf32_says_so(
    selector: str, precision: Precision, tf32: bool | None, is_said: bool
) -> None:
    case = a_case_result(
        a_case(a_device("gpu01", selector), a_workload(precision=precision)),
        environment=an_environment(framework__tf32=tf32),
    )
    assert (" / TF32 allowed" in only(build_table(a_run(case)), "details").text) == is_said


def test_a_reason_that_both_passes_have_is_said_once() -> None:
    cases = both_passes(a_device(), {}, (), (), verdict=Verdict.OOM, reason="too big")
    assert only(build_table(a_run(*cases)), "details").text.endswith("float32 / oom: too big")


def test_a_reason_of_one_pass_names_it() -> None:
    forward, backward = both_passes(a_device(), {}, (1.0, 2.0), (), environment=an_environment())
    case = replace(backward, verdict=Verdict.OOM, reason="too big")
    assert only(build_table(a_run(forward, case)), "details").text.endswith("float32 / forward-backward oom: too big")


@pytest.mark.parametrize("reason", ["word " * 60, "x" * 300])
def test_a_long_reason_is_cut_in_details_and_whole_in_the_notes(reason: str) -> None:
    cases = both_passes(a_device(), {}, (), (), verdict=Verdict.CRASHED, reason=reason)
    table = build_table(a_run(*cases))
    details = only(table, "details").text
    assert details.endswith(" ...")
    assert reason[:70] in details
    assert len(details) < 160
    assert table.notes[0] == f"Row 1: {reason}"
    assert len([note for note in table.notes if reason in note]) == 1
    assert only(table, "forward_ms").reason == reason


def test_rows_with_the_same_long_reason_share_a_note() -> None:
    reason = "the host did not answer " * 8
    cases = [
        a_case_without_attempt(a_case(a_device(f"host{number}")), Verdict.HOST_DOWN, reason) for number in range(3)
    ]
    notes = build_table(a_run(*cases)).notes
    assert [note for note in notes if reason in note] == [f"Rows 1-3: {reason}"]


def tried(case: CaseResult, times: int) -> CaseResult:
    """The case as it is, after that many attempts."""
    assert case.result is not None
    lost = tuple(Attempt(number=number, result=a_result(case.case, number)) for number in range(1, times))
    return replace(case, attempts=(*lost, Attempt(number=times, result=case.result)))


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ((1, 1), ""),
        ((2, 2), " / 2 attempts"),
        ((3, 1), " / forward 3 attempts"),
        ((2, 3), " / forward 2 attempts / forward-backward 3 attempts"),
    ],
)
def test_a_figure_that_took_more_than_one_attempt_says_so(times: tuple[int, int], said: str) -> None:
    cases = both_passes(a_device(), {}, (1.0, 2.0), (3.0, 4.0))
    table = build_table(a_run(*map(tried, cases, times)), wide=True)
    assert only(table, "details").text == f"localhost / TensorFlow / alexnet / batch 128 / float32{said}"
    counted = [only(table, f"{pass_.value}_attempts") for pass_ in NETWORK_PASSES]
    assert [(cell.text, cell.value) for cell in counted] == [(str(number), number) for number in times]


def test_attempts_at_what_has_no_figure_are_counted_and_not_boasted_of() -> None:
    failed = a_case_result(a_case(), verdict=Verdict.CRASHED, reason="SIGSEGV", samples_ms=())
    table = build_table(a_run(tried(failed, 2)), wide=True)
    assert only(table, "details").text.endswith(" / float32 / crashed: SIGSEGV")
    assert only(table, "forward_attempts").value == 2
    assert only(table, "forward_backward_attempts").reason == "this pass was not asked for"
    never = build_table(a_run(a_case_without_attempt(a_case(), Verdict.NOT_RUN, "put aside")), wide=True)
    assert only(never, "forward_attempts").value == 0
    (published,) = column(build_table(a_run(), references=SEED[:1], wide=True), "forward_attempts")
    assert (published.value, published.reason) == (None, "a published row")


def test_memory_is_stated_by_size_where_nothing_else_is_known() -> None:
    case = a_case_result(a_case(a_device(memory=None, memory_bytes=24 * 2**30)))
    assert only(build_table(a_run(case)), "memory").text == "24 GB"


def test_a_references_link_is_kept_beside_the_text() -> None:
    cell = column(build_table(a_run(), references=SEED), "details")[0]
    assert cell.text == "as reported in alexnet_benchmark.py"
    assert [link.text for link in cell.links] == ["alexnet_benchmark.py"]


def test_a_row_says_for_machines_what_it_is_of() -> None:
    (row,) = build_table(a_run(a_case_result(a_case()))).rows
    assert dict(row.definition) == {
        "device_id": "localhost/cpu",
        "model": "alexnet",
        "batch_size": 128,
        "precision": "float32",
        "layout": "NHWC",
        "compiler": "none",
        "framework": "tensorflow",
        "fetch": "device",
    }


# --- the largest batch that fits -------------------------------------------------------------------------------


def a_search(pass_: Pass = Pass.FORWARD, **result: object) -> CaseResult:
    return a_case_result(a_case(workload=a_workload(pass_=pass_, seeks_largest=True)), **result)


def test_the_batch_that_was_found_is_told_and_figured_with() -> None:
    table = build_table(a_run(a_case_result(a_case()), a_search(batch_size=384)), wide=True)
    assert texts(table, "details") == [
        "localhost / TensorFlow / alexnet / batch 128 / float32",
        "localhost / TensorFlow / alexnet / batch 384 (largest that fits) / float32",
    ]
    assert [cell.value for cell in column(table, "forward_images_per_s")] == [1280.0, 3840.0]
    flop = models.get("alexnet").flop(384, Pass.FORWARD)
    assert column(table, "forward_effective_tflops")[1].value == pytest.approx(flop / 0.1 / 1e12)
    facts = dict(table.rows[1].definition)
    assert (facts["batch_size"], facts["seeks_largest"]) == (384, True)
    assert (facts["forward_batch_size"], facts["forward_backward_batch_size"]) == (384, None)


def test_where_the_passes_fit_differently_both_batches_are_told() -> None:
    cases = (a_search(batch_size=384), a_search(Pass.FORWARD_BACKWARD, batch_size=192))
    table = build_table(a_run(*cases), references=SEED, wide=True)
    assert " / batch forward 384, forward-backward 192 (largest that fits) / " in texts(table, "details")[0]
    assert column(table, "forward_images_per_s")[0].value == 3840.0
    assert column(table, "forward_backward_images_per_s")[0].value == 1920.0
    assert dict(table.rows[0].definition)["batch_size"] is None
    assert any("batch max (there 128)" in note for note in table.notes)


def test_a_search_that_found_nothing_has_no_batch() -> None:
    table = build_table(a_run(a_search(verdict=Verdict.OOM, reason="too big", samples_ms=())))
    assert " / batch max (from 128) / " in only(table, "details").text
    assert dict(table.rows[0].definition)["batch_size"] is None


def test_a_figure_whose_batch_is_not_known_gives_no_rate() -> None:
    table = build_table(a_run(a_search(peak_flops=1e12)), wide=True)
    for key in ("images_per_s", "effective_tflops", "share_of_peak_percent"):
        cell = only(table, f"forward_{key}")
        assert (cell.value, cell.reason) == (None, "the batch that was measured is not known")


def test_the_largest_batches_are_held_against_each_other_by_images_a_second() -> None:
    def ratio(**chosen: object) -> object:
        slow = a_case(a_device("slow"), a_workload(seeks_largest=True))
        cases = (a_search(batch_size=384), a_case_result(slow, **chosen), a_case_result(a_case(slow.device)))
        table = build_table(a_run(*cases), relative_to="slow/cpu")
        return column(table, "forward_ratio")[0].value

    assert ratio(batch_size=192) == 2.0
    assert ratio() is None


# --- title and notes -------------------------------------------------------------------------------------------


def test_the_title_says_which_run_it_is() -> None:
    assert build_table(a_run()).title == "lab, run 7f3a9c, 2026-11-23 14:03 UTC"
    assert build_table(a_run(state=RunState.INTERRUPTED)).title.endswith(", interrupted")
    assert build_table(a_run(state=RunState.RUNNING)).title.endswith(", still running")


def test_a_simulated_run_says_so_in_every_row_in_the_title_and_in_a_note() -> None:
    table = build_table(a_lab_run(simulated=True), references=SEED)
    assert "simulated" in table.title
    assert table.notes[0].startswith("Simulated: ")
    for row, details in zip(table.rows, texts(table, "details"), strict=True):
        assert details.startswith("simulated / ") == (row.kind is RowKind.SIMULATED)
    assert [row.kind for row in table.rows[:5]] == [RowKind.SIMULATED] * 5
    assert [row.kind for row in table.rows[5:]] == [RowKind.REFERENCE] * 4


def test_rows_of_several_frameworks_have_a_column_for_these() -> None:
    works = [a_workload(framework=name) for name in ("tensorflow", "torch", "jax")]
    version = a_result(environment=an_environment(**{"framework.version": "2.13.0"})).environment
    cases = [a_case_result(a_case(workload=work), environment=version) for work in works]
    table = build_table(a_run(*cases), references=SEED)
    assert [column.heading for column in table.columns][-2:] == ["Framework", "Details"]
    place = [column.key for column in table.columns].index("framework")
    found = [row.cells[place].text for row in table.rows]
    assert found == ["TensorFlow 2.13.0", "PyTorch 2.13.0", "JAX 2.13.0", *["TensorFlow"] * 4]
    one = build_table(a_run(cases[0]), references=SEED)
    assert "framework" not in [column.key for column in one.columns]


def test_a_note_says_which_rows_may_be_compared_with_the_references_and_why_not() -> None:
    workloads = (
        a_workload(fetch=Fetch.HOST),
        a_workload(),
        a_workload(model="alexnet-owt", batch_size=64, precision=Precision.BFLOAT16, fetch=Fetch.HOST),
        a_workload(fetch=Fetch.HOST, layout=Layout.NCHW),
    )
    cases = [a_case_result(a_case(workload=workload)) for workload in workloads]
    notes = build_table(a_run(*cases), references=SEED).notes
    assert "Rows 1, 4: same definition as the seed's table (alexnet, batch 128, float32, fetch host)." in notes
    assert "Row 2: not the definition of the seed's table: fetch device (there host)." in notes
    assert (
        "Row 3: not the definition of the seed's table: model alexnet-owt (there alexnet), batch 64 (there 128), "
        "precision bfloat16 (there float32)." in notes
    )


def test_the_notes_carry_the_references_caveats_once() -> None:
    notes = build_table(a_run(), references=SEED).notes
    assert len([note for note in notes if note.startswith("Titan X, K40c: ")]) == 1
    assert len([note for note in notes if "MacBook" in note]) == 1


def test_without_references_there_is_no_note_about_them() -> None:
    assert build_table(a_run(a_case_result(a_case()))).notes == ()


# --- wide ------------------------------------------------------------------------------------------------------


def test_wide_columns_of_a_measured_row() -> None:
    case = a_case_result(a_case(), samples_ms=(99.0, 100.0, 101.0), peak_flops=3.3697e12)
    table = build_table(a_run(case), wide=True)
    assert only(table, "host").value == "localhost"
    assert only(table, "selector").value == "cpu"
    assert only(table, "forward_verdict").value == "ok"
    assert only(table, "forward_samples").value == 3
    assert only(table, "forward_median_ms").value == 100.0
    assert only(table, "forward_min_ms").value == 99.0
    assert only(table, "forward_p5_ms").value == pytest.approx(99.1)
    assert only(table, "forward_p95_ms").value == pytest.approx(100.9)
    # t for two degrees of freedom is 4.303, the sample sd 1.
    assert only(table, "forward_ci95_low_ms").value == pytest.approx(100 - 4.3027 / 3**0.5, abs=1e-3)
    assert only(table, "forward_ci95_high_ms").value == pytest.approx(100 + 4.3027 / 3**0.5, abs=1e-3)
    assert only(table, "forward_images_per_s").value == pytest.approx(1280)
    # 658,145,280 multiply-adds an image, two operations each.
    assert only(table, "forward_effective_tflops").value == pytest.approx(1.68485, rel=1e-5)
    assert only(table, "forward_share_of_peak_percent").value == pytest.approx(50.0, rel=1e-4)
    assert only(table, "forward_share_of_peak_percent").text == "50.00"


def test_a_single_sample_has_no_interval() -> None:
    table = build_table(a_run(a_case_result(a_case(), samples_ms=(100.0,))), wide=True)
    for key in ("forward_ci95_low_ms", "forward_ci95_high_ms"):
        assert (only(table, key).value, only(table, key).reason) == (None, "a single sample has no interval")


@pytest.mark.parametrize(
    ("peak_reason", "reason"),
    [("the peak took too long", "the peak took too long"), (None, "the peak was not measured")],
)
def test_without_a_peak_there_is_no_share_but_a_reason(peak_reason: str | None, reason: str) -> None:
    table = build_table(a_run(a_case_result(a_case(), peak_reason=peak_reason)), wide=True)
    cell = only(table, "forward_share_of_peak_percent")
    assert (cell.text, cell.value, cell.reason) == ("", None, reason)


def test_a_model_that_is_no_longer_here_has_no_flop() -> None:
    case = a_case_result(a_case(workload=a_workload(model="lenet")), peak_flops=1e12)
    table = build_table(a_run(case), wide=True)
    for key in ("forward_effective_tflops", "forward_share_of_peak_percent"):
        assert (only(table, key).value, only(table, key).reason) == (None, "the layers of 'lenet' are not known here")
    assert only(table, "forward_images_per_s").value == pytest.approx(1280)


def test_wide_columns_of_a_reference_say_what_was_not_published() -> None:
    table = build_table(a_run(), references=SEED[:1], wide=True)
    assert only(table, "forward_images_per_s").value == pytest.approx(128 / 0.070)
    assert only(table, "forward_share_of_peak_percent").reason == "no peak was published"
    assert only(table, "forward_median_ms").reason == "not published"
    assert only(table, "forward_verdict").reason == "a published row"
    assert only(table, "host").reason == "a published row"


# --- relative to a chosen row ----------------------------------------------------------------------------------


def test_ratio_to_a_reference_is_in_images_a_second() -> None:
    cases = both_passes(a_device(), {}, (35.0, 35.0), (488.0, 488.0)) + both_passes(
        a_device(), {"batch_size": 64}, (35.0, 35.0), (61.0, 61.0)
    )
    table = build_table(a_run(*cases), references=SEED[:1], relative_to="Titan X")
    assert [cell.value for cell in column(table, "forward_ratio")] == pytest.approx([2.0, 1.0, 1.0])
    assert [cell.value for cell in column(table, "forward_backward_ratio")] == pytest.approx([0.5, 2.0, 1.0])


def test_ratio_to_a_device_is_to_its_row_of_the_same_workload() -> None:
    slow, fast = a_device("slow"), a_device("fast")
    cases = [
        a_case_result(a_case(device, a_workload(batch_size=batch)), samples_ms=(ms, ms))
        for device, batch, ms in ((slow, 64, 100.0), (slow, 128, 200.0), (fast, 64, 50.0), (fast, 128, 80.0))
    ]
    table = build_table(a_run(*cases), relative_to="slow/cpu")
    assert [cell.value for cell in column(table, "forward_ratio")] == pytest.approx([1.0, 1.0, 2.0, 2.5])


def test_no_ratio_without_a_row_to_hold_it_against() -> None:
    cases = [
        a_case_result(a_case(a_device("one"), a_workload(model="alexnet-owt"))),
        a_case_result(a_case(a_device("two"))),
        a_case_without_attempt(a_case(a_device("three")), Verdict.OOM, "too big"),
    ]
    other_model, failed_itself, against_failed = (
        build_table(a_run(*cases), relative_to=name) for name in ("one/cpu", "two/cpu", "three/cpu")
    )
    assert [cell.value for cell in column(other_model, "forward_ratio")] == [1.0, None, None]
    assert "no row" in (column(other_model, "forward_ratio")[1].reason or "")
    assert column(failed_itself, "forward_ratio")[2].reason == "too big"
    assert "no figure" in (column(against_failed, "forward_ratio")[1].reason or "")


def test_an_unknown_row_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        build_table(a_run(a_case_result(a_case())), references=SEED, relative_to="Titan Z")
    assert "'Titan Z'" in caught.value.message
    assert caught.value.remedy == (
        "there are: localhost/cpu, Titan X (reference), K40c (reference), GeForce GT 750M (reference), "
        "2.3 GHz Intel Core i7 (reference)"
    )


def test_an_empty_table_has_no_row_to_choose() -> None:
    with pytest.raises(UsageError) as caught:
        build_table(a_run(), relative_to="Titan X")
    assert caught.value.remedy == "there are: none"


def test_a_name_that_several_devices_have_must_be_made_whole() -> None:
    cases = [a_case_result(a_case(a_device("one", name="Titan X")))]
    with pytest.raises(UsageError) as caught:
        build_table(a_run(*cases), references=SEED, relative_to="Titan X")
    assert caught.value.remedy == "use one of: one/cpu, Titan X (reference)"
    table = build_table(a_run(*cases), references=SEED, relative_to="Titan X (reference)")
    assert column(table, "forward_ratio")[1].value == 1.0


@pytest.mark.parametrize("pass_", list(Pass))
def test_every_pass_can_stand_alone(pass_: Pass) -> None:
    table = build_table(a_run(a_case_result(a_case(workload=a_workload(pass_=pass_)))))
    assert only(table, f"{pass_.value}_ms").value == 100.0


# --- several processes, and what was seen beside a figure --------------------------------------------------------


def processes(*series: tuple[float, ...], **given: object) -> list[CaseResult]:
    return [
        a_case_result(
            replace(a_case(), key=f"p{number}", process=number), **{"samples_ms": samples, "peak_flops": 1e12, **given}
        )
        for number, samples in enumerate(series, start=1)
    ]


def test_processes_of_a_case_are_one_figure_of_all_their_steps() -> None:
    table = build_table(a_run(*processes((98.0, 100.0), (102.0, 104.0))), wide=True)
    assert only(table, "forward_ms").value == 101.0
    assert only(table, "forward_samples").value == 4
    assert only(table, "forward_processes").value == 2
    assert only(table, "forward_between_sd_percent").value == pytest.approx(100 * 2**0.5 * 2 / 101)
    assert only(table, "forward_attempts").value == 2
    assert " / 2 processes, sd between them 2.8 %" in only(table, "details").text
    assert "attempts" not in only(table, "details").text


def test_a_process_that_was_tried_again_is_told() -> None:
    first, second = processes((98.0, 100.0), (102.0, 104.0))
    second = replace(second, attempts=(second.attempts[0], second.attempts[0]))
    assert only(build_table(a_run(first, second)), "details").text.endswith(" / 3 attempts")


def test_a_process_without_a_figure_leaves_the_others_one_and_says_so() -> None:
    fine, _ = processes((98.0, 100.0), (1.0,))
    lost = replace(
        processes((98.0,), (1.0,), verdict=Verdict.CRASHED, reason="ended by SIGSEGV")[1], verdict=Verdict.CRASHED
    )
    table = build_table(a_run(fine, lost))
    assert only(table, "forward_ms").value == 99.0
    assert only(table, "forward_ms").reason == "1 of 2 processes without a figure: ended by SIGSEGV"
    noisy = replace(fine, verdict=Verdict.NOISY, reason="it spreads")
    assert only(build_table(a_run(noisy, lost)), "forward_ms").reason == (
        "it spreads; 1 of 2 processes without a figure: ended by SIGSEGV"
    )


def test_energy_is_of_one_batch_and_images_are_held_against_it() -> None:
    seen = replace(a_telemetry(), energy=Energy(joules=64.0, source="rapl"))
    table = build_table(a_run(*processes((98.0, 100.0), (102.0, 104.0), telemetry=seen)), wide=True)
    assert only(table, "forward_energy_j").value == 32.0
    assert only(table, "forward_images_per_j").value == 4.0


@pytest.mark.parametrize(
    ("telemetry", "reason"),
    [
        (None, "nobody looked"),
        (replace(a_telemetry(), energy=Energy(joules=None, reason="only root may read it")), "only root may read it"),
    ],
)
def test_energy_that_was_not_counted_says_why(telemetry: Telemetry | None, reason: str) -> None:
    table = build_table(a_run(*processes((98.0, 100.0), telemetry=telemetry)), wide=True)
    for key in ("energy_j", "images_per_j"):
        assert (only(table, f"forward_{key}").value, only(table, f"forward_{key}").reason) == (None, reason)


def test_images_a_joule_need_a_batch() -> None:
    seen = replace(a_telemetry(), energy=Energy(joules=64.0, source="rapl"))
    case = a_case(workload=a_workload(seeks_largest=True))
    table = build_table(a_run(a_case_result(case, samples_ms=(98.0, 100.0), telemetry=seen)), wide=True)
    assert only(table, "forward_images_per_j").reason == "the batch that was measured is not known"


def test_a_noise_floor_that_was_measured_stands_below_the_table() -> None:
    floor = NoiseFloor(
        device_id="localhost/cpu", device_uuid=None, workload=a_workload(), measured_at=a_run().created_at,
        run_id="7f3a9c", processes=5, between_sd=0.01, within_sd=0.01,
    )  # fmt: skip
    table = build_table(a_run(*processes((98.0, 100.0))), wide=True, floors=[floor])
    assert only(table, "forward_noise_floor_percent").value == pytest.approx(5.3, abs=0.01)
    assert "Row 1: noise floor forward 5.3 %; what differs by less is not different." in table.notes
    other = replace(floor, device_uuid="GPU-1")
    without = only(
        build_table(a_run(*processes((98.0, 100.0))), wide=True, floors=[other]), "forward_noise_floor_percent"
    )
    assert without.reason == "not measured: muster noise CONFIG"


def test_rows_of_other_runs_stand_below_and_say_whose_they_are() -> None:
    theirs = a_run(a_case_result(a_case(a_device("b"))), id="80bb02", name="theirs")
    nothing = a_run(id="90cc03")
    ours = a_run(a_case_result(a_case(a_device("a"))))
    table = build_table(ours, references=SEED[:1], beside=[nothing, theirs])
    details = texts(table, "details")
    assert [text.split(" / ")[0] for text in details] == ["a", "run 80bb02", "as reported in alexnet_benchmark.py"]
    assert [note for note in table.notes if note.startswith("Row 2:")] == [
        "Row 2: theirs, run 80bb02, 2026-11-23 14:03 UTC."
    ]
    assert not [note for note in table.notes if "90cc03" in note]


def test_the_share_of_the_roof_is_of_what_memory_or_arithmetic_allow() -> None:
    workload = a_workload(model="gemm/m10-n10-k10-nn", batch_size=1)
    # 2,000 FLOP over 1,200 bytes: 1e9 bytes a second allow 1.67 GFLOP/s, whatever the peak; 1 GFLOP/s is 60 % of that.
    case = a_case_result(a_case(workload=workload), samples_ms=(0.002, 0.002), peak_flops=1e12, copy_bytes_per_s=1e9)
    table = build_table(a_run(case), wide=True)
    assert only(table, "forward_share_of_roof_percent").value == pytest.approx(60)
    assert only(table, "forward_memory_gb_per_s").value == pytest.approx(1)
    pool = a_case_result(a_case(workload=a_workload(model="alexnet/pool1")), peak_flops=1e12, copy_bytes_per_s=1e9)
    assert only(build_table(a_run(pool), wide=True), "forward_share_of_roof_percent").reason == "it multiplies nothing"
    old = build_table(a_run(a_case_result(a_case(workload=workload), peak_flops=1e12)), wide=True)
    assert only(old, "forward_share_of_roof_percent").reason == "the memory's peak was not measured"
