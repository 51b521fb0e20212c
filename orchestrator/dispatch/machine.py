"""The dispatcher: events in, commands out; no clock, no I/O, no chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.dispatch.conduct import QUEUE, Conduct
from orchestrator.dispatch.invariants import check_invariants
from orchestrator.dispatch.messages import (
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeadlinePassed,
    DeviceLost,
    DeviceReady,
    HostHeard,
    HostSilent,
    PeerFinished,
    ResultRecovered,
    StopRequested,
)
from orchestrator.dispatch.state import AttemptRecord, Board
from orchestrator.dispatch.transitions import CLOSED, OVER, AttemptState, CaseState, DeviceState
from orchestrator.dispatch.views import CaseCounts, CaseView, DeviceView, view_of_case, view_of_device
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from orchestrator.dispatch.messages import Command, Event
    from orchestrator.dispatch.settings import DispatchSettings
    from orchestrator.dispatch.state import CaseRecord, DeviceRecord
    from workers.protocol import Case


class Dispatcher:
    """Gives the cases of a plan to their devices, one at a time each, and says how every case ended.

    Call :meth:`begin` once, then :meth:`handle` with every event, and with ``DeadlinePassed`` when
    :attr:`next_deadline` comes; carry out the commands in the order given; go on until :attr:`is_done`. Every case
    ends with exactly one ``RecordVerdict``, every attempt with a ``CaseFinished``, a ``ResultRecovered`` or a
    ``RecordAttempt``, and every device that was prepared is released. A device whose agent is lost is prepared again,
    until its host's grace is over.

    ``attempts_before`` counts attempts that were made of a case before this dispatcher, by key: their numbers are not
    given again, and they take away none of the attempts that the settings allow.

    Some events may come too late, because whoever sent them had not heard yet of a command or a deadline. These are
    ignored, and no others:

    * ``DeviceReady`` and ``DeviceLost`` of a device that is released, lost or away (an agent that ends looks like one
      that is lost; it was given up at a deadline; its loss is told twice);
    * ``CaseWaiting``, ``CaseGranted``, ``CaseStarted`` and ``CaseMeasured`` of an attempt that is being cancelled or
      is missing;
    * ``PeerFinished`` of a device that has been lost or given up meanwhile;
    * whatever is heard of an attempt that was given up with its device, and results that :meth:`awaits` does not want;
    * ``HostSilent`` and ``HostHeard`` that say what is known.

    Any other event that does not fit raises :class:`ImpossibleTransitionError` with the story of the case.
    """

    def __init__(
        self, cases: Sequence[Case], settings: DispatchSettings, *, attempts_before: Mapping[str, int] | None = None
    ) -> None:
        self._settings = settings
        self._board = Board.of(cases, attempts_before)
        self._conduct = Conduct(self._board, settings)
        self._has_begun = False
        self._handlers: dict[type[Event], Callable[[Any], Iterable[Command]]] = {
            DeviceReady: self._device_ready,
            DeviceLost: self._device_lost,
            HostSilent: self._host_silent,
            HostHeard: self._host_heard,
            CaseWaiting: self._case_waiting,
            CaseGranted: self._case_moved,
            CaseStarted: self._case_moved,
            CaseMeasured: self._case_moved,
            CaseFinished: self._case_finished,
            PeerFinished: self._peer_finished,
            ResultRecovered: self._result_recovered,
            DeadlinePassed: self._deadline_passed,
            StopRequested: self._stop_requested,
        }

    # --- events in, commands out ---

    def begin(self, at: float) -> tuple[Command, ...]:
        """Prepare every device that has cases; call it once, before any event."""
        if self._has_begun:
            raise RuntimeError("begin() was called twice")
        self._has_begun = True
        if self._board.cases:
            self._board.deadlines.set(QUEUE, at + self._settings.queue_timeout_s)
        return tuple(self._conduct.prepare(device, at) for device in self._board.devices.values())

    def handle(self, event: Event, *, stop: StopRequested | None = None) -> tuple[Command, ...]:
        """Take an event and return what is to be done about it, in this order.

        ``stop`` is a request that comes right after it: no case is begun in between. Raises
        :class:`ImpossibleTransitionError` for an event that cannot come now, and KeyError for one about a case or a
        device that is not in the plan.
        """
        if not self._has_begun:
            raise RuntimeError(f"{type(event).__name__} came before begin() was called")
        if stop is None:
            return (*self._handlers[type(event)](event), *self._conduct.catch_up(event.at))
        self._conduct.is_stopping = True
        handled = self._handlers[type(event)](event)
        return (*handled, *self._stop_requested(stop), *self._conduct.catch_up(event.at))

    # --- devices and hosts ---

    def _device_ready(self, event: DeviceReady) -> Iterator[Command]:
        device = self._board.devices[event.device_id]
        if self._board.move_device(device, DeviceReady, event.at):
            yield from self._conduct.welcome(device, event.at)

    def _device_lost(self, event: DeviceLost) -> Iterator[Command]:
        device = self._board.devices[event.device_id]
        if self._board.move_device(device, DeviceLost, event.at):
            yield from self._conduct.lose(device, event.at, event.reason, is_final=event.is_final)

    def _host_silent(self, event: HostSilent) -> tuple[Command, ...]:
        host = self._board.hosts[event.host]
        if host.silent_since is None and not host.is_mute:
            self._conduct.hush(host, event.at)
        return ()

    def _host_heard(self, event: HostHeard) -> Iterator[Command]:
        host = self._board.hosts[event.host]
        if host.silent_since is not None:
            yield from self._conduct.hear(host, event.at)

    # --- cases ---

    def _case_waiting(self, event: CaseWaiting) -> tuple[Command, ...]:
        self._case_moved(event)
        attempt = self._board.cases[event.case_key].attempt
        if attempt is not None and attempt.state is AttemptState.WAITING:
            attempt.waits_for = event.reason
        return ()

    def _case_moved(self, event: CaseWaiting | CaseGranted | CaseStarted | CaseMeasured) -> tuple[Command, ...]:
        record = self._board.cases[event.case_key]
        if self._board.move_attempt(record, event.attempt, type(event), event.at) and record.attempt is not None:
            self._conduct.await_next(record.attempt, event.at)
            if isinstance(event, CaseStarted):
                for device in self._board.devices_of(record):
                    device.losses = device.returns = 0
        return ()

    def _case_finished(self, event: CaseFinished) -> Iterator[Command]:
        if not self.awaits(event.case_key, event.attempt):
            return
        record = self._board.cases[event.case_key]
        self._board.move_attempt(record, event.attempt, CaseFinished, event.at)
        device = self._board.devices[record.case.device.id]
        device.active = None
        if device.state is DeviceState.BUSY:
            self._board.move_device(device, CaseFinished, event.at)
        self._board.move_case(record, CaseFinished, event.at)
        self._conduct.await_peers(record, event.at)
        yield from self._settle(device, record, event)

    def _peer_finished(self, event: PeerFinished) -> Iterator[Command]:
        device = self._board.devices[event.device_id]
        attempt = device.active
        if attempt is None or (attempt.case.case.key, attempt.number) != (event.case_key, event.attempt):
            return  # it was given up, or lost, before it could say so
        device.active = None
        self._board.move_device(device, PeerFinished, event.at)
        yield from self._conduct.go_on(device, event.at)

    def _result_recovered(self, event: ResultRecovered) -> Iterator[Command]:
        if not self.awaits(event.case_key, event.attempt):
            return
        record = self._board.cases[event.case_key]
        device = self._board.devices[record.case.device.id]
        if record.state is CaseState.ACTIVE:
            self._board.move_attempt(record, event.attempt, ResultRecovered, event.at)
            device.active = None
        else:
            # Begun by an earlier head: none of the attempts that this one may make.
            self._board.take_out(record)
            device.step_out()
            record.attempt = AttemptRecord(case=record, number=event.attempt, state=AttemptState.DONE)
            record.made_before = event.attempt
        self._board.move_case(record, ResultRecovered, event.at)
        yield from self._settle(device, record, event)

    def _settle(
        self, device: DeviceRecord, record: CaseRecord, event: CaseFinished | ResultRecovered
    ) -> Iterator[Command]:
        yield from self._conduct.settle(device, record, event.at, event.result.verdict, event.result.reason)
        if device.state is DeviceState.IDLE:
            yield from self._conduct.go_on(device, event.at)
        elif device.state is DeviceState.AWAY and not device.is_wanted:
            yield from self._conduct.release(device, event.at)

    # --- deadlines and stopping ---

    def _deadline_passed(self, event: DeadlinePassed) -> Iterator[Command]:
        while (owner := self._board.deadlines.pop_due(event.at)) is not None:
            if owner == QUEUE:
                yield from self._queue_overdue(event.at)
            elif owner in self._board.hosts:
                yield from self._host_overdue(owner, event.at)
            else:
                yield from self._device_overdue(self._board.devices[owner], event.at)

    def _queue_overdue(self, at: float) -> Iterator[Command]:
        self._conduct.is_stopping = True
        reason = f"was still waiting for its turn {self._settings.queue_timeout_s:g} s after the run began"
        for device in self._board.devices.values():
            yield from self._end_waiting(device, at, Verdict.TIMEOUT, reason)

    def _host_overdue(self, name: str, at: float) -> Iterator[Command]:
        reason = f"no sign of life from {name} for {self._settings.host_grace_s:g} s and more"
        for device in self._board.hosts[name].devices:
            if device.state not in CLOSED:
                yield from self._conduct.give_up(device, at, reason)

    def _device_overdue(self, device: DeviceRecord, at: float) -> Iterator[Command]:
        attempt = device.active
        if device.state is DeviceState.AWAY:
            yield from self._conduct.try_again(device, at)
        elif device.state is DeviceState.IDLE:
            yield from self._conduct.go_on(device, at)
        elif device.state is DeviceState.PREPARING or attempt is None:
            yield from self._conduct.give_up(device, at, self._unready_reason(device))
        elif device.is_peer:
            part = f"its agent did not end its part in case {attempt.case.case.key}"
            reason = f"{part} within {self._settings.cancel_timeout_s:g} s"
            yield from self._conduct.give_up(device, at, reason)
        elif attempt.state is AttemptState.CANCELLING:
            silence = f"its agent did not end it within {self._settings.cancel_timeout_s:g} s"
            yield from self._conduct.give_up(device, at, f"{attempt.cancel_reason}; {silence}")
        else:
            verdict, reason = self._overdue_verdict(attempt)
            self._board.move_attempt(attempt.case, attempt.number, DeadlinePassed, at)
            yield self._conduct.cancel(attempt, at, verdict, reason)

    def _unready_reason(self, device: DeviceRecord) -> str:
        if device.away_since is None:
            return f"its agent was not ready within {self._settings.prepare_timeout_s:g} s"
        return f"{device.reason}; not back within {self._settings.host_grace_s:g} s"

    def _overdue_verdict(self, attempt: AttemptRecord) -> tuple[Verdict, str]:
        match attempt.state:
            case AttemptState.STARTING:
                return Verdict.TIMEOUT, f"did not start within {self._settings.start_timeout_s:g} s"
            case AttemptState.WAITING:
                wait_s = self._settings.lease_timeout_s
                return Verdict.BUSY, f"{attempt.waits_for}, and was not free within {wait_s:g} s"
            case AttemptState.RUNNING:
                return Verdict.TIMEOUT, f"was not measured within {self._settings.case_timeout_s:g} s"
            case _:
                return Verdict.TIMEOUT, f"its result did not come within {self._settings.collect_timeout_s:g} s"

    def _stop_requested(self, event: StopRequested) -> Iterator[Command]:
        self._conduct.is_stopping = True
        self._conduct.stop_reason = event.reason
        for device in self._board.devices.values():
            yield from self._end_waiting(device, event.at, Verdict.NOT_RUN, event.reason)
            if device.active is not None:
                yield from self._stop_attempt(device, device.active, event)

    def _end_waiting(self, device: DeviceRecord, at: float, verdict: Verdict, reason: str) -> Iterator[Command]:
        """End what a device has not begun; let it go unless an attempt is out on it."""
        yield from self._conduct.end_queue(device, at, verdict, reason)
        if device.active is None and device.state not in CLOSED:
            yield from self._conduct.release(device, at)

    def _stop_attempt(self, device: DeviceRecord, attempt: AttemptRecord, event: StopRequested) -> Iterator[Command]:
        """Wait for the end of an attempt, have it ended ``now``, or give it up where nobody may ever tell of it.

        What is given up was cancelled, which is not final: whoever goes on with the run looks for its result. A peer
        ends with the attempt.
        """
        if device.is_peer:
            if event.now and device.host.silent_since is not None:
                reason = f"{device.host.name} is silent; {event.reason}"
                yield from self._conduct.give_up(device, event.at, reason, Verdict.CANCELLED)
            return
        if attempt.state is AttemptState.MISSING:
            reason = f"{device.reason}; {event.reason}"
            yield from self._conduct.give_up(device, event.at, reason, Verdict.CANCELLED)
        elif not event.now:
            return
        elif device.host.silent_since is not None:
            reason = f"{device.host.name} is silent; {event.reason}"
            yield from self._conduct.give_up(device, event.at, reason, Verdict.CANCELLED)
        elif self._board.move_attempt(attempt.case, attempt.number, StopRequested, event.at):
            yield self._conduct.cancel(attempt, event.at, Verdict.CANCELLED, event.reason)

    # --- views ---

    @property
    def next_deadline(self) -> float | None:
        """When ``DeadlinePassed`` is due, on the events' clock; ``None`` where nothing is waited for."""
        return None if self.is_done else self._board.deadlines.next

    @property
    def is_done(self) -> bool:
        """True once every case has its verdict and every device is released or lost."""
        return self._board.counts[CaseState.DONE] == len(self._board.cases) and self._board.open_devices == 0

    @property
    def stopping(self) -> bool:
        """True once somebody wants the run to end: no case is begun any more."""
        return self._conduct.is_stopping

    @property
    def counts(self) -> CaseCounts:
        """How many cases are in which state."""
        counts = self._board.counts
        return CaseCounts(queued=counts[CaseState.QUEUED], active=counts[CaseState.ACTIVE], done=counts[CaseState.DONE])

    def devices(self) -> Iterator[DeviceView]:
        """Give every device that has cases, in the plan's order, as it is now."""
        return map(view_of_device, self._board.devices.values())

    def device(self, device_id: str) -> DeviceView:
        """Return a device as it is now; raises KeyError."""
        return view_of_device(self._board.devices[device_id])

    def cases(self) -> Iterator[CaseView]:
        """Give every case, in the plan's order, as it is now."""
        return map(view_of_case, self._board.cases.values())

    def case(self, case_key: str) -> CaseView:
        """Return a case as it is now; raises KeyError."""
        return view_of_case(self._board.cases[case_key])

    def awaits(self, case_key: str, attempt: int) -> bool:
        """Return whether the result of an attempt is still wanted: it goes on, is missing, or is not known of yet.

        It is not once the attempt was given up with its device and recorded, or the case tried again or ended: then a
        late result is superseded, as is that of a case which is none of the plan's: an earlier head ended it.
        """
        record = self._board.cases.get(case_key)
        if record is None:
            return False
        latest = record.attempt
        if latest is not None and latest.number == attempt:
            return latest.state not in OVER
        return record.state is CaseState.QUEUED and attempt > record.made

    def check_invariants(self) -> None:
        """Raise AssertionError where something that must always hold does not; takes time in proportion to the run."""
        check_invariants(self._board, self._settings.host_concurrency, is_stopping=self._conduct.is_stopping)
