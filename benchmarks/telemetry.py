"""What reading telemetry costs the work that is measured, by pairs with and without.

The same case, AlexNet on all cores of this machine, in fresh processes of one agent: telemetry every second, and none,
in turns, A B B A, so that what drifts weighs on both alike. The figure is the ratio of the medians of a pair, and the
median of those ratios with its interval; the floor of what can be told is the same between two halves of the runs
without. Prints JSON.

    python benchmarks/telemetry.py --pairs 10
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from typing import Any

import numpy as np

from orchestrator.planning import case_key
from workers.agent import DeviceAgent
from workers.codec import from_json, to_json
from workers.protocol import AttemptRequest, Case, Device, DeviceKind, Pass, Result, Sampling, Workload

INTERVAL_S = 1.0


def the_case(steps: int) -> Case:
    cores = tuple(sorted(os.sched_getaffinity(0)))
    device = Device(host="here", selector="cpu", kind=DeviceKind.CPU, name="CPU", cores=cores)
    workload = Workload(model="alexnet", pass_=Pass.FORWARD, batch_size=8)
    sampling = Sampling(warmup=10, min_steps=steps, max_steps=steps)
    return Case(key=case_key(device, workload, sampling), device=device, workload=workload, sampling=sampling)


def one(case: Case, number: int, interval_s: float | None) -> Result:
    agent = DeviceAgent(to_json(case.device))
    request = AttemptRequest(
        run_id="telemetry", case=case, attempt=number, start_timeout_s=120.0, case_timeout_s=600.0,
        telemetry_interval_s=interval_s,
    )  # fmt: skip
    result = from_json(Result, agent.run_case(to_json(request)))
    agent.acknowledge(result.case_key, result.attempt)
    agent.shutdown()
    if not result.samples_ms:
        raise RuntimeError(f"{result.verdict.value}: {result.reason}")
    return result


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median ratio, by a bootstrap of pairs."""
    drawn = np.random.default_rng(0).choice(ratios, size=(5000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    case, ratios, without, costs = the_case(given.steps), [], [], []
    for number in range(given.pairs):
        order = (INTERVAL_S, None) if number % 2 == 0 else (None, INTERVAL_S)
        medians: dict[float | None, float] = {}
        for place, interval_s in enumerate(order):
            result = one(case, 2 * number + place + 1, interval_s)
            medians[interval_s] = statistics.median(result.samples_ms)
            if result.telemetry is not None and result.telemetry.cost_s is not None:
                costs.append(result.telemetry.cost_s / result.duration_s)
        ratios.append(medians[INTERVAL_S] / medians[None])
        without.append(medians[None])
    low, high = interval(ratios)
    halves = [first / second for first, second in zip(without[::2], without[1::2], strict=False)]
    found: dict[str, Any] = {
        "pairs": given.pairs,
        "steps": given.steps,
        "with_over_without": statistics.median(ratios),
        "with_over_without_low": low,
        "with_over_without_high": high,
        "without_over_without_spread": max(map(abs, (ratio - 1 for ratio in halves)), default=0.0),
        "cpu_of_the_thread_over_wall": statistics.median(costs),
        "ratios": ratios,
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
