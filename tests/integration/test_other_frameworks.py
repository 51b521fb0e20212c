"""PyTorch and JAX in the measuring child: what they run on, what they tell, and how they fail."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from tests.builders import a_workload
from tests.integration.test_tensorflow import child, this_cpu
from workers import frameworks, models
from workers.protocol import Compiler, OneDnn, Pass, Precision, Verdict

OTHERS = [
    pytest.param(
        name, marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    )
    for name in ("torch", "jax")
]


@pytest.mark.parametrize("name", OTHERS)
def test_a_case_runs_with_the_threads_of_its_device_and_says_so(name: str) -> None:
    environment, finished = child(a_workload(framework=name, batch_size=1, threads=1))
    assert finished.verdict is Verdict.OK, finished.reason
    assert environment.get("framework.name").value == name
    assert environment.get("framework.version").value == importlib.import_module(name).__version__
    assert environment.get("framework.intra_op_threads").value == 1
    assert "cpu" in str(environment.get("framework.device").value).lower()
    assert finished.peak_flops is not None
    assert finished.copy_bytes_per_s is not None


@pytest.mark.parametrize("name", OTHERS)
def test_a_batch_that_no_machine_can_hold_is_an_oom(name: str) -> None:
    _, finished = child(a_workload(framework=name, batch_size=10**9))
    assert finished.verdict is Verdict.OOM, finished.reason


@pytest.mark.parametrize("name", OTHERS)
def test_what_cannot_be_had_is_unsupported_with_the_reason(name: str) -> None:
    _, finished = child(a_workload(framework=name, batch_size=1, precision=Precision.TF32))
    assert (finished.verdict, finished.reason) == (
        Verdict.UNSUPPORTED,
        "a CPU has no TF32: it is of NVIDIA's GPUs, from Ampere on",
    )
    workload, reason = {
        "torch": (a_workload(compiler=Compiler.XLA), "PyTorch has no compiler xla"),
        "jax": (a_workload(onednn=OneDnn.OFF), "JAX has no switch for oneDNN"),
    }[name]
    _, finished = child(replace(workload, framework=name))
    assert (finished.verdict, finished.reason) == (Verdict.UNSUPPORTED, reason)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_pytorch_without_onednn_says_so() -> None:
    environment, finished = child(a_workload(framework="torch", batch_size=1, onednn=OneDnn.OFF))
    assert finished.verdict is Verdict.OK, finished.reason
    assert environment.get("framework.onednn").value is False


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("model", ["alexnet", "alexnet-2012", "googlenet-v1", "resnet-50"])
def test_whole_networks_give_what_tensorflow_gives(name: str, model: str) -> None:
    """In 24 bits: the deeper a network, the more is left of the order in which numbers are added up."""
    workload = a_workload(batch_size=1, pass_=Pass.FORWARD)
    found = []
    for each in ("tensorflow", name):
        framework = frameworks.load(each)
        framework.prepare(this_cpu(), workload)
        step = framework.build(models.get(model), workload, this_cpu())
        found.append(step.outputs()[0])
    ours, theirs = found
    assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)


@pytest.mark.parametrize(("name", "package"), [("torch", "muster-bench[torch]"), ("jax", "muster-bench[jax]")])
def test_without_the_framework_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = frameworks.load(name).available()
    assert reason is not None
    assert f"pip install '{package}'" in reason
