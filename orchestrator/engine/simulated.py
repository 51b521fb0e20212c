"""A lab that is not there: devices with a speed, a noise, and faults on command, in virtual time.

It ships with the product: ``muster run --simulate`` tries a config out, and the tests of the head run against it. Time
is virtual: the clock stands still while the head works and jumps to whatever happens next. Results go through the
same codec as real ones, and are kept on their invented hosts until they are acknowledged.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import TYPE_CHECKING, Final

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
    ResultRecovered,
    StartCase,
)
from orchestrator.engine.faults import Fault, Silence, merged
from orchestrator.engine.heartbeat import SILENCE_S
from orchestrator.engine.invented import PHASE_S, speed_of, timing_of
from orchestrator.engine.simulated_parts import (
    Agent,
    Arrival,
    Attempt,
    Death,
    Happening,
    Kept,
    Missed,
    Noticed,
    Unreachable,
    Up,
    as_measured,
    half_way,
    refusal_of,
    result_of,
)
from orchestrator.engine.timeline import Course, Timeline
from workers.codec import from_json, to_json
from workers.protocol import Company, Ending, Phase, Progress, Result, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.engine.base import Act, Occurrence
    from workers.protocol import Case, Device

__all__ = ["Fault", "Silence", "SimulatedEngine"]

#: Seconds from ``PrepareDevice`` to ``DeviceReady``.
PREPARE_S: Final = 1.0
#: Seconds from ``StartCase`` to ``CaseStarted``.
START_S: Final = PHASE_S[Phase.IMPORT] + PHASE_S[Phase.BUILD]
#: Seconds from the last step to ``CaseMeasured``.
FINISH_S: Final = PHASE_S[Phase.PEAK]
#: Why a case waits.
HELD: Final = "simulated: the device is held by somebody else"
#: Seconds that a result which is kept on its host needs to reach the head, and that a cancelled child needs to end.
COLLECT_S: Final = 0.05

_NO_FAULT: Final = Fault()


class SimulatedEngine:
    """An :class:`orchestrator.engine.base.Engine` that invents what it tells.

    ``speeds`` gives FLOP/s by device id, instead of one invented from ``seed`` and the device's name; ``noise`` is
    the standard deviation of a step's time as a share of its mean; ``faults`` goes by device id or case key;
    ``lease_timeout_s`` is how long a device that another muster has is waited for; ``epoch_s`` is what a calendar clock
    shows when the virtual one shows 0, in seconds since 1970; ``head_timeout_s`` is how long a silence agents bear
    before they take the head for gone. ``penalty`` is the share by which steps take longer together with others; each
    attempt still ends with its own last step. Faults of hosts go by the host's name. Of a case of several devices only
    the first one's faults are played, and the loss of any.
    """

    simulated = True

    def __init__(
        self,
        *,
        seed: int = 0,
        speeds: Mapping[str, float] | None = None,
        noise: float = 0.01,
        faults: Mapping[str, Fault] | None = None,
        lease_timeout_s: float = 3600.0,
        epoch_s: float = 0.0,
        head_timeout_s: float = 60.0,
        penalty: float = 0.1,
    ) -> None:
        self._seed = seed
        self._speeds = dict(speeds or {})
        self._noise = noise
        self._faults = dict(faults or {})
        self._lease_timeout_s = lease_timeout_s
        self._epoch_s = epoch_s
        self._head_timeout_s = head_timeout_s
        self._penalty = penalty
        self._now = 0.0
        self._agents: dict[str, Agent] = {}
        self._attempts: dict[str, Attempt] = {}
        #: What hosts keep, by device: results by case key and attempt.
        self._spools: dict[str, dict[tuple[str, int], Result]] = {}
        #: Attempts whose agents nobody listens to any more, by device.
        self._orphans: dict[str, list[Attempt]] = {}
        #: How many agents of a device have died, and when another one can be brought up.
        self._deaths: dict[str, int] = {}
        self._back_at: dict[str, float] = {}
        #: Hosts that the head knows as silent.
        self._silent: set[str] = set()
        self._silences = {name: merged(fault.silences) for name, fault in self._faults.items() if fault.silences}
        self._timeline: Timeline[Happening] = Timeline()
        #: What the head still has to hear of devices that are gone, and they of it; off once it is dead.
        self._head = Course()
        for host in self._silences:
            self._expect_silences(host)

    def now(self) -> float:
        """Return seconds of virtual time since the engine was made."""
        return self._now

    async def start(self, act: Act) -> None:
        """Begin ``act``; what a device that is gone is told comes to nothing, and a silent host hears it later."""
        device_id = self._device_id_of(act)
        silence = None if device_id is None else self._silence_at(_host_of(device_id), self._now)
        if silence is None:
            self._do(act)
        elif isinstance(act, PrepareDevice):
            self._prepare_unreachable(act, silence)
        else:
            self._timeline.expect(self._head, silence.until_s + COLLECT_S, Arrival(act=act))

    def _device_id_of(self, act: Act) -> str | None:
        match act:
            case PrepareDevice():
                return act.device.id
            case StartCase():
                return act.case.device.id
            case CancelCase():
                attempt = self._attempts.get(act.case_key)
                return None if attempt is None else attempt.case.device.id
            case _:
                return act.device_id

    def _do(self, act: Act) -> None:
        match act:
            case PrepareDevice():
                self._prepare(act.device)
            case StartCase():
                self._start_case(act.case, act.attempt)
            case CancelCase():
                self._cancel(act)
            case AcknowledgeResult():
                self._spools.get(act.device_id, {}).pop((act.case_key, act.attempt), None)
            case _:
                self._release(act.device_id)

    async def occurrences(self, until: float | None) -> Sequence[Occurrence]:
        """Jump to the next thing that happens and return it, with all that happens at the same instant.

        Nothing is returned where ``until`` comes first: then it is ``until``. Raises RuntimeError where nothing is
        under way and no ``until`` is given, which would be to wait for ever.
        """
        await asyncio.sleep(0)  # whoever else lives on the loop gets a turn, although nothing is waited for
        while True:
            coming = self._timeline.next_at
            if coming is None and until is None:
                raise RuntimeError("the simulated lab has nothing under way, and nobody said until when to wait")
            if coming is None or (until is not None and until < coming):
                self._now = max(self._now, until or 0.0)
                return ()
            self._now = max(self._now, coming)
            if taken := tuple(self._take(coming)):
                return taken

    async def close(self) -> None:
        """Forget every agent and all that was still to come; hosts keep the results that nobody acknowledged."""
        self._agents.clear()
        self._attempts.clear()
        self._orphans.clear()
        self._timeline.clear()

    def abandon(self) -> None:
        """Have the head die: its agents finish what they do, keep it on their hosts, and end; another head may come.

        That one uses this same engine, as real heads use the same hosts.
        """
        for device_id in list(self._agents):
            self._orphan(device_id)
        self._head.is_off = True
        self._head = Course()
        self._silent.clear()

    def kept(self) -> Iterator[Result]:
        """Give every result that hosts still keep."""
        for spool in self._spools.values():
            yield from spool.values()

    # --- what happens next ---

    def _take(self, instant: float) -> Iterator[Occurrence]:
        while self._timeline.next_at == instant:
            course, happening = self._timeline.pop()
            match happening:
                case Up():
                    yield from self._up(happening.agent, instant)
                case Death():
                    self._die(happening)
                case Kept():
                    self._keep(happening.attempt)
                case Missed():
                    self._miss_head(happening)
                case Noticed():
                    yield from self._notice(happening, instant)
                case Unreachable():
                    reason = f"simulated: {happening.device.host} cannot be reached"
                    yield DeviceLost(at=instant, device_id=happening.device.id, reason=reason)
                case Arrival():
                    self._do(happening.act)
                case _:
                    yield from self._tell(course, happening, instant)

    def _tell(self, course: Course, occurrence: Occurrence, instant: float) -> Iterator[Occurrence]:
        """Tell of something, or hold it back while its host is silent; progress is not worth that."""
        silence = self._silence_at(self._host_of(occurrence), instant)
        if silence is None:
            if isinstance(occurrence, CaseFinished):
                attempt = self._attempts.pop(occurrence.case_key)
                attempt.agent.attempt = None
                self._let_peers_go(attempt)
            yield occurrence
        elif not isinstance(occurrence, Progress):
            self._timeline.expect(course, silence.until_s, dataclasses.replace(occurrence, at=silence.until_s))

    def _host_of(self, occurrence: Occurrence) -> str:
        match occurrence:
            case DeviceReady() | DeviceLost() | PeerFinished():
                return _host_of(occurrence.device_id)
            case HostSilent() | HostHeard():
                return occurrence.host
            case _:
                return self._attempts[occurrence.case_key].case.device.host

    # --- hosts that are silent ---

    def _expect_silences(self, host: str) -> None:
        for silence in self._silences[host]:
            if silence.for_s > SILENCE_S:
                noticed_at = silence.from_s + SILENCE_S
                self._timeline.expect(Course(), noticed_at, Noticed(host=host, is_silent=True))
                self._timeline.expect(Course(), silence.until_s, Noticed(host=host, is_silent=False))
            if silence.for_s > self._head_timeout_s:
                missed = Missed(host=host, silence=silence)
                self._timeline.expect(Course(), silence.from_s + self._head_timeout_s, missed)

    def _silence_at(self, host: str, at: float) -> Silence | None:
        return next((each for each in self._silences.get(host, ()) if each.from_s <= at < each.until_s), None)

    def _notice(self, noticed: Noticed, instant: float) -> Iterator[Occurrence]:
        host = noticed.host
        if noticed.is_silent and any(agent.device.host == host and agent.is_up for agent in self._agents.values()):
            self._silent.add(host)
            yield HostSilent(at=instant, host=host)
        elif not noticed.is_silent and host in self._silent:
            self._silent.remove(host)
            yield HostHeard(at=instant, host=host)

    def _miss_head(self, missed: Missed) -> None:
        reason = f"simulated: heard nothing of the head for {self._head_timeout_s:g} s and ended"
        for device_id in [each for each, agent in self._agents.items() if agent.device.host == missed.host]:
            self._orphan(device_id)
            self._lose(device_id, missed.silence.until_s, reason)

    def _orphan(self, device_id: str) -> None:
        """Let go of an agent that lives on without a head: what its child does is kept, and told to nobody."""
        agent = self._agents.pop(device_id)
        agent.course.is_off = True
        if agent.attempt is not None:
            agent.attempt.course.is_off = True
            self._attempts.pop(agent.attempt.case.key)
            self._let_peers_go(agent.attempt)
            self._orphans.setdefault(device_id, []).append(agent.attempt)

    # --- agents ---

    def _prepare_unreachable(self, act: PrepareDevice, silence: Silence) -> None:
        """Try to bring up an agent on a host that is silent: in vain, unless it is heard again soon."""
        given_up_at = self._now + SILENCE_S
        if silence.until_s > given_up_at:
            self._release(act.device.id)
            self._timeline.expect(self._head, given_up_at, Unreachable(device=act.device))
        else:
            self._timeline.expect(self._head, silence.until_s, Arrival(act=act))

    def _lose(self, device_id: str, at: float, reason: str) -> None:
        self._timeline.expect(self._head, at, DeviceLost(at=at, device_id=device_id, reason=reason))

    def _prepare(self, device: Device) -> None:
        self._release(device.id)
        if self._now < self._back_at.get(device.id, 0.0):
            self._lose(device.id, self._now + PREPARE_S, "simulated: no agent can be brought up")
            return
        fault = self._faults.get(device.id, _NO_FAULT)
        speed = self._speeds[device.id] if device.id in self._speeds else speed_of(device, self._seed)
        agent = self._agents[device.id] = Agent(device=device, speed=speed)
        if not fault.never_prepares:
            self._timeline.expect(agent.course, self._now + PREPARE_S, Up(agent=agent))
        if fault.lost_after_s is not None and self._deaths.get(device.id, 0) < fault.losses:
            reason = f"simulated: lost after {fault.lost_after_s:g} s"
            death = Death(agent=agent, reason=reason)
            self._timeline.expect(agent.course, self._now + fault.lost_after_s, death)

    def _up(self, agent: Agent, instant: float) -> Iterator[Occurrence]:
        """Tell what the host keeps of the device, and that its agent is up."""
        silence = self._silence_at(agent.device.host, instant)
        if silence is not None:
            self._timeline.expect(agent.course, silence.until_s, Up(agent=agent))
            return
        agent.is_up = True
        for (key, number), result in self._spools.get(agent.device.id, {}).items():
            yield ResultRecovered(at=instant, case_key=key, attempt=number, result=result)
        yield DeviceReady(at=instant, device_id=agent.device.id)

    def _die(self, death: Death) -> None:
        device_id = death.agent.device.id
        back_after_s = self._faults[device_id].back_after_s
        self._deaths[device_id] = self._deaths.get(device_id, 0) + 1
        self._back_at[device_id] = math.inf if back_after_s is None else self._now + back_after_s
        self._release(device_id)
        self._lose(device_id, self._now, death.reason)

    def _release(self, device_id: str) -> None:
        """End the agent of a device, and the attempt that is on it; what is kept already stays."""
        agent = self._agents.pop(device_id, None)
        if agent is None:
            return
        agent.course.is_off = True
        if agent.attempt is not None:
            agent.attempt.course.is_off = agent.attempt.work.is_off = True
            del self._attempts[agent.attempt.case.key]
            self._let_peers_go(agent.attempt)

    def _let_peers_go(self, attempt: Attempt) -> None:
        """End what others do for an attempt that is over, or that nobody listens to any more."""
        for peer in attempt.case.peers:
            agent = self._agents.get(peer.id)
            if agent is not None:
                ended = PeerFinished(at=self._now, device_id=peer.id, case_key=attempt.case.key, attempt=attempt.number)
                self._timeline.expect(agent.course, self._now, ended)

    def _keep(self, attempt: Attempt) -> None:
        attempt.is_kept = True
        if attempt.result is not None:
            spool = self._spools.setdefault(attempt.case.device.id, {})
            spool[attempt.case.key, attempt.number] = attempt.result

    # --- attempts ---

    def _start_case(self, case: Case, number: int) -> None:
        agent = self._agents.get(case.device.id)
        if agent is None:  # lost a moment ago; the head will hear of it, or has
            return
        attempt = Attempt(agent=agent, case=case, number=number, requested_at=self._now)
        agent.attempt = self._attempts[case.key] = attempt
        if self._has_result(attempt):
            return
        faults = self._faults_of(case)
        granted_at = self._wait(attempt, faults)
        if granted_at is None:
            return
        started_at = granted_at + START_S + sum(fault.start_delay_s for fault in faults)
        if (refusal := refusal_of(case, faults)) is not None:
            self._finish(attempt, started_at, *refusal)
            return
        self._play(attempt, started_at, faults)

    def _has_result(self, attempt: Attempt) -> bool:
        """Tell, without another try, the result of this very attempt that is kept, or that an orphan works on."""
        key, number = attempt.case.key, attempt.number
        result = self._spools.get(attempt.case.device.id, {}).get((key, number))
        kept_at = self._now
        for orphan_kept_at, orphan in self._orphans_on(attempt.case.device.id):
            if (orphan.case.key, orphan.number) == (key, number):
                result, kept_at = orphan.result, orphan_kept_at
        if kept_at > self._now:
            self._expect(attempt, self._now, CaseWaiting(at=self._now, case_key=key, attempt=number, reason=HELD))
        if result is None:
            return False
        attempt.is_kept = True
        told_at = kept_at + COLLECT_S
        self._expect(attempt, told_at, CaseFinished(at=told_at, case_key=key, attempt=number, result=result))
        return True

    def _orphans_on(self, device_id: str) -> Iterator[tuple[float, Attempt]]:
        """Give the attempts that agents without a head are still at on a device, each with when that will be kept."""
        for orphan in self._orphans.get(device_id, ()):
            if orphan.kept_at is not None and orphan.kept_at > self._now:
                yield orphan.kept_at, orphan

    def _wait(self, attempt: Attempt, faults: Sequence[Fault]) -> float | None:
        """Return when the device is ours, ``None`` where that takes longer than we would wait."""
        waits_s = [fault.held_for_s for fault in faults if fault.held_for_s is not None]
        waits_s += [kept_at - self._now for kept_at, _ in self._orphans_on(attempt.case.device.id)]
        if not waits_s:
            return self._now
        held_for_s = max(waits_s)
        key, number = attempt.case.key, attempt.number
        self._expect(attempt, self._now, CaseWaiting(at=self._now, case_key=key, attempt=number, reason=HELD))
        if held_for_s > self._lease_timeout_s:
            reason = f"{HELD}, and was not free within {self._lease_timeout_s:g} s"
            self._finish(attempt, self._now + self._lease_timeout_s, Verdict.BUSY, reason)
            return None
        granted_at = self._now + held_for_s
        self._expect(attempt, granted_at, CaseGranted(at=granted_at, case_key=key, attempt=number))
        return granted_at

    def _play(self, attempt: Attempt, started_at: float, faults: Sequence[Fault]) -> None:
        """Expect what an attempt that could begin will tell."""
        key, number = attempt.case.key, attempt.number
        self._expect(attempt, started_at, CaseStarted(at=started_at, case_key=key, attempt=number))
        if any(fault.hangs for fault in faults):
            return
        measured = as_measured(attempt.case, faults)
        attempt.batch_size = measured.workload.batch_size if attempt.case.workload.seeks_largest else None
        speed = attempt.agent.speed
        if attempt.case.company is Company.TOGETHER:
            speed /= 1 + self._penalty
        timing = timing_of(measured, number, speed=speed, noise=self._noise, seed=self._seed)
        attempt.started_at, attempt.timing = started_at, timing
        middle_at = started_at + timing.warmup_s + timing.measure_s / 2
        self._expect(attempt, middle_at, half_way(attempt, timing))
        if any(number in fault.crash_on_attempts for fault in faults):
            ending = Ending(signal="SIGSEGV")
            self._finish(attempt, middle_at, Verdict.CRASHED, "simulated: the child was ended by SIGSEGV", ending)
            return
        measured_at = started_at + timing.warmup_s + timing.measure_s + FINISH_S
        self._expect(attempt, measured_at, CaseMeasured(at=measured_at, case_key=key, attempt=number))
        self._finish(attempt, measured_at + COLLECT_S, Verdict.OK, None)

    def _cancel(self, act: CancelCase) -> None:
        """End an attempt, unless it is over, or measured: then its result is on the way."""
        attempt = self._attempts.get(act.case_key)
        if attempt is None or attempt.is_kept or any(f.ignores_cancel for f in self._faults_of(attempt.case)):
            return
        attempt.course.is_off = attempt.work.is_off = True
        attempt.course, attempt.work = Course(), Course()
        self._finish(attempt, self._now + COLLECT_S, act.verdict, act.reason, Ending(signal="SIGTERM"))

    def _finish(
        self, attempt: Attempt, at: float, verdict: Verdict, reason: str | None, ending: Ending | None = None
    ) -> None:
        """Expect the end of an attempt: its host keeps the result a moment before the head has it."""
        result = result_of(attempt, at, verdict, reason, ending or Ending(exit_code=0), epoch_s=self._epoch_s)
        attempt.result = from_json(Result, to_json(result))
        attempt.kept_at = max(self._now, at - COLLECT_S)
        self._timeline.expect(attempt.work, attempt.kept_at, Kept(attempt=attempt))
        key, number = attempt.case.key, attempt.number
        self._expect(attempt, at, CaseFinished(at=at, case_key=key, attempt=number, result=attempt.result))

    def _expect(self, attempt: Attempt, at: float, occurrence: Occurrence) -> None:
        self._timeline.expect(attempt.course, at, occurrence)

    # --- faults ---

    def _faults_of(self, case: Case) -> tuple[Fault, ...]:
        return tuple(self._faults[name] for name in (case.device.id, case.key) if name in self._faults)


def _host_of(device_id: str) -> str:
    return device_id.partition("/")[0]
