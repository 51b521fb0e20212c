"""Which run of a store a person means: by its id, as the latest one, or by a baseline's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.errors import MixtureError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable

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


def side(store: Store, name: str, read: Callable[[str], Run] | None = None) -> Side:
    """Return a run of the store, or a baseline's; read by ``read`` where somebody has a faster way to a run.

    A baseline's name goes before a run's id; ``baseline:NAME`` means nothing else. Raises
    :class:`orchestrator.errors.UsageError` with what there is.
    """
    read = read or store.run
    known = {baseline.name: baseline.run_id for baseline in store.baselines()}
    wanted = name.removeprefix(BASELINE)
    if wanted in known:
        run = read(known[wanted])
        return Side(run=run, name=f"baseline {wanted} (run {run.id})", floors=floors_of(store, run))
    if name.startswith(BASELINE):
        there = ", ".join(known) or "none yet: muster baseline set NAME RUN"
        raise UnknownNameError(f"there is no baseline {wanted!r}", remedy=f"there are: {there}")
    run = read(name)
    return Side(run=run, name=f"run {run.id}", floors=floors_of(store, run))


def refuse_mixture(run: Run, other: Run) -> None:
    """Raise MixtureError where two runs cannot stand side by side."""
    if run.simulated != other.simulated:
        made_up = run.id if run.simulated else other.id
        raise MixtureError(f"run {made_up} is simulated, and the other is not", remedy="take two that are alike")
    if run.id == other.id:
        raise MixtureError(f"both are run {run.id}", remedy="name another one: muster runs")


def floors_of(store: Store, run: Run) -> tuple[NoiseFloor, ...]:
    """Return the store's noise floors; none for a run of other machines, whatever they are called."""
    return () if run.imported is not None else store.noise_floors(simulated=run.simulated)
