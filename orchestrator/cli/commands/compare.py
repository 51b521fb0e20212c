"""`muster compare`: what became slower or faster between two runs, and what else is different."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options
from orchestrator.errors import ExitCode

if TYPE_CHECKING:
    from orchestrator.analysis.comparison import Comparison
    from orchestrator.report.table import Table

Before = Annotated[
    str,
    typer.Argument(
        metavar="BEFORE", help="A run, a baseline by its name (baseline:NAME is never a run), or a bundle: FILE.zip."
    ),
]
After = Annotated[str, typer.Argument(metavar="[NOW]", help="The run, baseline or bundle that is held against it.")]


def compare(
    before: Before,
    after: After = "latest",
    threshold: Annotated[
        str | None,
        typer.Option(
            "--threshold",
            metavar="SHARE",
            help="Slower by more than this is a regression: 3%. Without it: by more than each device's noise floor.",
        ),
    ] = None,
    store: options.StoreUrl = None,
    form: options.OutputFormat = "table",
    json: options.Json = False,
) -> int:
    """Hold a run against another, or against a baseline; exit code 1 for a regression."""
    from orchestrator.analysis.comparison import compare as compare_runs
    from orchestrator.analysis.explanation import explain
    from orchestrator.cli.sides import sides
    from orchestrator.report.comparison import comparison_table
    from orchestrator.store.sides import refuse_mixture

    limit = None if threshold is None else _share(threshold)
    old, new = sides(store or options.DEFAULT_STORE, before, after)
    refuse_mixture(old.run, new.run)
    comparison = compare_runs(old.run.cases, new.run.cases, floors=new.floors)
    differences = explain(comparison, old.run.cases, new.run.cases)

    def table(*, only_changed: bool) -> Table:
        return comparison_table(
            comparison,
            differences,
            before=old.name,
            after=new.name,
            threshold=limit,
            only_changed=only_changed,
            simulated=new.run.simulated,
        )

    _show(table(only_changed=False), table(only_changed=True), form="json" if json else form)
    return _exit_code(comparison, limit)


def _share(text: str) -> float:
    """Return a share as it was typed, ``3%`` or ``0.03``; raises UsageError."""
    from orchestrator.config.quantities import typed_share
    from orchestrator.errors import UsageError

    try:
        return typed_share(text)
    except ValueError:
        raise UsageError(f"--threshold {text}: expected a share", remedy="such as 3% or 0.03") from None


def _show(whole: Table, changed: Table, *, form: str) -> None:
    """Print the table; as Markdown what changed first, and the rest folded away, as a pull request wants it."""
    from orchestrator.cli.output import print_table

    if form != "md" or len(changed.rows) in (0, len(whole.rows)):
        print_table(whole, form=form)
        return
    print_table(changed, form=form)
    print(f"\n<details><summary>All {len(whole.rows)} cases</summary>\n")
    print_table(_bare(whole), form=form)
    print("\n</details>")


def _bare(table: Table) -> Table:
    """Return the table's rows alone: its title and notes stand above."""
    import dataclasses

    return dataclasses.replace(table, title="", notes=())


def _exit_code(comparison: Comparison, threshold: float | None) -> ExitCode:
    if comparison.regressions(threshold):
        return ExitCode.FOUND
    return ExitCode.OK if comparison.comparable else ExitCode.INCOMPLETE
