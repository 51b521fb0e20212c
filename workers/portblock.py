"""A block of ports for one host's Ray, taken for as long as a claim is held.

The claim on a block is a socket bound to one of its ports that Ray does not use: the kernel gives it to one process at
a time, whoever its user is, and frees it with the process. Standard library only.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import Final

from workers.orders import FIRST_WORKER_PORT, PORTS_IN_BLOCK

#: Tells the workers of a Ray that has a block which one that is.
FIRST_PORT_VARIABLE: Final = "MUSTER_FIRST_PORT"

#: Where in a block the port is that a claim is bound to. Nothing listens there.
CLAIM_PORT: Final = FIRST_WORKER_PORT - 1


class PortsTakenError(Exception):
    """No block of the range is free."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A block that is ours until it is released."""

    first_port: int
    held: socket.socket

    @property
    def last_port(self) -> int:
        """The last port of the block."""
        return self.first_port + PORTS_IN_BLOCK - 1

    def release(self) -> None:
        """Give the block to others; safe to call twice."""
        self.held.close()


def blocks(first_port: int, last_port: int) -> range:
    """Return the first ports of the whole blocks in a range."""
    return range(first_port, last_port - PORTS_IN_BLOCK + 2, PORTS_IN_BLOCK)


def claim(first_port: int, last_port: int) -> Claim:
    """Claim the first block of the range in which no port is in use. Raises :class:`PortsTakenError`."""
    in_use: list[int] = []
    for first in blocks(first_port, last_port):
        held = _bound(first + CLAIM_PORT)
        if held is None:
            in_use.append(first + CLAIM_PORT)
            continue
        taken = _first_taken(first)
        if taken is None:
            return Claim(first_port=first, held=held)
        held.close()
        in_use.append(taken)
    raise PortsTakenError(_story(first_port, last_port, in_use), "ss -ltnp (or give `cluster.ports` another range)")


def reserved() -> socket.socket:
    """Return a socket bound to a free port on every address, so that nobody else takes it before it is closed.

    One of this Ray's block, for these are the ports that a firewall lets through: from its end, where Ray, which looks
    whether a port is free before it hands it out, comes last. Where Ray was started by somebody else, or none of the
    block is free, any port.
    """
    first = os.environ.get(FIRST_PORT_VARIABLE, "")
    ports = reversed(range(int(first) + FIRST_WORKER_PORT, int(first) + PORTS_IN_BLOCK)) if first.isdigit() else ()
    taken = next((bound for port in ports if (bound := _bound(port)) is not None), None) or _bound(0)
    if taken is None:
        raise OSError(errno.EADDRINUSE, "no port is free on this host")
    return taken


def _story(first_port: int, last_port: int, in_use: list[int]) -> str:
    if not in_use:
        return f"ports {first_port}-{last_port} are fewer than the {PORTS_IN_BLOCK} that Ray needs"
    names = ", ".join(map(str, in_use))
    return f"no block of {PORTS_IN_BLOCK} ports in {first_port}-{last_port} is free; in use: {names}"


def _first_taken(first: int) -> int | None:
    for port in range(first, first + PORTS_IN_BLOCK):
        if port != first + CLAIM_PORT:
            tried = _bound(port, may_linger=True)
            if tried is None:
                return port
            tried.close()
    return None


def _bound(port: int, *, may_linger: bool = False) -> socket.socket | None:
    """Return a socket bound to the port on every address; ``None`` where anybody has it.

    With ``may_linger`` a port counts as free where only connections of the past are left on it, as Ray sees it too.
    """
    family = socket.AF_INET6 if _has_ipv6() else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family is socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if may_linger:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("", port))
    except OSError as error:
        bound.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return bound


def _has_ipv6() -> bool:
    """Return whether an address of version 6 can be had: some kernels know the family and have it switched off."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as tried:
            tried.bind(("::", 0))
    except OSError:
        return False
    return True
