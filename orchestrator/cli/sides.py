"""Which run a person means where two are held against each other: a run, a baseline by its name, or a bundle."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.store.sides import Side


def sides(store_url: str, *names: str) -> tuple[Side, ...]:
    """Return the runs that the names mean, each as :func:`orchestrator.store.sides.side` does.

    Without a store where all are bundles.
    """
    from orchestrator.store import open_store
    from orchestrator.store.sides import side

    with ExitStack() as stack:
        store = None if all(map(is_bundle, names)) else stack.enter_context(open_store(store_url, create=False))
        return tuple(_of_bundle(name) if store is None or is_bundle(name) else side(store, name) for name in names)


def is_bundle(name: str) -> bool:
    """Return whether a name is a file's: no run or baseline is called so."""
    return name.endswith(".zip")


def _of_bundle(name: str) -> Side:
    from orchestrator.bundle.archive import read
    from orchestrator.store.sides import Side

    bundle = read(Path(name))
    return Side(run=bundle.run, name=f"{Path(name).name} (run {bundle.run.id})", floors=bundle.floors)
