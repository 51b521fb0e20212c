"""What reading telemetry costs the work that is measured, by pairs of windows with and without.

One real case of AlexNet runs in the product's own child; this process reads telemetry beside it as an agent does, in
every other window of a few seconds, A B B A, so that what drifts weighs on both alike. The readings are taken many
times as often as a run takes them (``--amplified``), for the cost of one a second is far below what shared cores let
anyone see; the cost that is found is divided by as much. That reckons that the cost grows with the number of readings.
It does, or grows slower: what is paid once is paid in each window as well.

Prints JSON. Shares are of the work: 0.005 is 0.5 %.

    python -m benchmarks.telemetry --pairs 40
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.wrapped_child import run
from orchestrator.planning import case_key
from workers import probe
from workers.codec import to_json
from workers.protocol import AttemptRequest, Case, Device, DeviceKind, Layout, Pass, Sampling, Workload
from workers.telemetry.gauges import recorder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent

#: What a run has where its config says nothing.
INTERVAL_S = 1.0
#: More than are ever made: the child is ended when the windows are over.
MOST_STEPS = 200_000
START_TIMEOUT_S = 120.0


def on_cores(count: int | None, batch_size: int) -> Case:
    cores = tuple(sorted(os.sched_getaffinity(0)))[:count]
    device = Device(host="here", selector="cpu", kind=DeviceKind.CPU, name="CPU", cores=cores)
    return the_case(device, Workload(model="alexnet", pass_=Pass.FORWARD, batch_size=batch_size))


def on_gpu(batch_size: int) -> Case:
    gpu = probe.host_report("here").gpus[0]
    device = Device(host="here", selector="gpu:0", kind=DeviceKind.GPU, name=gpu.name, index=0, uuid=gpu.uuid)
    workload = Workload(model="alexnet", pass_=Pass.FORWARD, batch_size=batch_size, layout=Layout.NCHW)
    return the_case(device, workload)


def the_case(device: Device, workload: Workload) -> Case:
    sampling = Sampling(warmup=10, min_steps=MOST_STEPS, max_steps=MOST_STEPS)
    return Case(key=case_key(device, workload, sampling), device=device, workload=workload, sampling=sampling)


# --- the child: the product's own, which notes when each step began and ended ---------------------------------------


def noted(step: Callable[[], None], *, file: Path) -> Callable[[], None]:
    lines = file.open("w", buffering=1)

    def one() -> None:
        began = time.monotonic()
        step()
        lines.write(f"{began} {time.monotonic()}\n")

    return one


# --- beside it -----------------------------------------------------------------------------------------------------


def steps(file: Path) -> list[tuple[float, float]]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [(float(began), float(ended)) for began, _, ended in (line.partition(" ") for line in lines[:-1])]


def wait_for_steps(file: Path, count: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while len(steps(file)) < count:
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError("the child made no steps")
        time.sleep(0.05)


@contextlib.contextmanager
def killed_after(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the child, whatever happens: it has more steps than anybody waits for."""
    try:
        yield
    finally:
        process.kill()


def windows(case: Case, pairs: int, seconds: float, interval_s: float) -> tuple[list[float], list[float], list[float]]:
    """Return the median step of each window without and with telemetry, and the CPU of each reading, seconds."""
    without: list[float] = []
    with_: list[float] = []
    costs: list[float] = []
    request = AttemptRequest(
        run_id="telemetry", case=case, attempt=1, start_timeout_s=START_TIMEOUT_S, case_timeout_s=3600.0,
        telemetry_interval_s=interval_s,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "steps"
        argv = [sys.executable, "-m", "benchmarks.telemetry", "child", str(file), "--parent", str(os.getpid())]
        with (
            subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process,
            killed_after(process),
        ):
            assert process.stdin is not None
            process.stdin.write(to_json(request) + "\n")
            process.stdin.close()
            wait_for_steps(file, case.sampling.warmup + 5, process)
            spans = []
            for number in range(pairs):
                for is_on in (True, False) if number % 2 else (False, True):
                    began, recorder = time.monotonic(), recorder_of(request) if is_on else None
                    if recorder is not None:
                        recorder.start(process.pid)
                    time.sleep(seconds)
                    spans.append((is_on, began, time.monotonic()))
                    if recorder is not None:
                        seen = recorder.stop()
                        costs.append((seen.cost_s or 0.0) / max(len(seen.at_s), 1))
        all_steps = steps(file)
    for is_on, began, ended in spans:
        took = [end - begin for begin, end in all_steps if began <= begin and end <= ended]
        (with_ if is_on else without).append(statistics.median(took))
    return without, with_, costs


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median ratio, by a bootstrap of pairs."""
    drawn = np.random.default_rng(0).choice(ratios, size=(5000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return float(low), float(high)


def cost(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    without, with_, costs = windows(case, given.pairs, given.seconds, INTERVAL_S / given.amplified)
    ratios = [one / other for one, other in zip(with_, without, strict=True)]
    # The same sum over windows that had no telemetry at all: what it would find where there is nothing.
    idle = [one / other for one, other in list(pairwise(without))[::2]]
    return {
        "step_ms": 1000 * statistics.median(without),
        "amplified_ratio": statistics.median(ratios),
        **_shares("cost", ratios, given.amplified),
        **_shares("nothing", idle, given.amplified),
        "cpu_of_a_reading_ms": 1000 * statistics.median(costs),
    }


def _shares(name: str, ratios: list[float], amplified: int) -> dict[str, float]:
    low, high = interval(ratios)
    found = {name: statistics.median(ratios), f"{name}_low": low, f"{name}_high": high}
    return {key: (ratio - 1) / amplified for key, ratio in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each window")
    parser.add_argument("--amplified", type=int, default=20, help="how many times as often as a run it is read")
    parser.add_argument("--gpu", action="store_true", help="on the first GPU, at batch 128, in place of the CPUs")
    given = parser.parse_args()
    cases = {"GPU": on_gpu(128)} if given.gpu else {"all cores": on_cores(None, 8), "one core": on_cores(1, 1)}
    found = {name: cost(case, given) for name, case in cases.items()}
    print(json.dumps({"pairs": given.pairs, "amplified": given.amplified, "cases": found}, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        run(functools.partial(noted, file=Path(sys.argv[2])), sys.argv[3:])
    main()
