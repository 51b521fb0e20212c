"""`muster show`: one run's table, in any form."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import options


def show(
    name: options.ShownRun = "latest",
    attempts: Annotated[
        bool, typer.Option("--attempts", help="List every attempt of every case in place of the run's table.")
    ] = False,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside", metavar="RUN", help="Show another run's rows below: one that was imported, or a bundle."
        ),
    ] = None,
    store: options.StoreUrl = None,
    form: options.OutputFormat = "table",
    wide: options.Wide = False,
    json: options.Json = False,
) -> None:
    """Print the table of a run."""
    from orchestrator.cli.output import print_run, print_table
    from orchestrator.cli.sides import sides
    from orchestrator.report.asked import report_of
    from orchestrator.report.attempts import attempts_table
    from orchestrator.store.sides import refuse_mixture

    store_url = store or options.DEFAULT_STORE
    shown, *others = sides(store_url, name, *(beside or ()))
    for other in others:
        refuse_mixture(shown.run, other.run)
    run = shown.run
    form = "json" if json else form
    if attempts:
        print_table(attempts_table(run), form=form)
        return
    print_run(
        run,
        report_of(run),
        form=form,
        wide=wide,
        store=store_url,
        floors=shown.floors,
        beside=[other.run for other in others],
    )
