"""`muster run`: run a config, show how it goes, print the table."""

from __future__ import annotations

import sys

from orchestrator.cli import options


def run(
    config: options.ConfigPath,
    overrides: options.Set = None,
    only: options.Only = None,
    simulate: options.Simulate = False,
    store: options.StoreUrl = None,
    form: options.OutputFormat = "table",
    wide: options.Wide = False,
    json: options.Json = False,
    no_progress: options.NoProgress = False,
) -> int:
    """Run a config: live progress, then the table."""
    from orchestrator.cli.ending import show_executed
    from orchestrator.cli.execution import Order, execute
    from orchestrator.cli.repeating import rerun_of
    from orchestrator.config.load import load_config
    from orchestrator.config.overrides import as_typed

    loaded = load_config(config, overrides=overrides or (), simulate=simulate)
    for note in loaded.notes:
        print(note, file=sys.stderr)
    order = Order(
        loaded=loaded,
        only=tuple(only or ()),
        simulate=simulate,
        store_url=store,
        quiet=no_progress,
        overrides=as_typed(overrides, only),
    )
    form = "json" if json else form
    executed = execute(order)
    show_executed(executed, loaded.config.report, form=form, wide=wide)
    again = rerun_of(order, executed)
    if again is None:
        return executed.exit_code
    print(f"\nrerun: {loaded.config.rerun.value}: once more, of run {executed.run.id}", file=sys.stderr)
    repeated = execute(again)
    show_executed(repeated, loaded.config.report, form=form, wide=wide)
    return repeated.exit_code
