"""`muster quarantine`: what is put aside after failing too often in a row, and letting it have cases again."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.results import Quarantine
    from orchestrator.store.repository import Store

Target = Annotated[
    str,
    typer.Argument(metavar="TARGET", help="A host, or a device as host/selector: gpu01/gpu:0.", show_default=False),
]

quarantine = typer.Typer(
    no_args_is_help=True, help="Devices and hosts that are put aside, for they failed too often in a row."
)


@quarantine.command("list")
def list_(store: options.StoreUrl = None, json: options.Json = False) -> None:
    """List what is put aside now: since and until when, and why."""
    from orchestrator.cli.output import print_data
    from orchestrator.report.listings import quarantine_data
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        found = _put_aside(opened)
    if json:
        print_data([quarantine_data(one, simulated=simulated) for one, simulated in found])
        return
    for one, simulated in found:
        print(_line(one, simulated=simulated))
    if not found:
        print("nothing is put aside")


@quarantine.command()
def release(target: Target, store: options.StoreUrl = None, json: options.Json = False) -> None:
    """Let a device or a host have cases again, from the next run on."""
    from orchestrator.cli.output import print_data
    from orchestrator.errors import UsageError
    from orchestrator.report.listings import quarantine_data
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        found = _put_aside(opened)
        released = [(one, simulated) for one, simulated in found if one.target == target]
        if not released:
            names = ", ".join(dict.fromkeys(one.target for one, _ in found))
            raise UsageError(f"{target} is not put aside", remedy=f"there are: {names or 'none'}")
        for one, simulated in released:
            opened.release(one.target, simulated=simulated)
    if json:
        print_data([quarantine_data(one, simulated=simulated) for one, simulated in released])
        return
    for one, _ in released:
        print(f"{one.target}: released; it was put aside until {_clock_time(one.until)}")


def _put_aside(store: Store) -> Sequence[tuple[Quarantine, bool]]:
    """Return what is put aside now, and whether that is in a made-up lab; real ones first."""
    return store.all_quarantines(datetime.datetime.now(datetime.timezone.utc))


def _line(one: Quarantine, *, simulated: bool) -> str:
    from orchestrator.report.printable import printable

    marks = "  simulated" if simulated else ""
    span = f"since {_clock_time(one.since)} until {_clock_time(one.until)}"
    return f"{one.target}  {span}  {one.failures} failures, the last: {printable(one.reason)}  run {one.run_id}{marks}"


def _clock_time(when: datetime.datetime) -> str:
    """Return a time as this machine's wall clock shows it."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M")
