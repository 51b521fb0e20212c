"""Hosts that one goes through: what ``ProxyJump`` names, each connected once for all the hosts behind it.

A bastion's sshd drops logins where more than ten come at once (``MaxStartups``), which a lab of some size does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from orchestrator.reach.base import Step, UnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_HOP: Final = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@]*)@)?"
    # An IPv6 address in brackets, a name, or an IPv6 address without brackets and so without a port.
    r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^@\[\]:]+|[^@\[\]]*:[^@\[\]]*:[^@\[\]]*))"
    r"(?::(?P<port>\d+))?/?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hop:
    """The last host of a way, and the way to it."""

    host: str
    user: str | None = None
    port: int | None = None
    #: As it is written: ``user@host:port,...``; ``None`` where that host's own configuration says it.
    before: str | None = None


def last_hop(way: str) -> Hop:
    """Return the last of the hosts that ``ProxyJump`` names: the one that connects to the host. Raises ValueError."""
    before, _, last = way.rpartition(",")
    match = _HOP.fullmatch(last.strip())
    if match is None:
        raise ValueError(f"ProxyJump {way} names no host")
    port = match["port"]
    return Hop(
        host=match["v6"] or match["host"],
        user=match["user"] or None,
        port=None if port is None else int(port),
        before=before.strip() or None,
    )


class Closable(Protocol):
    """What is shared: a connection."""

    @property
    def is_broken(self) -> bool:
        """True when it is of no use any more."""

    async def close(self) -> None:
        """Give it up."""


C = TypeVar("C", bound=Closable)


class Shared(Generic[C]):
    """Connections of one event loop, by what they lead to; each lives as long as somebody uses it."""

    def __init__(self) -> None:
        self._open: dict[str, _Used[C]] = {}
        #: Which connection needs which other one.
        self._needs: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def lease(
        self, key: str, make: Callable[[], Awaitable[C]], *, needed_by: str | None, timeout_s: float
    ) -> AsyncIterator[C]:
        """Give the connection ``key``, made by ``make`` if it is not there; the connection ``needed_by`` stands on it.

        Raises what ``make`` does, and UnreachableError where two would wait for one another.
        """
        if needed_by is not None:
            self._refuse_circle(key, needed_by)
            self._needs[needed_by] = key
        used = self._open.get(key)
        if used is None or used.is_broken:
            used = self._open[key] = _Used(asyncio.ensure_future(make()))
        used.users += 1
        try:
            try:
                connection = await asyncio.wait_for(asyncio.shield(used.making), timeout_s)
            except asyncio.TimeoutError:
                message = f"the jump host {key} was not reached within {timeout_s:g} s"
                raise UnreachableError(Step.RESOLVE, message) from None
            yield connection
        finally:
            if needed_by is not None:
                self._needs.pop(needed_by, None)
            used.users -= 1
            if not used.users:
                if self._open.get(key) is used:
                    del self._open[key]
                await used.close()

    def _refuse_circle(self, key: str, needed_by: str) -> None:
        needed: str | None = key
        while needed is not None:
            if needed == needed_by:
                message = f"the SSH configuration leads in a circle: ProxyJump {key} needs itself"
                remedy = "write `ProxyJump none` for the jump host"
                raise UnreachableError(Step.RESOLVE, message, remedy=remedy)
            needed = self._needs.get(needed)


class _Used(Generic[C]):
    """A connection, or the making of one, and how many use it."""

    def __init__(self, making: asyncio.Future[C]) -> None:
        self.making = making
        self.users = 0

    @property
    def is_broken(self) -> bool:
        if not self.making.done():
            return False
        return self.making.cancelled() or self.making.exception() is not None or self.making.result().is_broken

    async def close(self) -> None:
        self.making.cancel()
        await asyncio.gather(self.making, return_exceptions=True)
        if not self.making.cancelled() and self.making.exception() is None:
            await self.making.result().close()


class PerLoop(Generic[C]):
    """One :class:`Shared` for each event loop; a connection is of no use in another."""

    def __init__(self) -> None:
        self._shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Shared[C]] = weakref.WeakKeyDictionary()

    def get(self) -> Shared[C]:
        """Return that of the loop which runs."""
        return self._shared.setdefault(asyncio.get_running_loop(), Shared())
