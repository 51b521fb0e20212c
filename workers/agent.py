"""The owner of one device on its host: gives each case to a fresh child, holds its deadlines, keeps how it went.

A plain class; the Ray engine makes an actor of it, with threads enough that :meth:`DeviceAgent.progress` and
:meth:`DeviceAgent.cancel` answer while :meth:`DeviceAgent.run_case` works. Everything goes in and out as JSON text, so
that head and agent need not share one version of these classes.

A result is on the host's disk before it is given, and stays there until the head has acknowledged it. An agent that
hears nothing of its head ends by itself.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import platform
import socket
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from workers.attempt import AttemptStory, Stop
from workers.busy import LOOK_AGAIN_S, REMEDY, occupied
from workers.codec import event_from_json, event_to_json, from_json, to_json
from workers.company import excuse
from workers.headroom import headroom_bytes
from workers.headwatch import HeadWatch
from workers.hostfacts import PROBE_TIMEOUT_S, HostFacts
from workers.largest import LargestStory, ProbeStory, Search, facts, failed, measuring, probing
from workers.lease import Lease, LeaseBusyError, claims_of
from workers.lockfiles import LeaseError, place_of
from workers.outbox import Outbox
from workers.portblock import reserved
from workers.process import GRACE_S, KILL_WAIT_S, ChildProcess, Silence
from workers.protocol import (
    PROTOCOL_VERSION,
    AgentEvent,
    AgentSettings,
    AttemptGranted,
    AttemptHeld,
    AttemptMeasured,
    AttemptRequest,
    AttemptStarted,
    AttemptWaiting,
    Device,
    DeviceKind,
    Ending,
    Environment,
    Fact,
    HeadLoss,
    Progress,
    Result,
    Verdict,
    WhenBusy,
)
from workers.strays import end_orphans
from workers.telemetry.gauges import recorder_of
from workers.telemetry.series import POWERS, TEMPERATURES
from workers.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from workers.protocol import Ring
    from workers.strays import Swept
    from workers.telemetry.recorder import Recorder
    from workers.telemetry.series import Telemetry

#: The folder that holds this package: children are started in it, so that they find the same one.
_ROOT: Final = Path(__file__).resolve().parent.parent

#: News and cancellations that nobody has asked for are kept up to here.
_MAX_KEPT: Final = 256

#: Seconds within which the other devices of a case are held as a rule: nobody need hear that they are waited for.
_SOON_S: Final = 2.0

#: How much longer an agent waits for a silent head if it has a result that it could write down nowhere.
_UNWRITTEN_PATIENCE_S: Final = 3600.0

#: Names the processes that outlived their child outside its group, and were ended.
STRAYS_FACT: Final = "process.strays"

_AGENT_EVENTS: Final = (Progress, AttemptWaiting, AttemptGranted, AttemptHeld, AttemptStarted, AttemptMeasured)

_SHUT_DOWN: Final = Stop(verdict=Verdict.CANCELLED, reason="the agent was shut down", is_asked=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentReport:
    """Who an agent is."""

    device: Device
    hostname: str
    pid: int
    python_version: str
    muster_version: str
    #: Where it is, in words that every head sees alike: by these, devices that are held at once are taken in one order.
    place: str = ""
    #: What the host still keeps of this run and device: all that finished and was never acknowledged.
    spooled: tuple[Result, ...] = ()
    #: What the host keeps and cannot be read, each with its path and why.
    spool_problems: tuple[str, ...] = ()
    protocol_version: int = PROTOCOL_VERSION


def news_from_json(text: str) -> tuple[tuple[int, AgentEvent], ...]:
    """Return what :meth:`DeviceAgent.progress` answered, as (sequence number, event); raises CodecError."""
    return tuple(
        (sequence, cast("AgentEvent", event_from_json(_AGENT_EVENTS, event))) for sequence, event in json.loads(text)
    )


class DeviceAgent:
    """Owns one device; every method may be called from a thread of its own, and is a sign of the head.

    ``settings_json`` is an :class:`~workers.protocol.AgentSettings`. Without one a silent head is waited for, and
    results are kept under the run that each is asked for. ``child_argv`` is the command of the measuring child, for
    tests that need a child that misbehaves; ``lease_folder`` is where it leaves word for other musters,
    ``spool_folder`` where it keeps results. ``end`` ends this process.
    """

    def __init__(
        self,
        device_json: str,
        settings_json: str | None = None,
        *,
        child_argv: Sequence[str] | None = None,
        lease_folder: Path | None = None,
        spool_folder: Path | None = None,
        end: Callable[[], None] | None = None,
    ) -> None:
        settings = None if settings_json is None else from_json(AgentSettings, settings_json)
        self._device = from_json(Device, device_json)
        self._child_argv = tuple(child_argv or (sys.executable, "-m", "workers.child", "--parent", str(os.getpid())))
        self._lease_folder = lease_folder
        self._outbox = Outbox(
            self._device.id, run_id=None if settings is None else settings.run_id, folder=spool_folder
        )
        self._news = _News()
        self._host_facts = HostFacts(self._device)
        self._is_idle = threading.Condition()
        end_orphans()  # an agent that was killed may have left something on the device
        self._turn: _Turn | None = None
        self._child: ChildProcess | None = None
        self._is_shut_down = False
        self._asked: collections.OrderedDict[tuple[str, int], Stop] = collections.OrderedDict()
        #: Where the processes of a case of several devices listen, once the head has said so.
        self._met: collections.OrderedDict[tuple[str, int], tuple[str, ...]] = collections.OrderedDict()
        self._end = end or _end_process
        self._on_head_loss = HeadLoss.FINISH if settings is None else settings.on_head_loss
        self._abandoned = _abandoned(settings)
        self._head = HeadWatch(None if settings is None else settings.head_timeout_s, self._on_silence)

    def describe(self) -> str:
        """Return an :class:`AgentReport` as JSON."""
        self._head.heard()
        kept = self._outbox.contents()
        return to_json(
            AgentReport(
                device=self._device,
                hostname=socket.gethostname(),
                pid=os.getpid(),
                python_version=platform.python_version(),
                muster_version=VERSION,
                place=place_of(self._lease_folder),
                spooled=kept.results,
                spool_problems=kept.problems,
            )
        )

    def beat(self) -> None:
        """Note that the head is there; it does no more."""
        self._head.heard()

    def run_case(self, request_json: str) -> str:
        """Run an :class:`~workers.protocol.AttemptRequest` in a fresh child; return its Result as JSON when it is over.

        Waits first for whoever else has the device or its host. Holds the request's deadlines by itself, also when the
        head is gone. Asked again for an attempt that is at work, it waits for the same result; for one that is over
        and was not acknowledged, whoever measured it, it gives what is kept. Raises CodecError for a request that
        cannot be read, and RuntimeError if another case is running (a device measures one at a time), or when a call
        that only waits is followed by another one.
        """
        self._head.heard()
        return to_json(self._result(from_json(AttemptRequest, request_json)))

    def acknowledge(self, case_key: str, attempt: int) -> None:
        """Forget an attempt's result, which the head has committed; safe to call for one that is not there."""
        self._head.heard()
        self._outbox.acknowledge(case_key, attempt)

    def progress(self, after: int, wait_s: float) -> str:
        """Return the news since number ``after``, waiting up to ``wait_s`` for some; ``[]`` if none came.

        A JSON list of ``[number, event as JSON]``, for :func:`news_from_json`. Marks (waiting, granted, started,
        measured) are all kept; of the progress between, only the latest is. Returns at once when the agent is shut
        down.
        """
        self._head.heard()
        return json.dumps(
            [[sequence, event_to_json(event)] for sequence, event in self._news.since(after, wait_s)],
            separators=(",", ":"),
        )

    def cancel(self, case_key: str, attempt: int, verdict: str, reason: str) -> None:
        """End an attempt, whether it waits, runs or is still to come: its result has this verdict and reason.

        The samples so far are kept. An attempt whose child has said its last word keeps that.
        """
        self._head.heard()
        with self._is_idle:
            self._asked[case_key, attempt] = Stop(verdict=Verdict(verdict), reason=reason, is_asked=True)
            while len(self._asked) > _MAX_KEPT:
                self._asked.popitem(last=False)
            self._wake()

    def meet(self, case_key: str, attempt: int, addresses: Sequence[str]) -> None:
        """Tell an attempt that holds its device where the processes of all of its case's devices listen, by rank."""
        self._head.heard()
        with self._is_idle:
            self._met[case_key, attempt] = tuple(addresses)
            while len(self._met) > _MAX_KEPT:
                self._met.popitem(last=False)
            self._wake()

    def shutdown(self) -> None:
        """Cancel what runs, refuse what comes, and return when the child is gone; safe to call twice.

        The result of what ran is kept, and :meth:`acknowledge` still answers.
        """
        self._head.heard()
        with self._is_idle:
            self._is_shut_down = True
            self._wake()
            self._is_idle.wait_for(lambda: self._turn is None, timeout=GRACE_S + KILL_WAIT_S + PROBE_TIMEOUT_S)
        self._news.close()

    # --- one case ----------------------------------------------------------------------------------------------

    def _result(self, request: AttemptRequest) -> Result:
        """Return the result of an attempt: the one that is on its way, the one that is kept, or a new one."""
        turn = _Turn(request)
        with self._is_idle:
            running = self._turn
            if running is not None and running.attempt == turn.attempt:
                self._wait_with_others(running)
                if running.result is not None:
                    return running.result
            if self._turn is not None:
                raise RuntimeError(f"{self._device.id} is measuring case {self._turn.case_key}: one at a time")
            self._turn = turn
        try:
            turn.result = self._run(request)
            return turn.result
        finally:
            with self._is_idle:
                self._asked.pop((request.case.key, request.attempt), None)
                turn.is_over = True
                self._turn = None
                self._is_idle.notify_all()
            self._leave_without_head()

    def _wait_with_others(self, running: _Turn) -> None:
        """Return when an attempt is over that another call sees to.

        Raises RuntimeError when it is asked for once more: whoever asks again has given this call up, and each that
        waits takes a thread from beats and cancellations.
        """
        running.waiting += 1
        place = running.waiting
        self._is_idle.notify_all()
        # No deadline here: the attempt that is waited for has them all.
        self._is_idle.wait_for(lambda: running.is_over or running.waiting != place)
        if not running.is_over:
            raise RuntimeError(f"case {running.case_key} was asked for again: this call is past")

    def _run(self, request: AttemptRequest) -> Result:
        started_at, begun_at = time.time(), time.monotonic()
        story = AttemptStory(request, begun_at=begun_at)

        def kept(ended: _Ended) -> Result:
            result = (ended.story or story).result(
                ending=ended.ending,
                stop=ended.stop,
                host=self._host_facts.environment().merged(ended.found),
                started_at=started_at,
                duration_s=time.monotonic() - begun_at,
            )
            result = replace(result, telemetry=ended.telemetry)
            if ended.stop is _SHUT_DOWN and not ended.was_begun:
                return result  # nobody comes for what was not even begun when the head had said good-bye
            if request.ring is not None and request.ring.rank > 0:
                return result  # the figure is the first device's, and its host keeps it
            return self._outbox.keep(request.run_id, result)

        return self._kept(request) or self._leased(request, story, kept)

    def _leased(self, request: AttemptRequest, story: AttemptStory, kept: Callable[[_Ended], Result]) -> Result:
        """Run the child while the device and its host are ours, and have the result ``kept`` before they are not."""
        stop = self._refusal(request)
        if stop is not None:
            return kept(_Ended(stop=stop))
        claims = claims_of(self._device, is_alone=request.is_alone, group=_group_of(request))
        with Lease(claims, run_id=request.run_id, head=request.head, folder=self._lease_folder) as lease:
            stop = self._wait_for(lease, request, story) or self._wait_for_others(request, story)
            if stop is None and request.ring is not None:
                met = self._meet_the_others(request, request.ring, story)
                stop = met if isinstance(met, Stop) else None
                request = met if isinstance(met, AttemptRequest) else request
            if stop is not None:
                if request.together is not None:
                    excuse(request.together, self._device.selector, self._lease_folder)
                return kept(_Ended(stop=stop))
            # An agent whose head had gone may have had the device until now, and have measured this very attempt.
            run = self._searched if request.case.workload.seeks_largest else self._measured
            return self._kept(request) or kept(run(lease, request, story))

    def _kept(self, request: AttemptRequest) -> Result | None:
        return self._outbox.find(request.run_id, request.case.key, request.attempt)

    def _wait_for(self, lease: Lease, request: AttemptRequest, story: AttemptStory) -> Stop | None:
        """Return once the lease is ours, or why it will not be."""
        stop: Stop | None = None

        def must_stop() -> bool:
            # Kept, for the head may be heard again before anybody looks once more.
            nonlocal stop
            stop = self._asked_stop(request, is_measuring=False)
            return stop is not None

        def pause(seconds: float) -> bool:
            with self._is_idle:
                return self._is_idle.wait_for(must_stop, timeout=seconds)

        try:
            is_ours = lease.take(
                request.lease_timeout_s, pause=pause, tell=lambda reason: self._publish(story.waits(reason))
            )
        except LeaseBusyError as error:
            return Stop(verdict=Verdict.BUSY, reason=str(error))
        except LeaseError as error:
            return Stop(verdict=Verdict.CRASHED, reason=str(error))
        return None if is_ours else stop

    def _wait_for_others(self, request: AttemptRequest, story: AttemptStory) -> Stop | None:
        """Return once nobody who keeps no leases is using the device, or why the case is not measured."""
        until, told = time.monotonic() + request.busy_timeout_s, None
        while request.when_busy is not WhenBusy.MEASURE:
            user = occupied(
                request.case.device, above=request.busy_above, pause=lambda seconds: self._stop_within(seconds, request)
            )
            if user is None:
                break
            if request.when_busy is WhenBusy.SKIP or time.monotonic() >= until:
                return Stop(verdict=Verdict.BUSY, reason=_in_use(request, user))
            if user != told:
                self._publish(story.waits(f"{user}; {REMEDY}"))
                told = user
            left_s = max(until - time.monotonic(), 0.0)
            if (stop := self._stop_within(min(LOOK_AGAIN_S, left_s), request)) is not None:
                return stop
        if (stop := self._asked_stop(request, is_measuring=False)) is None:
            self._publish(story.granted(at=time.monotonic()))
        return stop

    def _meet_the_others(self, request: AttemptRequest, ring: Ring, story: AttemptStory) -> AttemptRequest | Stop:
        """Hold the device until the head has said where the others of its case listen; return the request with that."""
        mine = (request.case.key, request.attempt)

        def is_over() -> bool:
            return mine in self._met or self._asked_stop(request, is_measuring=False) is not None

        # Kept from the other agents of this host until each has one; the child takes it a moment later.
        with reserved() as taken, self._is_idle:
            held = AttemptHeld(case_key=mine[0], attempt=mine[1], address=f"{ring.host}:{taken.getsockname()[1]}")
            self._publish((held,))
            if not self._is_idle.wait_for(is_over, timeout=_SOON_S):
                self._publish(story.waits("its device is held, and the others of its case are not yet"))
                self._is_idle.wait_for(is_over, timeout=request.lease_timeout_s)
            addresses = self._met.pop(mine, None)
        if (stop := self._asked_stop(request, is_measuring=False)) is not None:
            return stop
        if addresses is None:
            reason = f"the other devices of its case were not held within {request.lease_timeout_s:g} s"
            return Stop(verdict=Verdict.BUSY, reason=reason)
        self._publish(story.granted(at=time.monotonic()))
        return replace(request, ring=replace(ring, addresses=addresses))

    def _stop_within(self, seconds: float, request: AttemptRequest) -> Stop | None:
        """Wait for some time, and return at once why the attempt must end, if it must."""
        with self._is_idle:
            self._is_idle.wait_for(lambda: self._asked_stop(request, is_measuring=False) is not None, timeout=seconds)
        return self._asked_stop(request, is_measuring=False)

    def _measured(self, lease: Lease, request: AttemptRequest, story: AttemptStory) -> _Ended:
        recorder = recorder_of(request)
        try:
            with self._new_child(request, lease) as child:
                if recorder is not None:
                    recorder.start(child.pid)
                stop = self._follow(child, story, request, recorder)
                ended = _Ended(stop=stop, ending=child.ending(), found=_found(child.swept), was_begun=True)
        except OSError as error:
            reason = f"the measuring child cannot be started: {error}"
            return _Ended(stop=Stop(verdict=Verdict.CRASHED, reason=reason))
        finally:
            telemetry = None if recorder is None else recorder.stop()
        return replace(ended, telemetry=telemetry)

    def _searched(self, lease: Lease, request: AttemptRequest, story: AttemptStory) -> _Ended:
        """Find the largest batch that fits, each that is tried in a fresh child, within a case's time; measure it."""
        search, until = Search(request.case.workload.batch_size), time.monotonic() + request.case_timeout_s
        memory_bytes = _memory_limit(request)
        ended = _Ended(stop=None)
        while (batch_size := search.next_batch) is not None:
            self._publish(story.waits(f"looking for the largest batch that fits: {search.in_words()}"))
            probed = probing(request, batch_size, memory_bytes)
            probe = ProbeStory(probed, begun_at=time.monotonic(), until=until)
            ended = self._measured(lease, probed, probe)
            if (asked := self._asked_stop(request, is_measuring=True)) is not None:
                return replace(ended, stop=asked)
            shown = probe.shown(ended.ending, ended.stop)
            if not (shown.verdict.has_figure or shown.verdict is Verdict.OOM):
                return replace(ended, stop=failed(search, batch_size, shown))
            search.tell(batch_size, fits=shown.verdict.has_figure)
        while search.found is not None:
            largest = measuring(request, search.found, memory_bytes)
            told = f"looking for the largest batch that fits: {search.in_words()}, warming up"
            last = LargestStory(largest, begun_at=time.monotonic(), reason=told)
            self._publish(last.wait)
            ended = self._measured(lease, largest, last)
            if not last.was_too_large(ended.ending, ended.stop) or time.monotonic() > until:
                return replace(ended, found=ended.found.merged(facts(search, memory_bytes)), story=last)
            search.retract()
        return replace(ended, stop=Stop(verdict=Verdict.OOM, reason="not even a batch of 1 fits"))

    def _refusal(self, request: AttemptRequest) -> Stop | None:
        if request.protocol_version != PROTOCOL_VERSION:
            reason = f"the head speaks protocol {request.protocol_version}, the agent {PROTOCOL_VERSION}"
            return Stop(verdict=Verdict.UNSUPPORTED, reason=f"{reason}: install the same muster on both")
        if request.case.device.id != self._device.id:
            reason = f"the case is for {request.case.device.id}, this is the agent of {self._device.id}"
            return Stop(verdict=Verdict.DEVICE_MISSING, reason=reason)
        return self._asked_stop(request, is_measuring=False)

    def _asked_stop(self, request: AttemptRequest, *, is_measuring: bool) -> Stop | None:
        """Return why the attempt must end, as far as it is not its child's doing."""
        with self._is_idle:
            asked = _SHUT_DOWN if self._is_shut_down else self._asked.get((request.case.key, request.attempt))
        if asked is not None or not self._head.is_silent:
            return asked
        return self._abandoned if not is_measuring or self._on_head_loss is HeadLoss.STOP else None

    @contextlib.contextmanager
    def _new_child(self, request: AttemptRequest, lease: Lease) -> Iterator[ChildProcess]:
        # The child holds the lease as well: should the agent be killed, the device is not free before both are gone.
        child = ChildProcess(self._child_argv, stdin=to_json(request).encode(), cwd=_ROOT, keep=lease.descriptors)
        with self._is_idle:
            self._child = child
        try:
            yield child
        finally:
            with self._is_idle:
                self._child = None
            child.close()
            if not child.is_gone or child.swept.left:
                lease.leave_to_heirs()

    def _wake(self) -> None:
        """Make whoever waits, for the child or for the lease, look at what was asked."""
        self._is_idle.notify_all()
        if self._child is not None:
            self._child.wake()

    def _on_silence(self) -> None:
        """The head has been silent for too long: whoever waits or runs looks whether it must stop, or this ends."""
        with self._is_idle:
            self._wake()
        self._leave_without_head()

    def _leave_without_head(self) -> None:
        """End this process if the head is silent and nothing is at work: all that finished is on the disk."""
        with self._is_idle:
            if self._turn is not None or not self._head.is_silent:
                return
            if self._outbox.write_all() or self._head.silence_s > _UNWRITTEN_PATIENCE_S:
                self._head.close()
                self._end()

    def _follow(
        self, child: ChildProcess, story: AttemptStory, request: AttemptRequest, recorder: Recorder | None
    ) -> Stop | None:
        """Listen to the child until it has ended or must; return why it was stopped, if it was."""
        stop = self._listen(child, story, request, recorder)
        child.stop()
        while isinstance(line := child.next_line(math.inf), bytes):
            self._tell(story, line)
        if stop is not None and not child.is_gone:
            stop = Stop(verdict=stop.verdict, reason=f"{stop.reason}; not even SIGKILL ended process {child.pid}")
        return stop

    def _listen(
        self, child: ChildProcess, story: AttemptStory, request: AttemptRequest, recorder: Recorder | None
    ) -> Stop | None:
        while True:
            asked = self._asked_stop(request, is_measuring=True)
            if asked is not None:
                return asked
            line = child.next_line(story.deadline)
            if isinstance(line, bytes):
                self._publish(_with_readings(story.observe(line, at=time.monotonic()), recorder))
                if recorder is not None:
                    recorder.entered(story.phase)
                if story.broken is not None:
                    return story.broken
            elif line is Silence.ENDED:
                return None
            elif line is Silence.DEADLINE:
                return story.passed_deadline()
            elif line is Silence.FLOODED:
                return Stop(verdict=Verdict.CRASHED, reason="the measuring child wrote more than it may")

    def _tell(self, story: AttemptStory, line: bytes) -> None:
        self._publish(story.observe(line, at=time.monotonic()))

    def _publish(self, events: Sequence[AgentEvent]) -> None:
        for event in events:
            self._news.publish(event)


def _with_readings(events: Sequence[AgentEvent], recorder: Recorder | None) -> Sequence[AgentEvent]:
    """Return the events, progress with what telemetry read last of the device."""
    if recorder is None or not any(isinstance(event, Progress) for event in events):
        return events
    heat, power = recorder.latest(*TEMPERATURES), recorder.latest(*POWERS)
    return [
        replace(event, temperature_c=heat, power_w=power) if isinstance(event, Progress) else event for event in events
    ]


def _group_of(request: AttemptRequest) -> str | None:
    """Return the name of those that hold the host together with this attempt, if any do."""
    if request.together is not None:
        return request.together.group
    return request.ring.group if request.ring is not None and request.is_alone else None


def _memory_limit(request: AttemptRequest) -> int | None:
    """Return what a search on a CPU may take of the host's memory now; a GPU's own memory is its limit."""
    limits = [request.memory_bytes]
    if request.case.device.kind is DeviceKind.CPU:
        limits.append(headroom_bytes())
    return min((limit for limit in limits if limit is not None), default=None)


def _found(swept: Swept) -> Environment:
    if not (swept.strays or swept.left):
        return Environment()
    return Environment(facts=((STRAYS_FACT, Fact(value=str(swept))),))


def _in_use(request: AttemptRequest, user: str) -> str:
    waited = "" if request.when_busy is WhenBusy.SKIP else f", still after {request.busy_timeout_s:g} s"
    return f"it is in use{waited}: {user}; {REMEDY}"


def _abandoned(settings: AgentSettings | None) -> Stop:
    silent = "" if settings is None or settings.head_timeout_s is None else f" for {settings.head_timeout_s:g} s"
    return Stop(verdict=Verdict.CANCELLED, reason=f"nothing was heard of the head{silent}")


def _end_process() -> None:
    """End this process at once; Ray's threads, which wait for the head, are not waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class _Turn:
    """An attempt on its way, for the call that sees to it and for those that wait for the same."""

    def __init__(self, request: AttemptRequest) -> None:
        self.case_key = request.case.key
        self.attempt = (request.run_id, request.case.key, request.attempt)
        self.result: Result | None = None
        self.is_over = False
        #: Counts the calls that came to wait for it.
        self.waiting = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ended:
    """How the part of an attempt that happens in its child came to its end, or why there was none."""

    stop: Stop | None
    ending: Ending = field(default_factory=Ending)
    #: Facts about what the child left behind.
    found: Environment = field(default_factory=Environment)
    was_begun: bool = False
    #: What was seen beside the child, where anybody looked.
    telemetry: Telemetry | None = None
    #: The story of the child, where it is another one than that of the attempt.
    story: AttemptStory | None = None


class _News:
    """Numbered events for whoever asks, without ever growing: every mark, and the latest progress."""

    def __init__(self) -> None:
        self._has_changed = threading.Condition()
        self._sequence = 0
        self._marks: collections.deque[tuple[int, AgentEvent]] = collections.deque(maxlen=_MAX_KEPT)
        self._progress: tuple[int, AgentEvent] | None = None
        self._is_closed = False

    def publish(self, event: AgentEvent) -> None:
        with self._has_changed:
            self._sequence += 1
            if isinstance(event, Progress):
                self._progress = (self._sequence, event)
            else:
                self._marks.append((self._sequence, event))
            self._has_changed.notify_all()

    def close(self) -> None:
        with self._has_changed:
            self._is_closed = True
            self._has_changed.notify_all()

    def since(self, after: int, wait_s: float) -> list[tuple[int, AgentEvent]]:
        with self._has_changed:
            self._has_changed.wait_for(lambda: self._is_closed or self._sequence > after, timeout=wait_s)
            kept = [*self._marks, *([] if self._progress is None else [self._progress])]
            return sorted((item for item in kept if item[0] > after), key=lambda item: item[0])
