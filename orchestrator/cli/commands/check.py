"""`muster check`: whether a config is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import options
from orchestrator.errors import UsageError


def check(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="The YAML file.", show_default=False)] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the grammar as JSON Schema, for editors.")] = False,
    overrides: options.Set = None,
    simulate: options.Simulate = False,
    json: options.Json = False,
) -> None:
    """Validate a config; every problem is shown at once, with its line."""
    from orchestrator.cli.output import count, print_data
    from orchestrator.config.load import json_schema, load_config
    from orchestrator.config.sweep import expand

    if schema:
        print_data(json_schema())
        return
    if config is None:
        raise UsageError("which config?", remedy="name a file: muster check lab.yaml; or print the grammar: --schema")
    loaded = load_config(config, overrides=overrides or (), simulate=simulate)
    hosts = len(loaded.config.hosts)
    workloads = len(expand(loaded.config.workloads))
    if json:
        print_data({"config": str(config), "hosts": hosts, "workloads": workloads, "notes": list(loaded.notes)})
        return
    for note in loaded.notes:
        print(note)
    print(f"{config}: fine: {count(hosts, 'host')}, {count(workloads, 'workload')}")
