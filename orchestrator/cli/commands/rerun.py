"""`muster rerun`: the same config again, from the text that the store keeps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.load import Loaded
    from orchestrator.results import Run
    from workers.protocol import Case


def rerun(
    name: options.RunName = "latest",
    failed: Annotated[bool, typer.Option("--failed", help="Only the cases that have no figure.")] = False,
    stale: Annotated[
        bool,
        typer.Option(
            "--stale",
            help="Only the cases that have no figure which still holds: the config file, a driver, a framework or the"
            " method of measuring is another one since.",
        ),
    ] = False,
    only: options.Only = None,
    store: options.StoreUrl = None,
    form: options.OutputFormat = "table",
    wide: options.Wide = False,
    json: options.Json = False,
    no_progress: options.NoProgress = False,
) -> int:
    """Run the config of an earlier run again, with the overrides it had."""
    from orchestrator.cli.ending import show_executed
    from orchestrator.cli.execution import Order, execute
    from orchestrator.config.overrides import as_typed, from_typed
    from orchestrator.store import open_store

    store_url = store or options.DEFAULT_STORE
    with open_store(store_url, create=False) as opened:
        earlier = opened.run(name)
    sets, filters = from_typed(earlier.overrides)
    loaded = _of_today(earlier, sets) if stale else _as_stored(earlier, sets)
    for note in loaded.notes:
        print(note, file=sys.stderr)
    order = Order(
        loaded=loaded,
        only=tuple(only) if only else filters,
        simulate=earlier.simulated,
        store_url=store_url,
        quiet=no_progress,
        cases=_without_figure(earlier) if failed else None,
        overrides=as_typed(sets, only or filters),
        stale_since=earlier if stale else None,
        rerun_of=earlier.id,
    )
    executed = execute(order)
    show_executed(executed, loaded.config.report, form="json" if json else form, wide=wide)
    return executed.exit_code


def _as_stored(earlier: Run, sets: Sequence[str]) -> Loaded:
    from orchestrator.config.load import load_text

    return load_text(earlier.config_text, earlier.config_path, overrides=sets, simulate=earlier.simulated)


def _of_today(earlier: Run, sets: Sequence[str]) -> Loaded:
    """Return the config as its file says now; as the run had it where the file is gone."""
    from orchestrator.config.load import load_config

    path = Path(earlier.config_path)
    if path.is_file():
        return load_config(path, overrides=sets, simulate=earlier.simulated)
    print(f"{path} is gone: taking the config as run {earlier.id} had it", file=sys.stderr)
    return _as_stored(earlier, sets)


def _without_figure(earlier: Run) -> tuple[Case, ...]:
    cases = tuple(result.case for result in earlier.cases if result.verdict is None or not result.verdict.has_figure)
    if not cases:
        raise UsageError(f"every case of run {earlier.id} has a figure", remedy=f"all again: muster rerun {earlier.id}")
    return cases
