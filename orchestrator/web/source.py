"""The store as a server has it: opened once, and again where another file has taken its place."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from orchestrator.store import open_store
from orchestrator.store.location import identity, is_writable, locate
from orchestrator.store.postgresql import SCHEME
from orchestrator.store.sides import side
from orchestrator.web.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.results import Run
    from orchestrator.store.repository import Store
    from orchestrator.store.sides import Side

#: Runs that have ended are kept so many at once: reading one of 5,000 cases takes a second.
_MOST_KEPT: Final = 8


class StoreSource:
    """Gives the store to requests, which come in several threads. Raises what :func:`open_store` does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._identity: tuple[int, int] | None = None
        self._kept: Recent[Run] = Recent(_MOST_KEPT)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Store]:
        """Give the store; one that cannot be written is opened for each request, for it shows nothing new otherwise."""
        if self._is_read_only():
            with open_store(self.url, create=False) as store:
                yield store
            return
        yield self._shared()

    def check(self) -> None:
        """Open the store once, so that one that cannot be is told of before anybody asks; raises what opening does."""
        with self.opened():
            pass

    def close(self) -> None:
        """Let go of the store; safe to call twice."""
        with self._lock:
            if self._store is not None:
                self._store.close()
            self._store = None

    def side(self, name: str) -> Side:
        """Return a run, or a baseline's, whole; raises UsageError for one that is not there."""
        with self.opened() as store:
            return side(store, name, lambda wanted: self._read(store, wanted))

    def run(self, name: str) -> Run:
        """Return a run, whole."""
        return self.side(name).run

    def _read(self, store: Store, name: str) -> Run:
        run_id = store.resolved(name)
        kept = self._kept.get(run_id)
        # It may have been gone on with, or removed.
        if kept is not None and store.ended_at(run_id) == kept.finished_at:
            return kept
        run = store.run(run_id)
        if run.finished_at is not None:  # else more may come
            self._kept.put(run_id, run)
        return run

    def _file(self) -> Path | None:
        """Return the store's file; ``None`` where it is none, or is not there yet."""
        path = None if self.url.startswith(f"{SCHEME}:") else locate(self.url).path
        return path if path is not None and path.exists() else None

    def _is_read_only(self) -> bool:
        path = self._file()
        return path is not None and not is_writable(path)

    def _shared(self) -> Store:
        with self._lock:
            if self._store is not None and self._file_identity() != self._identity:
                self._store.close()
                self._store = None
                self._kept.clear()
            if self._store is None:
                self._store = open_store(self.url)
                self._identity = self._file_identity()
            return self._store

    def _file_identity(self) -> tuple[int, int] | None:
        path = self._file()
        return None if path is None else identity(path)
