"""Does a framework under muster do what the framework does by itself? And what do networks and settings come to?

    PYTHONPATH=. python benchmarks/works.py --pairs 3

runs, for each framework that is installed, AlexNet's two passes, a matrix product and a convolution in turn as a plain
script of that framework (`plain.py`) and in muster's measuring child, each in a fresh process, and prints one JSON
object: the median over the pairs of (median of muster's steps / median of the script's). Then the share of the measured
peak that each network reaches, and a tuned setting against the seed's default (batch 128, float32), in pairs as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.fidelity import GREATEST_RATIO, LEAST_RATIO, child, output
from workers import frameworks, models, works
from workers.protocol import Compiler, Pass, Precision, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parent.parent

#: What plain.py calls a work, and muster; and how many times as many steps it takes to know its time.
WORKS = {
    "alexnet forward": ("alexnet", "alexnet", Pass.FORWARD, 1),
    "alexnet forward_backward": ("alexnet", "alexnet", Pass.FORWARD_BACKWARD, 1),
    "gemm": ("gemm", "gemm/m1760-n128-k1760-nn", Pass.FORWARD, 30),
    "conv": ("conv", "conv/w28-h28-c192-n16-k32-f5x5-p2x2-s1x1", Pass.FORWARD, 10),
}
BATCH_SIZE = 32

#: What `muster tune` found on two cores of an AMD EPYC (docs/how-to/tune-a-device.md), and the seed's default.
TUNED = Workload(model="alexnet", pass_=Pass.FORWARD, batch_size=32, precision=Precision.BFLOAT16)
DEFAULT = Workload(model="alexnet", pass_=Pass.FORWARD, batch_size=128)

#: A batch whose steps are long enough to time, and short enough for every network.
SHARE_BATCH = 8


def plain_ms(framework: str, name: str, steps: int, cores: tuple[int, ...]) -> float:
    work, _, pass_, factor = WORKS[name]
    command = [sys.executable, str(ROOT / "benchmarks" / "plain.py"), "--framework", framework, "--work", work]
    command += ["--pass", pass_.value, "--batch-size", str(BATCH_SIZE), "--steps", str(factor * steps)]
    ms: list[float] = json.loads(output([*command, "--threads", str(len(cores))]))["ms"]
    return statistics.median(ms)


def muster_ms(framework: str, name: str, steps: int, cores: tuple[int, ...]) -> float:
    _, model, pass_, factor = WORKS[name]
    batch_size = works.find(model).batch_size or BATCH_SIZE
    # JAX's users compile the whole step.
    compiler = Compiler.XLA if framework == "jax" else Compiler.NONE
    workload = Workload(model=model, pass_=pass_, batch_size=batch_size, framework=framework, compiler=compiler)
    return statistics.median(child(workload, factor * steps, cores)[0])


def in_pairs(pairs: int, one: Callable[[], float], other: Callable[[], float]) -> dict[str, Any]:
    """Return both medians and the ratio of the second to the first, which goes first in every other pair."""
    found = []
    for number in range(pairs):
        if number % 2:
            second = other()
            found.append((one(), second))
        else:
            first = one()
            found.append((first, other()))
    ratios = sorted(second / first for first, second in found)
    return {
        "ratio": round(statistics.median(ratios), 4),
        "min": round(ratios[0], 4),
        "max": round(ratios[-1], 4),
        "ms": [round(statistics.median(column), 3) for column in zip(*found, strict=True)],
    }


def fidelity(names: Iterable[str], pairs: int, steps: int, cores: tuple[int, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for framework in names:
        if frameworks.load(framework).available() is not None:
            continue
        for name in WORKS:
            row = in_pairs(
                pairs,
                lambda: plain_ms(framework, name, steps, cores),  # noqa: B023  # called at once
                lambda: muster_ms(framework, name, steps, cores),  # noqa: B023
            )
            found[f"{framework} {name}"] = {**row, "within_bounds": LEAST_RATIO <= row["ratio"] <= GREATEST_RATIO}
            print(f"{framework} {name}: {row}", file=sys.stderr, flush=True)
    return found


def shares(steps: int, cores: tuple[int, ...]) -> dict[str, Any]:
    """Return the share of the device's peak that each network reaches, forward and forward-backward."""
    found: dict[str, Any] = {}
    for name in models.names():
        for pass_ in models.get(name).passes:
            workload = Workload(model=name, pass_=pass_, batch_size=SHARE_BATCH)
            ms, finished = child(workload, steps, cores)
            flops = models.get(name).flop(SHARE_BATCH, pass_) / (statistics.median(ms) / 1e3)
            peak = finished.peak_flops
            found[f"{name} {pass_.value}"] = {
                "ms": round(statistics.median(ms), 2),
                "tflops": round(flops / 1e12, 4),
                "share_of_peak": None if peak is None else round(flops / peak, 4),
            }
            print(f"{name} {pass_.value}: {found[f'{name} {pass_.value}']}", file=sys.stderr, flush=True)
    return found


def tuned(pairs: int, steps: int, cores: tuple[int, ...]) -> dict[str, Any]:
    """Return how many times as many images a second the tuned setting has."""

    def images_ms(workload: Workload) -> float:
        return statistics.median(child(workload, steps, cores)[0]) / workload.batch_size

    row = in_pairs(pairs, lambda: images_ms(TUNED), lambda: images_ms(replace(DEFAULT)))
    return {**row, "tuned": "batch 32, bfloat16", "default": "batch 128, float32"}


def main() -> None:
    parser = argparse.ArgumentParser(description="frameworks and operations under muster against the same bare")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", choices=["fidelity", "shares", "tuned"], action="append")
    parser.add_argument("--framework", choices=frameworks.names(), action="append")
    given = parser.parse_args()
    cores = tuple(sorted(os.sched_getaffinity(0)))
    wanted = given.only or ["fidelity", "shares", "tuned"]
    found: dict[str, Any] = {"benchmark": "works", "pairs": given.pairs, "steps": given.steps, "cores": len(cores)}
    if "fidelity" in wanted:
        found["fidelity"] = fidelity(given.framework or frameworks.names(), given.pairs, given.steps, cores)
    if "shares" in wanted:
        found["shares"] = shares(max(given.steps // 4, 3), cores)
    if "tuned" in wanted:
        found["tuned"] = tuned(given.pairs, given.steps, cores)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
