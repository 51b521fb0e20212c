"""Hosts over SSH: every one is reached and examined at once, and Ray is started on those that have work.

This machine becomes the head of the cluster, through a keeper of its own just like the hosts': the same code starts and
ends Ray everywhere. What happens with one host is in :mod:`orchestrator.cluster.session`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.cluster.base import ClusterHandle, Survey, no_stage
from orchestrator.cluster.bringup import BringUp, label_of
from orchestrator.cluster.comeback import SshComeback
from orchestrator.cluster.driver import TOKEN_ENVIRONMENT, joined, load_ray
from orchestrator.cluster.session import HostSession
from orchestrator.config.schema import HostDefaults
from orchestrator.reach.wheelhouse import wheelhouse
from workers.orders import HOST_LABEL
from workers.protocol import DeviceKind, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from orchestrator.cluster.base import Stage
    from orchestrator.cluster.driver import RayNode
    from orchestrator.config.schema import Config
    from orchestrator.reach.wheelhouse import Wheelhouse
    from workers.protocol import Device

#: What the head calls itself; no host of a config can have this name.
HEAD: Final = "(head)"

_NEVER_JOINED: Final = "Ray started there, and did not join the cluster"


class SshCluster:
    """The hosts of a config, reached over SSH."""

    def __init__(self, config: Config, stage: Stage) -> None:
        self._config = config
        self._stage = stage
        self._sessions = [
            HostSession(host.name, host.address or host.name, host.connection(config.defaults), config.limits, stage)
            for host in config.hosts
        ]
        # What the config says of other machines is not for this one.
        self._head = HostSession(HEAD, "localhost", HostDefaults(), config.limits, stage)
        self._wheelhouses: dict[tuple[str, str, str], asyncio.Task[Wheelhouse]] = {}
        self._reached = 0

    # --- the survey ---

    async def survey(self, *, install: bool) -> Survey:
        """Reach and examine every host at once; what is wrong with one is a finding, and holds up no other."""
        self._stage("reaching hosts", 0, len(self._sessions))
        await asyncio.gather(*(self._examine(session, install=install) for session in self._sessions))
        findings = [finding for session in self._sessions for finding in session.findings]
        reports = [session.report for session in self._sessions if session.report is not None]
        waiting = frozenset(session.name for session in self._sessions if session.installs and not session.is_installed)
        return Survey(reports=tuple(reports), findings=tuple(findings), to_install=waiting)

    async def _examine(self, session: HostSession, *, install: bool) -> None:
        if await session.reach():
            await session.tried("clock", session.check_clock(), Verdict.HOST_DOWN)
            if session.is_usable and session.installs and install:
                await session.tried("environment", self._install(session), Verdict.UNSUPPORTED)
            if session.is_usable:
                await session.tried("probe", session.examine(), Verdict.UNSUPPORTED)
        self._reached += 1
        self._stage("reaching hosts", self._reached, len(self._sessions))

    async def _install(self, session: HostSession) -> None:
        kind = "gpu" if session.has_gpu_driver else "cpu"
        await session.install(await self._wheels(kind, session.python_minor, session.machine))

    async def _wheels(self, kind: str, python_minor: str, machine: str) -> Wheelhouse:
        """Return the wheels for such hosts; made once, however many wait for them."""
        key = (kind, python_minor, machine)
        if key not in self._wheelhouses:
            named = self._config.cluster.wheelhouse
            making = wheelhouse(
                kind,
                python_minor,
                machine,
                folder=None if named is None else Path(named).expanduser(),
                say=lambda text: self._stage(text, None, None),
            )
            self._wheelhouses[key] = asyncio.create_task(making)
        # Shielded: where one host's turn is over, the others still wait for the same wheels.
        return await asyncio.shield(self._wheelhouses[key])

    # --- the cluster ---

    def preload(self) -> None:
        """Import Ray, unless it has to know of certificates that are not there yet: it reads its settings then."""
        if not self._config.cluster.tls:
            load_ray(TOKEN_ENVIRONMENT)

    @contextlib.asynccontextmanager
    async def running(self, devices: Sequence[Device]) -> AsyncIterator[ClusterHandle]:
        """Start Ray here and on the devices' hosts; end all of it, and nothing else, at the end."""
        gpus = {device.host: 0 for device in devices}
        for device in devices:
            gpus[device.host] += device.kind is DeviceKind.GPU
        sessions = [session for session in self._sessions if session.name in gpus]
        bring_up = BringUp(self._config.cluster, self._config.limits, self._stage)
        try:
            entrance = await bring_up.start_head(self._head, sessions, python=sys.executable)
            lost = await bring_up.start_hosts(sessions, gpus)
            async with joined(entrance) as nodes:
                known = _found_among(nodes, sessions)
                comeback = SshComeback(
                    bring_up, sessions, nodes=known, gpus=gpus, join_timeout_s=self._config.limits.join_timeout_s
                )
                yield ClusterHandle(
                    address=entrance.address,
                    token_file=entrance.token_file,
                    nodes=known,
                    lost={session.name: _NEVER_JOINED for session in sessions if session.name not in known} | lost,
                    entrance=entrance,
                    comeback=comeback,
                    ended=self._head.ray_ended,
                )
        finally:
            await self._stop(sessions)

    async def _stop(self, sessions: Sequence[HostSession]) -> None:
        """End Ray everywhere at once; a host that cannot be talked to any more ends it by itself."""
        self._stage("ending Ray", None, None)
        await asyncio.gather(*(session.stop_ray() for session in (*sessions, self._head)))

    async def close(self) -> None:
        """Let every host go."""
        for task in self._wheelhouses.values():
            task.cancel()
        await asyncio.gather(*self._wheelhouses.values(), return_exceptions=True)
        await asyncio.gather(*(session.close() for session in (*self._sessions, self._head)))


def _found_among(nodes: Sequence[RayNode], sessions: Sequence[HostSession]) -> dict[str, str]:
    """Return the node ids of the hosts that are there, by name; this machine lives on the head's node."""
    by_label = {node.labels.get(HOST_LABEL): node.id for node in nodes}
    labels = {session.name: label_of(HEAD if session.is_here else session.name) for session in sessions}
    return {name: by_label[label] for name, label in labels.items() if label in by_label}


def connect(config: Config, stage: Stage = no_stage) -> SshCluster:
    """Return the cluster of the config's hosts."""
    return SshCluster(config, stage)
