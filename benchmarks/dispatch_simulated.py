"""How the head keeps up with a large lab: simulated devices in virtual time, without a store.

    python benchmarks/dispatch_simulated.py --devices 1000 10000 --cases 10

runs each size in a fresh process and prints one JSON object: for each size the wall seconds, the seconds of them inside
the dispatcher, cases per second and the peak of resident memory; and by how much wall time and memory grow from each
size to the next, divided by the growth of the size: 1 is linear. Most of the rest is inventing samples and taking
results through the codec.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from orchestrator.dispatch.machine import Dispatcher
from orchestrator.dispatch.messages import DeadlinePassed, PutAside, RecordAttempt, RecordVerdict
from orchestrator.dispatch.settings import DispatchSettings
from orchestrator.engine.simulated import SimulatedEngine
from workers.protocol import Case, Device, DeviceKind, Pass, Progress, Sampling, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.dispatch.messages import Command, Event

#: A usual host: four GPUs.
GPUS_PER_HOST = 4
STEPS = 100
TIMEOUT_S = 3600


def a_lab(devices: int, cases: int) -> list[Case]:
    """So many cases on each of so many GPUs, one round of the lab after the other."""
    gpus = [
        Device(
            host=f"host{number // GPUS_PER_HOST:05}",
            selector=f"gpu:{number % GPUS_PER_HOST}",
            kind=DeviceKind.GPU,
            name=f"Simulated GPU {number % 7}",
        )
        for number in range(devices)
    ]
    sampling = Sampling(warmup=10, min_steps=STEPS, max_steps=STEPS)
    workloads = [Workload(model="alexnet", pass_=Pass.FORWARD, batch_size=batch) for batch in range(1, cases + 1)]
    return [
        Case(key=f"{gpu.id}/{workload.batch_size}", device=gpu, workload=workload, sampling=sampling)
        for workload in workloads
        for gpu in gpus
    ]


class Stopwatch:
    """Seconds spent inside calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, call: Callable[[], Sequence[Command]]) -> Sequence[Command]:
        begun = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds += time.perf_counter() - begun


def handle_all(dispatcher: Dispatcher, events: Sequence[Event]) -> list[Command]:
    return [command for event in events for command in dispatcher.handle(event)]


async def drive(dispatcher: Dispatcher, engine: SimulatedEngine, stopwatch: Stopwatch) -> int:
    """Carry a run through; return how many verdicts there were."""
    verdicts = 0
    commands = stopwatch.time(lambda: dispatcher.begin(engine.now()))
    while True:
        for command in commands:
            if isinstance(command, RecordVerdict):
                verdicts += 1
            elif not isinstance(command, RecordAttempt | PutAside):
                await engine.start(command)
        if dispatcher.is_done:
            return verdicts
        heard = await engine.occurrences(dispatcher.next_deadline)
        events: list[Event] = [event for event in heard if not isinstance(event, Progress)]
        if not heard:
            events.append(DeadlinePassed(at=engine.now()))
        commands = stopwatch.time(functools.partial(handle_all, dispatcher, events))


def one_size(devices: int, cases: int) -> dict[str, Any]:
    plan = a_lab(devices, cases)
    stopwatch = Stopwatch()
    begun = time.perf_counter()
    dispatcher, engine = Dispatcher(plan, DispatchSettings()), SimulatedEngine()
    verdicts = asyncio.run(drive(dispatcher, engine, stopwatch))
    wall_s = time.perf_counter() - begun
    if verdicts != len(plan):
        raise RuntimeError(f"{len(plan)} cases and {verdicts} verdicts")
    return {
        "devices": devices,
        "cases": len(plan),
        "wall_s": round(wall_s, 3),
        "dispatcher_s": round(stopwatch.seconds, 3),
        "cases_per_s": round(len(plan) / wall_s, 1),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "virtual_s": round(engine.now(), 1),
    }


def growth(small: dict[str, Any], large: dict[str, Any]) -> dict[str, float]:
    """Return how much larger the figures are, per how much larger the lab is."""
    size = large["cases"] / small["cases"]
    ratios = {name: large[name] / small[name] / size for name in ("wall_s", "dispatcher_s", "peak_rss_mib")}
    return {"size": size, **{name: round(ratio, 3) for name, ratio in ratios.items()}}


def in_a_fresh_process(devices: int, cases: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", "--devices", str(devices), "--cases", str(cases)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S).stdout
    found: dict[str, Any] = json.loads(output)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--devices", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--cases", type=int, default=10, help="cases for each device")
    parser.add_argument("--one", action="store_true", help="run one size in this process")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one_size(given.devices[0], given.cases)))
        return
    sizes = [in_a_fresh_process(devices, given.cases) for devices in sorted(given.devices)]
    grown = [growth(small, large) for small, large in itertools.pairwise(sizes)]
    print(json.dumps({"sizes": sizes, "growth_per_size": grown}, indent=2))


if __name__ == "__main__":
    main()
