"""The end of a run: the table, what could not be kept, and what to type next."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from orchestrator.cli.output import print_run
from orchestrator.config.defaults import DEFAULT_STORE

if TYPE_CHECKING:
    from orchestrator.cli.execution import Executed
    from orchestrator.config.schema import ReportConfig


def show_executed(executed: Executed, report: ReportConfig, *, form: str, wide: bool) -> None:
    """Print the table on stdout; where it is kept and which commands come next on stderr."""
    print_run(executed.run, report, form=form, wide=wide, store=executed.store, floors=executed.floors)
    sys.stdout.flush()
    for line in _closing(executed):
        print(line, file=sys.stderr)


def _closing(executed: Executed) -> list[str]:
    at = "" if executed.store == DEFAULT_STORE else f" --store {shlex.quote(executed.store)}"
    run_id = executed.run.id
    lines = [""]
    if executed.store_error is not None:
        lines.append(f"muster: the store failed: {executed.store_error.message}")
        lines += [f"  → {executed.store_error.remedy}"] if executed.store_error.remedy else []
        lines.append("what came after that is above, and the hosts keep it until the run is gone on with")
    lines.append(f"run {run_id} is kept in {executed.store}")
    lines += _what_is_left(executed, at)
    lines.append(f"  muster show {run_id} --wide{at}    images/s, TFLOP/s, percentiles")
    lines.append(f"  muster show {run_id} --format md{at}    the table as Markdown (or csv, json)")
    lines.append(f"  muster rerun {run_id}{at}    the same config again")
    return lines


def _what_is_left(executed: Executed, at: str) -> list[str]:
    """Return the commands for what has no figure."""
    run, lines = executed.run, []
    if executed.store_error is not None or any(result.is_open for result in run.cases):
        lines.append(f"  muster resume {run.id}{at}    go on with it")
    failed = [each for each in run.cases if not each.is_open and each.verdict and not each.verdict.has_figure]
    if failed:
        lines.append(f"  muster rerun {run.id} --failed{at}    the cases that have no figure")
        lines.append(f"  muster show {run.id} --attempts{at}    every attempt, and how it ended")
    return lines
