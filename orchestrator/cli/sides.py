"""Which run a person means where two are held against each other: a run, a baseline by its name, or a bundle."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from orchestrator.results import NoiseFloor, Run
    from orchestrator.store.repository import Store

#: Before a baseline's name, where a run might be meant as well.
BASELINE: Final = "baseline:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """A run that was meant."""

    run: Run
    #: What it is called in the comparison.
    name: str
    #: What its devices' figures must differ by to be others, as far as it is known.
    floors: tuple[NoiseFloor, ...]


def sides(store_url: str, *names: str) -> tuple[Side, ...]:
    """Return the runs that the names mean, each as :func:`side` does; without a store where all are bundles."""
    from orchestrator.store import open_store

    with ExitStack() as stack:
        store = None if all(map(is_bundle, names)) else stack.enter_context(open_store(store_url, create=False))
        return tuple(_of_bundle(name) if store is None or is_bundle(name) else side(store, name) for name in names)


def is_bundle(name: str) -> bool:
    """Return whether a name is a file's: no run or baseline is called so."""
    return name.endswith(".zip")


def side(store: Store, name: str) -> Side:
    """Return a run of the store, or a baseline's.

    A baseline's name goes before a run's id; ``baseline:NAME`` means nothing else. Raises
    :class:`orchestrator.errors.UsageError` with what there is.
    """
    from orchestrator.errors import UsageError

    known = {baseline.name: baseline.run_id for baseline in store.baselines()}
    wanted = name.removeprefix(BASELINE)
    if wanted in known:
        run = store.run(known[wanted])
        return Side(run=run, name=f"baseline {wanted} (run {run.id})", floors=floors_of(store, run))
    if name.startswith(BASELINE):
        there = ", ".join(known) or "none yet: muster baseline set NAME RUN"
        raise UsageError(f"there is no baseline {wanted!r}", remedy=f"there are: {there}")
    run = store.run(name)
    return Side(run=run, name=f"run {run.id}", floors=floors_of(store, run))


def refuse_mixture(run: Run, other: Run) -> None:
    """Raise UsageError where two runs cannot stand side by side."""
    from orchestrator.errors import UsageError

    if run.simulated != other.simulated:
        made_up = run.id if run.simulated else other.id
        raise UsageError(f"run {made_up} is simulated, and the other is not", remedy="take two that are alike")
    if run.id == other.id:
        raise UsageError(f"both are run {run.id}", remedy="name another one: muster runs")


def floors_of(store: Store, run: Run) -> tuple[NoiseFloor, ...]:
    """Return the store's noise floors; none for a run of other machines, whatever they are called."""
    return () if run.imported is not None else store.noise_floors(simulated=run.simulated)


def _of_bundle(name: str) -> Side:
    from orchestrator.bundle.archive import read

    bundle = read(Path(name))
    return Side(run=bundle.run, name=f"{Path(name).name} (run {bundle.run.id})", floors=bundle.floors)
