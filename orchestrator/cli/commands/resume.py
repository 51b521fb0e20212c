"""`muster resume`: go on with a run that was cut off, under the same id."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.cli import options


def resume(
    name: options.RunName = "latest",
    accept_changed: Annotated[
        bool, typer.Option("--accept-changed", help="Go on although a driver or a framework is another one by now.")
    ] = False,
    store: options.StoreUrl = None,
    form: options.OutputFormat = "table",
    wide: options.Wide = False,
    json: options.Json = False,
    no_progress: options.NoProgress = False,
) -> int:
    """Go on with a run after a crash or Ctrl-C: what has no verdict yet, and what hosts still keep of it."""
    from orchestrator.cli.ending import show_executed
    from orchestrator.cli.execution import Order, execute
    from orchestrator.cli.going_on import refuse_finished
    from orchestrator.config.load import load_text
    from orchestrator.config.overrides import from_typed
    from orchestrator.report.words import count
    from orchestrator.store import open_store

    store_url = store or options.DEFAULT_STORE
    with open_store(store_url, create=False) as opened:
        earlier = opened.run(name)
    refuse_finished(earlier)
    sets, _ = from_typed(earlier.overrides)
    loaded = load_text(earlier.config_text, earlier.config_path, overrides=sets, simulate=earlier.simulated)
    for note in loaded.notes:
        print(note, file=sys.stderr)
    still_open = sum(result.is_open for result in earlier.cases)
    print(f"going on with run {earlier.id}: {still_open} of {count(len(earlier.cases), 'case')} left", file=sys.stderr)
    order = Order(
        loaded=loaded,
        simulate=earlier.simulated,
        store_url=store_url,
        quiet=no_progress,
        overrides=earlier.overrides,
        resumes=earlier,
        accept_changed=accept_changed,
    )
    executed = execute(order)
    show_executed(executed, loaded.config.report, form="json" if json else form, wide=wide)
    return executed.exit_code
