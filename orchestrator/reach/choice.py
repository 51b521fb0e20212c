"""Which way leads to a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.reach import here

if TYPE_CHECKING:
    from orchestrator.reach.base import Destination, Reach


def is_here(destination: Destination) -> bool:
    """Return whether that is this very machine: ``localhost``, as nobody else and on no other port."""
    return destination.address.lower() == "localhost" and destination.user is None and destination.port is None


async def reach_of(destination: Destination) -> Reach:
    """Return the way to a host, connected. Raises :class:`orchestrator.reach.base.UnreachableError`."""
    if is_here(destination):
        return await here.connect(destination)
    # Loads a library of cryptography, which this machine alone does not need.
    from orchestrator.reach.ssh import connect

    return await connect(destination)
