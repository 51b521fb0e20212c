"""`muster show`: one run's table, in any form."""

from __future__ import annotations

from orchestrator.cli import options


def show(
    name: options.RunName = "latest",
    store: options.StoreUrl = None,
    form: options.OutputFormat = "table",
    wide: options.Wide = False,
    json: options.Json = False,
) -> None:
    """Print the table of a run."""
    from orchestrator.cli.output import print_run
    from orchestrator.config.load import load_text
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        run = opened.run(name)
    sets, _ = options.from_typed(run.overrides)
    # Read as a simulation would, so that a run whose config this version could not carry out can still be shown.
    report = load_text(run.config_text, run.config_path, overrides=sets, simulate=True).config.report
    print_run(run, report, form="json" if json else form, wide=wide)
