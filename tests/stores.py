"""Stores with something in them, for the tests of what is shown of a store."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.live import LiveDevice, LiveFailure, LiveRun
from orchestrator.report.printable import printable
from orchestrator.results import Cause, FiringState, Imported, NewFiring, NewRun, Quarantine, RunState, Schedule
from tests.builders import a_case, a_device, a_telemetry, a_workload
from tests.runs import a_case_result, a_case_without_attempt, a_run, an_environment
from workers.protocol import Verdict
from workers.telemetry.series import Doubt, DoubtKind, ForeignProcess, Missing

if TYPE_CHECKING:
    from orchestrator.results import Run
    from orchestrator.store.repository import Store

NOW = datetime.datetime.now(datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)

CONFIG = """\
version: 1
name: night
hosts: [{name: localhost, devices: [cpu]}]
workloads: [{model: alexnet, batch_size: 8, passes: forward}]
schedule: {cron: "0 3 * * *", timezone: Europe/Berlin}
"""


def keep(store: Store, run: Run) -> None:
    """Have a store keep a run as if it had been made there."""
    store.begin_run(
        NewRun(
            id=run.id,
            name=run.name,
            created_at=run.created_at,
            config_text=run.config_text,
            config_path=run.config_path,
            overrides=run.overrides,
            simulated=run.simulated,
            muster_version=run.muster_version,
            cases=tuple(known.case for known in run.cases),
            rerun_of=run.rerun_of,
            schedule=run.schedule,
        )
    )
    for known in run.cases:
        for attempt in known.attempts:
            store.save_attempt(run.id, attempt.result)
        if known.verdict is not None:
            store.save_verdict(run.id, known.case.key, known.verdict, known.reason)
    if run.state is not RunState.RUNNING and run.finished_at is not None:
        store.finish_run(run.id, run.state, run.finished_at)


def a_kept_run(run_id: str, step_ms: float = 100.0, *, word: str = "lab", hours_ago: int = 1, **given: object) -> Run:
    """A run of one host with two devices, of which one has no figure; ``word`` is in every text that it has."""
    good, bad = a_device(word, "cpu", name=word, memory=word), a_device(word, "gpu:0", name=f"{word} GPU")
    figure = a_case_result(
        a_case(good, a_workload()),
        samples_ms=tuple(step_ms + 0.1 * (number % 7) for number in range(30)),
        reason=word,
        verdict=Verdict.NOISY,
        doubts=(Doubt(kind=DoubtKind.NOISY, text=word, value=0.2, limit=0.1),),
        environment=an_environment(framework__version="2.21.0", host__remark=word),
        telemetry=replace(
            a_telemetry((1.0, 2.0), cpu__use_percent=[50.0, 60.0]),
            foreign=(ForeignProcess(pid=4242, user=word, name=word),),
            missing=(Missing(name="cpu.temperature_c", reason=word),),
        ),
    )
    gap = a_case_without_attempt(a_case(bad, a_workload()), Verdict.DEVICE_MISSING, word)
    at = NOW - hours_ago * HOUR
    return a_run(
        figure,
        gap,
        **{
            "id": run_id,
            "name": word,
            "created_at": at,
            "finished_at": at + HOUR / 2,
            "config_text": f"# {printable(word)}\n{CONFIG}",
            "config_path": f"{word}.yaml",
            "overrides": (f"--only device={word}",),
            **given,
        },
    )


def a_live_run(run_id: str = "aaaaaaaaaaaa", word: str = "lab", *, devices: int = 2, step: int = 3) -> LiveRun:
    """A run that goes on, all of whose texts are or have ``word``."""
    return LiveRun(
        run_id=run_id,
        name=word,
        simulated=False,
        at=NOW.isoformat(),
        elapsed_s=70.0,
        left_s=None,
        done=1,
        failed=1,
        total=4,
        stages=(word,),
        silent=(word,),
        devices=tuple(
            LiveDevice(
                id=f"{word}/gpu:{number}",
                host=word,
                name=word,
                activity="measuring" if number % 2 == 0 else "waiting",
                done=number,
                failed=number,
                total=4,
                case=word,
                attempt=2,
                doing=word,
                step=step,
                max_steps=50,
                last_ms=12.345,
                temperature_c=61.4,
                power_w=402.2,
                left_s=12.0,
            )
            for number in range(devices)
        ),
        failures=(LiveFailure(device_id=word, case=word, verdict="oom", reason=word),),
    )


def fill(store: Store, word: str = "lab") -> None:
    """Put into a store one of everything: runs (made, scheduled, imported), a baseline, a schedule, a quarantine."""
    for number in range(4):
        run = a_kept_run(f"{number}bcdef012345", 100.0, word=word, hours_ago=20 - number)
        keep(store, run)
    for number in range(4, 8):
        run = a_kept_run(f"{number}bcdef012345", 130.0, word=word, hours_ago=20 - number, schedule="night")
        keep(store, run)
    keep(store, a_kept_run("simulated012", 5.0, word=word, simulated=True))
    store.import_run(a_kept_run("imported0123", word=word), Imported(source=f"{word}.zip", at=NOW))
    store.set_baseline("good", "0bcdef012345", NOW)
    store.put_aside(
        Quarantine(
            target=f"{word}/gpu:0", since=NOW - HOUR, until=NOW + HOUR, failures=3, reason=word, run_id="7bcdef012345"
        ),
        simulated=False,
    )
    schedule = Schedule(
        name="night",
        added_at=NOW - HOUR,
        config_text=CONFIG + f"# {printable(word)}\n",
        config_path=f"{word}.yaml",
        overrides=(),
        simulated=True,
        is_paused=False,
        decided_until=NOW - HOUR,
    )
    store.schedules.put(schedule)
    firing = NewFiring(due_at=NOW - HOUR, begins_at=NOW - HOUR, cause=Cause.TIME, state=FiringState.WAITING)
    store.schedules.decide(schedule, [firing], NOW)
    (waiting,) = store.schedules.open()
    store.schedules.change(
        waiting.id,
        state=FiringState.DONE,
        run_id="7bcdef012345",
        outcome="regression",
        reason=word,
        told=(word,),
        ended_at=NOW,
    )
