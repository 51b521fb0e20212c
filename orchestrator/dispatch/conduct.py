"""What the dispatcher does with devices and cases, whatever event made it necessary. Pure, as all of this package."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

from orchestrator.dispatch.company import companions, has_room, is_together, together_of
from orchestrator.dispatch.messages import (
    CancelCase,
    DeviceLost,
    PrepareDevice,
    PutAside,
    RecordAttempt,
    RecordVerdict,
    ReleaseDevice,
    StartCase,
    StopRequested,
)
from orchestrator.dispatch.policies import (
    FAILURES,
    MOST_RETURNS,
    is_tried_again,
    needs_more_memory,
    retry_delay_s,
    return_delay_s,
    turn,
)
from orchestrator.dispatch.state import AttemptRecord
from orchestrator.dispatch.transitions import CLOSED, OVER, AttemptState, DeviceState
from orchestrator.planning import lonely
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.dispatch.messages import Command
    from orchestrator.dispatch.settings import DispatchSettings
    from orchestrator.dispatch.state import Board, CaseRecord, DeviceRecord, HostRecord, Turn
    from workers.protocol import Together

#: Owner of the one deadline that all cases in all queues share; devices and hosts own theirs by their names.
QUEUE: Final = ""


class Conduct:
    """Moves what is on the board, and says with commands what is to be done about it."""

    def __init__(self, board: Board, settings: DispatchSettings) -> None:
        self._board = board
        self._settings = settings
        #: No case is begun any more, and none tried again.
        self.is_stopping = False
        #: Why somebody wants the run to end; ``None`` where nobody does.
        self.stop_reason: str | None = None
        #: Devices whose queue an event on another one has changed.
        self._stirred: dict[str, DeviceRecord] = {}

    # --- devices ---

    def prepare(self, device: DeviceRecord, at: float) -> Command:
        """Have an agent brought up for a device; one that was away has the rest of its grace at least."""
        self._board.move_device(device, PrepareDevice, at)
        self._set_deadline(device, max(at + self._settings.prepare_timeout_s, self._grace_over_at(device, at)))
        return PrepareDevice(device=device.device)

    def _grace_over_at(self, device: DeviceRecord, at: float) -> float:
        return at if device.away_since is None else device.away_since + self._settings.host_grace_s

    def go_on(self, device: DeviceRecord, at: float) -> Iterator[Command]:
        """Line an idle device up for its next case, have it wait for one, or release it; then fill its host."""
        yield from self._look_on(device, at)
        yield from self.fill(device.host, at)

    def _look_on(self, device: DeviceRecord, at: float) -> Iterator[Command]:
        record = device.due(at)
        if record is not None:
            self._line_up(device, record)
        elif device.queue:
            self._set_deadline(device, min(record.not_before for record in device.queue))
        elif self.is_stopping or not device.shared:
            yield from self.release(device, at)

    def release(self, device: DeviceRecord, at: float) -> Iterator[Command]:
        """Let a device's agent go, if it has one."""
        self._board.move_device(device, ReleaseDevice, at)
        yield ReleaseDevice(device_id=device.device.id)
        yield from self._end_silence(device.host, at)

    def _line_up(self, device: DeviceRecord, record: CaseRecord) -> None:
        if not device.is_in_line:
            device.is_in_line = True
            first, then = turn(device.device.kind, record.position, self._settings.host_concurrency)
            heapq.heappush(device.host.idle, ((first, then, device.position), device))

    def fill(self, host: HostRecord, at: float) -> Iterator[Command]:
        """Begin what the host has room for, in turn; nothing while it is silent, or once the run shall end."""
        passed_over: list[tuple[Turn, DeviceRecord]] = []
        while host.idle and host.silent_since is None and not self.is_stopping:
            device = host.idle[0][1]
            record = device.due(at) if device.state is DeviceState.IDLE else None
            if record is not None and not has_room(self._board, host, record, self._settings.host_concurrency, at):
                if not record.is_shared:
                    break
                # It may wait for another host's devices: nobody else here has to wait for these.
                passed_over.append(heapq.heappop(host.idle))
                continue
            heapq.heappop(host.idle)
            device.is_in_line = False
            if record is not None and is_together(record.case, self._settings.host_concurrency):
                yield from self._start_together(device, record, at)
            elif record is not None:
                yield self._start(record, at)
        for waiting in passed_over:
            if waiting[1].is_in_line:
                heapq.heappush(host.idle, waiting)

    def _start_together(self, device: DeviceRecord, record: CaseRecord, at: float) -> Iterator[Command]:
        """Begin a case and all that are measured together with it; end it where there are none any more."""
        records = companions(self._board, record)
        if len(records) > 1:
            together = together_of(records)
            for each in records:
                yield self._start(each, at, together)
            return
        self._board.take_out(record)
        gap = lonely(record.case)
        yield self._decide(device, record, at, gap.verdict, gap.reason)
        yield from self._look_on(device, at)

    # --- devices that are lost, for now or for good ---

    def lose(self, device: DeviceRecord, at: float, reason: str, *, is_final: bool) -> Iterator[Command]:
        """Take a device as away: its agent is gone. Another one is tried soon, unless that is hopeless or unwanted."""
        yield from self._miss(device, at, reason)
        device.losses += 1
        if device.away_since is None:  # what tries to bring it back fail of is not why it is away
            device.reason = reason
            device.away_since = at if device.host.silent_since is None else device.host.silent_since
        over_at = self._grace_over_at(device, at)
        if self.stop_reason is not None:
            yield from self._close(device, at, f"{reason}; {self.stop_reason}", Verdict.CANCELLED)
        elif is_final or not device.is_wanted or at >= over_at or device.returns >= MOST_RETURNS:
            yield from self._close(device, at, reason)
        else:
            self._set_deadline(device, min(at + return_delay_s(device.losses), over_at))
        yield from self._end_silence(device.host, at)
        yield from self.fill(device.host, at)

    def _end_silence(self, host: HostRecord, at: float) -> Iterator[Command]:
        """Stop listening to a silent host on which there is nobody left to speak: its devices are sought one by one."""
        if host.silent_since is not None and host.is_mute:
            yield from self._resume(host, at)

    def try_again(self, device: DeviceRecord, at: float) -> Iterator[Command]:
        """Have another agent brought up for a device that is away, unless its host's grace is over."""
        if at < self._grace_over_at(device, at):
            yield self.prepare(device, at)
            return
        yield from self.give_up(device, at, f"{device.reason}; not back within {self._settings.host_grace_s:g} s")

    def give_up(
        self, device: DeviceRecord, at: float, reason: str, verdict: Verdict = Verdict.HOST_DOWN
    ) -> Iterator[Command]:
        """Take a device as lost for good; its agent is told to end, should it hear it."""
        yield from self._miss(device, at, reason, verdict)
        yield from self._close(device, at, reason, verdict)
        yield from self.fill(device.host, at)

    def welcome(self, device: DeviceRecord, at: float) -> Iterator[Command]:
        """Go on with a device whose agent is up, and give up what the one before it had, for no result of that came."""
        reason, attempt = device.reason or "its agent died", device.active
        device.returns += device.away_since is not None
        device.away_since = device.reason = None
        if attempt is not None:
            yield self._lose_attempt(device, attempt, at, reason)
            yield from self.settle(device, attempt.case, at, Verdict.HOST_DOWN, reason)
        yield from self.go_on(device, at)

    def _miss(
        self, device: DeviceRecord, at: float, reason: str, verdict: Verdict = Verdict.HOST_DOWN
    ) -> Iterator[Command]:
        """Move a device to away, and its attempt, if it has one, to missing; end one that another device times."""
        is_peer = device.is_peer
        if device.state is not DeviceState.AWAY:
            self._board.move_device(device, DeviceLost, at)
        attempt = device.active
        if attempt is None:
            return
        if is_peer:
            device.active = None
            yield from self.end_for_want_of_a_peer(attempt, at, verdict, f"{device.device.id}: {reason}")
        elif attempt.state is not AttemptState.MISSING:
            self._board.move_attempt(attempt.case, attempt.number, DeviceLost, at)
            self.await_peers(attempt.case, at)

    def end_for_want_of_a_peer(
        self, attempt: AttemptRecord, at: float, verdict: Verdict, reason: str
    ) -> Iterator[Command]:
        """Have an attempt ended one of whose devices is lost, unless it is over, or measured, or missing itself."""
        if attempt.state in OVER or attempt.state is AttemptState.MISSING:
            return
        # As by a stop: what is measured already is on its way.
        if self._board.move_attempt(attempt.case, attempt.number, StopRequested, at):
            yield self.cancel(attempt, at, verdict, reason)

    def await_peers(self, record: CaseRecord, at: float) -> None:
        """Give the peers of an attempt that is over, or whose own device is away, a moment to end their part."""
        for peer in self._board.devices_of(record):
            if peer.is_peer and peer.active is record.attempt:
                self._set_deadline(peer, at + self._settings.cancel_timeout_s)

    def _close(
        self, device: DeviceRecord, at: float, reason: str, verdict: Verdict = Verdict.HOST_DOWN
    ) -> Iterator[Command]:
        """End everything that a device which is away still has, and let it go."""
        device.reason = reason
        yield from self.end_queue(device, at, verdict, reason)
        if device.active is not None:
            record = device.active.case
            yield self._lose_attempt(device, device.active, at, reason)
            yield from self._end(device, record, at, verdict, reason)
        yield from self.release(device, at)

    def _lose_attempt(self, device: DeviceRecord, attempt: AttemptRecord, at: float, reason: str) -> Command:
        record = attempt.case
        self._board.move_attempt(record, attempt.number, RecordAttempt, at)
        self._board.move_case(record, RecordAttempt, at)
        record.given_up.add(attempt.number)
        device.active = None
        self.await_peers(attempt.case, at)
        return RecordAttempt(case_key=record.case.key, attempt=attempt.number, verdict=Verdict.HOST_DOWN, reason=reason)

    # --- hosts that are silent ---

    def hush(self, host: HostRecord, at: float) -> None:
        """Suspend the deadlines of a host that gives no sign of life: only its grace runs."""
        host.silent_since = at
        for device in host.devices:
            self._board.deadlines.clear(device.device.id)
        self._board.deadlines.set(host.name, at + self._settings.host_grace_s)

    def hear(self, host: HostRecord, at: float) -> Iterator[Command]:
        """Go on with a host that is heard again: the time in which nobody could come back counts for nobody."""
        for device in host.devices:
            if device.away_since is not None:
                device.away_since = at
        yield from self._resume(host, at)

    def _resume(self, host: HostRecord, at: float) -> Iterator[Command]:
        """Let every wait of a host's devices begin anew."""
        host.silent_since = None
        self._board.deadlines.clear(host.name)
        for device in host.devices:
            if device.state is DeviceState.IDLE:
                yield from self.go_on(device, at)
            else:
                self._renew_deadline(device, at)
        yield from self.fill(host, at)

    def _renew_deadline(self, device: DeviceRecord, at: float) -> None:
        if device.state is DeviceState.AWAY:
            self._set_deadline(device, at)
        elif device.state is DeviceState.PREPARING:
            self._set_deadline(device, max(at + self._settings.prepare_timeout_s, self._grace_over_at(device, at)))
        elif device.is_peer and device.active is not None:
            if device.active.state in OVER or device.active.state is AttemptState.MISSING:
                self.await_peers(device.active.case, at)
        elif device.active is not None:
            self.await_next(device.active, at)

    # --- cases ---

    def _start(self, record: CaseRecord, at: float, together: Together | None = None) -> Command:
        self._board.take_out(record)
        number = record.made + 1
        record.attempt = AttemptRecord(case=record, number=number)
        self._board.move_case(record, StartCase, at)
        for each in self._board.devices_of(record):
            each.step_out()
            each.active = record.attempt
            self._board.move_device(each, StartCase, at)
        self.await_next(record.attempt, at)
        return StartCase(case=record.case, attempt=number, together=together)

    def settle(
        self, device: DeviceRecord, record: CaseRecord, at: float, verdict: Verdict, reason: str | None
    ) -> Iterator[Command]:
        """Try a case again whose attempt has ended, or end it; it is in no queue.

        What was measured together is not: its company has ended as well, or has its figures.
        """
        tries = record.made - record.made_before
        attempts = self._settings.attempts
        if self.is_stopping or any(
            each.is_put_aside or each.state in CLOSED for each in self._board.devices_of(record)
        ):
            attempts = tries
        elif is_together(record.case, self._settings.host_concurrency):
            attempts = 1
        if is_tried_again(verdict, attempt=tries, attempts=attempts):
            if tries > 0:
                record.not_before = at + retry_delay_s(tries, self._settings.retry_delay_s)
            self._board.put_back(record)
            self._stir(record, besides=device)
            return
        yield from self._end(device, record, at, verdict, reason)

    def _end(
        self, device: DeviceRecord, record: CaseRecord, at: float, verdict: Verdict, reason: str | None
    ) -> Iterator[Command]:
        """End a case that was tried, and see what follows from it for others."""
        yield self._decide(device, record, at, verdict, reason)
        if record.is_shared:
            # Which of its devices is to blame cannot be told.
            self._stir(record, besides=device)
            return
        if verdict is Verdict.OOM:
            yield from self._infer_oom(device, record, at)
        yield from self._judge(device, at, verdict, reason)

    def _infer_oom(self, device: DeviceRecord, record: CaseRecord, at: float) -> Iterator[Command]:
        """End larger batches of a workload that did not fit: they would not fit either."""
        batch_size = record.case.workload.batch_size
        reason = f"inferred: batch {batch_size} did not fit on this device, so a larger one does not either"
        for larger in [other for other in device.queue if needs_more_memory(other.case, record.case)]:
            self._board.take_out(larger)
            yield self._decide(device, larger, at, Verdict.OOM, reason)
            self._stir(larger, besides=device)

    def end_queue(self, device: DeviceRecord, at: float, verdict: Verdict, reason: str) -> Iterator[Command]:
        """End every case that a device has still to begin, those of several devices for all of these."""
        ended = list(device.queue)
        for record in ended:
            self._board.take_out(record)
            said = reason if record.is_led_by(device.device) else f"{device.device.id}: {reason}"
            yield self._decide(device, record, at, verdict, said)
        for record in ended:
            self._stir(record, besides=device)

    def _stir(self, record: CaseRecord, *, besides: DeviceRecord) -> None:
        """Note that the other devices of a case have to go on, which has come into their queues, or out of them."""
        self._stirred |= {each.device.id: each for each in self._board.devices_of(record) if each is not besides}

    def catch_up(self, at: float) -> Iterator[Command]:
        """Have devices go on whose queue another one has changed: at the end of an event, when all is in place."""
        while self._stirred:
            device = self._stirred.pop(next(iter(self._stirred)))
            if device.state is DeviceState.IDLE:
                self._board.deadlines.clear(device.device.id)
                yield from self.go_on(device, at)
            elif device.state is DeviceState.AWAY and not device.is_wanted:
                yield from self.release(device, at)

    def _decide(
        self, device: DeviceRecord, record: CaseRecord, at: float, verdict: Verdict, reason: str | None
    ) -> Command:
        self._board.move_case(record, RecordVerdict, at)
        record.verdict, record.reason = verdict, reason
        device.done += 1
        if record.is_shared:
            for each in self._board.devices_of(record):
                each.shared.remove(record)
        return RecordVerdict(case_key=record.case.key, verdict=verdict, reason=reason)

    def cancel(self, attempt: AttemptRecord, at: float, verdict: Verdict, reason: str) -> Command:
        """Have an attempt ended that was moved to cancelling."""
        record = attempt.case
        attempt.cancel_reason = reason
        self.await_next(attempt, at)
        return CancelCase(case_key=record.case.key, attempt=attempt.number, verdict=verdict, reason=reason)

    # --- devices and hosts that fail ---

    def _judge(self, device: DeviceRecord, at: float, verdict: Verdict, reason: str | None) -> Iterator[Command]:
        """Count failures in a row, and put a device or its host aside when there are too many."""
        host = device.host
        if verdict.has_figure:
            device.failures = host.failures = 0
            host.failed_on.clear()
        if verdict not in FAILURES:
            return
        device.failures += 1
        host.failures += 1
        host.failed_on.add(device.device.id)
        limit = self._settings.quarantine_after
        if limit and host.failures >= limit and len(host.failed_on) > 1:
            host.failures = 0
            host.failed_on.clear()
            yield PutAside(target=host.name, failures=limit, reason=reason or "")
            for each in host.devices:
                yield from self._put_aside(each, at, limit, reason, is_judged=each is device)
        elif limit and device.failures >= limit:
            device.failures = 0
            yield PutAside(target=device.device.id, failures=limit, reason=reason or "")
            yield from self._put_aside(device, at, limit, reason, is_judged=True)

    def _put_aside(
        self, device: DeviceRecord, at: float, failures: int, reason: str | None, *, is_judged: bool
    ) -> Iterator[Command]:
        """End all that a device has not begun, and let it go unless an attempt is out on it.

        The one whose case was just judged is in the middle of an event, at whose end it is let go for want of cases.
        """
        device.is_put_aside = True
        told = f"put aside after {failures} failures in a row, the last: {reason}"
        yield from self.end_queue(device, at, Verdict.NOT_RUN, told)
        if device.active is None and device.state not in CLOSED and not is_judged:
            yield from self.release(device, at)

    # --- deadlines ---

    def await_next(self, attempt: AttemptRecord, at: float) -> None:
        """Set the deadline of an attempt that has just come into its state."""
        settings = self._settings
        patience_s = {
            AttemptState.STARTING: settings.start_timeout_s,
            AttemptState.WAITING: settings.lease_timeout_s,
            AttemptState.RUNNING: settings.case_timeout_s,
            AttemptState.COLLECTING: settings.collect_timeout_s,
        }
        device = self._board.devices[attempt.case.case.device.id]
        self._set_deadline(device, at + patience_s.get(attempt.state, settings.cancel_timeout_s))

    def _set_deadline(self, device: DeviceRecord, at: float) -> None:
        # While its host is silent, that one's grace counts and nothing else.
        if device.host.silent_since is None:
            self._board.deadlines.set(device.device.id, at)
