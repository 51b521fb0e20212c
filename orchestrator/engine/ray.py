"""Commands carried out over Ray: one :class:`workers.agent.DeviceAgent` actor for each device.

Results come back as the answer of one actor call for each case. Progress comes by a second call that waits on the
agent until there is news, and is only made once a case has been running for a moment: short cases cost one call. A call
that is cut off says nothing of the agent and is made again: to an agent, twice is as once. Agents outlive this process,
so that what they measure is not lost with it, and end by themselves when nobody beats them any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import ray
import ray.exceptions
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.base import GoneForGoodError
from orchestrator.cluster.driver import bounded
from orchestrator.dispatch.messages import (
    AcknowledgeResult,
    CancelCase,
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeviceLost,
    DeviceReady,
    HostHeard,
    HostSilent,
    PeerFinished,
    PrepareDevice,
    ReleaseDevice,
    ResultRecovered,
    StartCase,
)
from orchestrator.dispatch.policies import must_be_alone
from orchestrator.dispatch.settings import HostConcurrency
from orchestrator.engine.clock import TICK_S, RunClock
from orchestrator.engine.gathering import Gathering, Member
from orchestrator.engine.heartbeat import BEAT_S, Heartbeat
from orchestrator.engine.ray_errors import meaning_of, reason_of
from orchestrator.errors import ClusterError
from workers import codec
from workers.agent import AgentReport, DeviceAgent, news_from_json
from workers.protocol import (
    AgentSettings,
    AttemptGranted,
    AttemptMeasured,
    AttemptRequest,
    AttemptStarted,
    AttemptWaiting,
    HeadLoss,
    Progress,
    Result,
    Ring,
    Verdict,
    WhenBusy,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from orchestrator.cluster.base import ClusterHandle
    from orchestrator.engine.base import Act, Occurrence
    from workers.protocol import AgentEvent, Device

#: What the head calls the marks that an agent tells of.
_MARKS: Final[dict[type[AgentEvent], type[CaseGranted | CaseStarted | CaseMeasured]]] = {
    AttemptGranted: CaseGranted,
    AttemptStarted: CaseStarted,
    AttemptMeasured: CaseMeasured,
}

#: Seconds a case runs before its progress is asked for.
QUIET_S: Final = 0.25

#: Seconds that one question for progress may wait on the agent.
POLL_WAIT_S: Final = 5.0

#: Calls that an agent serves at once: the case, a question for progress, a beat, a cancellation, an acknowledgement.
#: The rest is for calls that were cut off and made again: the first one of each may still be waiting there.
AGENT_CONCURRENCY: Final = 16

#: Seconds from a call that was cut off to the next one.
RETRY_PAUSE_S: Final = 1.0

#: Seconds for Ray's control service to register an agent, or to end one; it takes a hundredth of one.
CONTROL_TIMEOUT_S: Final = 15.0

#: Seconds between two looks for a silent host by another way than Ray.
LOOK_S: Final = 10.0

#: Seconds that agents have to end their children when the engine closes.
SHUTDOWN_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLimits:
    """What an agent itself keeps to, also when the head is gone; times in seconds."""

    start_timeout_s: float
    case_timeout_s: float
    #: For a device that another muster has.
    lease_timeout_s: float = 3600.0
    #: What may be at work on a host at once, other musters' cases counted.
    host_concurrency: HostConcurrency = HostConcurrency.CONCURRENT
    #: Without a sign of the head, after which it counts as gone.
    head_timeout_s: float = 60.0
    on_head_loss: HeadLoss = HeadLoss.FINISH
    #: With a device that somebody else is using, who keeps no leases.
    when_busy: WhenBusy = WhenBusy.MEASURE
    busy_timeout_s: float = 600.0
    #: Share of a device from which on somebody else's use of it counts.
    busy_above: float = 0.5
    #: Between two readings of telemetry; ``None`` for none.
    telemetry_interval_s: float | None = 1.0


@dataclass(slots=True, eq=False)
class _Agent:
    """The agent of a device, from the moment that it is wanted; the next one of the same device is another."""

    device: Device
    #: Of the actor, in the run's namespace.
    name: str
    #: The actor; ``None`` until it is placed.
    actor: Any = None
    #: It has answered: there may be something to end, and its host is watched.
    is_ready: bool = False
    #: It is gone, or nobody wants it any more.
    is_over: bool = False
    #: Number of the last news heard from it.
    seen: int = 0
    #: Where it takes its leases, in its own words.
    place: str = ""
    #: When it last answered anything, on the engine's clock: as it hears us, we hear it.
    heard_at: float = 0.0
    #: It was asked for a sign of life, and owes it.
    is_beating: bool = False
    #: What it is being told of as kept.
    acknowledging: set[asyncio.Task[None]] = field(default_factory=set)


class RayEngine:
    """An :class:`orchestrator.engine.base.Engine` over a Ray cluster that this process is connected to.

    Agents are placed on the nodes that ``handle`` names for their hosts. ``say`` is given what the person should know
    of a host. ``agent_class`` is what becomes an actor for each device, for benchmarks that need an agent without a
    child.
    """

    simulated = False

    def __init__(
        self,
        *,
        run_id: str,
        limits: EngineLimits,
        handle: ClusterHandle,
        say: Callable[[str], None] = lambda _: None,
        agent_class: type = DeviceAgent,
    ) -> None:
        self._run_id = run_id
        self._handle = handle
        self._say = say
        #: What was said of a host, which each of its devices tells again.
        self._said: set[str] = set()
        self._agent_class = _as_actor(agent_class)
        self._limits = limits
        settings = AgentSettings(run_id=run_id, head_timeout_s=limits.head_timeout_s, on_head_loss=limits.on_head_loss)
        self._settings_json = codec.to_json(settings)
        self._namespace = f"muster-{run_id}"
        self._agents: dict[str, _Agent] = {}
        #: Devices that were prepared before. When one is prepared again, its host may have gone and come back.
        self._known: set[str] = set()
        self._device_of: dict[tuple[str, int], str] = {}
        #: Attempts that hold several devices.
        self._gatherings: dict[tuple[str, int], Gathering] = {}
        self._occurrences: asyncio.Queue[Occurrence] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock = RunClock()
        self._heartbeat = Heartbeat()
        #: Agents are placed one at a time: the first of them brings their class to the cluster.
        self._placing = asyncio.Lock()
        self._is_watching = False
        #: Hosts that are just being looked for by another way than Ray.
        self._looking: set[str] = set()

    def now(self) -> float:
        """Return seconds on this process's monotonic clock, less those in which it was stopped."""
        return self._clock.now()

    async def start(self, act: Act) -> None:
        """Begin ``act``; what comes of it is an occurrence."""
        if not self._is_watching:
            self._is_watching = True
            self._spawn(self._watch())
        match act:
            case PrepareDevice():
                self._prepare(act.device)
            case StartCase():
                self._spawn(self._run_shared(act) if act.case.peers else self._run_case(act))
            case CancelCase():
                self._spawn(self._cancel(act))
            case AcknowledgeResult():
                self._acknowledge(act)
            case ReleaseDevice():
                self._release(act)

    async def occurrences(self, until: float | None) -> Sequence[Occurrence]:
        """Return what has happened since the last call, waiting for the first of it until ``until``."""
        while True:
            timeout_s = None if until is None else max(0.0, until - self.now())
            try:
                found = [await asyncio.wait_for(self._occurrences.get(), timeout_s)]
                break
            except asyncio.TimeoutError:
                # Unless the loop's clock has gone on while this process was stopped, and ours has not.
                if until is not None and self.now() >= until:
                    return ()
        while not self._occurrences.empty():
            found.append(self._occurrences.get_nowait())
        return found

    async def close(self) -> None:
        """End every agent and the children below it."""
        agents, self._agents = self._agents, {}
        await asyncio.gather(*(self._end(agent) for agent in agents.values()))
        if self._known:
            await self._end_the_rest()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _tell(self, occurrence: Occurrence) -> None:
        self._occurrences.put_nowait(occurrence)

    # --- agents come and go ------------------------------------------------------------------------------------

    def _prepare(self, device: Device) -> None:
        """Bring up an agent, another one where the device had one before."""
        before = self._agents.get(device.id)
        agent = _Agent(device=device, name=f"{device.id} {uuid.uuid4().hex[:8]}")
        self._agents[device.id] = agent
        self._spawn(self._bring_up(agent, before))

    async def _bring_up(self, agent: _Agent, before: _Agent | None) -> None:
        is_again = agent.device.id in self._known
        self._known.add(agent.device.id)
        try:
            if before is not None:
                # Whoever was given up must not get in the way of the next one.
                self._let_go(before)
                await self._kill(before)
            await self._place(agent, await self._node_of(agent.device.host, is_again=is_again))
            report = codec.from_json(AgentReport, await self._ask(agent, "describe"))
        except ClusterError as error:
            self._lose(agent, error.message, is_final=isinstance(error, GoneForGoodError))
        except Exception as error:  # each has a meaning
            self._lose(agent, reason_of(error))
        else:
            self._welcome(agent, report)

    async def _node_of(self, host: str, *, is_again: bool) -> str:
        """Return Ray's id of the host's node. Raises ClusterError where it has none, and GoneForGoodError."""
        if self._handle.has_ended:
            raise GoneForGoodError("Ray on the head has ended, and cannot place an agent any more")
        if is_again:
            return await self._handle.rejoin(host)
        node = self._handle.nodes.get(host)
        if node is None:
            raise GoneForGoodError(self._handle.lost.get(host, f"{host} is not in the cluster"))
        return node

    async def _place(self, agent: _Agent, node: str) -> None:
        """Put an agent on a node; raises what Ray raises, and ClusterError where it does not answer."""

        def place() -> Any:
            return self._agent_class.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                name=agent.name,
                namespace=self._namespace,
                lifetime="detached",
            ).remote(codec.to_json(agent.device), self._settings_json)

        async with self._placing:
            if agent.is_over:
                raise ClusterError("nobody wants the agent any more")
            try:
                agent.actor = await bounded(place, CONTROL_TIMEOUT_S)
            except asyncio.TimeoutError as error:
                raise ClusterError(f"Ray's control service gave no answer in {CONTROL_TIMEOUT_S:.0f} s") from error
        await self._kill_unwanted(agent)

    async def _kill_unwanted(self, agent: _Agent) -> None:
        """End an agent that was let go while it was placed."""
        if agent.is_over:
            await self._kill(agent)

    def _welcome(self, agent: _Agent, report: AgentReport) -> None:
        """Tell of an agent that has answered, and first of what its host keeps of this run."""
        if agent.is_over:
            return
        agent.is_ready = True
        agent.place = report.place
        host, at = agent.device.host, self.now()
        agent.heard_at = at
        if self._heartbeat.watch(host, agent.device.id, at):
            self._tell(HostHeard(at=at, host=host))
        for problem in report.spool_problems:
            self._say_once(f"{host}: a result that it keeps cannot be read: {problem}")
        for result in report.spooled:
            recovered = ResultRecovered(at=at, case_key=result.case_key, attempt=result.attempt, result=result)
            self._tell(recovered)
        self._tell(DeviceReady(at=at, device_id=agent.device.id))

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _lose(self, agent: _Agent, reason: str, *, is_final: bool = False) -> None:
        """Tell that an agent is gone, once, and only while it is wanted."""
        if not agent.is_over:
            self._let_go(agent)
            lost = DeviceLost(at=self.now(), device_id=agent.device.id, reason=reason, is_final=is_final)
            self._tell(lost)

    def _let_go(self, agent: _Agent) -> None:
        if not agent.is_over:
            agent.is_over = True
            self._heartbeat.forget(agent.device.host, agent.device.id)

    def _release(self, act: ReleaseDevice) -> None:
        # Taken away now, and not when its turn comes: the device may be prepared anew before that.
        agent = self._agents.pop(act.device_id, None)
        if agent is not None:
            self._spawn(self._end(agent))

    async def _end(self, agent: _Agent) -> None:
        """Let an agent hear what is kept and end its child, then end the agent."""
        is_listening = agent.is_ready and not agent.is_over
        self._let_go(agent)
        # An agent that is gone already, or past talking to, is killed all the same.
        with contextlib.suppress(ray.exceptions.RayError, asyncio.TimeoutError):
            if is_listening:
                await asyncio.wait_for(self._farewell(agent), SHUTDOWN_TIMEOUT_S)
        await self._kill(agent)

    async def _farewell(self, agent: _Agent) -> None:
        await asyncio.gather(*agent.acknowledging)
        await _future(agent.actor.shutdown.remote())

    async def _kill(self, agent: _Agent) -> None:
        # What cannot be killed now ends with Ray on its host, or by itself, for nobody beats it.
        if agent.actor is not None and not self._handle.has_ended:
            with contextlib.suppress(ray.exceptions.RayError, asyncio.TimeoutError):
                await bounded(lambda: ray.kill(agent.actor, no_restart=True), CONTROL_TIMEOUT_S)

    async def _end_the_rest(self) -> None:
        """End agents of this run that nobody here holds: Ray may have placed one and failed to say so."""

        def end() -> None:
            for found in list_named_actors(all_namespaces=True):
                if found["namespace"] == self._namespace:
                    # It may have ended meanwhile.
                    with contextlib.suppress(ValueError, ray.exceptions.RayError):
                        ray.kill(ray.get_actor(found["name"], namespace=self._namespace), no_restart=True)

        if self._handle.has_ended:
            return
        # One that is being placed is there, or will not be, once its turn is over.
        async with self._placing:
            # Where nobody answers, agents end by themselves.
            with contextlib.suppress(ray.exceptions.RayError, asyncio.TimeoutError):
                await bounded(end, CONTROL_TIMEOUT_S)

    # --- signs of life -----------------------------------------------------------------------------------------

    async def _ask(self, agent: _Agent, method: str, *arguments: Any) -> Any:
        """Return what a method of an agent answers, asking again whenever the way to it breaks.

        Raises what Ray raises where the agent is gone, or where it answers by an exception.
        """
        while True:
            try:
                answer = await _future(getattr(agent.actor, method).remote(*arguments))
            except ray.exceptions.RayError as error:
                if not meaning_of(error).is_cut:
                    raise
                self._spawn(self._look_for(agent.device.host))
            else:
                self._hear(agent)
                return answer
            await asyncio.sleep(RETRY_PAUSE_S)

    def _hear(self, agent: _Agent) -> None:
        at, host = self.now(), agent.device.host
        agent.heard_at = at
        if not agent.is_over and self._heartbeat.hear(host, at):
            self._tell(HostHeard(at=at, host=host))

    async def _watch(self) -> None:
        """Keep the clock going, ask agents for signs of life, tell of hosts that give none."""
        stood_s = self._clock.stood_s
        while True:
            await asyncio.sleep(TICK_S)
            at = self.now()
            if self._clock.stood_s != stood_s:
                stood_s = self._clock.stood_s
                self._heartbeat.begin_anew(at)
            for agent in self._agents.values():
                if agent.is_ready and not (agent.is_over or agent.is_beating) and at - agent.heard_at >= BEAT_S:
                    agent.is_beating = True
                    self._spawn(self._beat(agent))
            for host in self._heartbeat.fallen_silent(at):
                self._tell(HostSilent(at=at, host=host))
                self._spawn(self._look_for(host))

    async def _beat(self, agent: _Agent) -> None:
        """Ask an agent for a sign of life, and wait for it however long that takes: none is asked for twice."""
        try:
            await self._ask(agent, "beat")
        except Exception as error:  # each has a meaning
            if meaning_of(error).lost:
                self._lose(agent, reason_of(error))
        finally:
            agent.is_beating = False

    async def _look_for(self, host: str) -> None:
        """See whether what ran on a host is gone, as long as it is silent: Ray itself would not know for minutes."""
        if host in self._looking:
            return
        self._looking.add(host)
        try:
            # Those that are there now; others come when the host is back.
            agents = [each for each in self._agents.values() if each.device.host == host and each.is_ready]
            while (reason := await self._handle.why_gone(host)) is None and host in self._heartbeat.silent:
                await asyncio.sleep(LOOK_S)
            for agent in agents:
                if reason is not None:
                    self._lose(agent, reason)
        finally:
            self._looking.discard(host)

    # --- cases -------------------------------------------------------------------------------------------------

    async def _run_case(self, act: StartCase) -> None:
        case = act.case
        self._device_of[case.key, act.attempt] = case.device.id
        try:
            result = await self._call(self._agents[case.device.id], self._request(act), self._hear_of, quiet_s=QUIET_S)
        finally:
            self._device_of.pop((case.key, act.attempt), None)
        if result is not None:
            self._tell(CaseFinished(at=self.now(), case_key=case.key, attempt=act.attempt, result=result))

    async def _run_shared(self, act: StartCase) -> None:
        """Run a case that holds several devices; the others' ends are told after its own, as the dispatcher wants."""
        case = act.case
        gathering = Gathering(await self._members(act), self._hear_of)
        self._gatherings[case.key, act.attempt] = gathering
        try:
            result = await gathering.result()
        finally:
            self._gatherings.pop((case.key, act.attempt), None)
        if result is not None:
            self._tell(CaseFinished(at=self.now(), case_key=case.key, attempt=act.attempt, result=result))
        async for device in gathering.endings():
            ended = PeerFinished(at=self.now(), device_id=device.id, case_key=case.key, attempt=act.attempt)
            self._tell(ended)

    async def _members(self, act: StartCase) -> list[Member]:
        """Return the devices of a case by rank, each with the agent that it has now."""
        addresses = await self._addresses()
        # The same devices may be held by another run at the next moment: it is another group.
        group = uuid.uuid4().hex
        return [
            self._member(act, Ring(group=group, rank=rank, host=addresses.get(device.host, device.host)), device)
            for rank, device in enumerate(act.case.devices)
        ]

    async def _addresses(self) -> dict[str, str]:
        """Return by what each host reaches the others: Ray's own way."""
        nodes = {}
        # Where Ray does not answer, agents do not either, and are lost.
        with contextlib.suppress(ray.exceptions.RayError, asyncio.TimeoutError):
            nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in await bounded(ray.nodes, CONTROL_TIMEOUT_S)}
        found = {host: nodes[node] for host, node in self._handle.nodes.items() if node in nodes}
        return {host: f"[{address}]" if ":" in address else address for host, address in found.items()}

    def _member(self, act: StartCase, ring: Ring, device: Device) -> Member:
        agent = self._agents[device.id]
        key, number = act.case.key, act.attempt

        async def call(request: AttemptRequest, heard: Callable[[AgentEvent], None]) -> Result | None:
            return await self._call(agent, request, heard, quiet_s=0.0)

        async def meet(addresses: Sequence[str]) -> None:
            with contextlib.suppress(ray.exceptions.RayError):
                await self._ask(agent, "meet", key, number, list(addresses))

        async def cancel(verdict: Verdict, reason: str) -> None:
            await self._have_ended(agent, CancelCase(case_key=key, attempt=number, verdict=verdict, reason=reason))

        request = self._request(act)
        return Member(
            device=device,
            place=(agent.place, device.kind.value, device.index or 0, device.cores, device.selector),
            request=replace(request, case=replace(act.case, device=device), ring=ring),
            call=call,
            meet=meet,
            cancel=cancel,
        )

    async def _call(
        self, agent: _Agent, request: AttemptRequest, heard: Callable[[AgentEvent], None], *, quiet_s: float
    ) -> Result | None:
        """Return what an attempt gave, after passing on its news; ``None`` where the agent is lost, which is told.

        The news are not asked for before ``quiet_s`` are over: short cases cost one call.
        """
        answer = asyncio.ensure_future(self._ask(agent, "run_case", codec.to_json(request)))
        try:
            await asyncio.wait({answer}, timeout=quiet_s)
            if not answer.done():
                await self._follow(agent, answer, request, heard)
            return codec.from_json(Result, await answer)
        except Exception as error:  # each has a meaning
            if meaning_of(error).lost:
                self._lose(agent, reason_of(error))
                return None
            key, attempt = request.case.key, request.attempt
            return Result(case_key=key, attempt=attempt, verdict=Verdict.CRASHED, reason=reason_of(error))
        finally:
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # heard of in the news before, it is no surprise any more

    def _request(self, act: StartCase) -> AttemptRequest:
        return AttemptRequest(
            run_id=self._run_id,
            case=act.case,
            attempt=act.attempt,
            start_timeout_s=self._limits.start_timeout_s,
            case_timeout_s=self._limits.case_timeout_s,
            lease_timeout_s=self._limits.lease_timeout_s,
            is_alone=must_be_alone(act.case.device.kind, self._limits.host_concurrency, act.case.company),
            head=socket.gethostname(),
            when_busy=self._limits.when_busy,
            busy_timeout_s=self._limits.busy_timeout_s,
            busy_above=self._limits.busy_above,
            telemetry_interval_s=self._limits.telemetry_interval_s,
            together=act.together,
        )

    async def _follow(
        self,
        agent: _Agent,
        answer: asyncio.Future[str],
        request: AttemptRequest,
        heard: Callable[[AgentEvent], None],
    ) -> None:
        """Pass on the agent's news of this attempt until ``answer`` is there."""
        is_over = False
        while not is_over:
            is_over = answer.done()
            wait_s = 0.0 if is_over else POLL_WAIT_S
            news = asyncio.ensure_future(self._ask(agent, "progress", agent.seen, wait_s))
            try:
                await asyncio.wait({news} if is_over else {news, answer}, return_when=asyncio.FIRST_COMPLETED)
                if not news.done():
                    continue
                for number, event in news_from_json(news.result()):
                    agent.seen = number
                    if (event.case_key, event.attempt) == (request.case.key, request.attempt):
                        heard(event)
            finally:
                news.cancel()

    def _hear_of(self, event: AgentEvent) -> None:
        """Tell what an agent says of an attempt."""
        if isinstance(event, Progress):
            self._tell(event)
        elif isinstance(event, AttemptWaiting):
            waits = CaseWaiting(at=self.now(), case_key=event.case_key, attempt=event.attempt, reason=event.reason)
            self._tell(waits)
        else:
            self._tell(_MARKS[type(event)](at=self.now(), case_key=event.case_key, attempt=event.attempt))

    async def _cancel(self, act: CancelCase) -> None:
        gathering = self._gatherings.get((act.case_key, act.attempt))
        if gathering is not None:
            gathering.stop(act.verdict, act.reason)
            return
        device_id = self._device_of.get((act.case_key, act.attempt))
        agent = self._agents.get(device_id) if device_id else None
        if agent is not None:
            await self._have_ended(agent, act)

    async def _have_ended(self, agent: _Agent, act: CancelCase) -> None:
        # Where the agent is gone, the call that runs the case learns of it as well, and tells.
        with contextlib.suppress(ray.exceptions.RayError):
            await self._ask(agent, "cancel", act.case_key, act.attempt, act.verdict.value, act.reason)

    def _acknowledge(self, act: AcknowledgeResult) -> None:
        agent = self._agents.get(act.device_id)
        if agent is not None and agent.is_ready and not agent.is_over:
            telling = self._spawn(self._say_kept(agent, act))
            agent.acknowledging.add(telling)
            telling.add_done_callback(agent.acknowledging.discard)

    async def _say_kept(self, agent: _Agent, act: AcknowledgeResult) -> None:
        # An agent that does not hear of it keeps the result, and whoever comes next is told of it once more.
        with contextlib.suppress(ray.exceptions.RayError):
            await self._ask(agent, "acknowledge", act.case_key, act.attempt)


def _future(reference: Any) -> asyncio.Future[Any]:
    """Return a call's answer as a future of the running loop."""
    return asyncio.wrap_future(reference.future())


def _as_actor(agent_class: type) -> Any:
    return ray.remote(
        num_cpus=0,
        num_gpus=0,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=AGENT_CONCURRENCY,
    )(agent_class)
