"""Routes of ``/api/v1``; each says which command line gives the same."""

from __future__ import annotations

import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from typing_extensions import TypedDict

from orchestrator.live import LiveRun
from orchestrator.report.attempts import attempts_table
from orchestrator.report.environments import environments
from orchestrator.report.listings import (
    BaselineData,
    EnvironmentData,
    QuarantineData,
    RunData,
    baseline_data,
    environment_data,
    quarantine_data,
    run_data,
)
from orchestrator.report.renderers.json import TableData, table_data
from orchestrator.report.trend import title_of
from orchestrator.schedules.state import FiringData, ScheduleData, firing_data, require, schedule_data
from orchestrator.web.api.answers import PROBLEMS, StrictRoute
from orchestrator.web.context import Here
from orchestrator.web.labstate import LabDeviceData, lab_of
from orchestrator.web.pages.runs import fits
from orchestrator.web.pages.schedules import done
from orchestrator.web.runtables import compared, history_id, history_of, run_table

router = APIRouter(prefix="/api/v1", route_class=StrictRoute, responses=PROBLEMS)

RunName = Annotated[str, Path(description="A run's id, the beginning of one, `latest`, or a baseline's name.")]
ScheduleName = Annotated[str, Path(description="A schedule's name.")]
Simulated = Annotated[bool, Query(description="Of simulated runs; they never mix with real ones.")]


class EnvironmentsData(TypedDict):
    """The environments of a run."""

    run_id: str
    environments: list[EnvironmentData]


class HistoryData(TypedDict):
    """A workload on a device of which there are figures."""

    id: str
    title: str
    device_id: str
    runs: int
    last_at: str


class DoneData(TypedDict):
    """What was done."""

    schedule: str
    done: str


@router.get("/runs", summary="Runs, the newest first: muster runs --json")
def runs(
    here: Here,
    q: Annotated[str, Query(description="Words that its id, name, schedule or origin have.")] = "",
    state: Annotated[str, Query(description="running, finished or interrupted.")] = "",
    schedule: Annotated[str, Query(description="The schedule that began it.")] = "",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> list[RunData]:
    """List runs."""
    with here.source.opened() as store:
        every = store.runs()
    return [run_data(run) for run in every if fits(run, q=q, state=state, schedule=schedule, kind="")][:limit]


@router.get("/runs/{run}", summary="A run's table: muster show RUN --json")
def run(here: Here, run: RunName) -> TableData:
    """Return a run's table with every column."""
    return table_data(run_table(here.source, here.source.side(run), wide=True))


@router.get("/runs/{run}/attempts", summary="Every attempt of a run: muster show RUN --attempts --json")
def attempts(here: Here, run: RunName) -> TableData:
    """Return a row for each attempt."""
    return table_data(attempts_table(here.source.run(run)))


@router.get("/runs/{run}/environments", summary="Where its figures were taken: muster env RUN --json")
def run_environments(
    here: Here, run: RunName, device: Annotated[str, Query(description="Of one device or host.")] = ""
) -> EnvironmentsData:
    """Return the environments of a run."""
    found = here.source.run(run)
    return {
        "run_id": found.id,
        "environments": [environment_data(each) for each in environments(found, device or None)],
    }


@router.get("/compare", summary="Two runs held against each other: muster compare BEFORE NOW --json")
def compare(
    here: Here,
    before: Annotated[str, Query(description="A run, or a baseline.")],
    after: Annotated[str, Query(description="The run or baseline that is held against it.")] = "latest",
    threshold: Annotated[
        str,
        Query(
            description="A share, such as 3%; without it each device's noise floor.",
            pattern=r"^(0\.[0-9]{0,5}[1-9]%?|[1-9][0-9]?(\.[0-9]{1,6})?%)?$",
        ),
    ] = "",
) -> TableData:
    """Return a row for each case."""
    _, table = compared(here.source.side(before), here.source.side(after), threshold)
    return table_data(table)


@router.get("/trends", summary="Workloads on devices of which there are figures")
def trends(here: Here, simulated: Simulated = False) -> list[HistoryData]:
    """List histories."""
    with here.source.opened() as store:
        return [
            {
                "id": history_id(each),
                "title": title_of(each.case),
                "device_id": each.case.device.id,
                "runs": each.runs,
                "last_at": each.last_at.isoformat(),
            }
            for each in store.histories(simulated=simulated)
        ]


@router.get("/trends/{history}", summary="One history: muster trend --json")
def trend(
    here: Here, history: Annotated[str, Path(description="Its id, from /trends.")], simulated: Simulated = False
) -> TableData:
    """Return a row for each run, and where the level changed."""
    return table_data(history_of(here.source, history, simulated=simulated).table)


@router.get("/lab", summary="Hosts and devices, as this store's runs have seen them")
def lab(here: Here, simulated: Simulated = False) -> list[LabDeviceData]:
    """List devices."""
    with here.source.opened() as store:
        return list(lab_of(store, simulated=simulated))


@router.get("/quarantine", summary="What is put aside now: muster quarantine list --json")
def quarantine(here: Here) -> list[QuarantineData]:
    """List what is put aside, real ones first."""
    now = datetime.datetime.now(datetime.timezone.utc)
    with here.source.opened() as store:
        return [quarantine_data(one, simulated=simulated) for one, simulated in store.all_quarantines(now)]


@router.get("/baselines", summary="Baselines: muster baseline list --json")
def baselines(here: Here) -> list[BaselineData]:
    """List baselines."""
    with here.source.opened() as store:
        return [baseline_data(one) for one in store.baselines()]


@router.get("/live", summary="The runs that go on, as their heads said last")
def live(here: Here) -> list[LiveRun]:
    """List what goes on, device by device."""
    with here.source.opened() as store:
        return list(store.live())


@router.get("/schedules", summary="Schedules: muster schedule list --json")
def schedules(here: Here) -> list[ScheduleData]:
    """List schedules."""
    with here.source.opened() as store:
        return [schedule_data(store.schedules, each) for each in store.schedules.every()]


@router.get("/schedules/{schedule}/history", summary="Its latest times: muster schedule history NAME --json")
def history(here: Here, schedule: ScheduleName, most: Annotated[int, Query(ge=1, le=1000)] = 20) -> list[FiringData]:
    """List a schedule's times, the newest first."""
    with here.source.opened() as store:
        require(store.schedules, schedule)
        return [firing_data(each) for each in store.schedules.history(schedule, most)]


@router.post("/schedules/{schedule}/pause", summary="Begin no runs of it: muster schedule pause NAME")
def pause(here: Here, schedule: ScheduleName) -> DoneData:
    """Pause a schedule; only where the server was begun with --allow-runs."""
    return _done(here, schedule, "pause")


@router.post("/schedules/{schedule}/unpause", summary="Begin runs of it again: muster schedule unpause NAME")
def unpause(here: Here, schedule: ScheduleName) -> DoneData:
    """Let a schedule run again; only where the server was begun with --allow-runs."""
    return _done(here, schedule, "unpause")


@router.post("/schedules/{schedule}/run-now", summary="Begin a run of it now: muster schedule run-now NAME")
def run_now(here: Here, schedule: ScheduleName) -> DoneData:
    """Have the scheduler begin a run now; only where the server was begun with --allow-runs."""
    return _done(here, schedule, "run-now")


def _done(here: Here, schedule: str, act: str) -> DoneData:
    here.require_runs()
    done(here, schedule, act)
    return {"schedule": schedule, "done": act}
