"""Hosts over SSH, by asyncssh, and reached as ``ssh HOST`` would reach them: the person's SSH configuration counts.

It does not ask for anything: keys come from files without a passphrase, or from an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import asyncssh

from orchestrator.errors import ClusterError
from orchestrator.reach.base import Step, UnreachableError
from orchestrator.reach.dial import Proxy, dial, resolve
from orchestrator.reach.program import happens, run_to_end
from orchestrator.reach.quoting import login_line
from orchestrator.reach.ssh_failures import Attempt, failure, too_slow
from orchestrator.reach.ssh_host_keys import KnownKeys, known_keys
from orchestrator.reach.ssh_jumps import PerLoop, last_hop
from orchestrator.reach.ssh_program import SshProgram
from orchestrator.reach.ssh_settings import Settings, read_settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from orchestrator.reach.base import Channel, Completed, Destination

#: Seconds for an SSH connection to be closed in order.
_CLOSE_TIMEOUT_S: Final = 5.0

#: More jumps than anybody has: `ProxyJump jump-%h` for all hosts would never come to an end.
_MAX_JUMPS: Final = 8

# What it has to say reaches people as our own messages; otherwise it would tell every step.
logging.getLogger("asyncssh").setLevel(logging.CRITICAL)


async def connect(destination: Destination) -> SshReach:
    """Return the host, logged in to. Raises UnreachableError."""
    target = _Target(
        address=destination.address,
        user=destination.user,
        port=destination.port,
        is_insecure=destination.insecure_host_keys,
        timeout_s=destination.timeout_s,
    )
    return SshReach(destination, await _link(target))


class SshReach:
    """A host over SSH."""

    def __init__(self, destination: Destination, link: _Link) -> None:
        self.destination = destination
        self._link = link
        self._programs: set[SshProgram] = set()

    @property
    def local_ip(self) -> str | None:
        """The address of this machine that the host sees; ``None`` where a jump or a proxy lies between."""
        if not self._link.is_direct:
            return None
        return str(self._link.connection.get_extra_info("sockname")[0])

    @property
    def is_insecure(self) -> bool:
        """True where the host's key was not checked: it may be anybody's."""
        return self.destination.insecure_host_keys

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run a program to its end. Raises ClusterError, also past ``timeout_s``."""
        return await run_to_end(await self._start(argv), argv, stdin=stdin, timeout_s=timeout_s)

    async def open(self, argv: Sequence[str]) -> Channel:
        """Start a program and return the channel to it. Raises ClusterError."""
        return await self._start(argv)

    async def close(self) -> None:
        """Close what was opened, and the connection; safe to call twice."""
        programs, self._programs = self._programs, set()
        await asyncio.gather(*(program.close() for program in programs))
        await self._link.close()

    async def _start(self, argv: Sequence[str]) -> SshProgram:
        command = login_line(argv)
        opening = self._link.connection.create_session(SshProgram, command, encoding=None)
        try:
            _, session = await asyncio.wait_for(opening, self.destination.timeout_s)
        except asyncio.TimeoutError:
            raise ClusterError(f"{argv[0]} was not started within {self.destination.timeout_s:g} s") from None
        except (asyncssh.Error, OSError) as error:
            raise ClusterError(f"{argv[0]} could not be started: {error}") from error
        program = cast("SshProgram", session)
        self._programs = {one for one in self._programs if not one.is_gone} | {program}
        return program


# --- connections ---


@dataclass(frozen=True, kw_only=True, slots=True)
class _Target:
    """Where a connection shall lead."""

    address: str
    user: str | None
    port: int | None
    is_insecure: bool
    timeout_s: float
    #: The way there as ``ProxyJump`` writes it, where the address's own configuration does not count.
    way: str | None = None
    #: Ways of which this connection is a part: the hosts behind it.
    behind: tuple[str, ...] = ()


class _Link:
    """A connection that is logged in, and what it stands on: a socket, a proxy program, a jump host."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, below: contextlib.AsyncExitStack, *, is_direct: bool
    ) -> None:
        self.connection = connection
        self.is_direct = is_direct
        self._below = below

    @property
    def is_broken(self) -> bool:
        """True when nothing can be sent any more."""
        return self.connection.is_closed()

    async def close(self) -> None:
        """Close it, and then what is below; safe to call twice."""
        self.connection.close()
        await happens(self.connection.wait_closed(), _CLOSE_TIMEOUT_S)
        await self._below.aclose()


_JUMPS: Final[PerLoop[_Link]] = PerLoop()


async def _link(target: _Target) -> _Link:
    settings, known = await _look_up(target)
    async with contextlib.AsyncExitStack() as below:
        carrier = await _carrier(target, settings, below)
        greeter = _Greeter()
        connection = await _logged_in(target, settings, known, carrier, greeter)
        return _Link(connection, below.pop_all(), is_direct=carrier.is_direct)


async def _look_up(target: _Target) -> tuple[Settings, KnownKeys]:
    """Read what the person's files say of it."""

    def read() -> tuple[Settings, KnownKeys]:
        settings = read_settings(target.address, user=target.user, port=target.port)
        return settings, known_keys(settings)

    try:
        return await asyncio.wait_for(asyncio.to_thread(read), target.timeout_s)
    except asyncio.TimeoutError:
        message = f"the SSH configuration was not read within {target.timeout_s:g} s"
        raise UnreachableError(Step.RESOLVE, message, remedy=f"does this answer? ssh -G {target.address}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Carrier:
    """What carries the bytes of a connection."""

    socket: socket.socket | None = None
    jump: _Link | None = None
    proxy: Proxy | None = None
    #: When the SSH server has to have said something, on the loop's clock.
    until: float

    @property
    def is_direct(self) -> bool:
        return self.jump is None and self.proxy is None


async def _carrier(target: _Target, settings: Settings, below: contextlib.AsyncExitStack) -> _Carrier:
    loop = asyncio.get_running_loop()
    way = target.way or settings.jumps
    if way is not None:
        jump = await _jump(target, way, below)
        return _Carrier(jump=jump, until=loop.time() + target.timeout_s)
    if settings.proxy_command is not None:
        until = loop.time() + target.timeout_s
        try:
            proxy, ours = await Proxy.start(settings.proxy_command)
        except OSError as error:
            raise UnreachableError(Step.RESOLVE, f"its ProxyCommand could not be started: {error}") from error
        below.push_async_callback(proxy.close)
        below.callback(ours.close)
        return _Carrier(socket=ours, proxy=proxy, until=until)
    options = settings.options
    addresses = await resolve(settings.host, settings.port, family=options.family, timeout_s=target.timeout_s)
    until = loop.time() + target.timeout_s
    bound = cast("tuple[str, int] | None", options.local_addr)  # BindAddress
    from_address = None if bound is None else bound[0]
    direct = await dial(settings.host, addresses, from_address=from_address, timeout_s=target.timeout_s)
    below.callback(direct.close)
    return _Carrier(socket=direct, until=until)


async def _jump(target: _Target, way: str, below: contextlib.AsyncExitStack) -> _Link:
    """Return the connection to the last host of ``way``. What goes wrong there says nothing of the target's steps."""
    if len(target.behind) >= _MAX_JUMPS:
        raise UnreachableError(Step.RESOLVE, f"there are more than {_MAX_JUMPS} jump hosts on the way, as {way}")
    try:
        hop = last_hop(way)
    except ValueError as error:
        raise UnreachableError(Step.RESOLVE, f"the SSH configuration cannot be used: {error}") from error

    async def make() -> _Link:
        jump = _Target(
            address=hop.host,
            user=hop.user,
            port=hop.port,
            is_insecure=False,
            timeout_s=target.timeout_s,
            way=hop.before,
            behind=(*target.behind, way),
        )
        try:
            return await _link(jump)
        except UnreachableError as error:
            message = f"the jump host {hop.host}: {error.message}"
            raise UnreachableError(Step.RESOLVE, message, remedy=error.remedy) from error

    # As long as each step of each jump may take: steps have deadlines of their own.
    timeout_s = target.timeout_s * 4 * _MAX_JUMPS
    needed_by = target.behind[-1] if target.behind else None
    lease = _JUMPS.get().lease(way, make, needed_by=needed_by, timeout_s=timeout_s)
    return await below.enter_async_context(lease)


async def _logged_in(
    target: _Target, settings: Settings, known: KnownKeys, carrier: _Carrier, greeter: _Greeter
) -> asyncssh.SSHClientConnection:
    """Greet the server, check its key and log in, with a deadline for the greeting and one for the rest."""

    def attempt() -> Attempt:
        return Attempt(
            settings=settings,
            known=known,
            step=greeter.step,
            offered=greeter.offered,
            is_direct=carrier.is_direct,
            takes_keys=greeter.takes_keys,
            timeout_s=target.timeout_s,
        )

    opening = asyncio.ensure_future(_opened(target, settings, known, carrier, greeter))
    try:
        await asyncio.wait({opening}, timeout=max(0.0, carrier.until - asyncio.get_running_loop().time()))
        if not opening.done() and greeter.step is not Step.CONNECT:
            await asyncio.wait({opening}, timeout=target.timeout_s)
        if not opening.done():
            raise too_slow(attempt())
        return opening.result()
    except BaseException as error:
        reached = attempt()
        opening.cancel()
        (outcome,) = await asyncio.gather(opening, return_exceptions=True)
        if isinstance(outcome, asyncssh.SSHClientConnection):
            outcome.abort()
        if isinstance(error, UnreachableError) or not isinstance(error, Exception):
            raise
        # Of any kind: what a stranger's server says can make a library stumble anywhere.
        trouble = failure(error, reached)
        if carrier.proxy is not None and carrier.proxy.complaint:
            said = f"{trouble.message}; its ProxyCommand says: {carrier.proxy.complaint}"
            trouble = UnreachableError(trouble.step, said, remedy=trouble.remedy)
        raise trouble from error


async def _opened(
    target: _Target, settings: Settings, known: KnownKeys, carrier: _Carrier, greeter: _Greeter
) -> asyncssh.SSHClientConnection:
    identities = settings.identities
    return await asyncssh.connect(
        settings.options.orig_host,
        settings.port,
        username=settings.user,
        # What was read before, so that nothing is read again.
        options=settings.options,
        config=None,
        canonicalize_hostname=False,
        client_factory=lambda: greeter,
        sock=carrier.socket,
        tunnel=None if carrier.jump is None else carrier.jump.connection,
        proxy_command=None,
        known_hosts=None if target.is_insecure else (list(known.keys), list(known.authorities), list(known.revoked)),
        server_host_key_algs=() if settings.has_own_key_algorithms else known.algorithms,
        # An iterator: for an empty list asyncssh reads the default keys, and fails if one of them is bad.
        client_keys=iter(identities.keys),
        agent_path=identities.agent_path,
        agent_identities=list(identities.agent_keys) or None,
    )


class _Greeter(asyncssh.SSHClient):
    """Follows a connection while it comes to be, so that a failure can be told by its step."""

    def __init__(self) -> None:
        self._connection: asyncssh.SSHClientConnection | None = None
        self._is_logging_in = False
        #: The host's key, if it is not one that is known.
        self.offered: asyncssh.SSHKey | None = None
        #: The host asked for more keys than we had: it does take keys.
        self.takes_keys = False

    @property
    def step(self) -> Step:
        """The step that is on."""
        if self._is_logging_in:
            return Step.LOGIN
        if self._connection is None or self._connection.get_extra_info("server_version") is None:
            return Step.CONNECT
        return Step.HOST_KEY

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Take the connection, over which nothing was said yet."""
        self._connection = conn

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Remember a key that is not known, and refuse it."""
        self.offered = key
        return False

    def begin_auth(self, username: str) -> None:
        """The host's key is fine."""
        self._is_logging_in = True

    def public_key_auth_requested(self) -> None:
        """No key is left."""
        self.takes_keys = True
