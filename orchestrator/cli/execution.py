"""One execution of a config from end to end: what `run` and `rerun` do."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import signal
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from orchestrator.cli import progress
from orchestrator.cli.checkup import warnings
from orchestrator.cli.preparation import examine_through, reaching, simulated
from orchestrator.dispatch.settings import DispatchSettings
from orchestrator.errors import ExitCode, StoreError, UsageError
from orchestrator.planning import estimate_s, make_plan, with_cases_of
from orchestrator.results import CaseResult, NewRun, Run, RunState
from orchestrator.runner import Outcome, Runner, Stopper
from orchestrator.store import open_store
from workers.protocol import Verdict
from workers.version import VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.cluster.base import Cluster
    from orchestrator.config.load import Loaded
    from orchestrator.config.schema import Config
    from orchestrator.engine.base import Engine
    from orchestrator.inventory import Inventory
    from orchestrator.planning import Plan
    from orchestrator.store.repository import Store

#: Seconds that the head waits longer than an agent: the agent decides, the head only where the agent is silent.
HEAD_GRACE_S: Final = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a person asked for."""

    loaded: Loaded
    only: tuple[str, ...] = ()
    simulate: bool = False
    store_url: str | None = None
    quiet: bool = False
    #: Run these cases only; ``None`` for all.
    keys: frozenset[str] | None = None
    #: ``--set`` and ``--only`` as they were typed.
    overrides: tuple[str, ...] = ()

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
        plan = _narrowed(make_plan(order.loaded.config, await _inventory(order, cluster, view), only=order.only), order)
        clock.lap("probe and plan")
        new = _new_run(order, plan)
        _try_report(new, order.loaded.config)
        with open_store(order.store) as store, store.written_by(new.id):
            clock.lap("open the store")
            outcome, stopped = await _run_cases(_Job(order, new, plan, store, cluster, view, clock))
            state = RunState.INTERRUPTED if stopped or outcome.store_error else RunState.FINISHED
            finished_at = _now()
            outcome = _finish(store, new.id, outcome, state, finished_at)
    clock.lap("close the store")
    return Executed(
        run=_as_run(new, outcome, state, finished_at),
        store=order.store,
        exit_code=_exit_code(outcome, stopped=stopped),
        store_error=outcome.store_error,
        spent_s=clock.laps,
    )


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
    from orchestrator.cli.output import table_of

    cases = tuple(CaseResult(case=case, position=i) for i, case in enumerate(new.cases))
    table_of(_as_run(new, Outcome(cases=cases, store_error=None), RunState.RUNNING, None), config.report)


def _narrowed(plan: Plan, order: Order) -> Plan:
    if order.keys is None:
        return plan
    narrowed = with_cases_of(plan, order.keys)
    if not narrowed.cases:
        raise UsageError("none of those cases is in the config's plan any more", remedy="run the whole config again")
    return narrowed


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
        return Outcome(cases=_begin(new, plan, store), store_error=None), False
    stopper = Stopper()
    config, view = order.loaded.config, job.view
    estimates = _estimates(order, plan, store)
    view.expect(plan.runnable, estimates=estimates, concurrency=config.policy.host_concurrency)
    with _Signals(stopper) as signals:
        async with _engine(job) as engine:
            signals.install()
            clock.lap("start the engine")
            # Not before the engine is up: a run that could not begin leaves no trace.
            gaps = _begin(new, plan, store)
            runner = Runner(
                run_id=new.id,
                cases=plan.runnable,
                settings=_settings(config, simulated=engine.simulated),
                engine=engine,
                recorder=store,
                listeners=(view,),
                stopper=stopper,
            )
            outcome = await runner.run()
            clock.lap("run the cases")
            if signals.came:
                view.say("ending Ray and the agents")
        clock.lap("end the engine")
    ended = {result.case.key: result for result in (*outcome.cases, *gaps)}
    cases = tuple(replace(ended[case.key], position=i) for i, case in enumerate(new.cases))
    return Outcome(cases=cases, store_error=outcome.store_error), bool(signals.came)


def _estimates(order: Order, plan: Plan, store: Store) -> dict[str, float]:
    """Return seconds that cases are expected to take, by key, of those that earlier runs tell of."""
    paces = store.paces(plan.runnable, simulated=order.simulate)
    found = ((case, paces.get((case.device.id, case.workload))) for case in plan.runnable)
    return {case.key: estimate_s(case.sampling, pace) for case, pace in found if pace is not None}


def _begin(new: NewRun, plan: Plan, store: Store) -> tuple[CaseResult, ...]:
    """Put the run into the store, and the verdicts of the cases that cannot be run; return those."""
    store.begin_run(new)
    return _record_gaps(new.id, plan, store)


def _record_gaps(run_id: str, plan: Plan, store: Store) -> tuple[CaseResult, ...]:
    found = []
    for position, planned in enumerate(plan.cases):
        if planned.gap is not None:
            store.save_verdict(run_id, planned.case.key, planned.gap.verdict, planned.gap.reason)
            found.append(
                CaseResult(case=planned.case, position=position, verdict=planned.gap.verdict, reason=planned.gap.reason)
            )
    return tuple(found)


@contextlib.asynccontextmanager
async def _engine(job: _Job) -> AsyncIterator[Engine]:
    """Bring up what carries out the commands, and take it down whatever happens."""
    config = job.order.loaded.config
    if job.cluster is None:
        from orchestrator.engine.simulated import SimulatedEngine

        invented: Engine = SimulatedEngine(seed=config.policy.seed, epoch_s=time.time())
        yield invented
        return
    async with job.cluster.running(job.plan.devices) as handle:
        # After the cluster is up: Ray reads its environment when it is imported.
        from orchestrator.engine.ray import EngineLimits, RayEngine

        limits = EngineLimits(
            start_timeout_s=config.limits.start_timeout_s,
            case_timeout_s=config.limits.case_timeout_s,
            lease_timeout_s=config.limits.lease_timeout_s,
            host_concurrency=config.policy.host_concurrency,
        )
        engine = RayEngine(run_id=job.new.id, limits=limits, handle=handle)
        try:
            yield engine
        finally:
            await engine.close()


def _settings(config: Config, *, simulated: bool) -> DispatchSettings:
    grace_s = 0.0 if simulated else HEAD_GRACE_S
    limits = config.limits
    return DispatchSettings(
        host_concurrency=config.policy.host_concurrency,
        attempts=limits.attempts,
        prepare_timeout_s=limits.prepare_timeout_s,
        lease_timeout_s=limits.lease_timeout_s + grace_s,
        start_timeout_s=limits.start_timeout_s + grace_s,
        case_timeout_s=limits.case_timeout_s + grace_s,
        collect_timeout_s=limits.collect_timeout_s,
    )


class _Signals:
    """SIGINT and SIGTERM as requests to stop, while the context lasts."""

    _NAMES: Final = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}

    def __init__(self, stopper: Stopper) -> None:
        self._stopper = stopper
        #: What came so far.
        self.came: list[str] = []

    def __enter__(self) -> _Signals:
        self.install()
        return self

    def install(self) -> None:
        """Take the signals; once more after Ray has started, which puts handlers of its own in their place."""
        for number, name in self._NAMES.items():
            asyncio.get_running_loop().add_signal_handler(number, self._ask, name)

    def __exit__(self, *_: object) -> None:
        for number in self._NAMES:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _ask(self, name: str) -> None:
        self.came.append(name)
        self._stopper.ask(f"stopped by {name}", now=True)


def _new_run(order: Order, plan: Plan) -> NewRun:
    return NewRun(
        id=uuid.uuid4().hex[:12],
        name=order.loaded.config.name,
        created_at=_now(),
        config_text=order.loaded.text,
        config_path=order.loaded.path,
        overrides=order.overrides,
        simulated=order.simulate,
        muster_version=VERSION,
        cases=tuple(planned.case for planned in plan.cases),
    )


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
