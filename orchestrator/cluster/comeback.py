"""Hosts over SSH that have left a cluster in the middle of a run, and how they get into it again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from orchestrator.cluster.base import GoneForGoodError
from orchestrator.cluster.bringup import label_of
from orchestrator.cluster.driver import live_nodes
from orchestrator.errors import ClusterError
from workers.orders import HOST_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.cluster.bringup import BringUp
    from orchestrator.cluster.session import HostSession

#: Seconds between two looks for a node that is on its way; nothing tells of it.
_LOOK_S: Final = 0.2


class SshComeback:
    """An :class:`orchestrator.cluster.base.Comeback` of hosts whose keepers we have, or can have again.

    ``nodes`` are Ray's ids by host name; what comes back is written down there. ``gpus`` counts each host's.
    """

    def __init__(
        self,
        bring_up: BringUp,
        sessions: Sequence[HostSession],
        *,
        nodes: dict[str, str],
        gpus: Mapping[str, int],
        join_timeout_s: float,
    ) -> None:
        self._bring_up = bring_up
        self._sessions = {session.name: session for session in sessions}
        self._nodes = nodes
        self._gpus = gpus
        self._join_timeout_s = join_timeout_s
        #: However many devices a host has, it is brought back once.
        self._turns = {session.name: asyncio.Lock() for session in sessions}

    async def rejoin(self, host: str) -> str:
        """Return the host's node; starts Ray there where it has ended, which takes seconds. Raises ClusterError."""
        session = self._sessions.get(host)
        if session is None:
            raise GoneForGoodError(f"{host} is not in the cluster")
        async with self._turns[host]:
            has_ray = await session.still_has_ray()
            alive = {node.id for node in await live_nodes()}
            known = self._nodes.get(host)
            if has_ray and known in alive:
                return known
            if has_ray:
                # Ray has given the host up while it was away, and it ends by itself as soon as it hears so.
                raise ClusterError("Ray there was given up by the cluster, and is on its way out")
            if session.is_here:
                raise GoneForGoodError("Ray on the head has ended, and this run lives and ends with it")
            await self._bring_up.start_host(session, self._gpus[host])
            self._nodes[host] = await self._joined(host, alive)
            return self._nodes[host]

    async def why_gone(self, host: str) -> str | None:
        """Return why Ray has ended on a host, where its keeper says so, or the next one does not find it any more."""
        session = self._sessions.get(host)
        if session is None or self._turns[host].locked():
            return None
        async with self._turns[host]:
            # Nobody knows of a host that does not answer here either.
            with contextlib.suppress(ClusterError):
                return None if await session.still_has_ray() else "Ray on the host has ended, or the host has restarted"
        return None

    async def _joined(self, host: str, before: set[str]) -> str:
        """Return the node of a host that has just started Ray, beside those that were there before."""
        label, loop = label_of(host), asyncio.get_running_loop()
        until = loop.time() + self._join_timeout_s
        while loop.time() < until:
            for node in await live_nodes():
                if node.labels.get(HOST_LABEL) == label and node.id not in before:
                    return node.id
            await asyncio.sleep(_LOOK_S)
        raise ClusterError("Ray started there again, and did not join the cluster")
