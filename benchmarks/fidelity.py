"""Does muster measure what the seed's script measures? The ratio of the two, in pairs.

    python benchmarks/fidelity.py --pairs 5 --steps 30

runs, for each pass, our plain restatement of the seed's protocol (`seed_protocol.py`) and muster's measuring child with
`fetch: host`, in turn, each in a fresh process, and prints one JSON object: for each pass the median over the pairs of
(median of muster's steps / median of the script's steps), with the least and the greatest. Even pairs run the script
first, odd pairs muster, so that a machine that slowly changes its pace favours neither.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from workers.codec import event_from_json, to_json
from workers.protocol import (
    NETWORK_PASSES,
    AttemptRequest,
    Case,
    Device,
    DeviceKind,
    Fetch,
    Finished,
    Pass,
    PhaseEntered,
    SampleBatch,
    Sampling,
    Started,
    Verdict,
    Workload,
)

ROOT = Path(__file__).resolve().parent.parent
#: The seed's burn-in, and `seed_protocol.WARMUP_STEPS`.
WARMUP_STEPS = 10
#: The aim: medians of muster and of the script differ by no more than 3 %.
LEAST_RATIO, GREATEST_RATIO = 0.97, 1.03
TIMEOUT_S = 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Median step of both, milliseconds."""

    seed_ms: float
    muster_ms: float

    @property
    def ratio(self) -> float:
        return self.muster_ms / self.seed_ms


def seed_ms(pass_: Pass, batch_size: int, steps: int, cores: tuple[int, ...]) -> list[float]:
    command = [sys.executable, str(ROOT / "benchmarks" / "seed_protocol.py"), "--pass", pass_.value]
    command += ["--batch-size", str(batch_size), "--steps", str(steps), "--threads", str(len(cores))]
    ms: list[float] = json.loads(output(command))["ms"]
    return ms


def muster_ms(pass_: Pass, batch_size: int, steps: int, cores: tuple[int, ...]) -> list[float]:
    return child(Workload(model="alexnet", pass_=pass_, batch_size=batch_size, fetch=Fetch.HOST), steps, cores)[0]


def child(workload: Workload, steps: int, cores: tuple[int, ...]) -> tuple[list[float], Finished]:
    """Run muster's measuring child; return its counted steps, milliseconds, and its last word."""
    ms: list[float] = []
    finished = None
    for line in output([sys.executable, "-m", "workers.child"], to_json(_request(workload, steps, cores))).splitlines():
        event = event_from_json((PhaseEntered, Started, SampleBatch, Finished), line)
        if isinstance(event, SampleBatch) and not event.warmup:
            ms += event.ms
        elif isinstance(event, Finished):
            finished = event
    if finished is None or finished.verdict is not Verdict.OK or len(ms) != steps:
        raise SystemExit(f"the child ended with {finished} after {len(ms)} of {steps} steps")
    return ms, finished


def _request(workload: Workload, steps: int, cores: tuple[int, ...]) -> AttemptRequest:
    device = Device(host="localhost", selector="cpu", kind=DeviceKind.CPU, name="this CPU", cores=cores)
    sampling = Sampling(warmup=WARMUP_STEPS, min_steps=steps, max_steps=steps)
    case = Case(key="fidelity", device=device, workload=workload, sampling=sampling)
    return AttemptRequest(run_id="fidelity", case=case, attempt=1, start_timeout_s=TIMEOUT_S, case_timeout_s=TIMEOUT_S)


def output(command: list[str], given: str = "") -> str:
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    done = subprocess.run(
        command, input=given, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def measure_pair(number: int, pass_: Pass, batch_size: int, steps: int, cores: tuple[int, ...]) -> Pair:
    if number % 2:
        muster = muster_ms(pass_, batch_size, steps, cores)
        seed = seed_ms(pass_, batch_size, steps, cores)
    else:
        seed = seed_ms(pass_, batch_size, steps, cores)
        muster = muster_ms(pass_, batch_size, steps, cores)
    return Pair(seed_ms=statistics.median(seed), muster_ms=statistics.median(muster))


def summary(pairs: list[Pair]) -> dict[str, object]:
    ratios = [pair.ratio for pair in pairs]
    median = statistics.median(ratios)
    return {
        "median_ratio": round(median, 4),
        "min_ratio": round(min(ratios), 4),
        "max_ratio": round(max(ratios), 4),
        "within_bounds": LEAST_RATIO <= median <= GREATEST_RATIO,
        "seed_median_ms": round(statistics.median(pair.seed_ms for pair in pairs), 2),
        "muster_median_ms": round(statistics.median(pair.muster_ms for pair in pairs), 2),
        "pairs_ms": [[round(pair.seed_ms, 2), round(pair.muster_ms, 2)] for pair in pairs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="muster against the seed's protocol: ratio of median step times")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--pass", dest="passes", choices=[each.value for each in NETWORK_PASSES], action="append")
    given = parser.parse_args()
    cores = tuple(sorted(os.sched_getaffinity(0)))
    passes = {}
    for pass_ in [Pass(value) for value in given.passes or [each.value for each in NETWORK_PASSES]]:
        pairs = []
        for number in range(given.pairs):
            start = time.monotonic()
            pair = measure_pair(number, pass_, given.batch_size, given.steps, cores)
            pairs.append(pair)
            progress = f"{pass_.value} {number + 1}/{given.pairs}: script {pair.seed_ms:.1f} ms, muster"
            progress += f" {pair.muster_ms:.1f} ms, ratio {pair.ratio:.4f} ({time.monotonic() - start:.0f} s)"
            print(progress, file=sys.stderr, flush=True)
        passes[pass_.value] = summary(pairs)
    given_as_data = {"pairs": given.pairs, "steps": given.steps, "batch_size": given.batch_size, "cores": len(cores)}
    bounds = [LEAST_RATIO, GREATEST_RATIO]
    print(json.dumps({"benchmark": "fidelity", **given_as_data, "bounds": bounds, "passes": passes}, indent=2))


if __name__ == "__main__":
    main()
