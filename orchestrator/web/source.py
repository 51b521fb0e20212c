"""The store as a server has it: opened once, and again where another file has taken its place."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from orchestrator.store import open_store
from orchestrator.store.location import is_writable, locate
from orchestrator.store.postgresql import SCHEME
from orchestrator.store.sides import BASELINE, Side, floors_of, side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.results import Run
    from orchestrator.store.repository import Store

#: Runs that have ended are kept so many at once: reading one of 5,000 cases takes a second.
_MOST_KEPT: Final = 8


class StoreSource:
    """Gives the store to requests, which come in several threads. Raises what :func:`open_store` does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._identity: tuple[int, int] | None = None
        self._kept: OrderedDict[str, Run] = OrderedDict()

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
            run_id = next((one.run_id for one in store.baselines() if one.name == name), None)
            kept = self._of_kept(store, run_id or store.resolved(name)) if not name.startswith(BASELINE) else None
            if kept is None:
                found = side(store, name)
                self._keep(found.run)
                return found
            called = f"run {kept.id}" if run_id is None else f"baseline {name} (run {kept.id})"
            return Side(run=kept, name=called, floors=floors_of(store, kept))

    def run(self, name: str) -> Run:
        """Return a run, whole."""
        return self.side(name).run

    def _of_kept(self, store: Store, run_id: str) -> Run | None:
        with self._lock:
            kept = self._kept.get(run_id)
        # It may have been gone on with, or removed.
        return kept if kept is not None and store.ended_at(run_id) == kept.finished_at else None

    def _keep(self, run: Run) -> None:
        if run.finished_at is None:
            return  # more may come
        with self._lock:
            self._kept[run.id] = run
            self._kept.move_to_end(run.id)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)

    def _is_read_only(self) -> bool:
        if self.url.startswith(f"{SCHEME}:"):
            return False
        path = locate(self.url).path
        return path is not None and path.exists() and not is_writable(path)

    def _shared(self) -> Store:
        identity = self._file_identity()
        with self._lock:
            if self._store is not None and identity != self._identity:
                self._store.close()
                self._store = None
                self._kept.clear()
            if self._store is None:
                self._store = open_store(self.url)
                self._identity = self._file_identity()
            return self._store

    def _file_identity(self) -> tuple[int, int] | None:
        if self.url.startswith(f"{SCHEME}:"):
            return None
        path = locate(self.url).path
        if path is None or not path.exists():
            return None
        found = path.stat()
        return found.st_dev, found.st_ino
