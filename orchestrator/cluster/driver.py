"""A driver of a Ray cluster that is up, in this process: it connects, sees the nodes, and lets go."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from orchestrator.errors import ClusterError, first_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

T = TypeVar("T")

#: Ray's settings come by environment; it reads them when it is imported and its daemons inherit them.
RAY_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise Ray tries to rebuild the environment on each worker when it was started under `uv run`.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray would end this whole process where the cluster's control service is out of reach for a minute. Waits have
    # deadlines of our own.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
}

#: The same for clusters that we bring up: each has a token.
TOKEN_ENVIRONMENT: Final = {**RAY_ENVIRONMENT, "RAY_AUTH_MODE": "token"}

#: Bytes of Ray's object store. Results are passed inline, so the smallest that Ray accepts (75 MiB) with some room.
OBJECT_STORE_BYTES: Final = 80 * 2**20

#: Seconds for Ray's control service to say which nodes there are; it takes a hundredth of one.
NODES_TIMEOUT_S: Final = 10.0

#: Where Ray listens when no other machine takes part. It replaces 127.0.0.1 by the machine's outward address, which may
#: change while a laptop moves; this one it keeps.
LOOPBACK: Final = "127.0.0.2"


@functools.cache
def process_token() -> str:
    """Return the token of the clusters that this process brings up, the same for all of them.

    Ray reads a token once in a process, and would come to the next cluster with that of the last.
    """
    return secrets.token_hex(32)


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """The files that a process needs for the cluster's encryption, all of them this process's own to read."""

    ca_certificate: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrance:
    """How a driver on this machine gets into a cluster."""

    #: ``IP:port`` of the control service, or ``auto``.
    address: str
    #: This machine's own address in the cluster; ``None`` to let Ray find it.
    node_ip: str | None = None
    token_file: Path | None = None
    tls: TlsFiles | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables that Ray reads."""
        found = dict(RAY_ENVIRONMENT)
        if self.token_file is not None:
            found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}
        if self.tls is not None:
            found |= {
                "RAY_USE_TLS": "1",
                "RAY_TLS_CA_CERT": str(self.tls.ca_certificate),
                "RAY_TLS_SERVER_CERT": str(self.tls.certificate),
                "RAY_TLS_SERVER_KEY": str(self.tls.key),
            }
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class RayNode:
    """A node of a cluster that is alive."""

    id: str
    ip: str
    hostname: str
    labels: Mapping[str, str]


@contextlib.asynccontextmanager
async def joined(entrance: Entrance, *, code: Path | None = None) -> AsyncIterator[tuple[RayNode, ...]]:
    """Connect this process to a cluster and give its live nodes; disconnect at the end, and stop nothing.

    Hosts get the package in the folder ``code`` from Ray, for all that runs there on behalf of this process.
    Raises ClusterError.
    """
    with environment(entrance.environment()):
        await asyncio.to_thread(_connect, entrance, code)
        try:
            yield await asyncio.to_thread(nodes)
        finally:
            await asyncio.to_thread(_disconnect)


def load_ray(settings: Mapping[str, str]) -> None:
    """Import Ray, which takes half a second, with its settings in place; they stay, for it reads them when it likes."""
    os.environ.update(settings)
    import ray  # noqa: F401  # it is the import that takes time


def hush() -> None:
    """Have Ray say nothing in this process: standard output is for results, and what goes wrong we tell ourselves."""
    from ray._private import worker

    # In a thread Ray warns that it cannot take over SIGTERM, which is ours anyway.
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Prints a page on standard output whenever a host's daemon dies; there is no public way to have it not do so.
    worker.print_to_stdstream = lambda *_, **__: None


def nodes() -> tuple[RayNode, ...]:
    """Return the live nodes of the cluster that this process is connected to."""
    import ray

    return tuple(
        RayNode(
            id=node["NodeID"],
            ip=node["NodeManagerAddress"],
            hostname=node["NodeManagerHostname"],
            labels=dict(node.get("Labels") or {}),
        )
        for node in ray.nodes()
        if node["Alive"]
    )


async def bounded(work: Callable[[], T], timeout_s: float) -> T:
    """Return what ``work`` gives, or raise what it raises, or asyncio.TimeoutError past ``timeout_s``.

    For calls of Ray's that wait for its control service, which never return where that one is gone. Each has a thread
    of its own, which is left behind then: it would hold up the few threads of asyncio's pool, and the process's end.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(found: list[T], failure: BaseException | None) -> None:
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            answer.set_result(found[0])

    def do() -> None:
        found: list[T] = []
        failure: BaseException | None = None
        try:
            found.append(work())
        except BaseException as error:  # whoever waits hears of it
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, found, failure)

    threading.Thread(target=do, name="bounded", daemon=True).start()
    return await asyncio.wait_for(answer, timeout_s)


async def live_nodes(timeout_s: float = NODES_TIMEOUT_S) -> tuple[RayNode, ...]:
    """Return the live nodes, as :func:`nodes` does, but wait no longer than that. Raises ClusterError."""
    try:
        return await bounded(nodes, timeout_s)
    except asyncio.TimeoutError as error:
        raise ClusterError(f"Ray's control service gave no answer within {timeout_s:.0f} s") from error
    except Exception as error:  # Ray has thirty kinds of them; all mean the same here
        raise ClusterError(f"Ray's control service gave no answer: {first_line(error)}") from error


def _connect(entrance: Entrance, code: Path | None) -> None:
    # Heavy (0.5 s), so imported when a run needs it and not with the command line.
    import ray

    hush()
    if ray.is_initialized():
        raise ClusterError("this process is connected to a Ray cluster already")
    own: dict[str, Any] = {} if entrance.node_ip is None else {"_node_ip_address": entrance.node_ip}
    if code is not None:
        # What Python compiled here stays here.
        own["runtime_env"] = {"py_modules": [str(code)], "excludes": ["__pycache__"]}
    try:
        ray.init(address=entrance.address, log_to_driver=False, configure_logging=False, **own)
    except Exception as error:  # Ray raises RuntimeError, ConnectionError, OSError and its own; all mean the same here
        ray.shutdown()
        raise ClusterError(f"the Ray cluster at {entrance.address} cannot be joined: {first_line(error)}") from error


def _disconnect() -> None:
    import ray

    ray.shutdown()


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Hold these variables while the context lasts; then put back what was there."""
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
