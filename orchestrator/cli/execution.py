"""One execution of a config from end to end: what `run`, `rerun` and `resume` do."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.cli import progress
from orchestrator.cli.checkup import warnings
from orchestrator.cli.engines import engine_for, settings_of
from orchestrator.cli.going_on import refuse_changes, refuse_moved
from orchestrator.cli.keeping import Keeping
from orchestrator.cli.preparation import examine_through, reaching, simulated
from orchestrator.cli.progress.broadcast import Broadcast
from orchestrator.cli.signals import Signals
from orchestrator.diagnosis import is_fresh
from orchestrator.errors import ExitCode, StoreError, UsageError
from orchestrator.planning import continued, estimate_s, make_plan, with_cases_of, without_put_aside
from orchestrator.results import CaseResult, NewRun, NoiseFloor, Run, RunState
from orchestrator.runner import Outcome, Runner, Stopper
from orchestrator.store import open_store
from workers.protocol import Verdict
from workers.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.cluster.base import Cluster
    from orchestrator.config.load import Loaded
    from orchestrator.config.quality import QualityConfig
    from orchestrator.config.schema import Config
    from orchestrator.inventory import Inventory
    from orchestrator.planning import Plan
    from orchestrator.store.repository import Store
    from workers.protocol import Case, Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a person asked for."""

    loaded: Loaded
    only: tuple[str, ...] = ()
    simulate: bool = False
    store_url: str | None = None
    quiet: bool = False
    #: Run the work of these cases only; ``None`` for all.
    cases: tuple[Case, ...] | None = None
    #: ``--set`` and ``--only`` as they were typed.
    overrides: tuple[str, ...] = ()
    #: The run that is gone on with; ``None`` for a new one.
    resumes: Run | None = None
    #: Go on with it also where hosts are not as they were.
    accept_changed: bool = False
    #: Run the cases only whose result in this run does not hold any more.
    stale_since: Run | None = None
    #: The run that is run again, whole or in part.
    rerun_of: str | None = None
    #: The id that a new run gets; ``None`` for any.
    run_id: str | None = None
    #: The schedule that begins it.
    schedule: str | None = None

    @property
    def store(self) -> str:
        """Where the results go."""
        return self.store_url or self.loaded.config.store


@dataclass(frozen=True, kw_only=True, slots=True)
class Executed:
    """A run that has ended, one way or the other."""

    run: Run
    store: str
    exit_code: ExitCode
    #: What could not be kept, for the person to know; ``None`` when every result is in the store.
    store_error: StoreError | None = None
    #: The noise floors that the store knows of.
    floors: tuple[NoiseFloor, ...] = ()
    #: Seconds that each part of the head's work took, by name.
    spent_s: dict[str, float] = field(default_factory=dict)


def execute(order: Order) -> Executed:
    """Run a config and return what came of it, kept in the store. Raises :class:`orchestrator.errors.MusterError`."""
    return asyncio.run(_execute(order))


async def _execute(order: Order) -> Executed:
    clock = _Clock()
    async with contextlib.AsyncExitStack() as stack:
        view = stack.enter_context(progress.view(quiet=order.quiet))
        cluster = await _reached(order, view, stack)
        plan = _chosen(order, await _inventory(order, cluster, view))
        clock.lap("probe and plan")
        new = _new_run(order, plan)
        _try_report(new, order.loaded.config)
        with open_store(order.store) as store, store.written_by(new.id):
            clock.lap("open the store")
            if order.resumes is not None:
                refuse_moved(order.resumes, store.run(new.id))
            plan = without_put_aside(plan, store.quarantines(_now(), simulated=order.simulate))
            outcome, stopped = await _run_cases(_Job(order, new, plan, store, cluster, view, clock))
            state = RunState.INTERRUPTED if stopped or outcome.store_error else RunState.FINISHED
            finished_at = _now()
            outcome = _finish(store, new.id, outcome, state, finished_at)
            floors = _known_floors(store, simulated=order.simulate)
    clock.lap("close the store")
    return Executed(
        run=_as_run(new, outcome, state, finished_at),
        store=order.store,
        exit_code=_exit_code(outcome, stopped=stopped),
        store_error=outcome.store_error,
        floors=floors,
        spent_s=clock.laps,
    )


def _known_floors(store: Store, *, simulated: bool) -> tuple[NoiseFloor, ...]:
    """Return the noise floors; none where the store has failed, for the table is worth more."""
    try:
        return store.noise_floors(simulated=simulated)
    except StoreError:
        return ()


def _judged(quality: QualityConfig, case: Case, result: Result, earlier: Sequence[Result]) -> Result:
    from orchestrator.analysis.evidence import judged  # numpy: not before there is something to judge

    return judged(case, result, quality, earlier)


async def _reached(order: Order, view: progress.ProgressView, stack: contextlib.AsyncExitStack) -> Cluster | None:
    """Open the way to the hosts, until ``stack`` is closed; ``None`` where they are made up."""
    if order.simulate:
        return None
    cluster = await stack.enter_async_context(reaching(order.loaded.config, stage=view.stage))
    # Half a second of imports, beside the probe and the store.
    asyncio.get_running_loop().run_in_executor(None, cluster.preload)
    return cluster


async def _inventory(order: Order, cluster: Cluster | None, view: progress.ProgressView) -> Inventory:
    """Reach and examine the hosts, and tell of what is wrong with them."""
    if cluster is None:
        return simulated(order.loaded.config).inventory
    examined = await examine_through(cluster, order.loaded.config, install=True)
    for line in warnings(examined.findings):
        view.say(line)
    return examined.inventory


@dataclass(frozen=True, slots=True)
class _Job:
    """What the parts of one execution share."""

    order: Order
    new: NewRun
    plan: Plan
    store: Store
    cluster: Cluster | None
    view: progress.ProgressView
    clock: _Clock


def _try_report(new: NewRun, config: Config) -> None:
    """Draw the table before there are figures, so that a report that cannot be drawn is refused now and not at the end.

    Raises :class:`UsageError` for references and rows that do not exist.
    """
    from orchestrator.report.asked import table_as_asked

    cases = tuple(CaseResult(case=case, position=i) for i, case in enumerate(new.cases))
    table_as_asked(_as_run(new, Outcome(cases=cases, store_error=None), RunState.RUNNING, None), config.report)


def _chosen(order: Order, inventory: Inventory) -> Plan:
    """Return the cases of this execution. Raises :class:`UsageError` where none is left, or hosts have changed."""
    config = order.loaded.config
    if order.resumes is not None:
        refuse_changes(order.resumes, inventory.reports, accepted=order.accept_changed)
        open_cases = [result.case for result in order.resumes.cases if result.is_open and not result.is_decided]
        return continued(make_plan(config, inventory), open_cases)
    plan = make_plan(config, inventory, only=order.only)
    cases = order.cases
    if order.stale_since is not None:
        cases = (*_stale(order.stale_since, plan, inventory), *(cases or ()))
    if cases is None:
        return plan
    narrowed = with_cases_of(plan, cases)
    if not narrowed.cases:
        raise UsageError("none of those cases is in the config's plan any more", remedy="run the whole config again")
    return narrowed


def _stale(earlier: Run, plan: Plan, inventory: Inventory) -> tuple[Case, ...]:
    known = {result.case.key: result for result in earlier.cases}
    reports = {report.host: report for report in inventory.reports}
    cases = (planned.case for planned in plan.cases)
    stale = tuple(case for case in cases if not is_fresh(known.get(case.key), reports))
    if not stale:
        raise UsageError(
            f"nothing has changed since run {earlier.id}: every case has a figure that holds",
            remedy=f"all again: muster rerun {earlier.id}",
        )
    return stale


def _finish(store: Store, run_id: str, outcome: Outcome, state: RunState, at: datetime.datetime) -> Outcome:
    """Say in the store that the run is over; a store that fails even now costs no figure that is in memory."""
    if outcome.store_error is not None:
        return outcome
    try:
        store.finish_run(run_id, state, at)
    except StoreError as error:
        return Outcome(cases=outcome.cases, store_error=error)
    return outcome


async def _run_cases(job: _Job) -> tuple[Outcome, bool]:
    """Run what can be run, and say of the rest why not; return what came of all cases, and whether it was stopped."""
    order, new, plan, store, clock = job.order, job.new, job.plan, job.store, job.clock
    if not plan.runnable:
        gaps = _begin(job)
        return Outcome(cases=_whole(new, order.resumes, gaps), store_error=None), False
    stopper = Stopper()
    config, view = order.loaded.config, job.view
    earlier = {} if order.resumes is None else {result.case.key: result for result in order.resumes.cases}
    estimates = _estimates(order, plan, store)
    concurrency = config.policy.host_concurrency
    view.expect(plan.runnable, estimates=estimates, concurrency=concurrency)
    with Broadcast(store, new) as broadcast, Signals(stopper, view.say) as signals:
        broadcast.expect(plan.runnable, estimates=estimates, concurrency=concurrency)
        async with engine_for(new.id, config, job.cluster, plan.devices, view.say) as engine:
            signals.install()
            clock.lap("start the engine")
            # Not before the engine is up: a run that could not begin leaves no trace.
            gaps = _begin(job)
            runner = Runner(
                run_id=new.id,
                cases=plan.runnable,
                settings=settings_of(config, simulated=engine.simulated),
                engine=engine,
                recorder=Keeping(store, config.limits, simulated=order.simulate),
                listeners=(view, broadcast),
                stopper=stopper,
                earlier=earlier,
                judge=functools.partial(_judged, config.quality),
            )
            outcome = await runner.run()
            clock.lap("run the cases")
            if signals.came:
                view.say("ending Ray and the agents")
        clock.lap("end the engine")
    cases = _whole(new, order.resumes, (*outcome.cases, *gaps))
    return Outcome(cases=cases, store_error=outcome.store_error), bool(signals.came)


def _whole(new: NewRun, resumed: Run | None, ended: Sequence[CaseResult]) -> tuple[CaseResult, ...]:
    """Return every case of the run in its order: as it has just ended, or as it had ended before."""
    known = {result.case.key: result for result in (*(resumed.cases if resumed else ()), *ended)}
    return tuple(replace(known[case.key], position=i) for i, case in enumerate(new.cases))


def _estimates(order: Order, plan: Plan, store: Store) -> dict[str, float]:
    """Return seconds that cases are expected to take, by key, of those that earlier runs tell of."""
    paces = store.paces(plan.runnable, simulated=order.simulate)
    found = ((case, paces.get((case.device.id, case.workload))) for case in plan.runnable)
    return {case.key: estimate_s(case.sampling, pace) for case, pace in found if pace is not None}


def _begin(job: _Job) -> tuple[CaseResult, ...]:
    """Put the run into the store, or go on with it there; keep and return the cases that cannot be run."""
    if job.order.resumes is None:
        job.store.begin_run(job.new)
        return _record_gaps(job)
    job.store.resume_run(job.new.id)
    return (*_record_decided(job, job.order.resumes), *_record_gaps(job))


def _record_decided(job: _Job, resumed: Run) -> tuple[CaseResult, ...]:
    """Keep the verdicts that the last head had no time to keep."""
    found = []
    for known in (each for each in resumed.cases if each.is_decided):
        result = known.attempts[-1].result
        job.store.save_verdict(job.new.id, known.case.key, result.verdict, result.reason)
        found.append(replace(known, verdict=result.verdict, reason=result.reason))
    return tuple(found)


def _record_gaps(job: _Job) -> tuple[CaseResult, ...]:
    earlier = {result.case.key: result for result in (job.order.resumes.cases if job.order.resumes else ())}
    found = []
    for position, planned in enumerate(job.plan.cases):
        if planned.gap is not None:
            job.store.save_verdict(job.new.id, planned.case.key, planned.gap.verdict, planned.gap.reason)
            known = earlier.get(planned.case.key, CaseResult(case=planned.case, position=position))
            found.append(replace(known, verdict=planned.gap.verdict, reason=planned.gap.reason))
    return tuple(found)


def _new_run(order: Order, plan: Plan) -> NewRun:
    resumed = order.resumes
    if resumed is not None:
        return NewRun(
            id=resumed.id,
            name=resumed.name,
            created_at=resumed.created_at,
            config_text=resumed.config_text,
            config_path=resumed.config_path,
            overrides=resumed.overrides,
            simulated=resumed.simulated,
            muster_version=resumed.muster_version,
            cases=tuple(result.case for result in resumed.cases),
            rerun_of=resumed.rerun_of,
            schedule=resumed.schedule,
        )
    return NewRun(
        id=order.run_id or new_run_id(),
        name=order.loaded.config.name,
        created_at=_now(),
        config_text=order.loaded.text,
        config_path=order.loaded.path,
        overrides=order.overrides,
        simulated=order.simulate,
        muster_version=VERSION,
        cases=tuple(planned.case for planned in plan.cases),
        rerun_of=order.rerun_of,
        schedule=order.schedule,
    )


def new_run_id() -> str:
    """Return an id that no run has."""
    return uuid.uuid4().hex[:12]


def _as_run(new: NewRun, outcome: Outcome, state: RunState, finished_at: datetime.datetime | None) -> Run:
    return Run(
        id=new.id,
        name=new.name,
        created_at=new.created_at,
        finished_at=finished_at,
        state=state,
        config_text=new.config_text,
        config_path=new.config_path,
        overrides=new.overrides,
        simulated=new.simulated,
        muster_version=new.muster_version,
        cases=outcome.cases,
        rerun_of=new.rerun_of,
        schedule=new.schedule,
    )


def _exit_code(outcome: Outcome, *, stopped: bool) -> ExitCode:
    if stopped:
        return ExitCode.INTERRUPTED
    figures = [result for result in outcome.cases if result.verdict is not None and result.verdict.has_figure]
    if not figures:
        return ExitCode.NOTHING_RAN if _nothing_was_tried(outcome) else ExitCode.INCOMPLETE
    if len(figures) < len(outcome.cases) or outcome.store_error is not None:
        return ExitCode.INCOMPLETE
    return ExitCode.OK


def _nothing_was_tried(outcome: Outcome) -> bool:
    """Return whether no case got as far as an attempt."""
    return not any(result.attempts or result.verdict is Verdict.CANCELLED for result in outcome.cases)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


class _Clock:
    """Laps of the head's own work."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Note the seconds since the last lap under ``name``."""
        now = time.monotonic()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now
