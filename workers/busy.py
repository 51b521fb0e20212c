"""Whether somebody who keeps no leases is using a device: looked at before a case begins, and never changed.

The measuring children of other cases are known by their command and do not count: leases keep them apart, or the
person asked for them to be at work together.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

import psutil

from workers.gpus import asked, processes_on
from workers.protocol import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from workers.protocol import Device, GpuProcess

#: How long the cores of a CPU device are looked at, seconds: thirty of the kernel's ticks.
LOOK_S: Final = 0.3

#: A card that works for nobody in sight is looked at again after so long: the driver's share is one of up to the last
#: second (nvml.h, ``nvmlUtilization_t``), in which our own last child may still have been at work.
GPU_LOOK_S: Final = 1.5

#: Seconds between two looks at a device that is waited for.
LOOK_AGAIN_S: Final = 5.0

#: What each reason ends with.
REMEDY: Final = "to measure beside it all the same: policy.busy: measure"

_CHILD_MODULE: Final = "workers.child"

_MOST_NAMED: Final = 3


def occupied(device: Device, *, above: float, pause: Callable[[float], object]) -> str | None:
    """Return who is using the device, for people; ``None`` where nobody is, or where nobody can tell.

    ``above`` is the share of the device from which on its use counts. ``pause`` waits for some seconds.
    """
    if device.kind is DeviceKind.CPU:
        return _occupied_cores(device.cores or tuple(os.sched_getaffinity(0)), above, pause)
    return _occupied_gpu(device, above, pause)


# --- processors ------------------------------------------------------------------------------------------------


def _occupied_cores(cores: Sequence[int], above: float, pause: Callable[[float], object]) -> str | None:
    before, used_before = psutil.cpu_times(percpu=True), _used_by_process()
    pause(LOOK_S)
    after, used_after = psutil.cpu_times(percpu=True), _used_by_process()
    busy_s = all_s = 0.0
    for core in cores:
        if core < min(len(before), len(after)):
            all_s += sum(after[core][:8]) - sum(before[core][:8])
            idle_s = after[core].idle + after[core].iowait - before[core].idle - before[core].iowait
            busy_s += sum(after[core][:8]) - sum(before[core][:8]) - idle_s
    gained = {
        process: used_after[process] - used_before.get(process, 0.0)
        for process in used_after
        if used_after[process] > used_before.get(process, 0.0)
    }
    children = [process for process in gained if _is_child(process[0])]
    others_s = busy_s - sum(gained.pop(process) for process in children)
    if all_s <= 0 or others_s < above * all_s:
        return None
    busiest = sorted(gained, key=lambda process: -gained[process])[:_MOST_NAMED]
    named = ", ".join(_named(pid) for pid, _ in busiest) or "nobody that can be seen"
    return f"others use {_share(above)} of its cores or more, most of all {named}"


def _used_by_process() -> Mapping[tuple[int, float], float]:
    """Return the CPU seconds of each process, by its id and the time of its start."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error), process.oneshot():
            times = process.cpu_times()
            found[process.pid, process.create_time()] = times.user + times.system
    return found


def _is_child(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return _CHILD_MODULE in psutil.Process(pid).cmdline()
    return False


def _named(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"{process.name()} (pid {pid}, {process.username()})"
    except (psutil.Error, KeyError):
        return f"pid {pid}"


def _share(share: float) -> str:
    return f"{share * 100:g} %"


# --- GPUs ------------------------------------------------------------------------------------------------------


def _occupied_gpu(device: Device, above: float, pause: Callable[[float], object]) -> str | None:
    try:
        import pynvml  # guarded: a host without GPUs need not have it

        pynvml.nvmlInit()
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None
    try:
        handle, _ = asked(pynvml, lambda: pynvml.nvmlDeviceGetHandleByUUID(device.uuid or ""))
        if handle is None:
            return None
        found = _on_card(pynvml, handle, above)
        if found == _unseen(above):
            pause(GPU_LOOK_S)
            found = _on_card(pynvml, handle, above)
        return found
    finally:
        pynvml.nvmlShutdown()


def _on_card(nvml: Any, handle: Any, above: float) -> str | None:
    """Return who computes on a card, or that it works for somebody who is not shown."""
    running, _ = asked(nvml, lambda: processes_on(nvml, handle, only_computing=True))
    use, _ = asked(nvml, lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu))
    others = [process for process in running or () if not _is_child(process.pid)]
    if others:
        named = ", ".join(map(_on_gpu, others[:_MOST_NAMED]))
        return f"{named} {'computes' if len(others) == 1 else 'compute'} on it"
    return _unseen(above) if use is not None and use >= above * 100 and not running else None


def _unseen(above: float) -> str:
    return f"somebody who cannot be seen from here uses {_share(above)} of it or more"


def _on_gpu(process: GpuProcess) -> str:
    who = ", ".join(filter(None, (f"pid {process.pid}", process.user)))
    return f"{process.name or 'a process that cannot be seen from here'} ({who})"
