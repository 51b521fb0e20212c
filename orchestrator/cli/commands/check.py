"""`muster check`: whether a config is right, and whether the hosts that it names are fit to be measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options
from orchestrator.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config.load import Loaded
    from orchestrator.diagnosis import Finding


def check(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="The YAML file.", show_default=False)] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the grammar as JSON Schema, for editors.")] = False,
    overrides: options.Set = None,
    offline: Annotated[bool, typer.Option("--offline", help="Look at the config alone, and contact nobody.")] = False,
    simulate: options.Simulate = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every check of every host, also in a large lab.")
    ] = False,
    json: options.Json = False,
) -> int:
    """Validate a config, reach every host, and say what is wrong there and what mends it."""
    from orchestrator.cli.output import print_data
    from orchestrator.config.load import json_schema, load_config
    from orchestrator.diagnosis import Level

    if schema:
        print_data(json_schema())
        return ExitCode.OK
    if config is None:
        raise UsageError("which config?", remedy="name a file: muster check lab.yaml; or print the grammar: --schema")
    loaded = load_config(config, overrides=overrides or (), simulate=simulate)
    if not json:
        _show_config(config, loaded)
    findings = () if offline or simulate else _examined(loaded)
    if json:
        print_data(_data(config, loaded, findings))
    elif findings:
        _show_findings(loaded, findings, verbose=verbose)
    return ExitCode.FOUND if any(finding.level is Level.PROBLEM for finding in findings) else ExitCode.OK


def _examined(loaded: Loaded) -> tuple[Finding, ...]:
    """Return what was found on every host, in the config's order."""
    import asyncio

    from orchestrator.cli.preparation import examine
    from orchestrator.cli.waiting import waiting
    from orchestrator.diagnosis import arranged, gaps
    from orchestrator.inventory import device_findings

    with waiting() as stage:
        examined = asyncio.run(examine(loaded.config, simulate=False, stage=stage))
    devices = device_findings(examined.inventory, told=gaps(examined.findings))
    return arranged((*examined.findings, *devices), _hosts(loaded))


def _show_config(config: Path, loaded: Loaded) -> None:
    from orchestrator.report.words import count

    for note in loaded.notes:
        print(note)
    print(f"{config}: fine: {count(len(_hosts(loaded)), 'host')}, {count(_workloads(loaded), 'workload')}")


def _show_findings(loaded: Loaded, findings: Sequence[Finding], *, verbose: bool) -> None:
    from orchestrator.cli.checkup import draw
    from orchestrator.cli.output import has_color, width

    print()
    print(draw(findings, _hosts(loaded), width=width(), color=has_color(), verbose=verbose), end="")


def _data(config: Path, loaded: Loaded, findings: Sequence[Finding]) -> dict[str, object]:
    from workers import codec

    return {
        "config": str(config),
        "hosts": len(_hosts(loaded)),
        "workloads": _workloads(loaded),
        "notes": list(loaded.notes),
        "findings": [codec.to_data(finding) for finding in findings],
    }


def _hosts(loaded: Loaded) -> tuple[str, ...]:
    return tuple(host.name for host in loaded.config.hosts)


def _workloads(loaded: Loaded) -> int:
    from orchestrator.config.sweep import expand

    return len(expand(loaded.config.workloads))
