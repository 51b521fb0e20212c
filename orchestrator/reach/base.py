"""What every way to a host offers: run a program there, and talk with it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from orchestrator.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Step(str, enum.Enum):
    """The steps of reaching a host, in their order; each can fail by itself."""

    RESOLVE = "name"
    CONNECT = "port"
    HOST_KEY = "key"
    LOGIN = "login"


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Where a host is and how to get in. What is ``None`` is left to the SSH configuration of the person."""

    #: The host's own name in the config.
    name: str
    #: Name or IP address, as SSH is given it.
    address: str
    user: str | None = None
    port: int | None = None
    insecure_host_keys: bool = False
    #: Seconds for each of: name and port, and the login.
    timeout_s: float = 30.0


class UnreachableError(ClusterError):
    """A host could not be reached; the message does not begin with the host's name."""

    def __init__(self, step: Step, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.step = step


class ChannelClosedError(ClusterError):
    """The program on the host has ended, or the way to it broke."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """A program that has ended on a host."""

    exit_code: int
    out: bytes
    err: bytes


class Channel(Protocol):
    """A program that runs on a host: its standard input and output, in bytes."""

    async def write(self, data: bytes) -> None:
        """Send ``data``; returns when the transport has room for more. Raises :class:`ChannelClosedError`."""

    async def read_line(self) -> bytes:
        """Return the next line without its end, of any length. Raises :class:`ChannelClosedError` at the end."""

    @property
    def complaint(self) -> str:
        """The last lines of the program's standard error."""

    async def close(self) -> None:
        """Close its standard input and wait a moment for it to end; safe to call twice."""


class Reach(Protocol):
    """A host that can be talked to."""

    destination: Destination

    @property
    def local_ip(self) -> str | None:
        """The address of this machine that the host sees; ``None`` where something lies between."""

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run a program to its end. No shell ever sees ``argv`` unquoted. Raises ClusterError past ``timeout_s``."""

    async def open(self, argv: Sequence[str]) -> Channel:
        """Start a program and return the channel to it."""

    async def close(self) -> None:
        """Give the connection up; safe to call twice."""
