"""Cases a second through the real Ray engine, against bare Ray actor calls in the same process.

Eight agents answer at once, without a child. Both sides keep one call in flight for each of them and send the same
text there and back; the engine's side is the whole head but the store: runner, dispatcher, engine, codec. They take
turns, A B A B, and the ratio is taken pair by pair. Prints JSON.

    python benchmarks/dispatch_ray.py --pairs 5 --cases 2000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

from orchestrator.cluster.local import LocalCluster
from orchestrator.dispatch.messages import PutAside, RecordVerdict
from orchestrator.dispatch.settings import DispatchSettings, HostConcurrency
from orchestrator.planning import case_key
from orchestrator.runner import Runner
from workers import codec
from workers.agent import AgentReport
from workers.protocol import (
    AttemptRequest,
    Case,
    Device,
    DeviceKind,
    Pass,
    Result,
    Sampling,
    Verdict,
    Workload,
)

if TYPE_CHECKING:
    from orchestrator.cluster.base import ClusterHandle

AGENTS = 8


class IdleAgent:
    """Answers as an agent does, and does nothing."""

    def __init__(self, device_json: str, settings_json: str) -> None:
        self._device = codec.from_json(Device, device_json)

    def describe(self) -> str:
        report = AgentReport(device=self._device, hostname="", pid=0, python_version="", muster_version="")
        return codec.to_json(report)

    def beat(self) -> None:
        return None

    def acknowledge(self, case_key: str, attempt: int) -> None:
        return None

    def run_case(self, request_json: str) -> str:
        case = codec.from_json(AttemptRequest, request_json).case
        return codec.to_json(Result(case_key=case.key, attempt=1, verdict=Verdict.OK, samples_ms=(1.0,)))

    def echo(self, request_json: str) -> str:
        return request_json

    def shutdown(self) -> None:
        return None


class NoStore:
    def save_attempt(self, run_id: str, result: Result) -> None:
        return None

    def save_verdict(self, run_id: str, case_key: str, verdict: Verdict, reason: str | None) -> None:
        return None

    def save_late(self, run_id: str, result: Result) -> bool:
        return True

    def put_aside(self, run_id: str, command: PutAside) -> None:
        return None


def devices() -> list[Device]:
    return [Device(host=f"h{i}", selector="cpu", kind=DeviceKind.CPU, name="idle", cores=(0,)) for i in range(AGENTS)]


def cases(count: int) -> list[Case]:
    sampling = Sampling(warmup=0, min_steps=1, max_steps=1)
    made = []
    for i in range(count):
        device = devices()[i % AGENTS]
        workload = Workload(model="alexnet", pass_=Pass.FORWARD, batch_size=i + 1)
        made.append(Case(key=case_key(device, workload, sampling), device=device, workload=workload, sampling=sampling))
    return made


async def through_the_engine(work: list[Case], handle: ClusterHandle) -> float:
    from orchestrator.engine.ray import EngineLimits, RayEngine

    limits = EngineLimits(start_timeout_s=60, case_timeout_s=60)
    engine = RayEngine(run_id="bench", limits=limits, handle=handle, agent_class=IdleAgent)
    watch = Watch(len(work))
    runner = Runner(
        run_id="bench",
        cases=work,
        settings=DispatchSettings(host_concurrency=HostConcurrency.CONCURRENT),
        engine=engine,
        recorder=NoStore(),
        listeners=(watch,),
    )
    outcome = await runner.run()
    for result in outcome.cases:
        if result.verdict is not Verdict.OK:
            raise RuntimeError(f"{result.case.device.id}: {result.verdict}: {result.reason}")
    await engine.close()
    return watch.cases_per_s


class Watch:
    """Times the cases after the first quarter: until then Ray is still busy with the agents' own start."""

    def __init__(self, cases: int) -> None:
        self._skipped = cases // 4
        self._counted = cases - self._skipped
        self._done = 0
        self._first = 0.0
        self._last = 0.0

    def heard(self, news: Any) -> None:
        if isinstance(news, RecordVerdict):
            self._done += 1
            self._last = time.perf_counter()
            if self._done == self._skipped:
                self._first = self._last

    @property
    def cases_per_s(self) -> float:
        return self._counted / (self._last - self._first)


def bare(agents: list[Any], work: list[Case]) -> float:
    import ray

    requests = [
        codec.to_json(AttemptRequest(run_id="bench", case=case, attempt=1, start_timeout_s=60, case_timeout_s=60))
        for case in work
    ]
    begun = time.perf_counter()
    waiting = {agents[i].echo.remote(requests[i]): agents[i] for i in range(AGENTS)}
    for request in requests[AGENTS:]:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        agent = waiting.pop(ready)
        ray.get(ready)
        waiting[agent.echo.remote(request)] = agent
    ray.get(list(waiting))
    return len(work) / (time.perf_counter() - begun)


async def measure(pairs: int, count: int) -> dict[str, Any]:
    work = cases(count)
    async with LocalCluster("bench").running(devices()) as handle:
        import ray

        agents = [ray.remote(num_cpus=0, max_concurrency=4)(IdleAgent).remote("{}") for _ in range(AGENTS)]
        ray.get([agent.describe.remote() for agent in agents])
        bare(agents, work[:200])  # warm-up
        await through_the_engine(work[:200], handle)
        rows = [(await through_the_engine(work, handle), bare(agents, work)) for _ in range(pairs)]
    ratios = [ours / theirs for ours, theirs in rows]
    return {
        "agents": AGENTS,
        "cases": count,
        "pairs": pairs,
        "engine_cases_per_s": statistics.median(ours for ours, _ in rows),
        "bare_calls_per_s": statistics.median(theirs for _, theirs in rows),
        "pairs_per_s": [[round(ours, 1), round(theirs, 1)] for ours, theirs in rows],
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cases", type=int, default=2000)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(measure(given.pairs, given.cases)), indent=2))
