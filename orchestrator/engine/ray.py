"""Commands carried out over Ray: one :class:`workers.agent.DeviceAgent` actor for each device.

Results come back as the answer of one actor call for each case. Progress comes by a second call that waits on the
agent until there is news, and is only made once a case has been running for a moment: short cases cost one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.dispatch.messages import (
    CancelCase,
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeviceLost,
    DeviceReady,
    PrepareDevice,
    ReleaseDevice,
    StartCase,
)
from orchestrator.dispatch.policies import must_be_alone
from orchestrator.dispatch.settings import HostConcurrency
from orchestrator.errors import first_line
from workers import codec
from workers.agent import DeviceAgent, news_from_json
from workers.protocol import (
    AttemptGranted,
    AttemptMeasured,
    AttemptRequest,
    AttemptStarted,
    AttemptWaiting,
    Progress,
    Result,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

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

#: Calls that an agent serves at once: the case, a question for progress, a cancellation, and one to spare.
AGENT_CONCURRENCY: Final = 4

#: Seconds that agents have to end their children when the engine closes.
SHUTDOWN_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What a Ray exception from an agent's call stands for."""

    #: The agent is gone: its device is lost. Otherwise only the attempt failed.
    lost: bool
    text: str


#: Every class of ``ray.exceptions`` finds its meaning here by its nearest ancestor; the last resort is RayError.
MEANINGS: Final[dict[type[BaseException], Meaning]] = {
    ray.exceptions.RayTaskError: Meaning(lost=False, text="the agent failed"),
    ray.exceptions.TaskCancelledError: Meaning(lost=False, text="Ray cancelled the call"),
    ray.exceptions.GetTimeoutError: Meaning(lost=False, text="Ray did not answer in time"),
    ray.exceptions.PendingCallsLimitExceeded: Meaning(lost=False, text="too many calls wait for the agent"),
    ray.exceptions.RayActorError: Meaning(lost=True, text="the agent died"),
    ray.exceptions.ActorDiedError: Meaning(lost=True, text="the agent died"),
    ray.exceptions.ActorUnavailableError: Meaning(lost=True, text="the agent cannot be reached"),
    ray.exceptions.ActorUnschedulableError: Meaning(lost=True, text="no host of the cluster can hold the agent"),
    ray.exceptions.TaskUnschedulableError: Meaning(lost=True, text="no host of the cluster can hold the agent"),
    ray.exceptions.NodeDiedError: Meaning(lost=True, text="the host left the cluster"),
    ray.exceptions.WorkerCrashedError: Meaning(lost=True, text="the agent's process crashed"),
    ray.exceptions.LocalRayletDiedError: Meaning(lost=True, text="Ray's daemon on the host died"),
    ray.exceptions.OutOfMemoryError: Meaning(lost=True, text="Ray ended the agent because the host is short of memory"),
    ray.exceptions.OutOfDiskError: Meaning(lost=True, text="Ray ran out of disk on the host"),
    ray.exceptions.RuntimeEnvSetupError: Meaning(lost=True, text="Ray could not set up the agent's environment"),
    ray.exceptions.ObjectLostError: Meaning(lost=True, text="Ray lost the agent's answer"),
    ray.exceptions.AuthenticationError: Meaning(lost=True, text="the cluster refused our token"),
    ray.exceptions.RayError: Meaning(lost=True, text="Ray failed"),
}


def meaning_of(error: BaseException) -> Meaning:
    """Return what an exception from a Ray call stands for; anything that is not Ray's own counts as a lost agent."""
    return next((MEANINGS[kind] for kind in type(error).__mro__ if kind in MEANINGS), MEANINGS[ray.exceptions.RayError])


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineLimits:
    """What an agent itself keeps to, also when the head is gone; times in seconds."""

    start_timeout_s: float
    case_timeout_s: float
    #: For a device that another muster has.
    lease_timeout_s: float = 3600.0
    #: What may be at work on a host at once, other musters' cases counted.
    host_concurrency: HostConcurrency = HostConcurrency.CONCURRENT


class RayEngine:
    """An :class:`orchestrator.engine.base.Engine` over a Ray cluster that this process is connected to.

    Agents are placed on the nodes that ``handle`` names for their hosts. ``agent_class`` is what becomes an actor for
    each device, for benchmarks that need an agent without a child.
    """

    simulated = False

    def __init__(
        self, *, run_id: str, limits: EngineLimits, handle: ClusterHandle, agent_class: type = DeviceAgent
    ) -> None:
        self._run_id = run_id
        self._handle = handle
        self._agent_class = _as_actor(agent_class)
        self._limits = limits
        self._agents: dict[str, Any] = {}
        #: Devices whose agents have answered; others have nothing to end and may never listen.
        self._ready: set[str] = set()
        self._device_of: dict[tuple[str, int], str] = {}
        #: Number of the last news heard from each device's agent.
        self._seen: dict[str, int] = {}
        self._occurrences: asyncio.Queue[Occurrence] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        """Return seconds on this process's monotonic clock."""
        return time.monotonic()

    async def start(self, act: Act) -> None:
        """Begin ``act``; what comes of it is an occurrence."""
        if isinstance(act, PrepareDevice):
            self._place(act.device)
        elif isinstance(act, StartCase):
            self._spawn(self._run_case(act))
        elif isinstance(act, CancelCase):
            self._spawn(self._cancel(act))
        else:
            self._spawn(self._release(act))

    async def occurrences(self, until: float | None) -> Sequence[Occurrence]:
        """Return what has happened since the last call, waiting for the first of it until ``until``."""
        timeout_s = None if until is None else max(0.0, until - self.now())
        try:
            first = await asyncio.wait_for(self._occurrences.get(), timeout_s)
        except asyncio.TimeoutError:
            return ()
        found = [first]
        while not self._occurrences.empty():
            found.append(self._occurrences.get_nowait())
        return found

    async def close(self) -> None:
        """End every agent and the children below it."""
        agents, self._agents = self._agents, {}
        await asyncio.gather(*(_end(agent, is_ready=key in self._ready) for key, agent in agents.items()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _place(self, device: Device) -> None:
        """Put an agent on the device's host, or say at once that there is no such host in the cluster."""
        node = self._handle.nodes.get(device.host)
        if node is None:
            reason = self._handle.lost.get(device.host, f"{device.host} is not in the cluster")
            self._occurrences.put_nowait(DeviceLost(at=self.now(), device_id=device.id, reason=reason))
            return
        try:
            placed = self._agent_class.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            agent = placed.remote(codec.to_json(device))
        except Exception as error:  # each is looked up in MEANINGS
            self._lost(device.id, error)
            return
        self._agents[device.id] = agent
        self._spawn(self._prepare(device.id, agent))

    async def _prepare(self, device_id: str, agent: Any) -> None:
        try:
            await agent.describe.remote()
        except Exception as error:  # each is looked up in MEANINGS
            self._lost(device_id, error)
        else:
            self._ready.add(device_id)
            self._occurrences.put_nowait(DeviceReady(at=self.now(), device_id=device_id))

    async def _run_case(self, act: StartCase) -> None:
        case = act.case
        agent = self._agents[case.device.id]
        self._device_of[case.key, act.attempt] = case.device.id
        request = AttemptRequest(
            run_id=self._run_id,
            case=case,
            attempt=act.attempt,
            start_timeout_s=self._limits.start_timeout_s,
            case_timeout_s=self._limits.case_timeout_s,
            lease_timeout_s=self._limits.lease_timeout_s,
            is_alone=must_be_alone(case.device.kind, self._limits.host_concurrency),
            head=socket.gethostname(),
        )
        answer = _future(agent.run_case.remote(codec.to_json(request)))
        try:
            await asyncio.wait({answer}, timeout=QUIET_S)
            if not answer.done():
                await self._follow(agent, answer, act)
            result = codec.from_json(Result, await answer)
        except Exception as error:  # each is looked up in MEANINGS
            meaning = meaning_of(error)
            if meaning.lost:
                self._lost(case.device.id, error)
                return
            result = Result(
                case_key=case.key,
                attempt=act.attempt,
                verdict=Verdict.CRASHED,
                reason=f"{meaning.text}: {first_line(error)}",
            )
        finally:
            answer.cancel()
            self._device_of.pop((case.key, act.attempt), None)
        self._occurrences.put_nowait(CaseFinished(at=self.now(), case_key=case.key, attempt=act.attempt, result=result))

    async def _follow(self, agent: Any, answer: asyncio.Future[str], act: StartCase) -> None:
        """Pass on the agent's news of this attempt until ``answer`` is there."""
        device_id = act.case.device.id
        is_over = False
        while not is_over:
            is_over = answer.done()
            wait_s = 0.0 if is_over else POLL_WAIT_S
            news = _future(agent.progress.remote(self._seen.get(device_id, 0), wait_s))
            await asyncio.wait({news} if is_over else {news, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not news.done():
                news.cancel()
                continue
            for number, event in news_from_json(await news):
                self._seen[device_id] = number
                if (event.case_key, event.attempt) == (act.case.key, act.attempt):
                    self._occurrences.put_nowait(self._stamped(event))

    def _stamped(self, event: AgentEvent) -> Occurrence:
        if isinstance(event, Progress):
            return event
        if isinstance(event, AttemptWaiting):
            return CaseWaiting(at=self.now(), case_key=event.case_key, attempt=event.attempt, reason=event.reason)
        return _MARKS[type(event)](at=self.now(), case_key=event.case_key, attempt=event.attempt)

    async def _cancel(self, act: CancelCase) -> None:
        device_id = self._device_of.get((act.case_key, act.attempt))
        agent = self._agents.get(device_id) if device_id else None
        if agent is None:
            return
        try:
            await agent.cancel.remote(act.case_key, act.attempt, act.verdict.value, act.reason)
        except ray.exceptions.RayError:
            # The call that runs the case learns of it as well, and tells.
            return

    async def _release(self, act: ReleaseDevice) -> None:
        agent = self._agents.pop(act.device_id, None)
        if agent is not None:
            await _end(agent, is_ready=act.device_id in self._ready)

    def _lost(self, device_id: str, error: BaseException) -> None:
        reason = f"{meaning_of(error).text}: {first_line(error)}"
        self._occurrences.put_nowait(DeviceLost(at=self.now(), device_id=device_id, reason=reason))


def _future(reference: Any) -> asyncio.Future[Any]:
    """Return a call's answer as a future of the running loop."""
    return asyncio.wrap_future(reference.future())


async def _end(agent: Any, *, is_ready: bool) -> None:
    """Let an agent end its child, then end the agent."""
    # An agent that is gone already, or past talking to, is killed all the same.
    with contextlib.suppress(ray.exceptions.RayError, asyncio.TimeoutError):
        if is_ready:
            await asyncio.wait_for(_future(agent.shutdown.remote()), SHUTDOWN_TIMEOUT_S)
    ray.kill(agent, no_restart=True)


def _as_actor(agent_class: type) -> Any:
    return ray.remote(
        num_cpus=0,
        num_gpus=0,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=AGENT_CONCURRENCY,
    )(agent_class)
