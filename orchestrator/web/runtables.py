"""The tables that pages and the API share, made as the command line makes them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.analysis.comparison import Comparison, compare
from orchestrator.analysis.explanation import explain
from orchestrator.analysis.history import points_of, reasons
from orchestrator.analysis.noise import floor_for
from orchestrator.analysis.trend import ChangePoint, TrendPoint, change_points
from orchestrator.config.quantities import parse_share
from orchestrator.config.schema import Config
from orchestrator.errors import UnknownNameError, UsageError
from orchestrator.report.asked import report_of, table_as_asked
from orchestrator.report.comparison import comparison_table
from orchestrator.report.trend import trend_table
from orchestrator.report.workloads import in_words
from orchestrator.results import History
from orchestrator.store.sides import refuse_mixture
from workers import codec

if TYPE_CHECKING:
    from orchestrator.report.table import Table
    from orchestrator.store.sides import Side
    from orchestrator.web.source import StoreSource

#: The store that commands need not name.
_DEFAULT_STORE: Final = Config.model_fields["store"].default

#: Runs that a history looks back at.
LAST_RUNS: Final = 100


def run_table(source: StoreSource, shown: Side, *, wide: bool) -> Table:
    """Return a run's table as its config asks for it."""
    named = None if source.url == _DEFAULT_STORE else source.url
    return table_as_asked(shown.run, report_of(shown.run), wide=wide, store=named, floors=shown.floors)


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
    if not text.strip():
        return None
    try:
        return parse_share(text if text.endswith("%") else float(text))
    except ValueError:
        raise UsageError(f"threshold {text}: expected a share", remedy="such as 3% or 0.03") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """How one workload on one device went."""

    history: History
    points: tuple[TrendPoint, ...]
    changes: tuple[ChangePoint, ...]
    table: Table

    @property
    def title(self) -> str:
        """What it is of."""
        return title_of(self.history)


def title_of(history: History) -> str:
    """Return what a history is of."""
    return f"{history.case.device.id}: {in_words(history.case.workload)}"


def history_id(history: History) -> str:
    """Return the word by which addresses name a history."""
    text = codec.to_json(history.case.workload)
    return hashlib.sha256(f"{history.case.device.id} {text}".encode()).hexdigest()[:12]


def trend_of(source: StoreSource, word: str, *, simulated: bool) -> Trend:
    """Return a history by its word; raises UsageError for one that is not there."""
    with source.opened() as store:
        every = store.histories(simulated=simulated)
        history = next((each for each in every if history_id(each) == word), None)
        if history is None:
            raise UnknownNameError(f"there is no history {word!r}", remedy="see what there is on the page of trends")
        case = history.case
        past = store.past(case.device.id, case.workload, LAST_RUNS, simulated=simulated)
        floor = floor_for(store.noise_floors(simulated=simulated), case.device, case.workload)
    points = points_of(past, case.device)
    changes = change_points(points, between_sd=None if floor is None else floor.between_sd)
    table = trend_table(title_of(history), points, changes, simulated=simulated, why=reasons(past, points, changes))
    return Trend(history=history, points=points, changes=changes, table=table)
