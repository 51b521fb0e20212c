"""`muster devices`: what each host has, held against what the config declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli import options

if TYPE_CHECKING:
    from orchestrator.inventory import Inventory


def devices(
    config: options.ConfigPath,
    overrides: options.Set = None,
    simulate: options.Simulate = False,
    json: options.Json = False,
) -> int:
    """Show what each host has as a tree, and what of the config is missing."""
    import asyncio

    from orchestrator.cli.output import has_color, print_data, width
    from orchestrator.cli.preparation import examine
    from orchestrator.cli.tree import draw
    from orchestrator.cli.waiting import waiting
    from orchestrator.config.load import load_config
    from orchestrator.errors import ExitCode

    loaded = load_config(config, overrides=overrides or (), simulate=simulate)
    with waiting() as stage:
        inventory = asyncio.run(examine(loaded.config, simulate=simulate, stage=stage)).inventory
    if json:
        print_data(_data(inventory))
    else:
        print(draw(loaded.config.name, inventory, width=width(), color=has_color()), end="")
    return ExitCode.INCOMPLETE if any(entry.gap for entry in inventory.declared) else ExitCode.OK


def _data(inventory: Inventory) -> dict[str, object]:
    from workers import codec

    return {
        "declared": [
            {
                **codec.to_data(entry.device),
                "verdict": entry.gap.verdict.value if entry.gap else None,
                "reason": entry.gap.reason if entry.gap else None,
            }
            for entry in inventory.declared
        ],
        "undeclared": [codec.to_data(device) for device in inventory.undeclared],
        "hosts": [codec.to_data(report) for report in inventory.reports],
    }
