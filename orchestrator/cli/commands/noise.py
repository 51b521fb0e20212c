"""`muster noise`: how far apart figures of the same thing lie on each device, measured and kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.cli import options

if TYPE_CHECKING:
    from orchestrator.config.load import Loaded
    from orchestrator.results import NoiseFloor, Run

#: Enough to know a deviation to a third of itself or so; each more makes the floor lower and the measurement longer.
DEFAULT_PROCESSES: Final = 5

Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        min=2,
        max=1000,
        help=f"Fresh processes for each case. Without it: the config's if it has several, else {DEFAULT_PROCESSES}.",
    ),
]


def noise(
    config: options.ConfigPath,
    processes: Processes = None,
    known: Annotated[
        bool, typer.Option("--known", help="Measure nothing: show the floors that are kept for the config's store.")
    ] = False,
    overrides: options.Set = None,
    only: options.Only = None,
    simulate: options.Simulate = False,
    store: options.StoreUrl = None,
    form: options.OutputFormat = "table",
    json: options.Json = False,
    no_progress: options.NoProgress = False,
) -> int:
    """Measure the same cases in several fresh processes, and keep what a difference must exceed to be one."""
    from orchestrator.cli.execution import Order, execute
    from orchestrator.cli.output import print_table
    from orchestrator.config.overrides import as_typed
    from orchestrator.report.noise import noise_table
    from orchestrator.store import open_store

    form = "json" if json else form
    loaded, sets = _with_processes(config, overrides, processes, simulate=simulate)
    if known:
        with open_store(store or loaded.config.store, create=False) as opened:
            floors = opened.noise_floors(simulated=simulate)
        print_table(noise_table(floors, title="noise floors that are kept", simulated=simulate), form=form)
        return 0
    for note in loaded.notes:
        print(note, file=sys.stderr)
    executed = execute(
        Order(
            loaded=loaded,
            only=tuple(only or ()),
            simulate=simulate,
            store_url=store,
            quiet=no_progress,
            overrides=as_typed(sets, only),
        )
    )
    found, lacking = _floors(executed.run)
    with open_store(executed.store, create=False) as opened:
        opened.save_noise_floors(found, simulated=simulate)
    title = f"noise floors, {executed.run.name}, run {executed.run.id}"
    print_table(noise_table(found, title=title, simulated=simulate, notes=lacking), form=form)
    return executed.exit_code


def _with_processes(
    config: options.ConfigPath, overrides: list[str] | None, processes: int | None, *, simulate: bool
) -> tuple[Loaded, list[str]]:
    """Return the config with several processes a case, and the overrides that make it so."""
    from orchestrator.config.load import load_config
    from orchestrator.config.schema import HostConcurrency

    sets = list(overrides or ())
    loaded = load_config(config, overrides=sets, simulate=simulate)
    added = []
    if processes is not None or loaded.config.measure.processes == 1:
        added.append(f"measure.processes={processes or DEFAULT_PROCESSES}")
    if loaded.config.policy.host_concurrency is HostConcurrency.BOTH:
        # A floor is of a device alone: what is measured together has it twice.
        added.append(f"policy.host_concurrency={HostConcurrency.EXCLUSIVE.value}")
    if not added:
        return loaded, sets
    sets += added
    return load_config(config, overrides=sets, simulate=simulate), sets


def _floors(run: Run) -> tuple[tuple[NoiseFloor, ...], tuple[str, ...]]:
    """Return the floors of a run, and a line for each case that has none, or a doubtful one."""
    from orchestrator.analysis.noise import noise_floor
    from orchestrator.analysis.pooling import pooled
    from orchestrator.report.workloads import in_words

    found, lacking = [], []
    for each in pooled(run.cases):
        floor = noise_floor(each, run_id=run.id, measured_at=run.created_at)
        if floor is not None:
            found.append(floor)
            doubtful = [
                case.verdict.value for case in each.cases if case.verdict is not None and case.verdict.is_doubtful
            ]
            if doubtful:
                lacking.append(
                    f"{each.device.id}, {in_words(each.workload)}: {len(doubtful)} of {len(each.cases)} processes"
                    f" were {' or '.join(dict.fromkeys(doubtful))}: the floor is wider than it need be; measure again."
                )
        else:
            verdict = each.verdict.value if each.verdict is not None else "not ended"
            lacking.append(
                f"{each.device.id}, {in_words(each.workload)}: no floor, for {len(each.measured)} of"
                f" {len(each.cases)} processes have a figure ({verdict})."
            )
    return tuple(found), tuple(lacking)
