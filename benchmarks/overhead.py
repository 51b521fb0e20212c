"""What Ray and the head add to one small case, in seconds, and where it goes.

In pairs, A B A B: `muster run` with one case, and the bare measuring child with the same case on stdin. What muster
adds is the difference of their wall times, pair by pair. Two more processes, once a pair: Ray alone, started, asked
for one actor's answer and ended, which is the floor; and the same run with a clock between its parts, which gives the
breakdown. The commands that touch no device are timed against `python -c pass`.
Prints JSON.

    python benchmarks/overhead.py --pairs 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from orchestrator.planning import case_key
from workers import codec
from workers.protocol import AttemptRequest, Case, Device, DeviceKind, Pass, Sampling, Workload

ROOT = Path(__file__).parents[1]
MUSTER = [sys.executable, "-m", "orchestrator.cli.app"]
STEPS = 10

CONFIG = f"""\
version: 1
name: overhead
hosts: [{{name: localhost, devices: [cpu]}}]
workloads: [{{model: alexnet, passes: [forward], batch_size: 1}}]
measure: {{warmup: 1, steps: {STEPS}}}
"""

TRACED = """
import json, sys, time
from orchestrator.cli.ending import show_executed
from orchestrator.cli.execution import Order, execute
from orchestrator.config.load import load_config
from pathlib import Path
loaded = load_config(Path("overhead.yaml"))
spent = {"python, imports, config": time.time() - float(sys.argv[1])}
executed = execute(Order(loaded=loaded, quiet=True))
spent |= executed.spent_s
begun = time.perf_counter()
show_executed(executed, loaded.config.report, form="table", wide=False)
spent["table"] = time.perf_counter() - begun
result = executed.run.cases[0].result
child = {timing.phase.value: timing.seconds for timing in result.phases}
print("TRACE" + json.dumps({"head": spent, "child": child, "agent_s": result.duration_s}))
"""

BARE_RAY = """
import ray
ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, log_to_driver=False)
class Actor:
    def answer(self):
        return 1
ray.get(ray.remote(num_cpus=0)(Actor).remote().answer.remote())
ray.shutdown()
"""


def wall_s(command: list[str], folder: Path, stdin: str = "") -> tuple[float, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "RAY_USAGE_STATS_ENABLED": "0"}
    begun = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, input=stdin, capture_output=True, text=True, env=environment, check=False
    )
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        raise RuntimeError(f"{command} failed: {done.stderr[-2000:]}")
    return seconds, done.stdout


def request() -> str:
    device = Device(
        host="localhost",
        selector="cpu",
        kind=DeviceKind.CPU,
        name="cpu",
        cores=tuple(sorted(os.sched_getaffinity(0))),
    )
    workload = Workload(model="alexnet", pass_=Pass.FORWARD, batch_size=1)
    sampling = Sampling(warmup=1, min_steps=STEPS, max_steps=STEPS)
    case = Case(key=case_key(device, workload, sampling), device=device, workload=workload, sampling=sampling)
    return codec.to_json(AttemptRequest(run_id="bench", case=case, attempt=1, start_timeout_s=120, case_timeout_s=120))


def traced(folder: Path) -> dict[str, Any]:
    _, out = wall_s([sys.executable, "-c", TRACED, str(time.time())], folder)
    found: dict[str, Any] = json.loads(out.split("TRACE", 1)[1])
    return found


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def whole_run(folder: Path, pairs: int) -> dict[str, Any]:
    with_muster, bare, bare_ray, traces = [], [], [], []
    for _ in range(pairs):
        with_muster.append(wall_s([*MUSTER, "run", "overhead.yaml", "--no-progress"], folder)[0])
        bare.append(wall_s([sys.executable, "-m", "workers.child"], folder, request())[0])
        bare_ray.append(wall_s([sys.executable, "-c", BARE_RAY], folder)[0])
        traces.append(traced(folder))
    return {
        "pairs": pairs,
        "muster_run_s": spread(with_muster),
        "bare_child_s": spread(bare),
        "bare_ray_s": spread(bare_ray),
        "added_s": spread([ours - theirs for ours, theirs in zip(with_muster, bare, strict=True)]),
        "added_over_bare_ray": spread(
            [(ours - theirs) / ray for ours, theirs, ray in zip(with_muster, bare, bare_ray, strict=True)]
        ),
        "head_s": medians([trace["head"] for trace in traces]),
        "child_s": medians([trace["child"] for trace in traces]),
        "agent_s": round(statistics.median(trace["agent_s"] for trace in traces), 3),
    }


def quick_commands(folder: Path, rounds: int) -> dict[str, Any]:
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "muster --help": [*MUSTER, "--help"],
        "muster check": [*MUSTER, "check", "overhead.yaml"],
        "muster plan, no store yet": [*MUSTER, "plan", "overhead.yaml", "--store", "sqlite:///none.db"],
        "muster plan, with history": [*MUSTER, "plan", "overhead.yaml"],
        "python -c 'import sqlalchemy'": [sys.executable, "-c", "import sqlalchemy"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            taken[name].append(wall_s(command, folder)[0])
    return {name: spread(values) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "overhead.yaml").write_text(CONFIG)
        whole = whole_run(folder, given.pairs)
        print(json.dumps({"run": whole, "commands_s": quick_commands(folder, 2 * given.pairs)}, indent=2))


if __name__ == "__main__":
    main()
