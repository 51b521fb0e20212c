"""The command line as people use it: a process of its own in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from types import TracebackType

ROOT: Final = Path(__file__).parents[2]

#: One small case of each pass on this machine's CPU.
SMALL: Final = """\
version: 1
name: small
hosts: [{name: localhost, devices: [cpu]}]
workloads: [{model: alexnet, batch_size: 1}]
measure: {warmup: 1, steps: 3}
policy: {busy: measure}  # other tests run beside
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    code: int
    out: str
    err: str


def environment(**extra: str) -> dict[str, str]:
    """This process's environment with our packages on the path, whatever the working directory."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **extra}


class Started(subprocess.Popen[str]):
    """A run that does not outlive a test that fails beside it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.poll() is None:
            self.terminate()
        super().__exit__(kind, error, trace)


def start(*arguments: str, cwd: Path, **extra: str) -> Started:
    return Started(
        [sys.executable, "-m", "orchestrator.cli.app", *arguments],
        cwd=cwd,
        env=environment(**extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def muster(*arguments: str, cwd: Path, timeout_s: float = 120.0, **extra: str) -> Ended:
    process = start(*arguments, cwd=cwd, **extra)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return Ended(code=process.returncode, out=out, err=err)


def descendants(pid: int) -> list[psutil.Process]:
    """Every process below ``pid``, also in sessions of their own."""
    return psutil.Process(pid).children(recursive=True)


def survivors(processes: list[psutil.Process], within_s: float = 15.0) -> list[psutil.Process]:
    """Those that have not ended within a while."""
    return psutil.wait_procs(processes, timeout=within_s)[1]
