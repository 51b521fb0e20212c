"""`muster baseline`: runs that others are compared with, under names that people gave them."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli import options

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Letters, digits, dots, dashes and underscores.", show_default=False),
]

baseline = typer.Typer(no_args_is_help=True, help="Runs that others are compared with, by name.")


@baseline.command("set")
def set_(
    name: Name, run: options.RunName = "latest", store: options.StoreUrl = None, json: options.Json = False
) -> None:
    """Give a run a name to compare others with; a name that was another run's moves."""
    import datetime
    import re

    from orchestrator.cli.output import print_data
    from orchestrator.errors import UsageError
    from orchestrator.report.listings import baseline_data
    from orchestrator.results import LATEST
    from orchestrator.store import open_store

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(f"{name!r} is no name for a baseline", remedy="letters, digits, dots, dashes, underscores")
    if name == LATEST:
        raise UsageError(f"{LATEST!r} always means the newest run", remedy="take another name")
    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        kept = opened.set_baseline(name, run, datetime.datetime.now(datetime.timezone.utc))
    if json:
        print_data(baseline_data(kept))
        return
    print(f"{kept.name}: run {kept.run_id}")


@baseline.command("list")
def list_(store: options.StoreUrl = None, json: options.Json = False) -> None:
    """List the baselines, and the runs that they stand for."""
    from orchestrator.cli.output import print_data
    from orchestrator.report.listings import baseline_data
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        found = opened.baselines()
    if json:
        print_data([baseline_data(one) for one in found])
        return
    for one in found:
        print(f"{one.name}  run {one.run_id}  set {one.set_at.astimezone():%Y-%m-%d %H:%M}")
    if not found:
        print("there are no baselines: muster baseline set NAME RUN")


@baseline.command()
def rm(name: Name, store: options.StoreUrl = None) -> None:
    """Forget a name; its run stays as it is."""
    from orchestrator.errors import UsageError
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        if not opened.remove_baseline(name):
            there = ", ".join(one.name for one in opened.baselines())
            raise UsageError(f"there is no baseline {name!r}", remedy=f"there are: {there or 'none'}")
    print(f"{name}: forgotten; its run is still there")
