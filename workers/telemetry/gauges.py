"""Which gauges watch a device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from workers.condition import parse_loadavg
from workers.protocol import DeviceKind
from workers.telemetry.cpu import CpuGauge
from workers.telemetry.nvml import NvmlGauge
from workers.telemetry.recorder import Recorder
from workers.telemetry.series import Missing

if TYPE_CHECKING:
    from workers.protocol import AttemptRequest, Device
    from workers.telemetry.base import Gauge


def gauges_of(device: Device) -> tuple[Gauge, ...]:
    """Return what watches a device: its GPU's gauge, if it is one, and always one of the cores that feed it."""
    if device.kind is DeviceKind.CPU:
        return (CpuGauge(device.cores or sorted(os.sched_getaffinity(0)), with_energy=True),)
    return (NvmlGauge(device.uuid), CpuGauge(sorted(os.sched_getaffinity(0)), with_energy=False))


def recorder_of(request: AttemptRequest) -> Recorder | None:
    """Return what is to watch an attempt; ``None`` where nobody asked for it.

    To be made before the child is started, for others' use of the device counts from then on.
    """
    if request.telemetry_interval_s is None:
        return None
    gauges: tuple[Gauge, ...] = ()
    lacking: tuple[Missing, ...] = ()
    try:
        gauges = gauges_of(request.case.device)
    except Exception as error:  # whatever a driver or a kernel comes up with: an attempt is worth more
        lacking = (Missing(name="telemetry", reason=f"{type(error).__name__}: {error}"),)
    return Recorder(gauges, request.telemetry_interval_s, lacking=lacking, load_before=load_now())


def load_now(root: Path = Path("/")) -> float | None:
    """Return how many processes ran or wanted to, on average over the last minute; ``None`` where nobody knows."""
    try:
        return parse_loadavg((root / "proc/loadavg").read_text())
    except OSError:
        return None
