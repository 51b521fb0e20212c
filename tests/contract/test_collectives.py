"""Sums over several devices, each in a process of its own: what they give, in every framework that has them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.builders import a_device, a_workload
from workers import frameworks, ops, works
from workers.frameworks.base import UnsupportedError
from workers.models.initial import operation_values
from workers.protocol import Compiler, Precision, Ring

#: What a process of the ring does: two steps, and the sum of the last.
PART = """
import json, sys
from tests.contract.test_collectives import a_part
print(json.dumps(a_part(*sys.argv[1:])))
"""

TOLERANCES = {Precision.FLOAT32: 1e-6, Precision.FLOAT16: 2e-3, Precision.BFLOAT16: 2e-2}
DEADLINE_S = 120.0


def a_part(rank: str, addresses: str, name: str, precision: str) -> dict[str, object]:
    """Take part in two steps; called in a process of its own."""
    framework = frameworks.load("tensorflow")
    device = a_device(cores=tuple(sorted(os.sched_getaffinity(0))))
    workload = a_workload(model=name, batch_size=1, precision=Precision(precision))
    ring = Ring(group="group", rank=int(rank), host="127.0.0.1", addresses=tuple(addresses.split(",")))
    framework.prepare(device, workload)
    step = framework.build_collective(works.find(name), workload, device, ring)
    step()
    (found,) = step.outputs()
    return {"sum": found.tolist(), "ranks": step.environment.get("collective.ranks").value}


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


@pytest.mark.parametrize(
    ("ranks", "precision"),
    [
        (3, Precision.FLOAT32),
        pytest.param(2, Precision.FLOAT16, marks=pytest.mark.slow),
        pytest.param(2, Precision.BFLOAT16, marks=pytest.mark.slow),
    ],
)
def test_every_device_has_the_sum_of_all(ranks: int, precision: Precision) -> None:
    name = f"allreduce/n1000-r{ranks}"
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(ranks))
    parts = [
        subprocess.Popen(
            [sys.executable, "-c", PART, str(rank), addresses, name, precision.value],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    answers = [json.loads(part.communicate(timeout=DEADLINE_S)[0]) for part in parts]
    (numbers,) = operation_values(ops.get(name))
    expected = numbers.astype(np.float64) * (ranks * (ranks + 1) // 2)
    for answer in answers:
        assert answer["ranks"] == ranks
        np.testing.assert_allclose(answer["sum"], expected, rtol=TOLERANCES[precision], atol=TOLERANCES[precision])


@pytest.mark.parametrize(
    ("framework", "name", "compiler", "reason"),
    [
        ("tensorflow", "gemm/m1-n1-k1-nn", Compiler.NONE, "gemm/m1-n1-k1-nn is measured on one device at a time"),
        ("tensorflow", "allreduce/n8-r2", Compiler.XLA, "a sum over devices is no work for a compiler"),
        ("torch", "allreduce/n8-r2", Compiler.NONE, "is measured with TensorFlow, not with PyTorch"),
        ("jax", "allreduce/n8-r2", Compiler.XLA, "is measured with TensorFlow, not with JAX"),
    ],
)
def test_what_is_no_sum_or_has_no_builder_is_unsupported(
    framework: str, name: str, compiler: Compiler, reason: str
) -> None:
    ring = Ring(group="group", rank=0, host="127.0.0.1", addresses=("127.0.0.1:1", "127.0.0.1:2"))
    workload = a_workload(model=name, compiler=compiler)
    with pytest.raises(UnsupportedError, match=reason):
        frameworks.load(framework).build_collective(works.find(name), workload, a_device(), ring)
