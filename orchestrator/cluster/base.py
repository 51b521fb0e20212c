"""What every way to a Ray cluster offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from orchestrator.errors import ClusterError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from orchestrator.cluster.driver import Entrance
    from orchestrator.diagnosis import Finding
    from workers.orders import RayEnded
    from workers.protocol import Device, HostReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What was found out about the hosts of a config before any Ray was started."""

    #: Of the hosts that answered, in the config's order.
    reports: tuple[HostReport, ...]
    #: What was checked on the way, host by host: reaching, logging in, the environment, the clock.
    findings: tuple[Finding, ...] = ()
    #: Hosts where the environment is still to be made: their reports tell nothing of it.
    to_install: frozenset[str] = frozenset()


class GoneForGoodError(ClusterError):
    """A host is not in the cluster, and will not be."""


class Comeback(Protocol):
    """How a host that has left a cluster gets into it again."""

    async def rejoin(self, host: str) -> str:
        """Return Ray's id of the node that the host has now, bringing it back into the cluster where it has none.

        Raises ClusterError where that cannot be done now, and GoneForGoodError where it never can.
        """

    async def why_gone(self, host: str) -> str | None:
        """Return why what ran on a silent host is gone for good; ``None`` where it may still be there. Never raises."""


class NoComeback:
    """Nobody knows a way back."""

    async def rejoin(self, host: str) -> str:
        """Raise GoneForGoodError."""
        raise GoneForGoodError(f"{host} cannot be brought back into this cluster")

    async def why_gone(self, host: str) -> str | None:
        """Return ``None``: nobody knows."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterHandle:
    """A Ray cluster that is up and that this process is connected to, and where its hosts are in it."""

    #: ``host:port`` of its control service.
    address: str
    #: The file (mode 0600) that holds the cluster's token; never the token itself. ``None`` for one without.
    token_file: Path | None
    #: Ray's node id by host name.
    nodes: Mapping[str, str]
    #: Why a host of the config is not in the cluster, by its name.
    lost: Mapping[str, str] = field(default_factory=dict)
    #: How another process of this machine gets in; ``None`` where it lives and dies with this one.
    entrance: Entrance | None = None
    comeback: Comeback = field(default_factory=NoComeback)
    #: Done once Ray on the head has ended by itself: what is up goes on without it, and nothing more can be brought up.
    #: ``None`` where nobody would know.
    ended: asyncio.Future[RayEnded] | None = None

    @property
    def has_ended(self) -> bool:
        """True where Ray on the head is known to be gone: asking it for anything is a wait for nothing."""
        return self.ended is not None and self.ended.done()

    async def rejoin(self, host: str) -> str:
        """Return the node of a host whose agents were lost: see :meth:`Comeback.rejoin`. Raises ClusterError."""
        return await self.comeback.rejoin(host)

    async def why_gone(self, host: str) -> str | None:
        """Return why what ran on a silent host is gone for good, as far as that is known."""
        return await self.comeback.why_gone(host)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts that belong to it."""
        return tuple(self.nodes)


#: Told what is going on before there are cases: in words, and how much of how much where that can be counted.
Stage: TypeAlias = Callable[[str, int | None, int | None], None]


def no_stage(text: str, done: int | None, total: int | None) -> None:
    """Tell nobody."""


class Cluster(Protocol):
    """One way to the hosts of a config. Closed once, after everything else."""

    async def survey(self, *, install: bool) -> Survey:
        """Reach every host and probe it; starts no agent. A host that fails is a finding, not an exception.

        With ``install``, environments that the config asks for and that are not there are made.
        Raises :class:`orchestrator.errors.ClusterError` where nothing can be reached at all, this machine included.
        """

    def preload(self) -> None:
        """Import what :meth:`running` needs, which takes a while; may be called from a thread of its own."""

    def running(self, devices: Sequence[Device]) -> AbstractAsyncContextManager[ClusterHandle]:
        """Bring Ray up on the hosts of ``devices`` and connect to it; leave everything as it was at the end.

        Raises :class:`orchestrator.errors.ClusterError`.
        """

    async def close(self) -> None:
        """Give up the connections that :meth:`survey` made; safe to call twice."""
