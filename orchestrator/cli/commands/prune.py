"""`muster prune`: remove old runs from the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options

if TYPE_CHECKING:
    import datetime


def prune(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG]", help="A config whose retention says what to keep.", show_default=False),
    ] = None,
    keep_runs: Annotated[
        int | None, typer.Option("--keep-runs", min=1, help="Newest runs to keep.", show_default=False)
    ] = None,
    keep_for: Annotated[
        str | None,
        typer.Option("--keep-for", metavar="TIME", help="Remove runs older than this: 90d.", show_default=False),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Remove them; without it they are only listed.")] = False,
    store: options.StoreUrl = None,
    json: options.Json = False,
) -> None:
    """List the runs that retention lets go, and with --apply remove them; baselines and runs at work always stay."""
    import datetime

    from orchestrator.cli.output import print_data
    from orchestrator.config.load import load_config
    from orchestrator.errors import UsageError
    from orchestrator.report.words import count
    from orchestrator.schedules.retention import old_runs
    from orchestrator.store import open_store

    loaded = None if config is None else load_config(config)
    rule = None if loaded is None else loaded.config.retention
    most = keep_runs or (rule.keep_runs if rule else None)
    longest = _age(keep_for) or (datetime.timedelta(seconds=rule.keep_for_s) if rule and rule.keep_for_s else None)
    if most is None and longest is None:
        raise UsageError(
            "it is not said which runs to keep", remedy="--keep-runs 100, --keep-for 90d, or a config with retention"
        )
    with open_store(store or (loaded.config.store if loaded else options.DEFAULT_STORE), create=False) as opened:
        old = old_runs(
            opened.runs(),
            now=datetime.datetime.now(datetime.timezone.utc),
            keep_runs=most,
            keep_for=longest,
            baselines={baseline.run_id for baseline in opened.baselines()},
        )
        removed = opened.remove_runs([run.id for run in old]) if apply else 0
    if json:
        print_data({"runs": [run.id for run in old], "removed": removed})
        return
    for run in old:
        print(f"{run.id}  {run.created_at.astimezone():%Y-%m-%d %H:%M}  {run.name}")
    if apply:
        print(f"{count(removed, 'run')} removed")
    elif old:
        print(f"{count(len(old), 'run')} would be removed: the same with --apply removes them")
    else:
        print("no run is to be removed")


def _age(text: str | None) -> datetime.timedelta | None:
    import datetime

    from orchestrator.config.quantities import parse_duration
    from orchestrator.errors import UsageError

    if text is None:
        return None
    try:
        return datetime.timedelta(seconds=parse_duration(text))
    except ValueError as error:
        raise UsageError(f"--keep-for {text}: {error}", remedy="such as 90d") from None
