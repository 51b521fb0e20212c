"""`muster schedule`: runs that start by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options

if TYPE_CHECKING:
    from orchestrator.schedules.state import FiringData

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.", show_default=False)]

schedule = typer.Typer(no_args_is_help=True, help="Runs that start by themselves.")


@schedule.command()
def add(
    config: options.ConfigPath,
    name: Annotated[
        str | None, typer.Option("--name", help="Its name; without it the config's.", show_default=False)
    ] = None,
    overrides: options.Set = None,
    only: options.Only = None,
    simulate: options.Simulate = False,
    store: options.StoreUrl = None,
) -> None:
    """Keep a config with a schedule in the store, as it is now; one of the same name is replaced."""
    import datetime
    import re
    from pathlib import Path

    from orchestrator.config.load import load_config
    from orchestrator.config.overrides import as_typed
    from orchestrator.errors import UsageError
    from orchestrator.results import Schedule
    from orchestrator.schedules.state import next_at
    from orchestrator.store import open_store

    loaded = load_config(config, overrides=overrides or (), simulate=simulate)
    if loaded.config.schedule is None:
        raise UsageError(f"{config} has no schedule", remedy="add one, such as schedule: {cron: 0 3 * * *}")
    word = name or loaded.config.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", word):
        raise UsageError(f"{word!r} is no name for a schedule", remedy="letters, digits, dots, dashes: --name NAME")
    now = datetime.datetime.now(datetime.timezone.utc)
    new = Schedule(
        name=word,
        added_at=now,
        config_text=loaded.text,
        config_path=str(Path(config).absolute()),
        overrides=as_typed(overrides, only),
        simulated=simulate,
        is_paused=False,
        decided_until=now,
    )
    url = store or loaded.config.store
    with open_store(url) as opened:
        is_replaced = opened.schedules.put(new)
    begins = next_at(loaded.config.schedule, word)
    when = _local(None if begins is None else begins.isoformat())
    print(f"{word}: {'replaced' if is_replaced else 'added'}; next: {when}")
    print(f"  it runs while this runs: muster schedule start --store {url}")


@schedule.command("list")
def list_(store: options.StoreUrl = None, json: options.Json = False) -> None:
    """List the schedules: when each runs next, and what came of the last time."""
    from orchestrator.cli.output import print_data
    from orchestrator.schedules.state import schedule_data
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        found = [schedule_data(opened.schedules, each) for each in opened.schedules.every()]
    if json:
        print_data(found)
        return
    for one in found:
        state = "paused" if one["is_paused"] else f"next {_local(one['next_at'])}"
        when = f"{one['cron']} {one['timezone']}  {state}"
        if one["problem"] is not None:
            when = f"cannot be read any more: {one['problem'].splitlines()[0]}"
        print(f"{one['name']}  {when}  {_last(one['last'])}")
    if not found:
        print("there are no schedules: muster schedule add CONFIG")


@schedule.command()
def history(
    name: Name,
    most: Annotated[int, typer.Option("--most", min=1, help="So many, the newest first.")] = 20,
    store: options.StoreUrl = None,
    json: options.Json = False,
) -> None:
    """Show a schedule's latest times, and what came of each."""
    from orchestrator.cli.output import print_data
    from orchestrator.schedules.state import firing_data, require
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        require(opened.schedules, name)
        found = [firing_data(each) for each in opened.schedules.history(name, most)]
    if json:
        print_data(found)
        return
    for one in found:
        run = "" if one["run_id"] is None else f"  run {one['run_id']}"
        why = "" if one["reason"] is None else f"  {one['reason']}"
        print(f"{_local(one['due_at'])}  {one['outcome'] or one['state']}{run}{why}")
        for line in one["told"]:
            print(f"  {line}")
    if not found:
        print(f"{name} has had no time yet")


@schedule.command()
def remove(name: Name, store: options.StoreUrl = None) -> None:
    """Forget a schedule; its runs stay."""
    from orchestrator.schedules.state import require
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        require(opened.schedules, name)
        opened.schedules.remove(name)
    print(f"{name}: removed; its runs are still there")


@schedule.command()
def pause(name: Name, store: options.StoreUrl = None) -> None:
    """Have a schedule begin no runs until `muster schedule unpause`."""
    _pause(name, store, is_paused=True)


@schedule.command()
def unpause(name: Name, store: options.StoreUrl = None) -> None:
    """Have a schedule that was paused begin runs again, from its next time on."""
    _pause(name, store, is_paused=False)


@schedule.command("run-now")
def run_now(name: Name, store: options.StoreUrl = None) -> None:
    """Have the scheduler begin a run of it now, also while it is paused."""
    import datetime

    from orchestrator.schedules.service import LEADER
    from orchestrator.schedules.state import require
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        require(opened.schedules, name)
        opened.schedules.ask(name, datetime.datetime.now(datetime.timezone.utc))
        is_led = LEADER in opened.at_work()
    print(f"{name}: a run begins as soon as the scheduler sees it")
    if not is_led:
        print("  no scheduler is at work: muster schedule start")


@schedule.command()
def start(store: options.StoreUrl = None, json: options.Json = False) -> int:
    """Be the scheduler, in the foreground, until Ctrl-C; a second one waits until the first has ended."""
    from orchestrator.cli.scheduling import Log, serve

    return serve(store or options.DEFAULT_STORE, Log(as_json=json))


@schedule.command()
def install(
    store: options.StoreUrl = None,
    show: Annotated[bool, typer.Option("--print", help="Write nothing; print the unit.")] = False,
) -> None:
    """Write a systemd user unit for the scheduler; print a cron line and a CronJob for those who prefer them."""
    import os
    import sys
    from pathlib import Path

    from orchestrator.schedules.state import schedule_of
    from orchestrator.schedules.units import UNIT_NAME, cron_job, cron_line, systemd_unit
    from orchestrator.store import open_store

    url, folder = store or options.DEFAULT_STORE, str(Path.cwd())
    muster = [sys.executable, "-m", "orchestrator.cli"]
    unit = systemd_unit([*muster, "schedule", "start", "--store", url], folder)
    if show:
        print(unit)
    else:
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        path = home / "systemd" / "user" / UNIT_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit, encoding="utf-8")
        print(f"wrote {path}")
        print(f"  systemctl --user daemon-reload && systemctl --user enable --now {UNIT_NAME}")
        print("  loginctl enable-linger    so that it runs while nobody is logged in")
    with open_store(url, create=False) as opened:
        for each in opened.schedules.every():
            config = schedule_of(each)
            run = ["run", each.config_path, "--no-progress", "--store", url]
            print(f"\n# {each.name}, for crontab -e, without what the scheduler adds (times of this machine's zone):")
            print(cron_line(config.cron, [*muster, *run], folder))
            print(f"\n# {each.name}, for kubectl apply -f:")
            print(cron_job(each.name.lower(), config.cron, config.timezone, ["muster", *run]), end="")


@schedule.command(hidden=True)
def fire(
    firing: Annotated[int, typer.Argument(metavar="FIRING", help="Its number.", show_default=False)],
    store: options.StoreUrl = None,
) -> int:
    """Do what one time of a schedule asks for; the scheduler calls this."""
    from orchestrator.cli.firing import fire as do

    return do(firing, store or options.DEFAULT_STORE)


def _pause(name: str, store: str | None, *, is_paused: bool) -> None:
    from orchestrator.schedules.state import require
    from orchestrator.store import open_store

    with open_store(store or options.DEFAULT_STORE, create=False) as opened:
        require(opened.schedules, name)
        opened.schedules.pause(name, is_paused)
    print(f"{name}: {'paused' if is_paused else 'runs again from its next time on'}")


def _local(text: str | None) -> str:
    """Return a time as this machine's wall clock shows it."""
    import datetime

    return "never" if text is None else f"{datetime.datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M %Z}"


def _last(last: FiringData | None) -> str:
    if last is None:
        return "not run yet"
    return f"last {_local(last['due_at'])}: {last['outcome'] or last['state']}"
