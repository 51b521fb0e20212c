"""What every way to a Ray cluster offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from workers.protocol import Device, HostReport


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterHandle:
    """A Ray cluster that is up, and how to reach it."""

    #: ``host:port`` of its control service.
    address: str
    #: The file (mode 0600) that holds the cluster's token; never the token itself.
    token_file: Path
    #: Names of the hosts that belong to it.
    hosts: tuple[str, ...]


class Cluster(Protocol):
    """One way to the hosts of a config."""

    async def probe(self) -> tuple[HostReport, ...]:
        """Return what each host has; starts no Ray. Raises :class:`orchestrator.errors.ClusterError`."""

    def preload(self) -> None:
        """Import what :meth:`running` needs, which takes a while; may be called from a thread of its own."""

    def running(self, devices: Sequence[Device]) -> AbstractAsyncContextManager[ClusterHandle]:
        """Bring Ray up with one resource a device (:func:`~orchestrator.inventory.resource_of`), and down at the end.

        Raises :class:`orchestrator.errors.ClusterError`.
        """
