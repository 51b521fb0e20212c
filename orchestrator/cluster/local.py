"""The machine itself as a cluster of one host: Ray on the loopback address, with a token, gone when we are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.cluster.base import ClusterHandle
from orchestrator.errors import ClusterError
from orchestrator.inventory import resource_of
from workers import codec
from workers.protocol import HostReport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from workers.protocol import Device

#: Seconds that the probe may take; it answers in a tenth of one.
PROBE_TIMEOUT_S: Final = 30.0

#: Bytes of Ray's object store. Results are passed inline, so the smallest that Ray accepts (75 MiB) with some room.
OBJECT_STORE_BYTES: Final = 80 * 2**20

#: Ray replaces 127.0.0.1 by the machine's outward address, which may change while a laptop moves; this one it keeps.
LOOPBACK: Final = "127.0.0.2"

#: Ray's settings come by environment; it reads them when it is imported and its daemons inherit them.
RAY_ENVIRONMENT: Final = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise Ray tries to rebuild the environment on each worker when it was started under `uv run`.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


class LocalCluster:
    """The machine that the command runs on."""

    def __init__(self, host: str) -> None:
        self._host = host

    async def probe(self) -> tuple[HostReport, ...]:
        """Return what this machine has, found by a process of its own so that nothing heavy is loaded here."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "workers.probe",
            "--host",
            self._host,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), PROBE_TIMEOUT_S)
        except asyncio.TimeoutError as error:
            process.kill()
            await process.wait()
            raise ClusterError(f"the probe of this machine did not answer within {PROBE_TIMEOUT_S:.0f} s") from error
        if process.returncode != 0:
            raise ClusterError(
                f"the probe of this machine failed (exit {process.returncode}): {_last_line(err)}",
                remedy=f"run `{sys.executable} -m workers.probe --host {self._host}` to see it whole",
            )
        return (codec.from_json(HostReport, out),)

    def preload(self) -> None:
        """Import Ray with its settings in place; they stay, for it reads them whenever it likes."""
        os.environ.update(RAY_ENVIRONMENT)
        import ray  # noqa: F401  # it is the import that takes time

    @contextlib.asynccontextmanager
    async def running(self, devices: Sequence[Device]) -> AsyncIterator[ClusterHandle]:
        """Start Ray on the loopback address and shut it down at the end."""
        # Short, and not under TMPDIR: Ray puts UNIX sockets below it, whose paths end at 107 bytes.
        directory = Path(tempfile.mkdtemp(prefix="muster-", dir="/tmp"))
        token_file = directory / "token"
        with _removed_at_end(directory), _environment({"RAY_AUTH_TOKEN_PATH": str(token_file)}):
            await asyncio.to_thread(self.preload)
            _write_secret(token_file, secrets.token_hex(32))
            # Ray opens its own folder to every user; the token lies outside it, where only we may look.
            address = await asyncio.to_thread(_start_ray, directory / "ray", devices)
            try:
                yield ClusterHandle(address=address, token_file=token_file, hosts=(self._host,))
            finally:
                await asyncio.to_thread(_stop_ray)


def connect(host: str) -> LocalCluster:
    """Return the cluster of this machine under the name that the config gives it."""
    return LocalCluster(host)


def _start_ray(directory: Path, devices: Sequence[Device]) -> str:
    # Heavy (0.5 s), so imported when a run needs it and not with the command line.
    import ray

    # In a thread Ray warns that it cannot take over SIGTERM, which is ours anyway.
    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        raise ClusterError("Ray is already running in this process")
    try:
        context = ray.init(
            address="local",
            # Ray starts as many workers ahead as it has CPUs; agents ask for none, so this is one for each of them.
            num_cpus=max(1, len(devices)),
            num_gpus=0,
            resources={resource_of(device.id): 1 for device in devices},
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address=LOOPBACK,
            _temp_dir=str(directory),
        )
    except Exception as error:  # Ray raises RuntimeError, ConnectionError, OSError and its own; all mean the same here
        ray.shutdown()
        raise ClusterError(f"Ray did not start: {error}", remedy=f"its logs are in {directory}") from error
    _end_autoscaler()
    return str(context.address_info["gcs_address"])


def _end_autoscaler() -> None:
    """End the process that would add and remove hosts: with one it has nothing to do, and it takes a second to go.

    Ray can leave it out by `ray start --no-monitor` only; there is no public way to do so from Python.
    """
    from ray._private.worker import _global_node

    for started in _global_node.all_processes.get("monitor", ()):
        # Not SIGTERM: it would tell everybody that the autoscaler has failed.
        started.process.kill()


def _stop_ray() -> None:
    import ray

    ray.shutdown()


def _write_secret(path: Path, secret: str) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(secret, encoding="ascii")


@contextlib.contextmanager
def _removed_at_end(directory: Path) -> Iterator[None]:
    """Remove the folder, but for Ray's logs where it did not start: they tell why."""
    is_kept = False
    try:
        yield
    except ClusterError:
        is_kept = True
        raise
    finally:
        if is_kept:
            (directory / "token").unlink(missing_ok=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
