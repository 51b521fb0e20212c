"""`muster devices`: what each host has, held against what the config declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli import options

if TYPE_CHECKING:
    from orchestrator.inventory import DeclaredDevice, Inventory


def devices(
    config: options.ConfigPath,
    overrides: options.Set = None,
    simulate: options.Simulate = False,
    json: options.Json = False,
) -> int:
    """Show what each host has, and what of the config is missing."""
    import asyncio

    from orchestrator.cli.output import print_data
    from orchestrator.cli.preparation import take
    from orchestrator.config.load import load_config
    from orchestrator.errors import ExitCode

    loaded = load_config(config, overrides=overrides or (), simulate=simulate)
    inventory = asyncio.run(take(loaded.config, simulate=simulate))
    if json:
        print_data(_data(inventory))
    else:
        for line in _lines(inventory):
            print(line)
    return ExitCode.INCOMPLETE if any(entry.gap for entry in inventory.declared) else ExitCode.OK


def _lines(inventory: Inventory) -> list[str]:
    lines: list[str] = []
    for host in dict.fromkeys(entry.device.host for entry in inventory.declared):
        report = inventory.report_of(host)
        system = report.environment.get("host.os").value if report is not None else None
        lines.append(host if system is None else f"{host}  ({system})")
        lines += [f"  {_declared(entry)}" for entry in inventory.declared if entry.device.host == host]
        lines += [
            f"  {device.selector:<8} {device.name}, {device.memory or 'memory unknown'}  (not in the config)"
            for device in inventory.undeclared
            if device.host == host
        ]
        for framework in report.frameworks if report is not None else ():
            lines.append(f"  {framework.name} {framework.version or framework.reason}")
    return lines


def _declared(entry: DeclaredDevice) -> str:
    device = entry.device
    if entry.gap is not None:
        return f"{device.selector:<8} {entry.gap.verdict.value}: {entry.gap.reason}"
    cores = f", {len(device.cores)} cores" if device.cores else ""
    return f"{device.selector:<8} {device.name}, {device.memory or 'memory unknown'}{cores}"


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
