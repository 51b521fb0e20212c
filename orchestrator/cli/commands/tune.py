"""`muster tune`: the best batch, number type, layout, compiler and threads for each device."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from orchestrator.cli import options


def tune(
    config: options.ConfigPath,
    objective: Annotated[
        str, typer.Option("--for", metavar="WHAT", help="What to have most of: images/s or images/J.")
    ] = "images/s",
    check: Annotated[
        bool, typer.Option("--check", help="Measure the whole sweep as well, to see whether it has the same winner.")
    ] = False,
    overrides: options.Set = None,
    only: options.Only = None,
    simulate: options.Simulate = False,
    store: options.StoreUrl = None,
    form: options.OutputFormat = "table",
    json: options.Json = False,
    no_progress: options.NoProgress = False,
) -> int:
    """Search a config's combinations for the fastest of each device, model and pass, by successive halving."""
    from orchestrator.cli.output import print_table
    from orchestrator.cli.tuning import Wish, search
    from orchestrator.config.defaults import DEFAULT_STORE
    from orchestrator.errors import UsageError
    from orchestrator.report.tuning import Objective, tuned_table

    known = [each.value for each in Objective]
    if objective not in known:
        raise UsageError(f"--for {objective}: expected one of {', '.join(known)}", remedy="muster tune --help")
    found = search(
        Wish(
            config=config,
            sets=tuple(overrides or ()),
            only=tuple(only or ()),
            objective=Objective(objective),
            simulate=simulate,
            store_url=store,
            quiet=no_progress,
            check=check,
        )
    )
    table = tuned_table(
        found.tuned, Objective(objective), title=f"{found.name}, tuned", simulated=simulate, steps=found.steps
    )
    print_table(table, form="json" if json else form)
    sys.stdout.flush()
    at = "" if found.store == DEFAULT_STORE else f" --store {shlex.quote(found.store)}"
    print(f"\nrounds are kept in {found.store}: {', '.join(found.run_ids)}", file=sys.stderr)
    print(f"  muster show {found.run_ids[-1]}{at}    the last round's table", file=sys.stderr)
    return found.exit_code
