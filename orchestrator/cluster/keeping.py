"""What `muster cluster` does: start the process that holds a cluster, ask after it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orchestrator.cluster.base import no_stage
from orchestrator.cluster.holder import Found, NotUp, Order, Staged, Up
from orchestrator.cluster.trial import visit
from orchestrator.cluster.warm import Place, recognise, write_private
from orchestrator.config.schema import ClusterMode
from orchestrator.errors import ClusterError, UsageError
from workers import codec
from workers.descendants import end, look, still_there

if TYPE_CHECKING:
    from orchestrator.cluster.base import Stage
    from orchestrator.cluster.driver import RayNode
    from orchestrator.cluster.holder import Message
    from orchestrator.cluster.warm import KeptCluster, Record
    from orchestrator.config.load import Loaded
    from orchestrator.config.schema import Config
    from orchestrator.diagnosis import Finding
    from workers.descendants import Process

#: Seconds that bringing a cluster up may take beyond its limits: Python starts on each host, and imports Ray.
ALLOWANCE_S: Final = 60.0

#: Seconds for a holder to end Ray on every host.
DOWN_TIMEOUT_S: Final = 60.0

#: Seconds to see whether anybody listens at an address.
_KNOCK_S: Final = 3.0

#: Bytes of a message's line: texts of errors can be long.
_LONGEST_LINE: Final = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A cluster that is up now."""

    record: Record
    cluster: KeptCluster
    findings: tuple[Finding, ...] = ()
    #: It had been up before.
    was_up: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A cluster that was told to go."""

    record: Record
    #: What is still there of it on this machine, in words.
    remains: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class HostState:
    """How a host of a cluster that is kept is doing."""

    name: str
    ip: str | None = None
    #: Why it is not in the cluster; ``None`` where it is.
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What is known of a cluster."""

    #: ``None`` where none is kept.
    record: Record | None
    #: There was one, and the process that held it had ended without taking it down.
    had_died: bool = False
    hosts: tuple[HostState, ...] = ()
    #: Why the cluster did not answer.
    problem: str | None = None

    @property
    def word(self) -> str:
        """``up``, ``silent`` where it does not answer, ``starting``, ``died`` or ``down``."""
        if self.record is None:
            return "died" if self.had_died else "down"
        if self.record.cluster is None:
            return "starting"
        return "up" if self.problem is None else "silent"


# --- up --------------------------------------------------------------------------------------------------------


async def bring_up(loaded: Loaded, stage: Stage = no_stage) -> Started:
    """Start a process that holds the config's cluster, and return when it is up.

    Raises UsageError where there is nothing to keep, ClusterError where it does not come up.
    """
    config = loaded.config
    if config.cluster.mode is ClusterMode.ADDRESS:
        raise UsageError(
            f"somebody else keeps the cluster at {config.cluster.address}", remedy=f"just run: muster run {loaded.path}"
        )
    place = Place.of(config)
    there = place.live()
    if there is not None:
        if there.cluster is None:
            raise ClusterError(
                f"process {there.pid} is bringing this cluster up already, since {there.since}",
                remedy=f"wait for it, or end it: muster cluster down {loaded.path}",
            )
        return Started(record=there, cluster=there.cluster, was_up=True)
    place.make()
    order = Order(text=loaded.text, path=loaded.path, overrides=loaded.overrides)
    write_private(place.order, codec.to_json(order))
    findings = await _start(place, timeout_s=_timeout_s(config), stage=stage)
    record = place.live()
    if record is None or record.cluster is None:
        raise ClusterError("the cluster came up and went down at once", remedy=f"its log tells more: {place.log}")
    return Started(record=record, cluster=record.cluster, findings=findings)


def _timeout_s(config: Config) -> float:
    """Return how long all of it may take; hosts are brought up side by side."""
    limits = config.limits
    installs = any(host.connection(config.defaults).install for host in config.hosts)
    # Each is waited for twice at most: name and login, wheels and their installation, the head and then the others.
    waits = limits.connect_timeout_s + limits.join_timeout_s + (limits.install_timeout_s if installs else 0.0)
    return 2 * waits + ALLOWANCE_S


async def _start(place: Place, *, timeout_s: float, stage: Stage) -> tuple[Finding, ...]:
    """Start the holder and listen until it says that the cluster is up; where it is not, the holder is ended."""
    readable, writable = os.pipe2(os.O_CLOEXEC)
    try:
        holder = _spawn(place, writable)
    except BaseException:
        os.close(readable)
        raise
    finally:
        os.close(writable)
    is_up = False
    try:
        findings = await asyncio.wait_for(_listen(readable, place, stage), timeout_s)
        is_up = True
    except asyncio.TimeoutError as error:
        raise ClusterError(
            f"the cluster did not come up within {timeout_s:.0f} s", remedy=f"its log tells more: {place.log}"
        ) from error
    finally:
        if not is_up:
            await asyncio.shield(asyncio.to_thread(_end, holder))
    return findings


def _spawn(place: Place, writable: int) -> Process | None:
    """Start a holder that outlives this process and its terminal, and that writes to ``writable``.

    Not through ``subprocess`` or asyncio: both see to it that their children end with them.
    """
    argv = [sys.executable, "-m", "orchestrator.cluster.holder", str(place.folder)]
    pid = os.posix_spawn(
        sys.executable,
        argv,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, writable, 1),
            (os.POSIX_SPAWN_OPEN, 2, str(place.log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ],
        setsid=True,
    )
    return look(pid)


async def _listen(readable: int, place: Place, stage: Stage) -> tuple[Finding, ...]:
    """Return what the holder found on its way up. Raises ClusterError where it does not get there."""
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    protocol = asyncio.StreamReaderProtocol(reader)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(readable, "rb", buffering=0))
    findings: list[Finding] = []
    try:
        while line := await reader.readline():
            message = _message(line)
            if isinstance(message, Up):
                return tuple(findings)
            if isinstance(message, NotUp):
                raise ClusterError(message.message, remedy=message.remedy)
            if isinstance(message, Found):
                findings.append(message.finding)
            elif isinstance(message, Staged):
                stage(message.text, message.done, message.total)
    finally:
        transport.close()
    raise ClusterError("the process that should hold the cluster ended", remedy=f"its log tells why: {place.log}")


def _message(line: bytes) -> Message | None:
    """Return what a line says; ``None`` where something else than the holder printed it."""
    with contextlib.suppress(codec.CodecError):
        kinds: tuple[type[Any], ...] = (Staged, Found, Up, NotUp)
        message: Message = codec.event_from_json(kinds, line)
        return message
    return None


# --- down ------------------------------------------------------------------------------------------------------


async def bring_down(config: Config) -> Ended | None:
    """End the process that holds the config's cluster, and with it the cluster; ``None`` where none is kept."""
    place = Place.of(config)
    record = place.live()
    if record is None:
        return None
    await asyncio.to_thread(_end, record.holder)
    remains = [f"process {record.pid}, which held it"] if place.live() is not None else []
    cluster = record.cluster
    if cluster is not None:
        if cluster.token_file is not None and Path(cluster.token_file).exists():
            remains.append(f"its token in {cluster.token_file}")
        if await _answers(cluster.address):
            remains.append(f"a Ray cluster at {cluster.address}")
    return Ended(record=record, remains=tuple(remains))


def _end(holder: Process | None) -> None:
    """End a holder and wait for it: it takes the cluster down first. Killed past a deadline, Ray ends by itself."""
    if holder is not None:
        end(lambda: [holder] if still_there(holder) else [], gentle_s=DOWN_TIMEOUT_S)
    with contextlib.suppress(ChildProcessError):
        if holder is not None:
            os.waitpid(holder.pid, os.WNOHANG)


async def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), _KNOCK_S)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return True


# --- status ----------------------------------------------------------------------------------------------------


async def ask_after(config: Config) -> State:
    """Return what is known of the config's cluster; asks the cluster itself where one is kept."""
    place = Place.of(config)
    was_written_down = place.read() is not None
    record = place.live()
    if record is None or record.cluster is None:
        return State(record=record, had_died=was_written_down and record is None)
    nodes: tuple[RayNode, ...] = ()
    problem = None
    try:
        nodes = await visit(record.cluster.entrance, timeout_s=config.limits.connect_timeout_s)
    except ClusterError as error:
        problem = error.message
    matching = recognise(record.cluster, [host.name for host in config.hosts], nodes)
    hosts = (
        HostState(name=host.name, ip=matching.nodes[host.name].ip)
        if host.name in matching.nodes
        else HostState(name=host.name, reason=matching.problems[host.name])
        for host in config.hosts
    )
    return State(record=record, hosts=tuple(hosts), problem=problem)
