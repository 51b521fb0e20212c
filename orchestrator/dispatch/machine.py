"""The dispatcher: events in, commands out; no clock, no I/O, no chance."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from orchestrator.dispatch.invariants import check_invariants
from orchestrator.dispatch.messages import (
    CancelCase,
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeadlinePassed,
    DeviceLost,
    DeviceReady,
    PrepareDevice,
    RecordAttempt,
    RecordVerdict,
    ReleaseDevice,
    StartCase,
    StopRequested,
)
from orchestrator.dispatch.policies import is_tried_again, may_start, turn
from orchestrator.dispatch.state import (
    CLOSED,
    OVER,
    AttemptRecord,
    AttemptState,
    Board,
    CaseRecord,
    CaseState,
    DeviceRecord,
    DeviceState,
    HostRecord,
)
from orchestrator.dispatch.views import CaseCounts, CaseView, DeviceView, view_of_case, view_of_device
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.dispatch.messages import Command, Event
    from orchestrator.dispatch.settings import DispatchSettings
    from workers.protocol import Case


class Dispatcher:
    """Gives the cases of a plan to their devices, one at a time each, and says how every case ended.

    Call :meth:`begin` once, then :meth:`handle` with every event, and with ``DeadlinePassed`` when
    :attr:`next_deadline` comes; carry out the commands in the order given; go on until :attr:`is_done`. Every case
    ends with exactly one ``RecordVerdict``, every attempt with a ``CaseFinished`` or a ``RecordAttempt``, and every
    device that was prepared is released or lost.

    Some events may come too late, because whoever sent them had not heard yet of a command or a deadline. These are
    ignored, and no others:

    * ``DeviceReady`` and ``DeviceLost`` of a device that is released (an agent that ends looks like one that is lost)
      or lost already (it was given up at a deadline, or its loss is told twice);
    * ``CaseWaiting``, ``CaseGranted``, ``CaseStarted`` and ``CaseMeasured`` of an attempt that is being cancelled;
    * whatever is heard of an attempt that was given up with its device.

    Any other event that does not fit raises :class:`ImpossibleTransitionError` with the story of the case.
    """

    def __init__(self, cases: Sequence[Case], settings: DispatchSettings) -> None:
        self._settings = settings
        self._board = Board.of(cases)
        self._has_begun = False
        self._stopping = False

    # --- events in, commands out ---

    def begin(self, at: float) -> tuple[Command, ...]:
        """Prepare every device that has cases; call it once, before any event."""
        if self._has_begun:
            raise RuntimeError("begin() was called twice")
        self._has_begun = True
        return tuple(self._prepare(at, device) for device in self._board.devices.values())

    def handle(self, event: Event) -> tuple[Command, ...]:
        """Take an event and return what is to be done about it, in this order.

        Raises :class:`ImpossibleTransitionError` for an event that cannot come now, and KeyError for one about a case
        or a device that is not in the plan.
        """
        if not self._has_begun:
            raise RuntimeError(f"{type(event).__name__} came before begin() was called")
        return tuple(self._answer(event))

    def _answer(self, event: Event) -> Iterable[Command]:
        match event:
            case DeviceReady():
                return self._device_ready(event)
            case DeviceLost():
                return self._device_lost(event)
            case CaseWaiting():
                return self._case_waiting(event)
            case CaseGranted():
                return self._case_granted(event)
            case CaseStarted():
                return self._case_started(event)
            case CaseMeasured():
                return self._case_measured(event)
            case CaseFinished():
                return self._case_finished(event)
            case DeadlinePassed():
                return self._deadline_passed(event)
            case _:
                return self._stop_requested(event)

    # --- devices ---

    def _prepare(self, at: float, device: DeviceRecord) -> Command:
        self._board.move_device(device, PrepareDevice, at)
        self._board.deadlines.set(device.device.id, at + self._settings.prepare_timeout_s)
        return PrepareDevice(device=device.device)

    def _device_ready(self, event: DeviceReady) -> Iterator[Command]:
        device = self._board.devices[event.device_id]
        if self._board.move_device(device, DeviceReady, event.at):
            yield from self._go_on(device, event.at)

    def _device_lost(self, event: DeviceLost) -> Iterator[Command]:
        device = self._board.devices[event.device_id]
        if self._board.move_device(device, DeviceLost, event.at):
            yield from self._close_lost(device, event.at, event.reason)

    def _give_up(self, device: DeviceRecord, at: float, reason: str) -> Iterator[Command]:
        """Take a silent device as lost; its agent is told to end, should it hear it."""
        self._board.move_device(device, DeviceLost, at)
        yield from self._close_lost(device, at, reason)
        yield ReleaseDevice(device_id=device.device.id)

    def _close_lost(self, device: DeviceRecord, at: float, reason: str) -> Iterator[Command]:
        device.reason = reason
        if device.active is not None:
            yield self._lose_attempt(device, device.active, at, reason)
        yield from self._end_queue(device, at, Verdict.HOST_DOWN, reason)
        yield from self._fill(device.host, at)

    def _go_on(self, device: DeviceRecord, at: float) -> Iterator[Command]:
        """Line an idle device up for its next case, or release it; then see what its host can begin."""
        if device.queue:
            position = device.queue[0].position
            key = turn(device.device.kind, position, self._settings.host_concurrency)
            heapq.heappush(device.host.idle, (key, device))
        else:
            yield self._release(device, at)
        yield from self._fill(device.host, at)

    def _release(self, device: DeviceRecord, at: float) -> Command:
        self._board.move_device(device, ReleaseDevice, at)
        return ReleaseDevice(device_id=device.device.id)

    def _fill(self, host: HostRecord, at: float) -> Iterator[Command]:
        """Begin what the host has room for, in turn."""
        while host.idle:
            device = host.idle[0][1]
            is_idle = device.state is DeviceState.IDLE
            if is_idle and not may_start(device.device.kind, host.load, self._settings.host_concurrency):
                return
            heapq.heappop(host.idle)
            if is_idle:
                yield self._start(device, at)

    # --- cases ---

    def _start(self, device: DeviceRecord, at: float) -> Command:
        record = device.queue.popleft()
        number = record.attempt.number + 1 if record.attempt else 1
        device.active = record.attempt = AttemptRecord(case=record, number=number)
        self._board.move_case(record, StartCase, at)
        self._board.move_device(device, StartCase, at)
        self._set_deadline(record, at + self._settings.start_timeout_s)
        return StartCase(case=record.case, attempt=number)

    def _case_waiting(self, event: CaseWaiting) -> tuple[Command, ...]:
        record = self._board.cases[event.case_key]
        if self._board.move_attempt(record, event.attempt, CaseWaiting, event.at):
            self._set_deadline(record, event.at + self._settings.lease_timeout_s)
        attempt = record.attempt
        if attempt is not None and attempt.state is AttemptState.WAITING:
            attempt.waits_for = event.reason
        return ()

    def _case_granted(self, event: CaseGranted) -> tuple[Command, ...]:
        record = self._board.cases[event.case_key]
        if self._board.move_attempt(record, event.attempt, CaseGranted, event.at):
            self._set_deadline(record, event.at + self._settings.start_timeout_s)
        return ()

    def _case_started(self, event: CaseStarted) -> tuple[Command, ...]:
        record = self._board.cases[event.case_key]
        if self._board.move_attempt(record, event.attempt, CaseStarted, event.at):
            self._set_deadline(record, event.at + self._settings.case_timeout_s)
        return ()

    def _case_measured(self, event: CaseMeasured) -> tuple[Command, ...]:
        record = self._board.cases[event.case_key]
        if self._board.move_attempt(record, event.attempt, CaseMeasured, event.at):
            self._set_deadline(record, event.at + self._settings.collect_timeout_s)
        return ()

    def _case_finished(self, event: CaseFinished) -> Iterator[Command]:
        record = self._board.cases[event.case_key]
        if not self._board.move_attempt(record, event.attempt, CaseFinished, event.at):
            return
        device = self._board.devices[record.case.device.id]
        device.active = None
        self._board.move_device(device, CaseFinished, event.at)
        self._board.move_case(record, CaseFinished, event.at)
        verdict = event.result.verdict
        attempts = event.attempt if self._stopping else self._settings.attempts
        if is_tried_again(verdict, attempt=event.attempt, attempts=attempts):
            device.queue.appendleft(record)
        else:
            yield self._end(device, record, event.at, verdict, event.result.reason)
        yield from self._go_on(device, event.at)

    def _lose_attempt(self, device: DeviceRecord, attempt: AttemptRecord, at: float, reason: str) -> Command:
        """End the active attempt of a device that is lost; the case goes back to the queue, to end with the others."""
        record = attempt.case
        self._board.move_attempt(record, attempt.number, DeviceLost, at)
        self._board.move_case(record, RecordAttempt, at)
        device.active = None
        device.queue.appendleft(record)
        return RecordAttempt(case_key=record.case.key, attempt=attempt.number, verdict=Verdict.HOST_DOWN, reason=reason)

    def _end_queue(self, device: DeviceRecord, at: float, verdict: Verdict, reason: str) -> Iterator[Command]:
        while device.queue:
            yield self._end(device, device.queue.popleft(), at, verdict, reason)

    def _end(
        self, device: DeviceRecord, record: CaseRecord, at: float, verdict: Verdict, reason: str | None
    ) -> Command:
        self._board.move_case(record, RecordVerdict, at)
        record.verdict, record.reason = verdict, reason
        device.done += 1
        return RecordVerdict(case_key=record.case.key, verdict=verdict, reason=reason)

    # --- deadlines and stopping ---

    def _set_deadline(self, record: CaseRecord, at: float) -> None:
        self._board.deadlines.set(record.case.device.id, at)

    def _deadline_passed(self, event: DeadlinePassed) -> Iterator[Command]:
        while (device_id := self._board.deadlines.pop_due(event.at)) is not None:
            yield from self._overdue(self._board.devices[device_id], event.at)

    def _overdue(self, device: DeviceRecord, at: float) -> Iterator[Command]:
        attempt = device.active
        if attempt is None:
            reason = f"its agent was not ready within {self._settings.prepare_timeout_s:g} s"
            yield from self._give_up(device, at, reason)
            return
        if attempt.state is AttemptState.CANCELLING:
            silence = f"its agent did not end it within {self._settings.cancel_timeout_s:g} s"
            yield from self._give_up(device, at, f"{attempt.cancel_reason}; {silence}")
            return
        verdict, reason = self._overdue_verdict(attempt)
        self._board.move_attempt(attempt.case, attempt.number, DeadlinePassed, at)
        yield self._cancel(attempt, at, verdict, reason)

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

    def _cancel(self, attempt: AttemptRecord, at: float, verdict: Verdict, reason: str) -> Command:
        record = attempt.case
        attempt.cancel_reason = reason
        self._set_deadline(record, at + self._settings.cancel_timeout_s)
        return CancelCase(case_key=record.case.key, attempt=attempt.number, verdict=verdict, reason=reason)

    def _stop_requested(self, event: StopRequested) -> Iterator[Command]:
        self._stopping = True
        for device in self._board.devices.values():
            if device.state not in CLOSED:
                yield from self._stop_device(device, event)

    def _stop_device(self, device: DeviceRecord, event: StopRequested) -> Iterator[Command]:
        yield from self._end_queue(device, event.at, Verdict.NOT_RUN, event.reason)
        attempt = device.active
        if attempt is None:
            yield self._release(device, event.at)
        elif event.now and self._board.move_attempt(attempt.case, attempt.number, StopRequested, event.at):
            yield self._cancel(attempt, event.at, Verdict.CANCELLED, event.reason)

    # --- views ---

    @property
    def next_deadline(self) -> float | None:
        """When ``DeadlinePassed`` is due, on the events' clock; ``None`` where nothing is waited for."""
        return self._board.deadlines.next

    @property
    def is_done(self) -> bool:
        """True once every case has its verdict and every device is released or lost."""
        return self._board.counts[CaseState.DONE] == len(self._board.cases) and self._board.open_devices == 0

    @property
    def stopping(self) -> bool:
        """True once somebody wants the run to end: no case is begun any more."""
        return self._stopping

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
        """Return whether the result of an attempt is still wanted.

        It is not once its device was given up: the attempt is recorded then, and its late ``CaseFinished`` ignored.
        Raises KeyError.
        """
        latest = self._board.cases[case_key].attempt
        return latest is not None and latest.number == attempt and latest.state not in OVER

    def check_invariants(self) -> None:
        """Raise AssertionError where something that must always hold does not; takes time in proportion to the run."""
        check_invariants(self._board, self._settings.host_concurrency, is_stopping=self._stopping)
