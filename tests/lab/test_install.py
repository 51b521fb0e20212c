"""`install: true` on hosts without internet: the head brings what is missing, once."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.muster import ROOT
from tests.lab.hosts import HOME

if TYPE_CHECKING:
    from tests.integration.muster import Ended
    from tests.lab.hosts import Host
    from tests.lab.lab import Lab

#: Ray, TensorFlow and all that they need are unpacked on one host, and it may have to be downloaded first.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_TIMEOUT_S = 900.0

#: Bytes that the wheels have at least, and that a run takes at most in which none of them travel.
_WHEELS_BYTES = 200 * 2**20
_RUN_BYTES = 20 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """A run that has ended, and what the host has received meanwhile."""

    ended: Ended
    received_bytes: int


@pytest.fixture(scope="module")
def wheels(lab: Lab) -> str:
    """A folder of wheels on the head, which has no internet either: brought there, as by hand."""
    folder = lab.head.home / "work" / "wheels"
    kind = "gpu" if Path("/proc/driver/nvidia/version").exists() else "cpu"
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    subprocess.run(
        [sys.executable, "-m", "orchestrator.reach.wheelhouse", kind, minor, platform.machine(), folder],
        cwd=ROOT,
        check=True,
    )
    return f"{HOME}/work/wheels"


def _received(host: Host) -> int:
    return int((host.outside / "sys/class/net/eth0/statistics/rx_bytes").read_text())


def _run(lab: Lab, wheels: str) -> Installed:
    host = {"install": True, "python": str(Path(sys.executable).resolve())}
    folder = lab.write_config(lab.config({"h1": host}, cluster={"wheelhouse": wheels}))
    before = _received(lab["h1"])
    ended = lab.muster("run", "lab.yaml", cwd=folder, timeout_s=_TIMEOUT_S)
    return Installed(ended=ended, received_bytes=_received(lab["h1"]) - before)


@pytest.fixture(scope="module")
def first(lab: Lab, wheels: str) -> Installed:
    return _run(lab, wheels)


def test_a_host_with_a_bare_python_is_measured(lab: Lab, first: Installed) -> None:
    bare = lab["h1"].run(str(Path(sys.executable).resolve()), "-c", "import tensorflow")

    assert bare.code != 0
    assert first.ended.code == 0, first.ended.err
    assert first.received_bytes > _WHEELS_BYTES


def test_a_second_run_brings_nothing(lab: Lab, wheels: str, first: Installed) -> None:
    second = _run(lab, wheels)

    assert second.ended.code == 0, second.ended.err
    assert second.received_bytes < _RUN_BYTES < first.received_bytes
