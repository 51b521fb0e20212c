"""Which run a person means where two are held against each other: a run, or a baseline by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from orchestrator.results import Run
    from orchestrator.store.repository import Store

#: Before a baseline's name, where a run might be meant as well.
BASELINE: Final = "baseline:"


def side(store: Store, name: str) -> tuple[Run, str]:
    """Return the run, and what it is called in the comparison.

    A baseline's name goes before a run's id; ``baseline:NAME`` means nothing else. Raises
    :class:`orchestrator.errors.UsageError` with what there is.
    """
    from orchestrator.errors import UsageError

    known = {baseline.name: baseline.run_id for baseline in store.baselines()}
    wanted = name.removeprefix(BASELINE)
    if wanted in known:
        run = store.run(known[wanted])
        return run, f"baseline {wanted} (run {run.id})"
    if name.startswith(BASELINE):
        there = ", ".join(known) or "none yet: muster baseline set NAME RUN"
        raise UsageError(f"there is no baseline {wanted!r}", remedy=f"there are: {there}")
    run = store.run(name)
    return run, f"run {run.id}"
