"""The TensorFlow builder with the real TensorFlow: what it runs, what it tells, and how it fails."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.builders import a_case, a_device, a_sampling, a_workload
from workers import frameworks, models
from workers.codec import event_from_json, to_json
from workers.frameworks.base import UnsupportedError, WrongDeviceError
from workers.protocol import (
    AttemptRequest,
    Compiler,
    Device,
    Environment,
    Finished,
    Layout,
    OneDnn,
    Pass,
    PhaseEntered,
    Precision,
    SampleBatch,
    Started,
    Verdict,
)

if TYPE_CHECKING:
    from workers.frameworks.base import Framework
    from workers.protocol import Workload

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
TIMEOUT_S = 150

pytestmark = pytest.mark.skipif(
    frameworks.load("tensorflow").available() is not None, reason=str(frameworks.load("tensorflow").available())
)


def this_cpu() -> Device:
    return a_device(cores=tuple(sorted(os.sched_getaffinity(0))))


@pytest.fixture
def tensorflow() -> Framework:
    found = frameworks.load("tensorflow")
    found.prepare(this_cpu(), a_workload())
    return found


def child(workload: Workload, device: Device | None = None, **variables: str) -> tuple[Environment, Finished]:
    """Run one short case in the measuring child; return what it told of its environment, and its last word."""
    case = a_case(device or this_cpu(), workload, a_sampling(warmup=1, min_steps=2, max_steps=2))
    request = AttemptRequest(run_id="r", case=case, attempt=1, start_timeout_s=TIMEOUT_S, case_timeout_s=TIMEOUT_S)
    done = subprocess.run(
        [sys.executable, "-m", "workers.child"],
        input=to_json(request),
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    kinds = (PhaseEntered, Started, SampleBatch, Finished)
    events = [event_from_json(kinds, line) for line in done.stdout.splitlines()]
    assert isinstance(events[-1], Finished), done.stderr
    started = [event.environment for event in events if isinstance(event, Started)]
    return started[0] if started else Environment(), events[-1]


# --- the work that is done ------------------------------------------------------------------------------------


def kinds_of(operations: list[str]) -> Counter[str]:
    """Count the kernels that do AlexNet's work, under whatever names oneDNN or a fusion gives them."""
    marks = ("Conv2DBackpropFilter", "Conv2DBackpropInput", "Conv2D", "MaxPoolGrad", "MaxPool", "ReluGrad")
    return Counter(next(mark for mark in marks if mark in op) for op in operations if any(m in op for m in marks))


def kernels_of_step(framework: Framework, pass_: Pass) -> list[str]:
    """Return the operations of the graph that TensorFlow really runs, after all its rewriting."""
    from tensorflow.python.eager import context

    # TensorFlow tells of a function's graph once, when it first runs.
    context.context().enable_run_metadata()
    try:
        framework.build(models.get("alexnet"), a_workload(pass_=pass_, batch_size=2), this_cpu())
        metadata = context.context().export_run_metadata()
    finally:
        context.context().disable_run_metadata()
    return [node.op for graph in metadata.partition_graphs for node in graph.node]


def kernels_of_session(pass_: Pass) -> list[str]:
    import tensorflow as tf

    inference = runpy.run_path(str(BENCHMARKS / "seed_protocol.py"))["inference"]
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        target, parameters = inference(v1.Variable(v1.random_normal([2, 224, 224, 3])))
        if pass_ is Pass.FORWARD_BACKWARD:
            target = tf.gradients(tf.nn.l2_loss(target), parameters)
        session.run(v1.global_variables_initializer())
        metadata = v1.RunMetadata()
        session.run(target, options=v1.RunOptions(output_partition_graphs=True), run_metadata=metadata)
    return [node.op for graph in metadata.partition_graphs for node in graph.node]


@pytest.mark.parametrize(
    ("pass_", "expected"),
    [
        (Pass.FORWARD, {"Conv2D": 5, "MaxPool": 3}),
        (
            Pass.FORWARD_BACKWARD,
            # No gradient of the image: one Conv2DBackpropInput less than there are convolutions.
            {
                "Conv2D": 5,
                "MaxPool": 3,
                "Conv2DBackpropFilter": 5,
                "Conv2DBackpropInput": 4,
                "MaxPoolGrad": 3,
                "ReluGrad": 5,
            },
        ),
    ],
)
def test_a_step_runs_the_kernels_of_the_seed_s_session(
    tensorflow: Framework, pass_: Pass, expected: dict[str, int]
) -> None:
    assert kinds_of(kernels_of_step(tensorflow, pass_)) == kinds_of(kernels_of_session(pass_)) == expected


@pytest.mark.parametrize("name", models.names())
def test_every_model_gives_a_gradient_for_every_parameter(tensorflow: Framework, name: str) -> None:
    model = models.get(name)
    step = tensorflow.build(model, a_workload(pass_=Pass.FORWARD_BACKWARD, batch_size=1), this_cpu())
    found = [gradient.shape for gradient in step.outputs()]
    of_the_input = [(1, *model.input_shape)] if model.wants_input_gradient else []
    assert found == [
        *(parameter.shape for placed in model.placed() for parameter in placed.parameters),
        *of_the_input,
    ]
    assert all(np.isfinite(gradient).all() for gradient in step.outputs())


# --- what it tells --------------------------------------------------------------------------------------------


def test_the_child_tells_what_tensorflow_uses() -> None:
    environment, finished = child(a_workload(batch_size=2), XLA_FLAGS="--xla_cpu_multi_thread_eigen=true")
    import tensorflow as tf

    assert finished.verdict is Verdict.OK
    assert finished.peak_flops is not None
    expected = {
        "framework.name": "tensorflow",
        "framework.version": tf.__version__,
        "framework.device": "/device:CPU:0",
        "framework.intra_op_threads": len(this_cpu().cores),
        "framework.inter_op_threads": len(this_cpu().cores),
        "framework.xla_flags": "--xla_cpu_multi_thread_eigen=true",
        "framework.tf32": False,
    }
    assert {name: environment.get(name).value for name in expected} == expected
    assert isinstance(environment.get("framework.onednn").value, bool)


def test_onednn_is_told_as_it_is_and_without_it_nchw_on_a_cpu_is_unsupported() -> None:
    environment, _ = child(a_workload(batch_size=1), TF_ENABLE_ONEDNN_OPTS="0")
    assert environment.get("framework.onednn").value is False
    _, finished = child(a_workload(batch_size=1, layout=Layout.NCHW), TF_ENABLE_ONEDNN_OPTS="0")
    assert finished.verdict is Verdict.UNSUPPORTED
    # The first layer that is tried says it, in its own words: one line, nothing of TensorFlow's insides.
    assert re.fullmatch(r"(The|Default) \w+ .*only supports .*NHWC.*CPU.*", str(finished.reason))


def test_onednn_is_turned_off_and_on_where_a_workload_asks_for_it() -> None:
    for asked, expected in ((OneDnn.OFF, False), (OneDnn.ON, True)):
        environment, finished = child(
            a_workload(batch_size=1, onednn=asked), TF_ENABLE_ONEDNN_OPTS=str(int(not expected))
        )
        assert finished.verdict is Verdict.OK, finished.reason
        assert environment.get("framework.onednn").value is expected


def test_a_step_has_the_threads_that_a_workload_asks_for() -> None:
    environment, finished = child(a_workload(batch_size=1, threads=1))
    assert finished.verdict is Verdict.OK, finished.reason
    assert environment.get("framework.intra_op_threads").value == 1
    assert environment.get("process.env.OMP_NUM_THREADS").value == "1"
    _, finished = child(a_workload(batch_size=1, threads=4096))
    assert finished.verdict is Verdict.UNSUPPORTED
    assert "4096 threads are more than" in str(finished.reason)


#: The largest take half a minute each; what they are made of is in the others as well.
LARGEST = ("overfeat", "vgg-a")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long] if name in LARGEST else [])
        for name in models.names()
    ],
)
def test_every_model_ends_in_its_shape_and_stays_within_float16(tensorflow: Framework, name: str) -> None:
    workload = a_workload(batch_size=2, precision=Precision.FLOAT16)
    (output,) = tensorflow.build(models.get(name), workload, this_cpu()).outputs()
    assert output.shape == (2, *models.get(name).shapes()[-1])
    assert np.isfinite(output).all()
    assert np.abs(output).max() > 0


def test_threads_cannot_be_changed_once_tensorflow_runs() -> None:
    script = """
import tensorflow as tf
from tests.builders import a_device, a_workload
from workers.frameworks import load
tf.constant(1)
try:
    load("tensorflow").prepare(a_device(cores=tuple(range(7))), a_workload())
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert "cannot be modified after initialization" in done.stdout


# --- how it fails ---------------------------------------------------------------------------------------------


def test_a_batch_that_no_machine_can_hold_is_an_oom() -> None:
    _, finished = child(a_workload(batch_size=10**9))
    assert finished.verdict is Verdict.OOM
    assert finished.reason


def test_a_missing_kernel_is_unsupported(tensorflow: Framework) -> None:
    import tensorflow as tf

    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.NotFoundError)) as caught:
        tf.raw_ops.Relu(features=tf.constant([True]))
    assert tensorflow.verdict_of(caught.value) is Verdict.UNSUPPORTED


def test_every_error_class_of_tensorflow_has_a_verdict(tensorflow: Framework) -> None:
    import tensorflow as tf

    found = {}
    for name, kind in vars(tf.errors).items():
        if isinstance(kind, type) and issubclass(kind, tf.errors.OpError) and kind is not tf.errors.OpError:
            found[name] = tensorflow.verdict_of(kind(None, None, "as it went"))
    assert len(found) >= 16
    not_crashed = {name: verdict for name, verdict in found.items() if verdict is not Verdict.CRASHED}
    assert not_crashed == {"ResourceExhaustedError": Verdict.OOM, "UnimplementedError": Verdict.UNSUPPORTED}


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), Verdict.OOM),
        (RuntimeError("Failed to allocate 1234 bytes for new constant"), Verdict.OOM),
        (RuntimeError("std::bad_alloc"), Verdict.OOM),
        (RuntimeError("Operation received an exception:Status: 1, message: could not create a primitive"), Verdict.OOM),
        (RuntimeError("Compute received an exception:Status:1, message: could not create a primitive."), Verdict.OOM),
        (RuntimeError("Operation received an exception:Status: 3, message: no such kernel"), Verdict.CRASHED),
        (ValueError("No OpKernel was registered to support Op 'Conv2D'"), Verdict.UNSUPPORTED),
        (UnsupportedError("nobody wrote it"), Verdict.UNSUPPORTED),
        (WrongDeviceError("asked for a GPU"), Verdict.CRASHED),
    ],
)
def test_messages_tell_where_classes_do_not(tensorflow: Framework, error: Exception, verdict: Verdict) -> None:
    assert tensorflow.verdict_of(error) is verdict


def test_without_tensorflow_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tensorflow: Framework) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = tensorflow.available()
    assert reason is not None
    assert "pip install 'muster-bench[cpu]'" in reason
    assert "pip install 'muster-bench[gpu]'" in reason


# --- on a GPU, where there is one -----------------------------------------------------------------------------


def a_real_gpu() -> Device:
    pynvml: Any = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"no GPU: {error}")
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    return replace(a_device(selector="gpu:0"), uuid=pynvml.nvmlDeviceGetUUID(handle))


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("compiler", Compiler)
@pytest.mark.parametrize("precision", Precision)
def test_a_gpu_case_runs_on_the_gpu(layout: Layout, compiler: Compiler, precision: Precision) -> None:
    workload = a_workload(
        pass_=Pass.FORWARD_BACKWARD, batch_size=8, layout=layout, compiler=compiler, precision=precision
    )
    environment, finished = child(workload, a_real_gpu())
    assert finished.verdict is Verdict.OK, finished.reason
    assert str(environment.get("framework.device").value).endswith("GPU:0")
    assert environment.get("framework.tf32").value is False


# --- the benchmark that holds it against the seed's protocol --------------------------------------------------


def test_the_seed_s_protocol_shares_no_code_with_muster() -> None:
    tree = ast.parse(BENCHMARKS.joinpath("seed_protocol.py").read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "argparse", "json", "time", "typing", "tensorflow"}


def test_fidelity_prints_a_ratio_for_a_pass() -> None:
    command = [sys.executable, str(BENCHMARKS / "fidelity.py"), "--pairs", "1", "--steps", "3", "--batch-size", "2"]
    done = subprocess.run(
        [*command, "--pass", "forward"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    forward = json.loads(done.stdout)["passes"]["forward"]
    ((seed_ms, muster_ms),) = forward["pairs_ms"]
    assert forward["median_ratio"] == pytest.approx(muster_ms / seed_ms, rel=0.01)
    assert forward["min_ratio"] == forward["median_ratio"] == forward["max_ratio"]
