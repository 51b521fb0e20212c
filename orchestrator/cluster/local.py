"""The machine itself as a cluster of one host: Ray on the loopback address, with a token, gone when we are."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Final

from orchestrator.cluster.base import ClusterHandle, GoneForGoodError, Survey, no_stage
from orchestrator.cluster.driver import (
    LOOPBACK,
    OBJECT_STORE_BYTES,
    TOKEN_ENVIRONMENT,
    Entrance,
    environment,
    hush,
    live_nodes,
    load_ray,
    process_token,
)
from orchestrator.errors import ClusterError, last_line
from workers import codec
from workers.clusterfolder import ClusterFolder
from workers.protocol import HostReport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from orchestrator.cluster.base import Stage
    from orchestrator.config.schema import Config
    from workers.protocol import Device

#: Seconds that the probe may take; it answers in a tenth of one.
PROBE_TIMEOUT_S: Final = 30.0


class LocalCluster:
    """The machine that the command runs on."""

    def __init__(self, host: str, stage: Stage = no_stage) -> None:
        self._host = host
        self._stage = stage

    async def survey(self, *, install: bool) -> Survey:  # there is nothing to install here
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
            said = last_line(err.decode("utf-8", "replace"), "it said nothing")
            raise ClusterError(
                f"the probe of this machine failed (exit {process.returncode}): {said}",
                remedy=f"run `{sys.executable} -m workers.probe --host {self._host}` to see it whole",
            )
        return Survey(reports=(codec.from_json(HostReport, out),))

    def preload(self) -> None:
        """Import Ray with its settings in place; they stay, for it reads them whenever it likes."""
        load_ray(TOKEN_ENVIRONMENT)

    @contextlib.asynccontextmanager
    async def running(self, devices: Sequence[Device]) -> AsyncIterator[ClusterHandle]:
        """Start Ray on the loopback address and shut it down at the end; every host of ``devices`` is this machine."""
        self._stage("starting Ray", None, None)
        folder = ClusterFolder.make()
        token_file = folder.path / "token"
        with _removed_at_end(folder), environment({"RAY_AUTH_TOKEN_PATH": str(token_file)}):
            await asyncio.to_thread(self.preload)
            _write_secret(token_file, process_token())
            # Ray opens its own folder to every user; the token lies outside it, where only we may look.
            address, node = await asyncio.to_thread(_start_ray, folder.path / "ray", devices)
            hosts = dict.fromkeys((self._host, *(device.host for device in devices)), node)
            try:
                entrance = Entrance(address=address, node_ip=LOOPBACK, token_file=token_file)
                yield ClusterHandle(
                    address=address, token_file=token_file, nodes=hosts, entrance=entrance, comeback=_OneNode(node)
                )
            finally:
                await asyncio.to_thread(_stop_ray)

    async def close(self) -> None:
        """Do nothing: the survey holds no connection."""


class _OneNode:
    """An :class:`orchestrator.cluster.base.Comeback` to a node that lives and ends with this process."""

    def __init__(self, node: str) -> None:
        self._node = node

    async def rejoin(self, host: str) -> str:
        """Return the only node. Raises GoneForGoodError where it has ended."""
        if self._node not in {node.id for node in await live_nodes()}:
            raise GoneForGoodError("Ray on this machine has ended, and this run lives and ends with it")
        return self._node

    async def why_gone(self, host: str) -> str | None:
        """Return ``None``: nobody but Ray knows."""
        return None


def connect(config: Config, stage: Stage = no_stage) -> LocalCluster:
    """Return the cluster of this machine under the name that the config gives it."""
    return LocalCluster(config.hosts[0].name, stage)


def _start_ray(directory: Path, devices: Sequence[Device]) -> tuple[str, str]:
    """Return the address of the control service and the id of the only node."""
    # Heavy (0.5 s), so imported when a run needs it and not with the command line.
    import ray

    hush()
    if ray.is_initialized():
        raise ClusterError("Ray is already running in this process")
    try:
        context = ray.init(
            address="local",
            # Ray starts as many workers ahead as it has CPUs; agents ask for none, so this is one for each of them.
            num_cpus=max(1, len(devices)),
            num_gpus=0,
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
    return str(context.address_info["gcs_address"]), str(context.address_info["node_id"])


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
def _removed_at_end(folder: ClusterFolder) -> Iterator[None]:
    """Remove the folder, but for Ray's logs where it did not start: they tell why."""
    is_kept = False
    try:
        yield
    except ClusterError:
        is_kept = True
        raise
    finally:
        if is_kept:
            (folder.path / "token").unlink(missing_ok=True)
            folder.leave()
        else:
            folder.remove()
