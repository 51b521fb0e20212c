"""How long devices wait between cases, and how a cluster grows: real hosts over SSH on this machine, through real Ray.

Agents that sleep for two seconds instead of measuring, two on each host; everything else is real: SSH, keepers, Ray,
runner, dispatcher, engine and a durable store. A device's idle share is what is left of the time from its first case to
the end of its last when the sleeping is taken away. Beside it: seconds to join, memory of the head and of a host, and
messages. The hosts are those of tests/lab. Needs root. Prints JSON.

    python benchmarks/lab_idle.py --hosts 8
    python benchmarks/lab_idle.py --hosts 2 8 32 --cases 3
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.cli.keeping import Keeping
from orchestrator.config.load import load_text
from orchestrator.config.schema import LimitsConfig
from orchestrator.dispatch.messages import CaseFinished, RecordVerdict, StartCase
from orchestrator.dispatch.settings import DispatchSettings, HostConcurrency
from orchestrator.planning import case_key
from orchestrator.results import NewRun
from orchestrator.runner import Runner
from orchestrator.store import open_store
from workers import codec
from workers.agent import AgentReport
from workers.protocol import AttemptRequest, Case, Device, DeviceKind, Pass, Result, Sampling, Verdict, Workload

SECONDS_A_CASE = 2.0
DEVICES_A_HOST = 2


class SleepingAgent:
    """Answers as an agent does, after two seconds."""

    def __init__(self, device_json: str, settings_json: str) -> None:
        self._device = codec.from_json(Device, device_json)

    def describe(self) -> str:
        report = AgentReport(device=self._device, hostname="", pid=0, python_version="", muster_version="")
        return codec.to_json(report)

    def beat(self) -> None:
        return None

    def acknowledge(self, case_key: str, attempt: int) -> None:
        return None

    def progress(self, after: int, wait_s: float) -> str:
        time.sleep(wait_s)
        return "[]"

    def run_case(self, request_json: str) -> str:
        case = codec.from_json(AttemptRequest, request_json).case
        time.sleep(SECONDS_A_CASE)
        return codec.to_json(Result(case_key=case.key, attempt=1, verdict=Verdict.OK, samples_ms=(1.0,) * 100))

    def shutdown(self) -> None:
        return None


class Watch:
    """Notes when each device had something to do, and counts what went by."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.cases: dict[str, int] = {}
        self.messages = 0
        self.failures: set[str] = set()
        self._device_of: dict[str, str] = {}

    def heard(self, news: Any) -> None:
        self.messages += 1
        now = time.monotonic()
        if isinstance(news, StartCase):
            self._device_of[news.case.key] = news.case.device.id
            self.begun.setdefault(news.case.device.id, now)
        elif isinstance(news, CaseFinished):
            device = self._device_of[news.case_key]
            self.ended[device] = now
            self.cases[device] = self.cases.get(device, 0) + 1
        elif isinstance(news, RecordVerdict) and not news.verdict.has_figure:
            # Where too many hosts share too few cores, Ray does not come up on all of them.
            self.failures.add(f"{news.verdict.value}: {news.reason}"[:200])

    def idle_shares(self) -> list[float]:
        return [
            1 - self.cases[device] * SECONDS_A_CASE / (self.ended[device] - self.begun[device]) for device in self.cases
        ]


def work_of(hosts: list[str], cases: int) -> list[Case]:
    devices = [
        Device(host=host, selector=f"gpu:{i}", kind=DeviceKind.GPU, name="sleeper", index=i, uuid=f"GPU-{host}-{i}")
        for host in hosts
        for i in range(DEVICES_A_HOST)
    ]
    sampling = Sampling(warmup=0, min_steps=1, max_steps=1)
    made = []
    for number in range(cases):
        workload = Workload(model="alexnet", pass_=Pass.FORWARD, batch_size=number + 1)
        made += [
            Case(key=case_key(device, workload, sampling), device=device, workload=workload, sampling=sampling)
            for device in devices
        ]
    return made


async def drive(text: str, cases: int) -> dict[str, Any]:
    """Run on the head: bring the config's hosts up, let them sleep, and say how it went."""
    import psutil

    from orchestrator.cluster import ssh

    config = load_text(text, "lab.yaml").config
    work = work_of([host.name for host in config.hosts], cases)
    devices = list({case.device.id: case.device for case in work}.values())
    cluster = ssh.connect(config)
    begun = time.monotonic()
    await cluster.survey(install=False)
    surveyed = time.monotonic()
    try:
        async with cluster.running(devices) as handle:
            joined = time.monotonic()
            watch = await _run(work, handle)
            # The head has namespaces of its own: this user's are muster, its keeper and its Ray, and nothing else.
            own = [each for each in psutil.process_iter() if each.uids().real == os.getuid()]
            head = [(sum(each.cpu_times()[:2]), each.memory_full_info().pss) for each in own]
    finally:
        await cluster.close()
    shares = watch.idle_shares()
    return {
        "hosts": len(config.hosts),
        "devices": len(devices),
        "cases": len(work),
        "survey_s": surveyed - begun,
        "join_s": joined - surveyed,
        "agents_s": min(watch.begun.values()) - joined,
        "idle_share": {"median": statistics.median(shares), "min": min(shares), "max": max(shares)},
        "messages": watch.messages,
        "devices_measured": len(watch.cases),
        "failures": sorted(watch.failures),
        "head_cpu_s": sum(cpu_s for cpu_s, _ in head),
        "head_mib": sum(pss for _, pss in head) / 2**20,
    }


async def _run(work: list[Case], handle: Any) -> Watch:
    from orchestrator.engine.ray import EngineLimits, RayEngine

    limits = EngineLimits(start_timeout_s=120, case_timeout_s=120)
    engine = RayEngine(run_id="bench", limits=limits, handle=handle, agent_class=SleepingAgent)
    watch = Watch()
    with open_store("sqlite:///bench.db") as store:
        store.begin_run(_new_run(work))
        runner = Runner(
            run_id="bench",
            cases=work,
            settings=DispatchSettings(host_concurrency=HostConcurrency.CONCURRENT, prepare_timeout_s=300),
            engine=engine,
            recorder=Keeping(store, LimitsConfig(), simulated=False),
            listeners=(watch,),
        )
        await runner.run()
    await engine.close()
    return watch


def _new_run(work: list[Case]) -> NewRun:
    return NewRun(
        id="bench",
        name="bench",
        created_at=datetime.datetime.now(datetime.timezone.utc),
        config_text="",
        config_path="lab.yaml",
        overrides=(),
        simulated=True,
        muster_version="bench",
        cases=tuple(work),
    )


def measure(sizes: list[int], cases: int) -> dict[str, Any]:
    from tests.lab.lab import Lab

    found = []
    with Lab(max(sizes)) as lab:
        for size in sizes:
            cwd = lab.write_config(lab.config({f"h{number}": {} for number in range(1, size + 1)}))
            before = _available_mib()
            started = lab.head.start(
                sys.executable, str(Path(__file__)), "--drive", "lab.yaml", "--cases", str(cases), cwd=cwd
            )
            least = before
            while True:
                try:
                    out, err = started.popen.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    least = min(least, _available_mib())
            if started.popen.returncode != 0:
                raise RuntimeError(err)
            row = json.loads(out[out.index("{") :])
            found.append({**row, "lab_mib": before - least, "mib_a_host": (before - least) / (size + 1)})
    return {"seconds_a_case": SECONDS_A_CASE, "sizes": found}


def _available_mib() -> float:
    import psutil

    return float(psutil.virtual_memory().available / 2**20)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[8])
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        answer = asyncio.run(drive(Path(given.drive).read_text(), given.cases))
    else:
        answer = measure(given.hosts, given.cases)
    print(json.dumps(answer, indent=2))
