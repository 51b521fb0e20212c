"""A framework whose steps take no time and which misbehaves as SCRIPTED_BEHAVIOUR says: ``segfault in build``."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from workers.frameworks.base import UnsupportedError, WrongDeviceError
from workers.protocol import Environment, Fact, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.models.network import Model
    from workers.protocol import Device, Ring, Workload


def available() -> str | None:
    return "scripted is missing: install it" if _behaviour() == "missing" else None


def prepare(device: Device, workload: Workload) -> None:
    _act("prepare")


def build(model: Model, workload: Workload, device: Device) -> _Step:
    _act("build")
    largest = os.environ.get("SCRIPTED_LARGEST_BATCH")
    if largest is not None and workload.batch_size > int(largest):
        raise RuntimeError(f"RESOURCE_EXHAUSTED: batch {workload.batch_size}")
    if os.environ.get("SCRIPTED_TIGHT_BATCH") == str(workload.batch_size):
        _fit_once(Path(os.environ["SCRIPTED_PID_FILE"]))
    if workload.batch_size == int(os.environ.get("SCRIPTED_BAD_BATCH", "0")):
        _act("bad batch")
    return _Step(bytearray(workload.batch_size * int(os.environ.get("SCRIPTED_IMAGE_BYTES", "0"))))


def build_collective(model: Model, workload: Workload, device: Device, ring: Ring) -> _Step:
    _act(f"rank {ring.rank}")
    Path(os.environ["SCRIPTED_PID_FILE"]).with_suffix(f".{ring.rank}").write_text(" ".join(ring.addresses))
    return _Step(bytearray())


def product(rows: int, workload: Workload, device: Device) -> Callable[[], None]:
    _act("peak")
    return lambda: time.sleep(1e-4)


def update(count: int, device: Device) -> Callable[[], None]:
    _act("copy")
    return lambda: time.sleep(1e-4)


def verdict_of(error: Exception) -> Verdict:
    return Verdict.OOM if "RESOURCE_EXHAUSTED" in str(error) else Verdict.CRASHED


class _Step:
    def __init__(self, images: bytearray) -> None:
        self._images = images
        self._taken = 0

    @property
    def environment(self) -> Environment:
        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
        facts = {f"scripted.saw.{name}": Fact(value=os.environ.get(name)) for name in names}
        facts["scripted.affinity"] = Fact(value=len(os.sched_getaffinity(0)))
        facts["scripted.oom_score_adj"] = Fact(value=int(Path("/proc/self/oom_score_adj").read_text()))
        return Environment(facts=tuple(facts.items()))

    def __call__(self) -> None:
        _act("step")
        self._taken += 1
        if self._taken == 3:
            _act("third step")
        if self._taken == 4:
            _act("fourth step")
        time.sleep(_step_s())


def _step_s() -> float:
    """Seconds of a step: what a file says now, or the environment."""
    if path := os.environ.get("SCRIPTED_STEP_FILE"):
        return float(Path(path).read_text())
    return float(os.environ.get("SCRIPTED_STEP_S", "0"))


def _fit_once(mark: Path) -> None:
    if mark.exists():
        raise RuntimeError("RESOURCE_EXHAUSTED: this time")
    mark.touch()


def _behaviour() -> str:
    return os.environ.get("SCRIPTED_BEHAVIOUR", "")


def _act(place: str) -> None:
    behaviour, _, where = _behaviour().partition(" in ")
    if where == place:
        ACTS[behaviour]()


def _raise(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def _chatter() -> None:
    sys.stdout.write("chatter of Python\n")
    os.write(1, b'{"event":"Finished","verdict":"ok"}\n')
    subprocess.run([sys.executable, "-c", "print('chatter of a child')"], check=True)


def _leave_grandchild() -> None:
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"])
    Path(os.environ["SCRIPTED_PID_FILE"]).write_text(str(grandchild.pid))


def _hang() -> None:
    if pid_file := os.environ.get("SCRIPTED_PID_FILE"):
        Path(pid_file).write_text(str(os.getpid()))
    signal.pause()


def _limit_memory() -> None:
    """Let this process have 64 MiB more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 64 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _exhaust_memory() -> None:
    _limit_memory()
    hog = []
    while True:
        hog.append(bytearray(2**20))


def _exhaust_memory_in_cpp() -> None:
    new = ctypes.CDLL("libstdc++.so.6")["_Znwm"]  # operator new
    new.argtypes, new.restype = [ctypes.c_size_t], ctypes.c_void_p
    _limit_memory()
    while True:
        new(2**20)


def _leave_stray() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path(os.environ["SCRIPTED_PID_FILE"]).write_text(str(os.getpid()))
            while True:
                signal.pause()
        os._exit(0)
    os.wait()


def _ignore_term() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


ACTS: dict[str, Callable[[], object]] = {
    "chatter": _chatter,
    "exhaust memory": _exhaust_memory,
    "exhaust memory of C++": _exhaust_memory_in_cpp,
    "exit": lambda: os._exit(0),
    "exit 3": lambda: os._exit(3),
    "grandchild": _leave_grandchild,
    "hang": _hang,
    "ignore TERM": _ignore_term,
    "kill itself": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "memory error": _raise(MemoryError()),
    "raise": _raise(ValueError("\n\n  first line \nsecond line")),
    "resource exhausted": _raise(RuntimeError("RESOURCE_EXHAUSTED: out of memory while allocating 3 TB")),
    "segfault": lambda: ctypes.memset(0, 1, 1),
    "stray": _leave_stray,
    "system exit": lambda: sys.exit("leaving"),
    "unsupported": _raise(UnsupportedError("no bfloat16 here")),
    "wrong device": _raise(WrongDeviceError("wanted gpu:0, would run on the CPU")),
}
