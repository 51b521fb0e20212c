"""What a run's config asks of its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.config.load import load_text
from orchestrator.config.overrides import from_typed
from orchestrator.config.schema import ReportConfig
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.results import Run


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
