"""Small constructors with defaults: a test names only what it is about."""

from __future__ import annotations

import datetime
import hashlib
from typing import TYPE_CHECKING

from orchestrator.results import NewRun
from workers.protocol import (
    Case,
    Company,
    CpuReport,
    Device,
    DeviceKind,
    Environment,
    Fact,
    FactValue,
    FrameworkReport,
    GpuReport,
    GpuState,
    HostReport,
    Pass,
    Result,
    Sampling,
    StoppedBy,
    Verdict,
    Workload,
)
from workers.telemetry.series import Series, Telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def a_device(host: str = "localhost", selector: str = "cpu", **given: object) -> Device:
    kind = DeviceKind.GPU if selector.startswith("gpu") else DeviceKind.CPU
    defaults: dict[str, object] = {
        "name": "Example CPU" if kind is DeviceKind.CPU else "Example GPU",
        "memory_bytes": 16 * 2**30,
        "memory": "16 GB",
        "cores": (0, 1) if kind is DeviceKind.CPU else (),
        "index": int(selector.removeprefix("gpu:")) if kind is DeviceKind.GPU else None,
        "uuid": f"GPU-{host}-{selector}" if kind is DeviceKind.GPU else None,
    }
    return Device(host=host, selector=selector, kind=kind, **{**defaults, **given})  # type: ignore[arg-type]


def a_workload(**given: object) -> Workload:
    defaults: dict[str, object] = {"model": "alexnet", "pass_": Pass.FORWARD, "batch_size": 128}
    return Workload(**{**defaults, **given})  # type: ignore[arg-type]


def a_sampling(**given: object) -> Sampling:
    defaults: dict[str, object] = {"warmup": 10, "min_steps": 100, "max_steps": 100}
    return Sampling(**{**defaults, **given})  # type: ignore[arg-type]


def a_case(
    device: Device | None = None,
    workload: Workload | None = None,
    sampling: Sampling | None = None,
    key: str = "",
    company: Company | None = None,
) -> Case:
    """A case whose key, unless given, is a hash of its parts (planning has the real one)."""
    device, workload, sampling = device or a_device(), workload or a_workload(), sampling or a_sampling()
    parts = repr((device, workload, sampling)).encode()
    key = key or hashlib.sha256(parts).hexdigest()
    return Case(key=key, device=device, workload=workload, sampling=sampling, company=company)


def a_result(case: Case | None = None, attempt: int = 1, **given: object) -> Result:
    """A result that is ok with three samples of about 100 ms."""
    defaults: dict[str, object] = {
        "case_key": (case or a_case()).key,
        "attempt": attempt,
        "verdict": Verdict.OK,
        "warmup_ms": (150.0,),
        "samples_ms": (99.0, 100.0, 101.0),
        "stopped_by": StoppedBy.STEPS,
        "environment": Environment(),
        "started_at": 1_800_000_000.0,
        "duration_s": 1.5,
    }
    return Result(**{**defaults, **given})  # type: ignore[arg-type]


def a_telemetry(window_s: tuple[float, float] | None = (10.0, 20.0), **readings: Sequence[float | None]) -> Telemetry:
    """A reading a second over the counted steps, from their first whole second on; names with two underscores."""
    count = max((len(values) for values in readings.values()), default=0)
    begin_s, end_s = window_s or (None, None)
    return Telemetry(
        interval_s=1.0,
        at_s=tuple((begin_s or 0.0) + 1 + second for second in range(count)),
        series=tuple(Series(name=name.replace("__", "."), values=tuple(values)) for name, values in readings.items()),
        measure_from_s=begin_s,
        measure_to_s=end_s,
    )


def a_new_run(run_id: str = "7f3a01", *cases: Case, **given: object) -> NewRun:
    defaults: dict[str, object] = {
        "name": "local",
        "created_at": datetime.datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=datetime.timezone.utc),
        "config_text": "version: 1\n# ünï\r\n",
        "config_path": "configs/local.yaml",
        "overrides": ("measure.steps=20", "--only model=alexnet"),
        "simulated": False,
        "muster_version": "0.1.0",
    }
    return NewRun(id=run_id, cases=cases, **{**defaults, **given})  # type: ignore[arg-type]


def a_host_report(
    host: str = "localhost",
    *,
    cores: tuple[int, ...] = (0, 1),
    numa: tuple[tuple[int, tuple[int, ...]], ...] | None = None,
    gpus: tuple[GpuReport, ...] = (),
    gpu_reason: str | None = None,
    framework_version: str = "2.21.0",
    framework_reason: str | None = None,
    facts: Mapping[str, FactValue] | None = None,
    condition: Mapping[str, FactValue] | None = None,
) -> HostReport:
    """A host with a CPU, and TensorFlow unless there is a reason why not; facts are added to the name of its system."""
    return HostReport(
        host=host,
        cpu=CpuReport(
            model="Example CPU",
            cores=cores,
            sockets=1,
            numa=((0, cores),) if numa is None else numa,
            memory_bytes=16 * 2**30,
            memory="16 GB",
        ),
        gpus=gpus,
        gpu_reason=gpu_reason,
        frameworks=(
            FrameworkReport(
                name="tensorflow", version=None if framework_reason else framework_version, reason=framework_reason
            ),
        ),
        environment=an_environment({"host.os": "Example OS 1", **(facts or {})}),
        condition=an_environment(condition or {}),
    )


def an_environment(values: Mapping[str, FactValue]) -> Environment:
    """Facts with these values; ``None`` has a reason."""
    facts = {
        name: Fact(value=value, reason="nobody looked" if value is None else None) for name, value in values.items()
    }
    return Environment(facts=tuple(sorted(facts.items())))


def a_gpu(index: int = 0, **given: object) -> GpuReport:
    """A GPU that nobody uses, set as it should be; what is given of its state replaces that."""
    own: dict[str, object] = {name: given.pop(name) for name in ("uuid", "name", "memory_bytes") if name in given}
    report: dict[str, object] = {
        "uuid": f"GPU-0a1b2c3d-0000-1111-2222-33334444555{index}",
        "name": "NVIDIA H100 80GB HBM3",
        "memory_bytes": 80 * 2**30,
        **own,
    }
    state: dict[str, object] = {
        "persistence": Fact(value=True),
        "ecc": Fact(value=True),
        "utilization": Fact(value=0),
        "numa_node": Fact(value=0),
        "processes": (),
        **given,
    }
    return GpuReport(index=index, state=GpuState(**state), **report)  # type: ignore[arg-type]
