"""The cluster of this machine: its token, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster.local import LocalCluster
from orchestrator.errors import ClusterError
from tests.integration.muster import environment, survivors

_UP = """
import asyncio, json, os, pathlib, sys
import psutil
from orchestrator.cluster.local import LocalCluster
from tests.builders import a_device

def knows(process, text):
    try:
        return text in " ".join(process.cmdline()) or text in process.environ().values()
    except psutil.Error:  # it has ended meanwhile
        return False

async def main():
    async with LocalCluster("localhost").running([a_device()]) as handle:
        below = psutil.Process().children(recursive=True)
        token = handle.token_file.read_text()
        scalers = [p for p in below if knows(p, "/monitor.py")]
        _, staying = psutil.wait_procs(scalers, timeout=20)
        below = [p for p in below if p not in scalers]
        leaks = [p.pid for p in below if knows(p, token)]
        print(json.dumps({
            "pids": [p.pid for p in below], "mode": handle.token_file.stat().st_mode,
            "folder_mode": handle.token_file.parent.stat().st_mode, "address": handle.address,
            "directory": str(handle.token_file.parent), "leaks": leaks, "length": len(token),
            "autoscalers": len(staying),
        }), flush=True)
        sys.stdin.readline()
    print(json.dumps({"left": [v for v in os.environ if v.startswith("RAY_AUTH_TOKEN")]}), flush=True)

asyncio.run(main())
"""

_WITHOUT_TOKEN = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False)
except Exception as error:
    print(type(error).__name__, error)
else:
    print("CONNECTED", ray.nodes())
"""


@pytest.mark.slow
def test_the_token_guards_the_cluster_and_nothing_is_left_of_it() -> None:
    root = Path(__file__).parents[2]
    clean = {name: value for name, value in environment().items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", _UP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean, cwd=root
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        processes = [psutil.Process(pid) for pid in told["pids"]]
        assert stat.S_IMODE(told["mode"]) == 0o600
        assert stat.S_IMODE(told["folder_mode"]) == 0o700
        assert told["length"] == 64
        assert told["leaks"] == []
        assert told["autoscalers"] == 0
        assert told["address"].startswith("127.")
        stranger = subprocess.run(
            [sys.executable, "-c", _WITHOUT_TOKEN, told["address"]],
            env={**clean, "HOME": told["directory"]},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert "CONNECTED" not in stranger.stdout
        assert "InvalidAuthToken" in stranger.stderr
        out, _ = process.communicate("\n", timeout=60)
    assert json.loads(out) == {"left": []}
    assert survivors(processes) == []
    assert not Path(told["directory"]).exists()


_DOES_NOT_START = """
import asyncio
from orchestrator.cluster.local import LocalCluster
from tests.builders import a_device
from orchestrator.errors import ClusterError
import orchestrator.cluster.local as local

local.OBJECT_STORE_BYTES = 1  # less than Ray accepts

async def main():
    try:
        async with LocalCluster("localhost").running([a_device()]):
            pass
    except ClusterError as error:
        print(error.message)
        print(error.remedy)

asyncio.run(main())
"""


def test_when_ray_does_not_start_its_logs_stay_and_its_token_goes() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _DOES_NOT_START],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=environment(),
    )
    message, remedy = ended.stdout.splitlines()
    assert message.startswith("Ray did not start: ")
    (place,) = re.findall(r"^its logs are in (/tmp/muster-\w+)/ray$", remedy)
    try:
        assert Path(place).is_dir()
        assert not Path(place, "token").exists()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_the_probe_answers_for_the_name_that_the_config_gives() -> None:
    (report,) = asyncio.run(LocalCluster("my-machine").survey(install=False)).reports
    assert report.host == "my-machine"
    assert report.cpu.cores == tuple(sorted(os.sched_getaffinity(0)))


def test_a_probe_that_fails_is_an_error_with_the_command_to_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ClusterError, match="probe of this machine failed") as caught:
        asyncio.run(LocalCluster("localhost").survey(install=False))
    assert "workers.probe" in (caught.value.remedy or "")


_TWICE = """
import asyncio
from orchestrator.cluster.local import LocalCluster
from tests.builders import a_device

async def main():
    for _ in range(2):
        async with LocalCluster("localhost").running([a_device()]) as handle:
            print(len(handle.nodes), flush=True)

asyncio.run(main())
"""


def test_one_process_can_have_one_cluster_after_another() -> None:
    """`rerun:` and `muster tune` do; Ray reads its token once in a process."""
    root = Path(__file__).parents[2]
    clean = {name: value for name, value in environment().items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", _TWICE], capture_output=True, text=True, env=clean, cwd=root, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "1"]
