"""A Ray cluster that somebody else runs: with a token, and without muster on its hosts."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from tests.integration.muster import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Ours among the loopback addresses, and ports that nothing else here takes.
IP: Final = "127.0.0.77"
FIRST_PORT: Final = 28_000

#: Seconds for Ray to come up on a machine with much else to do.
PATIENCE_S: Final = 90

_OBSERVE: Final = """
import json, sys
import ray, ray._private.state
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
own = ray.get_runtime_context().get_job_id()
state = ray._private.state
print(json.dumps({
    "nodes": [node["NodeID"] for node in ray.nodes() if node["Alive"]],
    "actors": sum(actor["State"] != "DEAD" for actor in state.actors().values()),
    "jobs": sum(not job["IsDead"] and job["JobID"] != own for job in state.jobs()),
    "resources": {k: v for k, v in ray.available_resources().items() if k in ("CPU", "GPU")},
}))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """The cluster, and what a person would know of it."""

    address: str
    token_file: Path
    process: psutil.Process

    def environment(self) -> dict[str, str]:
        """What its own people's programs run with."""
        return {**_clean(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}

    def observed(self) -> dict[str, Any]:
        """Return what another of its users sees: nodes, actors and jobs that live, free resources."""
        ended = subprocess.run(
            [sys.executable, "-c", _OBSERVE, self.address],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 0, ended.stderr
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    def processes(self) -> list[psutil.Process]:
        """Return all that runs for it."""
        return [self.process, *self.process.children(recursive=True)]


@contextlib.contextmanager
def running() -> Iterator[Foreign]:
    """Start it, and end exactly its processes."""
    # Short, and not under TMPDIR: Ray puts UNIX sockets below it, whose paths end at 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="foreign-", dir="/tmp"))
    token_file = folder / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(secrets.token_hex(32))
    started = subprocess.Popen(
        [
            _python_without_muster(folder / "python"),
            "-c",
            "from ray.scripts.scripts import main; main()",
            *_start(folder),
        ],
        cwd=folder,
        env={**_clean(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    foreign = Foreign(address=f"{IP}:{FIRST_PORT}", token_file=token_file, process=psutil.Process(started.pid))
    try:
        _await(started)
        yield foreign
    finally:
        processes = foreign.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, staying = psutil.wait_procs(processes, timeout=10)
        for process in staying:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        started.communicate(timeout=PATIENCE_S)
        shutil.rmtree(folder)


def _start(folder: Path) -> list[str]:
    ports = {
        "port": 0,
        "node-manager-port": 1,
        "object-manager-port": 2,
        "runtime-env-agent-port": 3,
        "dashboard-agent-listen-port": 4,
        "dashboard-agent-grpc-port": 5,
        "metrics-export-port": 6,
        "min-worker-port": 10,
        "max-worker-port": 99,
    }
    return [
        *("start", "--head", "--block", "--no-monitor", "--disable-usage-stats", "--include-dashboard=false"),
        *(f"--{name}={FIRST_PORT + offset}" for name, offset in ports.items()),
        *(f"--node-ip-address={IP}", f"--temp-dir={folder / 'ray'}", "--labels=muster.host=bench"),
        *("--num-cpus=1", "--num-gpus=0", f"--object-store-memory={80 * 2**20}"),
    ]


def _await(started: subprocess.Popen[str]) -> None:
    """Read until Ray says that it is up; the test's own timeout is the deadline."""
    assert started.stdout is not None
    said = []
    for line in started.stdout:
        said.append(line)
        if "Ray runtime started" in line:
            return
    raise AssertionError("".join(said))


def _python_without_muster(folder: Path) -> str:
    """Make an interpreter that has all that this one has installed, but for links to this checkout."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    python = folder / "bin" / "python"
    missing = subprocess.run(
        [python, "-c", "import ray, workers"], cwd=folder, env=_clean(), capture_output=True, text=True
    )
    assert "No module named 'workers'" in missing.stderr, missing.stderr
    return str(python)


def _clean() -> dict[str, str]:
    """Return an environment without a word of this checkout, or of other Ray clusters."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name != "PYTHONPATH"}
    assert str(ROOT) not in kept.get("PYTHONPATH", "")
    return kept
