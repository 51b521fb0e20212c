"""From a host's name to a connected socket: over TCP, or through the program that an SSH configuration names."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from orchestrator.reach.base import Step, UnreachableError
from orchestrator.reach.program import happens

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Family, type, protocol, canonical name, address: what ``getaddrinfo`` gives.
Address: TypeAlias = tuple[
    socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]
]

#: Seconds for a proxy program to end once its connection is closed, and again after SIGTERM.
_PROXY_GRACE_S: Final = 2.0

#: What is kept of what a proxy program says on standard error, in bytes.
_PROXY_STDERR_BYTES: Final = 4096

_NO_ROUTE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


async def resolve(host: str, port: int, *, family: int = socket.AF_UNSPEC, timeout_s: float) -> Sequence[Address]:
    """Return the addresses of a name, at least one. Raises UnreachableError."""
    with contextlib.suppress(OSError, ValueError):
        return _addresses(host, port, family, socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[Address]] = loop.create_future()

    def tell(found: Sequence[Address] | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or ())

    def look_up() -> None:
        found, failure = None, None
        try:
            found = _addresses(host, port, family)
        except (OSError, ValueError) as error:  # the latter from names that no name server could hold
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, found, failure)

    # A thread of its own: a dead name server would hold up the few threads of asyncio's pool, and with them every host.
    threading.Thread(target=look_up, name=f"resolve-{host}", daemon=True).start()
    remedy = f"mend the host's `address`, or make this machine know it: `getent hosts {host}` has to find it"
    try:
        return await asyncio.wait_for(answer, timeout_s)
    except asyncio.TimeoutError:
        message = f"no name server said within {timeout_s:g} s what {host} is"
        raise UnreachableError(Step.RESOLVE, message, remedy=remedy) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it cannot be a name"
        raise UnreachableError(Step.RESOLVE, f"{host} does not resolve: {reason}", remedy=remedy) from error


async def dial(
    host: str, addresses: Sequence[Address], *, from_address: str | None = None, timeout_s: float
) -> socket.socket:
    """Return a TCP connection to one of ``host``'s addresses, each of which has its share of the time.

    Raises UnreachableError.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    failure: OSError = TimeoutError()
    for tried, address in enumerate(addresses):
        share_s = (deadline - asyncio.get_running_loop().time()) / (len(addresses) - tried)
        try:
            return await _connected(address, from_address, share_s)
        except OSError as error:
            failure = error
    ip, port = addresses[-1][4][:2]
    where = f"{host} port {port}" if host == ip else f"{host} ({ip}) port {port}"
    raise _no_connection(where, port, failure, timeout_s) from failure


def _addresses(host: str, port: int, family: int, flags: int = 0) -> Sequence[Address]:
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=flags)
    return cast("Sequence[Address]", found)


async def _connected(address: Address, from_address: str | None, timeout_s: float) -> socket.socket:
    """Return a connection to one address. Raises OSError."""
    family, kind, protocol, _, where = address
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        if from_address is not None:
            connection.bind((from_address, 0))
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(connection, where), max(timeout_s, 0))
    except asyncio.TimeoutError:
        connection.close()
        raise TimeoutError from None
    except BaseException:
        connection.close()
        raise
    return connection


def _no_connection(where: str, port: int, failure: OSError, timeout_s: float) -> UnreachableError:
    if isinstance(failure, TimeoutError) or failure.errno == errno.ETIMEDOUT:
        return UnreachableError(
            Step.CONNECT,
            f"{where} does not answer within {timeout_s:g} s",
            remedy=f"is it up, and does its firewall let TCP port {port} through? A slower one needs a larger"
            " `limits: {connect_timeout: ...}`",
        )
    if isinstance(failure, ConnectionRefusedError):
        return UnreachableError(
            Step.CONNECT,
            f"{where} refuses connections",
            remedy="start its SSH server (there: sudo systemctl start ssh), or mend the host's `port`",
        )
    if failure.errno in _NO_ROUTE:
        remedy = "is it up, and on a network that this machine reaches?"
        return UnreachableError(Step.CONNECT, f"there is no route to {where}: {failure.strerror}", remedy=remedy)
    return UnreachableError(Step.CONNECT, f"no connection to {where}: {failure.strerror or failure}")


class Proxy(asyncio.SubprocessProtocol):
    """The program of a ``ProxyCommand``: what it reads and writes is the connection.

    asyncssh has this too, and gives the command to no shell and what it says on standard error to the protocol.
    """

    def __init__(self) -> None:
        self._transport: asyncio.SubprocessTransport | None = None
        self._complaint = bytearray()
        self._is_gone = asyncio.Event()
        self._has_exited = asyncio.Event()

    @property
    def complaint(self) -> str:
        """The last line that it said on standard error."""
        return self._complaint.decode(errors="replace").strip().rpartition("\n")[2]

    @classmethod
    async def start(cls, command: str) -> tuple[Proxy, socket.socket]:
        """Start ``command``, which is the person's own shell command, and return it with our end. Raises OSError."""
        ours, theirs = socket.socketpair()
        argv = (os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}")
        try:
            _, proxy = await asyncio.get_running_loop().subprocess_exec(
                cls, *argv, stdin=theirs.fileno(), stdout=theirs.fileno(), start_new_session=True
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return proxy, ours

    async def close(self) -> None:
        """Wait a moment for it to end, which it does with its connection, and end it if not."""
        assert self._transport is not None  # made before anything else
        if not await happens(self._has_exited.wait(), _PROXY_GRACE_S):
            with contextlib.suppress(ProcessLookupError):
                self._transport.terminate()
            await happens(self._has_exited.wait(), _PROXY_GRACE_S)
        self._transport.close()  # by SIGKILL, where it is needed
        await happens(self._is_gone.wait(), _PROXY_GRACE_S)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the process that was started."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep what it complained of."""
        self._complaint += data
        del self._complaint[:-_PROXY_STDERR_BYTES]

    def process_exited(self) -> None:
        """Take its end."""
        self._has_exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, and everything that it said was taken."""
        self._is_gone.set()
