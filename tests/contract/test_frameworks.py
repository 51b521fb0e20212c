"""What every framework must do; one suite over all that are found."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from tests.builders import a_device, a_workload
from tests.contract import operation_reference
from tests.contract.network_reference import gradients, last_tensor, slopes
from workers import frameworks, ops
from workers.frameworks.base import UnsupportedError, WrongDeviceError
from workers.models.initial import initial_values, operation_values
from workers.models.joins import Add, Concat
from workers.models.layers import (
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Padding,
)
from workers.models.network import Model
from workers.peak import best_bytes_per_s, best_flops
from workers.protocol import (
    NETWORK_PASSES,
    Compiler,
    Device,
    DeviceKind,
    Fetch,
    Layout,
    Pass,
    Precision,
    Verdict,
    Workload,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workers.frameworks.base import Framework
    from workers.ops.base import Operation

Array: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]

#: Everything that AlexNet is made of, small enough for differences: odd sides, SAME with uneven padding, stride 2.
TINY = Model(
    name="tiny",
    description="One of each.",
    source="tests",
    input_shape=(11, 9, 2),
    layers=(
        Conv(name="conv1", filters=3, kernel=4, stride=2, padding=Padding.SAME),
        MaxPool(name="pool1", kernel=3, stride=1, padding=Padding.SAME),
        Conv(name="conv2", filters=4, kernel=3, padding=Padding.VALID, relu=False),
        MaxPool(name="pool2", kernel=2, stride=1, padding=Padding.VALID),
        Flatten(name="flatten"),
        Dense(name="dense1", units=5, bias=False),
        Dense(name="dense2", units=3, relu=False),
    ),
    weight_sd=0.5,
    input_sd=1.0,
)

#: The rest of what networks are made of: groups, normalisations, dropout, paths that part and come together.
BRANCHED = Model(
    name="branched",
    description="The others.",
    source="tests",
    input_shape=(9, 8, 4),
    layers=(
        # No ReLU before a bias: where all its inputs were zero, there would be no slope to compare with.
        Conv(name="conv1", filters=6, kernel=3, stride=2, groups=2, relu=False),
        # Far stronger than the paper's, so that what it does shows.
        LocalResponseNorm(name="norm1", radius=1, offset=1.0, alpha=0.7, beta=0.6),
        Concat(
            name="inception",
            paths=(
                (Conv(name="one", filters=2, kernel=1),),
                (
                    Conv(name="three_reduce", filters=2, kernel=1, bias=False, relu=False),
                    Conv(name="three", filters=3, kernel=3),
                ),
                (MaxPool(name="pool", kernel=3, stride=1, padding=Padding.SAME),),
            ),
        ),
        Add(
            name="block",
            paths=(
                (
                    Conv(name="narrow", filters=4, kernel=3, stride=2, bias=False, relu=False),
                    BatchNorm(name="narrow_bn", epsilon=0.1),
                ),
                (
                    Conv(name="shortcut", filters=4, kernel=1, stride=2, bias=False, relu=False),
                    BatchNorm(name="shortcut_bn", relu=False),
                ),
            ),
            relu=False,
        ),
        Add(name="identity", paths=((Conv(name="same", filters=4, kernel=1),), ())),
        Dropout(name="dropout1", rate=0.25),
        AveragePool(name="mean", kernel=2),
        Flatten(name="flatten"),
        Dropout(name="dropout2"),
        Dense(name="dense", units=3, relu=False),
    ),
    weight_sd=0.5,
    input_sd=1.0,
)

#: Of the difference's norm to the reference's. float32 keeps 24 bits; float16 and a TF32 factor 11; bfloat16 8, whose
#: rounding also lets another pixel win a pool here and there.
TOLERANCE = {Precision.FLOAT32: 1e-5, Precision.TF32: 0.02, Precision.FLOAT16: 0.02, Precision.BFLOAT16: 0.1}

#: What a step must tell of, on every device.
FACTS = ("name", "version", "device", "intra_op_threads", "inter_op_threads", "xla_flags", "cuda", "cudnn")


def this_cpu() -> Device:
    return a_device(cores=tuple(sorted(os.sched_getaffinity(0))))


@pytest.fixture(params=frameworks.names())
def framework(request: pytest.FixtureRequest) -> Framework:
    found = frameworks.load(request.param)
    reason = found.available()
    if reason is not None:
        pytest.skip(reason)
    found.prepare(this_cpu(), a_workload())
    return found


def outputs(framework: Framework, workload: Workload, work: Model | Operation = TINY) -> tuple[Array, ...]:
    """Return what a step gives; a test of what cannot be had here is skipped."""
    try:
        step = framework.build(work, workload, this_cpu())
    except UnsupportedError as error:
        pytest.skip(str(error))
    step()
    return step.outputs()


def assert_close(found: Array, expected: Array, precision: Precision) -> None:
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= TOLERANCE[precision] * np.linalg.norm(expected)


def joined(tensors: Iterable[Array]) -> Array:
    return np.concatenate([np.ravel(tensor) for tensor in tensors])


@pytest.mark.parametrize("pass_", NETWORK_PASSES)
@pytest.mark.parametrize("precision", Precision)
def test_every_kind_of_layer_computes_what_its_formula_says(
    framework: Framework, precision: Precision, pass_: Pass
) -> None:
    values = initial_values(BRANCHED, 3, precision)
    found = outputs(framework, a_workload(pass_=pass_, batch_size=3, precision=precision), BRANCHED)
    if pass_ is Pass.FORWARD:
        expected = [last_tensor(BRANCHED, values.images, values.parameters)]
    else:
        expected = gradients(BRANCHED, values.images, values.parameters)
    # As one vector: the gradient of a shift that a later normalisation takes out again is zero but for rounding.
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    assert_close(joined(found), joined(expected), precision)


def alone(name: str) -> Model:
    model = TINY if name in {layer.name for layer in TINY.layers} else BRANCHED
    return model.layer_alone(name)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("name", ["conv2", "pool2", "dense1", "norm1", "three", "narrow_bn", "dropout2", "block"])
def test_a_layer_by_itself_gives_the_gradient_of_its_input_last(
    framework: Framework, name: str, layout: Layout
) -> None:
    model = alone(name)
    values = initial_values(model, 2)
    found = outputs(framework, a_workload(pass_=Pass.FORWARD_BACKWARD, batch_size=2, layout=layout), model)
    images = np.asarray(values.images, np.float64)
    of_images = slopes(lambda: float((last_tensor(model, images, values.parameters) ** 2).sum() / 2), images)
    expected = [*gradients(model, values.images, values.parameters), of_images]
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    assert_close(joined(found), joined(expected), Precision.FLOAT32)


OPERATIONS = [
    "gemm/m5-n4-k7-nn",
    "gemm/m5-n4-k7-tn",
    "gemm/m5-n4-k7-nt",
    "conv/w7-h6-c3-n2-k4-f3x2-p1x0-s2x1",
    "conv/w5-h5-c2-n2-k3-f1x1-p0x0-s1x1",
    "rnn/h4-b3-t5",
    "lstm/h4-b3-t5",
    "gru/h4-b3-t5",
]


@pytest.mark.parametrize("other", [{}, {"compiler": Compiler.XLA}, {"layout": Layout.NCHW}], ids=str)
@pytest.mark.parametrize(("name", "pass_"), [(name, pass_) for name in OPERATIONS for pass_ in ops.get(name).passes])
def test_every_operation_computes_what_its_formula_says(
    framework: Framework, name: str, pass_: Pass, other: dict[str, object]
) -> None:
    assert_operation(framework, name, a_workload(pass_=pass_, **other))


@pytest.mark.parametrize("precision", sorted(set(Precision) - {Precision.FLOAT32}))
@pytest.mark.parametrize("name", OPERATIONS[1:-1:2])
def test_operations_do_so_in_every_number_type(framework: Framework, name: str, precision: Precision) -> None:
    assert_operation(framework, name, a_workload(precision=precision))


def assert_operation(framework: Framework, name: str, workload: Workload) -> None:
    operation = ops.get(name)
    workload = replace(workload, model=name, batch_size=operation.batch_size)
    found = outputs(framework, workload, operation)
    expected = operation_reference.outputs(operation, workload.pass_, operation_values(operation))
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    for tensor, reference in zip(found, expected, strict=True):
        assert_close(tensor, reference, workload.precision)


def test_an_operation_that_nobody_wrote_is_unsupported(framework: Framework) -> None:
    class Unknown:
        name = "unknown/x1"
        batch_size = 1
        passes = (Pass.FORWARD,)
        tensors = ()

        def flop(self, batch_size: int, pass_: Pass) -> int:
            raise NotImplementedError

        def bytes(self, batch_size: int, pass_: Pass, itemsize: int) -> int:
            raise NotImplementedError

    with pytest.raises(UnsupportedError, match=r"unknown/x1: .* nothing for Unknown"):
        framework.build(Unknown(), a_workload(batch_size=1), this_cpu())


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("fetch", Fetch)
@pytest.mark.parametrize("precision", Precision)
def test_forward_is_the_network_s_last_tensor(
    framework: Framework, precision: Precision, fetch: Fetch, batch_size: int
) -> None:
    values = initial_values(TINY, batch_size, precision)
    (found,) = outputs(framework, a_workload(batch_size=batch_size, precision=precision, fetch=fetch))
    assert_close(found, last_tensor(TINY, values.images, values.parameters), precision)


@pytest.mark.parametrize("fetch", Fetch)
@pytest.mark.parametrize("precision", Precision)
def test_forward_backward_is_the_gradient_for_every_parameter(
    framework: Framework, precision: Precision, fetch: Fetch
) -> None:
    values = initial_values(TINY, 3, precision)
    workload = a_workload(pass_=Pass.FORWARD_BACKWARD, batch_size=3, precision=precision, fetch=fetch)
    found = outputs(framework, workload)
    expected = gradients(TINY, values.images, values.parameters)
    assert len(found) == len(expected) == 7
    for tensor, reference in zip(found, expected, strict=True):
        assert_close(tensor, reference, precision)


@pytest.mark.parametrize("pass_", NETWORK_PASSES)
@pytest.mark.parametrize("other", [{"compiler": Compiler.XLA}, {"layout": Layout.NCHW}])
@pytest.mark.parametrize("model", [TINY, BRANCHED], ids=lambda model: model.name)
def test_compiler_and_layout_change_no_result(
    framework: Framework, model: Model, pass_: Pass, other: dict[str, object]
) -> None:
    plain = a_workload(pass_=pass_, batch_size=2)
    found = outputs(framework, replace(plain, **other), model)  # type: ignore[arg-type]
    reference = outputs(framework, plain, model)
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in reference]
    assert_close(joined(found), joined(reference), Precision.FLOAT32)


def test_the_output_follows_the_input(framework: Framework) -> None:
    (one,) = outputs(framework, a_workload(batch_size=2), TINY)
    (other,) = outputs(framework, a_workload(batch_size=2), replace(TINY, input_sd=2.0))
    # No ReLU before the last layer is left out and biases are zero: twice the input is twice the output.
    assert_close(other, 2 * one, Precision.FLOAT32)
    assert np.abs(one).max() > 0


def test_a_step_gives_the_same_every_time(framework: Framework) -> None:
    step = framework.build(TINY, a_workload(batch_size=2), this_cpu())
    step()
    first = step.outputs()[0].copy()
    step()
    assert np.array_equal(step.outputs()[0], first)


def test_a_step_tells_what_is_really_in_use(framework: Framework) -> None:
    device = this_cpu()
    environment = framework.build(TINY, a_workload(batch_size=1), device).environment
    assert environment.get("framework.intra_op_threads").value == len(device.cores)
    for name in FACTS:
        fact = environment.get(f"framework.{name}")
        assert fact.reason != "not recorded", name
        assert (fact.value is None) == (fact.reason is not None), name


def test_other_threads_than_the_device_s_cores_are_refused(framework: Framework) -> None:
    with pytest.raises(WrongDeviceError, match="threads"):
        framework.build(TINY, a_workload(batch_size=1), replace(this_cpu(), cores=this_cpu().cores[:-1] or (0, 1)))


def test_cores_that_the_process_may_not_use_are_refused(framework: Framework) -> None:
    beyond = tuple(4096 + core for core in this_cpu().cores)
    with pytest.raises(WrongDeviceError, match="this process may use"):
        framework.build(TINY, a_workload(batch_size=1), replace(this_cpu(), cores=beyond))


def test_a_gpu_that_is_not_there_is_refused(framework: Framework) -> None:
    with pytest.raises(WrongDeviceError):
        framework.build(TINY, a_workload(batch_size=1), a_device(selector="gpu:0"))


def test_a_layer_that_nobody_wrote_is_unsupported(framework: Framework) -> None:
    class Unknown:
        name = "unknown"

        def __init__(self, like: Layer) -> None:
            self.output_shape = like.output_shape
            self.parameters = like.parameters
            self.multiply_adds = like.multiply_adds

    model = replace(TINY, layers=(Unknown(TINY.layers[0]), *TINY.layers[1:]))
    with pytest.raises(UnsupportedError, match=r"layer unknown: .* nothing for Unknown") as caught:
        framework.build(model, a_workload(batch_size=1), this_cpu())
    assert framework.verdict_of(caught.value) is Verdict.UNSUPPORTED


def test_running_out_of_memory_is_an_oom(framework: Framework) -> None:
    assert framework.verdict_of(MemoryError("Unable to allocate 2.00 TiB")) is Verdict.OOM


def test_any_other_error_is_a_crash(framework: Framework) -> None:
    assert framework.verdict_of(ZeroDivisionError("division by zero")) is Verdict.CRASHED


def test_a_cpu_has_no_tf32(framework: Framework) -> None:
    with pytest.raises(UnsupportedError, match="a CPU has no TF32"):
        framework.build(TINY, a_workload(precision=Precision.TF32), this_cpu())


def test_more_threads_than_cores_are_refused(framework: Framework) -> None:
    with pytest.raises(UnsupportedError, match=r"4096 threads are more than cpu.* has cores"):
        framework.build(TINY, a_workload(threads=4096), this_cpu())


@pytest.mark.parametrize("precision", sorted(set(Precision) - {Precision.TF32}))
def test_the_peak_is_a_figure(framework: Framework, precision: Precision) -> None:
    workload = a_workload(precision=precision)
    peak = best_flops(lambda rows: framework.product(rows, workload, this_cpu()), DeviceKind.CPU)
    # Between a toy and the fastest machine there is.
    assert 1e8 < peak < 1e18


def test_the_memory_s_peak_is_a_figure(framework: Framework) -> None:
    peak = best_bytes_per_s(lambda count: framework.update(count, this_cpu()), DeviceKind.CPU)
    assert 1e8 < peak < 1e14


@pytest.mark.parametrize("name", frameworks.names())
def test_asking_whether_a_framework_is_there_imports_nothing_heavy(name: str) -> None:
    check = f"import sys; from workers import frameworks; found = frameworks.load({name!r}); found.available(); "
    check += "found.verdict_of(ValueError()); "
    check += "print([m for m in ('numpy', 'tensorflow', 'torch', 'jax') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"


def test_an_unknown_framework_lists_those_there_are() -> None:
    with pytest.raises(frameworks.UnknownFrameworkError, match="called 'base', there are jax, tensorflow, torch"):
        frameworks.load("base")
