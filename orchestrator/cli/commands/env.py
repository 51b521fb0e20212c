"""`muster env`: where a run's figures were taken, fact by fact."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import options


def env(
    name: options.ShownRun = "latest",
    device: Annotated[
        str | None, typer.Option("--device", metavar="DEVICE", help="Of one device, host/selector, or of one host.")
    ] = None,
    store: options.StoreUrl = None,
    form: options.OutputFormat = "table",
    json: options.Json = False,
) -> None:
    """Show the environments of a run: hardware, settings, versions, variables, and where they differ."""
    from orchestrator.cli.output import print_data, print_table
    from orchestrator.cli.sides import sides
    from orchestrator.errors import UsageError
    from orchestrator.report.environments import environments, environments_table
    from orchestrator.report.listings import environment_data

    (shown,) = sides(store or options.DEFAULT_STORE, name)
    run = shown.run
    found = environments(run, device)
    if not found:
        there = ", ".join(dict.fromkeys(case.case.device.id for case in run.cases))
        of = "" if device is None else f" of {device}"
        raise UsageError(f"run {run.id} kept no environment{of}", remedy=f"its devices: {there or 'none'}")
    if json:
        print_data({"run_id": run.id, "environments": [environment_data(each) for each in found]})
        return
    print_table(environments_table(run, found), form=form)
