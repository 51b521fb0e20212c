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

    def running(self, devices: Sequence[Device]) -> AbstractAsyncContextManager[ClusterHandle]:
        """Bring Ray up with one resource for each device, :func:`resource_of`; at the end take down what was started.

        Raises :class:`orchestrator.errors.ClusterError`.
        """


def resource_of(device_id: str) -> str:
    """Return the name of the Ray resource, of which there is exactly one, that stands for a device.

    Ray cannot be told which GPU an actor gets (its ``num_gpus`` picks any), so each device is a resource of its own.
    """
    return f"muster:{device_id}"
