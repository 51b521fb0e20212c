"""What a run's config asks of its table, and the table so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.config.defaults import DEFAULT_STORE
from orchestrator.config.load import load_text
from orchestrator.config.overrides import from_typed
from orchestrator.config.schema import ReportConfig
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.report.table import Table
    from orchestrator.results import NoiseFloor, Run


def report_of(run: Run) -> ReportConfig:
    """Return what a run's config asks of its table."""
    sets, _ = from_typed(run.overrides)
    # Read as a simulation would, so that a run whose config this version could not carry out can still be shown.
    try:
        return load_text(run.config_text, run.config_path, overrides=sets, simulate=True).config.report
    except ConfigError:
        if run.imported is None:
            raise
        return ReportConfig()  # another lab's muster may be a newer one


def table_as_asked(
    run: Run,
    report: ReportConfig,
    *,
    wide: bool = False,
    store: str | None = None,
    floors: Sequence[NoiseFloor] = (),
    beside: Sequence[Run] = (),
) -> Table:
    """Return a run's table; ``store`` is where it is kept, which commands in its notes name but for the default.

    Raises :class:`orchestrator.errors.UsageError` for rows that ``report`` cannot find.
    """
    # Here and not above: numpy comes with these.
    from orchestrator.analysis import references
    from orchestrator.report.build import build_table

    return build_table(
        run,
        references=references.load(report.references),
        relative_to=report.relative_to,
        wide=wide,
        store=None if store == DEFAULT_STORE else store,
        floors=floors,
        beside=beside,
    )
