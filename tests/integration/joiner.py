"""One process that goes to a config's cluster, measures a case on each device, and says what it saw as JSON.

python -m tests.integration.joiner CONFIG
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import uuid
from pathlib import Path
from typing import Any

from orchestrator.cluster import warm
from orchestrator.config.load import load_config
from orchestrator.dispatch.messages import CaseFinished, DeviceReady, PrepareDevice, StartCase
from orchestrator.errors import ClusterError
from orchestrator.inventory import take_inventory
from tests.builders import a_case, a_sampling, a_workload

PATIENCE_S = 120.0


async def main(path: str, *, waits: bool) -> None:
    config = load_config(Path(path)).config
    cluster: Any = warm.find(config)
    if cluster is None:
        cluster = importlib.import_module(f"orchestrator.cluster.{config.cluster.mode.value}").connect(config)
    try:
        cluster.preload()
        survey = await cluster.survey(install=False)
        declared = take_inventory(config.hosts, survey.reports).declared
        devices = [entry.device for entry in declared if entry.gap is None]
        seen: dict[str, Any] = {
            "kind": type(cluster).__name__,
            "findings": [[each.host, each.check, each.level.value, each.text] for each in survey.findings],
            "reports": [report.host for report in survey.reports],
        }
        async with cluster.running([entry.device for entry in declared]) as handle:
            results = [await _measured(handle, device) for device in devices]
            seen |= {
                "hosts": sorted(handle.hosts),
                "lost": dict(handle.lost),
                "rejoined": [await handle.rejoin(device.host) == handle.nodes[device.host] for device in devices],
                "code": [_code(handle.nodes[device.host]) for device in devices],
                "results": [[result.verdict.value, len(result.samples_ms), result.reason] for result in results],
            }
            _say(seen)
            if waits:
                sys.stdin.readline()
    except ClusterError as error:
        _say({"message": error.message, "remedy": error.remedy})
    finally:
        await cluster.close()
        await cluster.close()


def _say(seen: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(seen) + "\n")
    sys.stdout.flush()


async def _measured(handle: Any, device: Any) -> Any:
    from orchestrator.engine.ray import EngineLimits, RayEngine

    limits = EngineLimits(start_timeout_s=PATIENCE_S, case_timeout_s=PATIENCE_S)
    engine = RayEngine(run_id=uuid.uuid4().hex, limits=limits, handle=handle)
    case = a_case(device, a_workload(batch_size=1), a_sampling(warmup=1, min_steps=3, max_steps=3))
    try:
        await engine.start(PrepareDevice(device=device))
        await _heard(engine, DeviceReady)
        await engine.start(StartCase(case=case, attempt=1))
        return (await _heard(engine, CaseFinished)).result
    finally:
        await engine.close()


async def _heard(engine: Any, kind: type[Any]) -> Any:
    until = engine.now() + PATIENCE_S
    heard: list[Any] = []
    while engine.now() < until:
        heard += await engine.occurrences(until)
        for occurrence in heard:
            if isinstance(occurrence, kind):
                return occurrence
    raise AssertionError(f"no {kind.__name__}; heard {heard}")


def _code(node: str) -> str:
    """Return where a host's processes of this driver have our package from."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def place() -> str:
        import workers

        return str(workers.__file__)

    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    found: str = ray.get(
        ray.remote(num_cpus=0)(place).options(scheduling_strategy=strategy).remote(), timeout=PATIENCE_S
    )
    return found


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], waits="--wait" in sys.argv))
