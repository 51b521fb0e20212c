"""Layers and operations by themselves: in configs, and in tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.analysis import references
from orchestrator.cli.app import call
from orchestrator.config.kinds import Across
from orchestrator.config.load import load_text
from orchestrator.config.sweep import expand
from orchestrator.errors import ConfigError, ExitCode
from orchestrator.report.build import build_table
from orchestrator.report.workloads import in_words
from tests.builders import a_case, a_device, a_workload
from tests.goldens import assert_golden
from tests.runs import a_case_result, a_case_without_attempt, a_run
from workers import models, ops
from workers.protocol import OneDnn, Pass, Precision, Verdict

if TYPE_CHECKING:
    from orchestrator.config.sweep import SweptWorkload
    from orchestrator.results import Run


def swept(workload: str) -> tuple[SweptWorkload, ...]:
    config = load_text(f"version: 1\nname: parts\nworkloads: [{workload}]\n", "parts.yaml").config
    return expand(config.workloads)


def wrong(workload: str) -> str:
    with pytest.raises(ConfigError) as caught:
        swept(workload)
    return str(caught.value)


# --- configs ---------------------------------------------------------------------------------------------------


def test_all_layers_are_workloads_of_their_own() -> None:
    found = swept("{model: alexnet, layers: all, batch_size: [1, 2]}")
    names = [f"alexnet/{layer}" for layer in models.get("alexnet").layers_with_work()]
    assert len(names) == 8
    assert [(one.model, one.batch_size, one.pass_) for one in found] == [
        (name, size, pass_) for name in names for size in (1, 2) for pass_ in (Pass.FORWARD, Pass.FORWARD_BACKWARD)
    ]


def test_some_layers_of_several_networks() -> None:
    found = swept("{model: [alexnet, overfeat], layers: [conv2, pool1], passes: forward}")
    assert [one.model for one in found] == ["alexnet/conv2", "alexnet/pool1", "overfeat/conv2", "overfeat/pool1"]


def test_a_set_of_problems_has_each_operation_s_own_passes_and_sizes() -> None:
    found = swept("{problems: deepbench-small}")
    expected = [(name, pass_) for name in ops.problems("deepbench-small") for pass_ in ops.get(name).passes]
    assert [(one.model, one.pass_) for one in found] == expected
    assert {one.model: one.batch_size for one in found}["lstm/h512-b16-t25"] == 16


def test_only_some_operations_or_passes() -> None:
    found = swept("{problems: deepbench-small, operation: [lstm, gru], passes: forward}")
    assert [one.model for one in found] == ["lstm/h512-b16-t25", "gru/h512-b32-t1"]
    found = swept("{problems: deepbench-small, passes: [backward_weights, backward_data]}")
    assert {one.model.partition("/")[0] for one in found} == {"conv"}
    assert [one.pass_ for one in found][:2] == [Pass.BACKWARD_WEIGHTS, Pass.BACKWARD_DATA]


def test_a_sum_over_devices_is_across_each_host_and_across_all() -> None:
    found = swept("{problems: [allreduce/n8, gemm/m1-n1-k1-nn]}")
    assert [(one.model, one.across) for one in found] == [
        ("allreduce/n8", Across.HOST),
        ("allreduce/n8", Across.HOSTS),
        ("gemm/m1-n1-k1-nn", None),
    ]
    found = swept("{problems: allreduce/n8, across: host, include: [{across: hosts, precision: float16}]}")
    assert [(one.across, one.precision.value) for one in found] == [
        (Across.HOST, "float32"),
        (Across.HOSTS, "float16"),
    ]
    found = swept("{problems: allreduce/n8, exclude: [{across: hosts}]}")
    assert [one.across for one in found] == [Across.HOST]


def test_a_problem_by_its_whole_name_and_a_sweep_over_it() -> None:
    found = swept("{problems: gemm/m64-n64-k64-nt, precision: [float32, bfloat16], exclude: [{precision: bfloat16}]}")
    assert [(one.model, one.precision.value) for one in found] == [("gemm/m64-n64-k64-nt", "float32")]


def test_a_network_s_entries_match_its_layers_and_an_operation_s_its_problems() -> None:
    found = swept("{model: [alexnet, overfeat], layers: conv1, exclude: [{model: overfeat}]}")
    assert {one.model for one in found} == {"alexnet/conv1"}
    found = swept("{problems: deepbench-small, exclude: [{operation: [gemm, conv, rnn, lstm]}]}")
    assert {one.model for one in found} == {"gru/h512-b32-t1"}


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ("{batch_size: 1}", "it says neither `model` nor `problems`: give one, such as model: alexnet"),
        ("{model: alexnet, problems: deepbench-small}", "`model` and `problems` exclude each other"),
        ("{model: alexnet, operation: gemm}", "`model` and `operation` exclude each other"),
        ("{model: alexnet, layers: convv1}", "alexnet has no layer 'convv1'; did you mean 'conv1'?"),
        ("{model: alexnet, layers: []}", "layers"),
        ("{model: alexnet, passes: backward_data}", "the pass backward_data is of single convolutions"),
        ("{problems: deepbench-small, batch_size: 4}", "`problems` and `batch_size` exclude each other"),
        ("{problems: deepbench-small, layers: all}", "`problems` and `layers` exclude each other"),
        ("{problems: deepbench-smal}", "did you mean 'deepbench-small'?"),
        ("{problems: gemm/m1}", "a problem of gemm looks like"),
        ("{problems: gemm/m1-n1-k1-nn, passes: backward_data}", "none of the problems is of such an operation"),
        ("{problems: gemm/m1-n1-k1-nn, operation: conv}", "none of the problems is of such an operation"),
        ("{problems: deepbench-small, across: host}", "`across` is of operations of several devices"),
        ("{problems: allreduce/n8, across: rack}", "expected one of host, hosts"),
        ("{problems: deepbench-small, operation: fft}", "expected one of allreduce, conv, gemm, gru, lstm, rnn"),
    ],
)
def test_what_cannot_be_is_told(workload: str, message: str) -> None:
    text = wrong(workload)
    assert message in text
    assert text.startswith("parts.yaml:3:")


# --- tables ----------------------------------------------------------------------------------------------------


def a_part(model: str, pass_: Pass, batch_size: int = 1, **result: Any) -> Any:
    case = a_case(workload=a_workload(model=model, pass_=pass_, batch_size=batch_size))
    return a_case_result(case, **result)


def test_operations_have_a_column_for_each_of_their_passes_with_its_rate() -> None:
    conv = "conv/w28-h28-c192-n16-k32-f5x5-p2x2-s1x1"
    run = a_run(
        a_part("gemm/m1000-n1000-k1000-nn", Pass.FORWARD, samples_ms=(1.0, 1.0)),
        *(a_part(conv, pass_, 16, samples_ms=(2.0, 2.0)) for pass_ in ops.get(conv).passes),
    )
    table = build_table(run, references=references.load(["seed"]))
    assert [column.heading for column in table.columns] == [
        "Num", "GPU/CPU", "Memory", "Work", "Forward pass (ms)", "Forward TFLOP/s", "Backward data pass (ms)",
        "Backward data TFLOP/s", "Backward weights pass (ms)", "Backward weights TFLOP/s", "Details",
    ]  # fmt: skip
    gemm, convolution = (dict(zip([c.key for c in table.columns], row.cells, strict=True)) for row in table.rows)
    assert (gemm["work"].text, gemm["forward_effective_tflops"].value) == ("gemm/m1000-n1000-k1000-nn", 2.0)
    assert (gemm["backward_data_ms"].text, gemm["backward_data_ms"].reason) == ("", "there is no such pass")
    assert convolution["backward_weights_ms"].value == 2.0
    assert "batch" not in convolution["details"].text
    assert "gemm" not in gemm["details"].text
    assert table.notes[-1] == "The seed's table is not shown: none of its rows is of what was measured."


def test_a_published_operation_has_no_more_passes_than_the_operation() -> None:
    run = a_run(a_part("gemm/m1760-n16-k1760-nn", Pass.FORWARD))
    table = build_table(run, references=references.load(["deepbench"]))
    assert len(table.rows) == 1 + 11  # in float32
    keys = [column.key for column in table.columns]
    assert "backward_data_ms" not in keys
    shown = dict(zip(keys, table.rows[1].cells, strict=True))
    assert (shown["device"].text, shown["forward_ms"].value) == ("Titan X (Maxwell)", 0.182)
    assert shown["forward_effective_tflops"].value == pytest.approx(0.5446, rel=1e-3)
    assert table.notes[-1] == (
        "2 rows of DeepBench's training results are not shown: they are in float16, and none of these rows is."
    )


def test_rows_of_other_networks_are_left_out_without_a_word_where_some_are_shown() -> None:
    run = a_run(a_case_result(a_case(workload=a_workload(model="vgg-a", batch_size=64))))
    table = build_table(run, references=references.load(["convnet-benchmarks"]))
    assert len(table.rows) == 1 + 11  # two of its thirteen are in float16
    assert [note for note in table.notes if "not shown" in note] == [
        "2 rows of convnet-benchmarks' table are not shown: they are in float16, and none of these rows is."
    ]
    run = a_run(
        *(
            a_case_result(a_case(workload=a_workload(model="vgg-a", batch_size=64, precision=precision)))
            for precision in (Precision.FLOAT32, Precision.FLOAT16)
        )
    )
    table = build_table(run, references=references.load(["convnet-benchmarks"]))
    assert len(table.rows) == 2 + 13
    assert not [note for note in table.notes if "not shown" in note]
    assert "Row 1: same definition as rows of convnet-benchmarks' table." in table.notes
    assert any(note.startswith("Row 2: not the definition") and "framework" in note for note in table.notes)


def test_published_rows_of_several_networks_say_which_and_rows_are_held_against_their_own() -> None:
    run = a_run(
        a_case_result(a_case(workload=a_workload(model="vgg-a", batch_size=64))),
        a_case_result(a_case(workload=a_workload(model="convnet-l1"))),
    )
    table = build_table(run, references=references.load(["convnet-benchmarks"]))
    place = [column.heading for column in table.columns].index("Work")
    assert [row.cells[place].text for row in table.rows] == [
        "vgg-a", "convnet-l1", *["vgg-a"] * 11, *["convnet-l1"] * 8,
    ]  # fmt: skip
    differs = next(note for note in table.notes if note.startswith("Row 2:"))
    assert differs.startswith("Row 2: not the definition of convnet-benchmarks' table: framework tensorflow (there")


def test_a_part_in_words_has_its_own_sizes() -> None:
    assert in_words(a_workload(model="gemm/m1-n1-k1-nn", batch_size=1)) == "gemm/m1-n1-k1-nn forward float32 NHWC"
    one = in_words(a_workload(model="alexnet/conv1", threads=1, onednn=OneDnn.OFF, framework="torch"))
    assert one == "alexnet/conv1 forward batch 128 float32 NHWC torch oneDNN off 1 thread"
    assert in_words(a_workload(threads=2)).endswith("NHWC 2 threads")


def test_layers_stand_beside_whole_networks_under_the_network_s_columns() -> None:
    run = a_run(
        a_case_result(a_case(workload=a_workload(batch_size=16))),
        a_part("alexnet/conv2", Pass.FORWARD, 16),
        a_part("alexnet/pool1", Pass.FORWARD, 16),
    )
    table = build_table(run)
    keys = [column.key for column in table.columns]
    assert keys[3:8:2] == ["work", "forward_effective_tflops", "forward_backward_effective_tflops"]
    assert [row.cells[3].text for row in table.rows] == ["alexnet", "alexnet/conv2", "alexnet/pool1"]
    pool = dict(zip(keys, table.rows[2].cells, strict=True))
    assert pool["forward_effective_tflops"].reason == "it multiplies nothing"
    assert "batch 16" in pool["details"].text


def test_wide_tables_have_each_rate_once() -> None:
    table = build_table(a_run(a_part("gemm/m10-n10-k10-nn", Pass.FORWARD)), wide=True)
    keys = [column.key for column in table.columns]
    assert len(keys) == len(set(keys))
    assert "forward_effective_tflops" in keys
    assert "forward_backward_ms" not in keys


# --- the command -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["operations"], ["operations", "list"]], ids=" ".join)
def test_the_sets_are_listed(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert call(command) == ExitCode.OK
    assert_golden("report/operations.txt", capsys.readouterr().out)


def test_the_problems_of_a_set_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["operations", "show", "deepbench-small"]) == ExitCode.OK
    assert_golden("report/deepbench-small.txt", capsys.readouterr().out)


def test_a_set_that_is_not_there_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["operations", "show", "deepbench"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "did you mean 'deepbench-" in err
    assert "muster operations" in err


def a_run_of_sums() -> Run:
    places = [("a", "gpu:0"), ("a", "gpu:1"), ("b", "gpu:0")]
    first, *others = (a_device(host, selector) for host, selector in places)
    case = a_case(first, a_workload(model="allreduce/n100000-r3", batch_size=1))
    return a_run(
        a_case_result(replace(case, peers=tuple(others)), samples_ms=(1.9, 2.0, 2.1)),
        a_case_result(a_case(first, a_workload(model="gemm/m64-n64-k64-nt", batch_size=1))),
    )


def test_a_sum_s_row_names_all_of_its_devices_and_its_bandwidth() -> None:
    table = build_table(a_run_of_sums())
    columns = [column.key for column in table.columns]
    sum_, product = (dict(zip(columns, row.cells, strict=True)) for row in table.rows)
    assert sum_["device"].text == "3 x Example GPU"
    assert sum_["details"].text.startswith("a gpu:0, a gpu:1, b gpu:0 / TensorFlow")
    # 3 devices with 100,000 numbers of 4 bytes in 2 ms.
    assert sum_["forward_reduced_gb_per_s"].value == pytest.approx(0.6)
    assert (product["forward_reduced_gb_per_s"].text, product["forward_reduced_gb_per_s"].reason) == (
        "",
        "no sum over devices",
    )


def test_devices_of_several_names_are_named_each_once() -> None:
    run = a_run_of_sums()
    known = run.cases[0]
    other = a_device("c", "gpu:0", name="Other GPU")
    mixed = replace(known, case=replace(known.case, peers=(*known.case.peers, other)))
    (row, *_) = build_table(replace(run, cases=(mixed,))).rows
    assert row.cells[1].text == "3 x Example GPU + 1 x Other GPU"


def test_a_column_of_tflops_is_left_out_where_nothing_multiplies() -> None:
    run = a_run_of_sums()
    assert "forward_effective_tflops" in [column.key for column in build_table(run).columns]
    assert "forward_effective_tflops" not in [
        column.key for column in build_table(replace(run, cases=run.cases[:1])).columns
    ]


def test_a_sum_that_was_measured_nowhere_has_no_bandwidth() -> None:
    case = a_case(a_device(), a_workload(model="allreduce/n8", batch_size=1))
    run = a_run(a_case_without_attempt(case, Verdict.UNSUPPORTED, "it takes 2 devices"))
    assert "forward_reduced_gb_per_s" not in [column.key for column in build_table(run).columns]
