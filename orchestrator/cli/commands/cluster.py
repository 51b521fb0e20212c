"""`muster cluster`: keep a cluster between runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from orchestrator.cli import options

if TYPE_CHECKING:
    from orchestrator.cluster.keeping import State
    from orchestrator.diagnosis import Finding
    from orchestrator.errors import ExitCode

cluster = typer.Typer(no_args_is_help=True, help="Keep a cluster between runs; `muster run` uses it while it is up.")


@cluster.command()
def up(config: options.ConfigPath, overrides: options.Set = None) -> int:
    """Bring the config's cluster up and keep it; exit 3 where some hosts are not in it."""
    import asyncio

    from orchestrator.cli.waiting import waiting
    from orchestrator.cluster.keeping import bring_up
    from orchestrator.config.load import load_config
    from orchestrator.errors import ExitCode

    loaded = load_config(config, overrides=overrides or ())
    with waiting() as stage:
        started = asyncio.run(bring_up(loaded, stage))
    for finding in started.findings:
        _show(finding)
    lost = started.cluster.lost
    for host, reason in lost:
        print(f"{host}: not in the cluster: {reason}", file=sys.stderr)
    state = f"up already, since {started.record.since}" if started.was_up else "up"
    print(f"{loaded.config.name}: {state}: {', '.join(host for host, _ in started.cluster.nodes)}")
    stopped = any(finding.verdict is not None for finding in started.findings)
    return ExitCode.INCOMPLETE if lost or stopped else ExitCode.OK


@cluster.command()
def status(config: options.ConfigPath, overrides: options.Set = None, json: options.Json = False) -> int:
    """Say whether the config's cluster is up, and which hosts live; exit 4 where it is not up, 3 where hosts lack."""
    import asyncio

    from orchestrator.cli.output import print_data
    from orchestrator.cluster.keeping import ask_after
    from orchestrator.config.load import load_config

    loaded = load_config(config, overrides=overrides or ())
    state = asyncio.run(ask_after(loaded.config))
    if json:
        print_data(_data(state))
    else:
        for line in _lines(loaded.config.name, state):
            print(line)
    return _exit_code(state)


@cluster.command()
def down(config: options.ConfigPath, overrides: options.Set = None) -> int:
    """End the config's cluster and nothing else; exit 3 where something of it remains."""
    import asyncio

    from orchestrator.cluster.keeping import bring_down
    from orchestrator.config.load import load_config
    from orchestrator.errors import ExitCode

    loaded = load_config(config, overrides=overrides or ())
    ended = asyncio.run(bring_down(loaded.config))
    print(f"{loaded.config.name}: {'not up' if ended is None else 'down'}")
    remains = () if ended is None else ended.remains
    for remaining in remains:
        print(f"still there: {remaining}", file=sys.stderr)
    return ExitCode.INCOMPLETE if remains else ExitCode.OK


def _show(finding: Finding) -> None:
    """Print what is not fine, and what mends it."""
    from orchestrator.diagnosis import Level

    if finding.level is Level.OK:
        return
    print(f"{finding.host}: {finding.check}: {finding.text}", file=sys.stderr)
    if finding.remedy is not None:
        print(f"  → {finding.remedy}", file=sys.stderr)


def _lines(name: str, state: State) -> list[str]:
    record = state.record
    if record is None:
        return [f"{name}: its holder had died; what it left is removed" if state.had_died else f"{name}: not up"]
    if record.cluster is None:
        return [f"{name}: coming up since {record.since} (process {record.pid}, log {record.log})"]
    lines = [f"{name}: up since {record.since} (process {record.pid}, log {record.log})"]
    if state.problem is not None:
        lines.append(f"  it does not answer: {state.problem}")
    width = max((len(host.name) for host in state.hosts), default=0)
    lines += [f"  {host.name:<{width}}  {host.reason or f'alive ({host.ip})'}" for host in state.hosts]
    return lines


def _data(state: State) -> dict[str, object]:
    record = state.record
    return {
        "state": state.word,
        "since": record and record.since,
        "pid": record and record.pid,
        "log": record and record.log,
        "address": record and record.cluster and record.cluster.address,
        "problem": state.problem,
        "hosts": [
            {"name": host.name, "alive": host.reason is None, "ip": host.ip, "reason": host.reason}
            for host in state.hosts
        ],
    }


def _exit_code(state: State) -> ExitCode:
    from orchestrator.errors import ExitCode

    if state.word != "up":
        return ExitCode.NOTHING_RAN
    return ExitCode.INCOMPLETE if any(host.reason is not None for host in state.hosts) else ExitCode.OK
