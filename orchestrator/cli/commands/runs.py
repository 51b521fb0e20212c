"""`muster runs`: past runs, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli import options

if TYPE_CHECKING:
    from orchestrator.results import RunSummary


def runs(store: options.StoreUrl = None, json: options.Json = False) -> None:
    """List past runs, the newest first."""
    from orchestrator.cli.output import print_data
    from orchestrator.report.listings import run_data
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        found = opened.runs()
    if json:
        print_data([run_data(summary) for summary in found])
        return
    for summary in found:
        print(_line(summary))
    if not found:
        print("no runs yet")


def _line(summary: RunSummary) -> str:
    from orchestrator.report.printable import printable

    when = summary.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
    again = f"  rerun of {summary.rerun_of}" if summary.rerun_of else ""
    simulated = "  simulated" if summary.simulated else ""
    imported = f"  imported from {printable(summary.imported.source)}" if summary.imported else ""
    figures = f"{summary.figures} of {summary.cases} cases with a figure"
    name = printable(summary.name)
    scheduled = f"  by schedule {summary.schedule}" if summary.schedule else ""
    return f"{summary.id}  {when}  {summary.state.value:<11}  {figures}  {name}{again}{scheduled}{simulated}{imported}"
