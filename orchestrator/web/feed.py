"""Where the runs are, asked of the store once a second while somebody looks, and told to everybody who does."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Final

from starlette.concurrency import run_in_threadpool

from orchestrator.errors import MusterError
from orchestrator.web.liveview import RunView, changes, everything, structure, views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.web.source import StoreSource

#: Seconds between two questions; heads say where they are once a second.
EVERY_S: Final = 1.0

#: Seconds after which something is sent in any case, so that the connection is not taken for dead.
_KEEP_ALIVE_S: Final = 15.0

#: Pages that look at once.
MOST_LOOKERS: Final = 64


class Feed:
    """Asks for all lookers together; asks nothing while there is none."""

    def __init__(self, source: StoreSource, *, every_s: float = EVERY_S) -> None:
        self._source = source
        self._every_s = every_s
        self._lookers = 0
        self._views: tuple[RunView, ...] = ()
        self._version = 0
        #: What changed with the last version.
        self._latest = ""
        self._changed = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """True where no more lookers are let in."""
        return self._lookers >= MOST_LOOKERS

    def look(self) -> tuple[RunView, ...]:
        """Return where the runs are now, asked of the store; raises what the store does."""
        with self._source.opened() as store:
            return views(store.live())

    def close(self) -> None:
        """Send every looker home, for the server ends."""
        self._is_closed = True
        self._changed.set()

    async def events(self, shown: str) -> AsyncIterator[str]:
        """Yield server-sent events for a page whose structure is ``shown``: at first everything, then what changes."""
        self._lookers += 1
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        try:
            self._publish(await run_in_threadpool(self.look))
            seen, version = self._views, self._version
            yield _event(everything(seen) if structure(seen) == shown else changes((), seen))
            while not self._is_closed:
                if version == self._version:
                    changed = self._changed
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(changed.wait(), _KEEP_ALIVE_S)
                if version == self._version:
                    yield ": still here\n\n"
                    continue
                # As a rule every looker has seen the one before, and what has changed since is worked out once.
                event = self._latest if version == self._version - 1 else _event(changes(seen, self._views))
                seen, version = self._views, self._version
                yield event
        except MusterError as error:
            yield _event({"problem": error.message})
        finally:
            self._lookers -= 1

    def _publish(self, found: tuple[RunView, ...]) -> None:
        if found != self._views:
            self._latest = _event(changes(self._views, found))
            self._views = found
            self._version += 1
            self._changed.set()
            self._changed = asyncio.Event()

    async def _ask(self) -> None:
        while self._lookers and not self._is_closed:
            # A store that is busy for once is asked again; pages that come anew are told of what lasts.
            with contextlib.suppress(MusterError):
                self._publish(await run_in_threadpool(self.look))
            await asyncio.sleep(self._every_s)


def _event(data: dict[str, object]) -> str:
    # JSON has no line ends of its own, so a text from a host cannot begin an event.
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"
