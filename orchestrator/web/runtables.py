"""The tables that pages and the API share, made as the command line makes them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from orchestrator.analysis.comparison import Comparison, compare
from orchestrator.analysis.explanation import explain
from orchestrator.config.quantities import typed_share
from orchestrator.errors import UnknownNameError, UsageError
from orchestrator.report.asked import report_of, table_as_asked
from orchestrator.report.comparison import comparison_table
from orchestrator.report.trend import trend_of
from orchestrator.store.sides import refuse_mixture
from workers import codec

if TYPE_CHECKING:
    from orchestrator.report.table import Table
    from orchestrator.report.trend import Trend
    from orchestrator.results import History
    from orchestrator.store.sides import Side
    from orchestrator.web.source import StoreSource

#: Runs that a history looks back at.
LAST_RUNS: Final = 100


def run_table(source: StoreSource, shown: Side, *, wide: bool) -> Table:
    """Return a run's table as its config asks for it."""
    return table_as_asked(shown.run, report_of(shown.run), wide=wide, store=source.url, floors=shown.floors)


def compared(old: Side, new: Side, threshold: str) -> tuple[Comparison, Table]:
    """Return one run held against another; raises UsageError where they cannot be."""
    refuse_mixture(old.run, new.run)
    found = compare(old.run.cases, new.run.cases, floors=new.floors)
    table = comparison_table(
        found,
        explain(found, old.run.cases, new.run.cases),
        before=old.name,
        after=new.name,
        threshold=_share(threshold),
        simulated=new.run.simulated,
    )
    return found, table


def _share(text: str) -> float | None:
    try:
        return typed_share(text) if text.strip() else None
    except ValueError:
        raise UsageError(f"threshold {text}: expected a share", remedy="such as 3% or 0.03") from None


def history_id(history: History) -> str:
    """Return the word by which addresses name a history."""
    text = codec.to_json(history.case.workload)
    return hashlib.sha256(f"{history.case.device.id} {text}".encode()).hexdigest()[:12]


def history_of(source: StoreSource, word: str, *, simulated: bool) -> Trend:
    """Return how a history went, by its word; raises UnknownNameError for one that is not there."""
    with source.opened() as store:
        every = store.histories(simulated=simulated)
        case = next((each.case for each in every if history_id(each) == word), None)
        if case is None:
            raise UnknownNameError(f"there is no history {word!r}", remedy="see what there is on the page of trends")
        past = store.past(case.device.id, case.workload, LAST_RUNS, simulated=simulated)
        return trend_of(case, past, store.noise_floors(simulated=simulated), simulated=simulated)
