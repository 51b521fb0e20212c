"""Operations: their names, their arithmetic, and DeepBench's sets of problems."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from workers import ops, works
from workers.models.initial import operation_values
from workers.ops.base import UnknownOperationError
from workers.ops.collective import AllReduce
from workers.ops.convolution import Convolution
from workers.ops.gemm import Gemm
from workers.protocol import Pass

# Time and rate as DeepBench published them (results at da81ba7, V100 in float32), from which follows what it counts as
# the work of a problem: milliseconds, TFLOP/s.
PUBLISHED = [
    ("gemm/m1760-n128-k1760-nn", Pass.FORWARD, 0.088, 9.01),
    ("gemm/m5124-n9124-k2560-tn", Pass.FORWARD, 17.542, 13.65),
    ("gemm/m1760-n7133-k1760-nt", Pass.FORWARD, 3.369, 13.12),
    ("conv/w700-h161-c1-n32-k32-f20x5-p0x0-s2x2", Pass.FORWARD, 0.443, 12.45),
    ("conv/w7-h7-c512-n16-k512-f3x3-p1x1-s1x1", Pass.BACKWARD_WEIGHTS, 0.273, 13.55),  # its forward time and rate
    ("conv/w224-h224-c3-n16-k64-f7x7-p3x3-s2x2", Pass.FORWARD, 0.304, 12.42),
    ("rnn/h1760-b16-t50", Pass.FORWARD, 4.201, 1.18),
    ("lstm/h512-b16-t25", Pass.FORWARD, 1.095, 0.77),
    ("gru/h2816-b32-t1500", Pass.FORWARD, 223.343, 10.23),
]


@pytest.mark.parametrize(("name", "pass_", "ms", "tflops"), PUBLISHED)
def test_work_is_counted_as_deepbench_counts_it(name: str, pass_: Pass, ms: float, tflops: float) -> None:
    operation = ops.get(name)
    assert operation.flop(operation.batch_size, pass_) / (ms * 1e9) == pytest.approx(tflops, rel=0.01)


def test_a_convolution_has_the_places_of_its_padded_image() -> None:
    operation = ops.get("conv/w700-h161-c1-n4-k32-f20x5-p0x0-s2x2")
    assert isinstance(operation, Convolution)
    assert operation.output_shape == (4, 79, 341, 32)


def test_a_transposed_factor_lies_the_other_way_round() -> None:
    shapes = [tensor.shape for tensor in Gemm(m=2, n=3, k=4, a_transposed=True, b_transposed=True).tensors]
    assert shapes == [(4, 2), (3, 4)]


def test_gradients_of_a_recurrent_layer_take_twice_its_work() -> None:
    lstm = ops.get("lstm/h512-b16-t25")
    assert lstm.flop(16, Pass.FORWARD) == 2 * 4 * 512**2 * 16 * 25
    assert lstm.flop(16, Pass.FORWARD_BACKWARD) == 3 * lstm.flop(16, Pass.FORWARD)


def test_the_least_that_an_operation_moves_by_hand() -> None:
    assert Gemm(m=2, n=3, k=4).bytes(1, Pass.FORWARD, 2) == 2 * (8 + 12 + 6)
    conv = ops.get("conv/w5-h5-c2-n2-k3-f1x1-p0x0-s1x1")
    assert conv.bytes(2, Pass.BACKWARD_DATA, 4) == 4 * (2 * 25 * 2 + 2 * 3 + 2 * 25 * 3)
    assert ops.get("gru/h4-b3-t5").bytes(3, Pass.FORWARD, 4) == 4 * (3 * 16 + 2 * 5 * 3 * 4)


# Of code/kernels/*_problems.h; four convolutions of training and of the server stand there twice.
COUNTS = {
    "deepbench-training": {"gemm": 160, "conv": 94 - 4, "rnn": 12, "lstm": 22, "gru": 19, "allreduce": 7},
    "deepbench-server": {"gemm": 75, "conv": 107 - 4, "rnn": 0, "lstm": 15, "gru": 54, "allreduce": 0},
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_sets_have_as_many_problems_as_were_published(name: str) -> None:
    assert {kind: len(ops.problems(name, kind)) for kind in COUNTS[name]} == COUNTS[name]


@pytest.mark.parametrize("name", ops.set_names())
def test_every_problem_of_a_set_is_an_operation_of_that_name(name: str) -> None:
    found = ops.problems(name)
    assert len(set(found)) == len(found) > 10
    assert [ops.get(each).name for each in found] == list(found)
    assert sum(len(ops.problems(name, kind)) for kind in ops.kinds()) == len(found)


def test_the_small_set_is_of_the_training_set() -> None:
    assert set(ops.problems("deepbench-small")) <= set(ops.problems("deepbench-training"))
    assert {each.partition("/")[0] for each in ops.problems("deepbench-small")} == {
        "gemm",
        "conv",
        "rnn",
        "lstm",
        "gru",
    }


def test_a_sum_over_devices_is_counted_as_deepbench_counts_it() -> None:
    found = ops.get("allreduce/n16777216-r2")
    assert isinstance(found, AllReduce)
    # Titan X (Maxwell), results/train: 13.50015 ms, 9.941943 GB/s.
    assert found.reduced_bytes(4) / 13.500150 / 1e6 == pytest.approx(9.941943, rel=1e-6)
    assert (found.flop(1, Pass.FORWARD), found.bytes(1, Pass.FORWARD, 4)) == (0, 2 * 4 * 16777216)
    assert AllReduce(numbers=16777216).among(2) == found
    assert ops.get("allreduce/n5").name == "allreduce/n5"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gemm/1760", r"no operation is called 'gemm/1760': a problem of gemm looks like 'gemm/m1760-n128-k1760-nn'"),
        ("gemm/m0-n1-k1-nn", "a problem of gemm looks like"),
        ("gemm/m01-n1-k1-nn", "did you mean 'gemm/m1-n1-k1-nn'"),
        ("gemm/m9999999999-n1-k1-nn", "a problem of gemm looks like"),
        ("lstm/h1-b1", "a problem of lstm looks like 'lstm/h512-b16-t25'"),
        ("conv/w2-h2-c1-n1-k1-f5x5-p0x0-s1x1", "the filter is larger than the padded image"),
        ("allreduce/n5-r1", "a sum over devices takes two of them at least"),
        ("allreduce/r2", "a problem of allreduce looks like 'allreduce/n100000-r2'"),
        ("fft/n128", "no operation is called 'fft/n128', the kinds are allreduce, conv, gemm, gru, lstm, rnn"),
    ],
)
def test_what_is_no_operation_is_told_with_what_one_looks_like(name: str, message: str) -> None:
    with pytest.raises(UnknownOperationError, match=message):
        ops.get(name)


def test_operations_are_given_the_same_numbers_every_time_and_what_they_give_is_about_one() -> None:
    operation = ops.get("gemm/m200-n300-k400-nn")
    a, b = operation_values(operation)
    again = operation_values(operation)
    assert np.array_equal(a, again[0])
    assert np.array_equal(b, again[1])
    assert a.dtype == np.float32
    assert (a @ b).std() == pytest.approx(1, rel=0.05)


def test_a_name_says_what_it_is_of() -> None:
    assert works.find("gemm/m2-n3-k4-nn") == Gemm(m=2, n=3, k=4)
    assert works.find("alexnet/conv2").name == "alexnet/conv2"
    assert [works.is_part(name) for name in ("alexnet", "alexnet/conv2", "gemm/m2-n3-k4-nn")] == [False, True, True]
    for name in ("gemm/x", "alexnet/x", "x"):
        with pytest.raises(works.UNKNOWN):
            works.find(name)


def test_listing_operations_loads_nothing_heavy() -> None:
    check = "import sys; from workers import ops; ops.get('gemm/m1-n1-k1-nn').flop; "
    check += "print([name for name in ('numpy', 'tensorflow', 'ray', 'yaml') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"
