"""Somebody who looks at a run's events and commands from outside, and knows nothing of how the head keeps its books."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.dispatch.messages import (
    CancelCase,
    CaseFinished,
    DeviceLost,
    DeviceReady,
    HostHeard,
    HostSilent,
    PeerFinished,
    PrepareDevice,
    PutAside,
    RecordAttempt,
    RecordVerdict,
    ReleaseDevice,
    ResultRecovered,
    StartCase,
    StopRequested,
)
from orchestrator.dispatch.settings import DispatchSettings, HostConcurrency
from orchestrator.dispatch.transitions import DeviceState
from orchestrator.planning import company_key
from workers.protocol import Company, DeviceKind, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.dispatch.machine import Dispatcher
    from orchestrator.dispatch.messages import Command, Event
    from workers.protocol import Case, Progress


@dataclass
class Watch:
    """What must hold of one head, whatever happens; ``before`` counts attempts that earlier heads recorded."""

    cases: tuple[Case, ...]
    settings: DispatchSettings
    before: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device_of = {case.key: case.device for case in self.cases}
        self.group_of = {case.key: company_key(case) for case in self.cases}
        self.position = {case.key: number for number, case in enumerate(self.cases)}
        #: By device: the attempt that is out there.
        self.active: dict[str, tuple[str, int]] = {}
        self.begun: Counter[str] = Counter()
        #: The latest number of each case.
        self.number = {case.key: self.before.get(case.key, 0) for case in self.cases}
        self.first_begun: dict[str, list[int]] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.coming_up: set[str] = set()
        self.up: set[str] = set()
        self.silent: set[str] = set()
        self.aside: set[str] = set()
        self.released: Counter[str] = Counter()
        self.stopped = False
        #: The devices that were begun together, by the name of the group; and the one that is not whole yet.
        self.groups: dict[str, list[str]] = {}
        self.unmet: str | None = None

    def event(self, event: Event | Progress | Command) -> None:
        match event:
            case StopRequested():
                self.stopped = True
            case DeviceReady() if event.device_id in self.coming_up:
                self.coming_up.remove(event.device_id)
                self.up.add(event.device_id)
            case DeviceLost():
                self.coming_up.discard(event.device_id)
                self.up.discard(event.device_id)
                self._part_is_over(event.device_id)
            case PeerFinished() if self.active.get(event.device_id) == (event.case_key, event.attempt):
                self._part_is_over(event.device_id)
            case HostSilent():
                self.silent.add(event.host)
            case HostHeard():
                self.silent.discard(event.host)
            case CaseFinished() | ResultRecovered() if event.case_key in self.device_of:
                self.number[event.case_key] = max(self.number[event.case_key], event.attempt)
                device_id = self.device_of[event.case_key].id
                if self.active.get(device_id) == (event.case_key, event.attempt):
                    del self.active[device_id]
            case _:
                pass

    def _part_is_over(self, device_id: str) -> None:
        """A device has nothing more to do with an attempt that another one times."""
        if device_id in self.active and self.device_of[self.active[device_id][0]].id != device_id:
            del self.active[device_id]

    def command(self, command: Event | Progress | Command) -> None:
        assert self.unmet is None or isinstance(command, StartCase), "they are not begun in one go"
        match command:
            case PrepareDevice():
                self._prepared(command)
            case StartCase():
                self._started(command)
            case CancelCase():
                device_id = self.device_of[command.case_key].id
                assert self.active[device_id] == (command.case_key, command.attempt)
            case RecordAttempt():
                device_id = self.device_of[command.case_key].id
                assert self.active.pop(device_id) == (command.case_key, command.attempt)
            case RecordVerdict():
                assert command.case_key not in self.verdicts, "finished twice"
                timing = [key for device_id, (key, _) in self.active.items() if self.device_of[key].id == device_id]
                assert command.case_key not in timing, "finished while at work"
                self.verdicts[command.case_key] = command.verdict
            case ReleaseDevice():
                self.released[command.device_id] += 1
                assert self.released[command.device_id] == 1
                self._part_is_over(command.device_id)  # given up
                assert command.device_id not in self.active
            case PutAside():
                assert command.failures == self.settings.quarantine_after > 0
                self.aside.add(command.target)
            case _:
                pass

    def _prepared(self, command: PrepareDevice) -> None:
        device = command.device
        assert device.id not in self.up, "it has an agent"
        assert device.id not in self.coming_up, "prepared twice at a time"
        assert not self.released[device.id]
        self.coming_up.add(device.id)
        # It is no longer waited for as a whole: each of its devices is sought.
        self.silent.discard(device.host)

    def _started(self, command: StartCase) -> None:
        case = command.case
        for device in case.devices:
            assert device.id in self.up, "begun without an agent"
            assert device.host not in self.silent, "begun on a silent host"
            assert not self.released[device.id]
            assert not self.aside & {device.id, device.host}, "begun on what is put aside"
            assert device.id not in self.active, "two cases at a time on one device"
        assert not self.stopped
        assert case.key not in self.verdicts
        assert command.attempt == self.number[case.key] + 1, "an attempt's number twice, or left out"
        self.number[case.key] = command.attempt
        self.begun[case.key] += 1
        assert self.begun[case.key] <= self.settings.attempts
        self.active |= {device.id: (case.key, command.attempt) for device in case.devices}
        self._beside(case)
        self._together(command)
        if self.begun[case.key] == 1:
            for device in case.devices:
                order = self.first_begun.setdefault(device.id, [])
                order.append(self.position[case.key])
                assert order == sorted(order), "not in the plan's order"

    def _beside(self, case: Case) -> None:
        hosts = {device.host for device in case.devices}
        # What is missing with its agent does not count as at work.
        beside = {
            device_id: key
            for device_id, (key, _) in self.active.items()
            if device_id in self.up and key != case.key and device_id.partition("/")[0] in hosts
        }
        if not beside:
            return
        if self.settings.host_concurrency is HostConcurrency.BOTH:
            assert {self.group_of[key] for key in beside.values()} == {company_key(case)}
            assert case.company is Company.TOGETHER
            return
        assert self.settings.host_concurrency is not HostConcurrency.EXCLUSIVE
        kinds = [self.device_of[key].kind for key in beside.values()]
        is_together = self.settings.host_concurrency is HostConcurrency.TOGETHER
        assert is_together or DeviceKind.CPU not in (case.device.kind, *kinds)

    def _together(self, command: StartCase) -> None:
        """Those that are begun together are so in one go, each told the same, and nobody is left to wait for."""
        is_asked = self.settings.host_concurrency is HostConcurrency.BOTH
        assert (command.together is not None) == (is_asked and command.case.company is Company.TOGETHER)
        if command.together is None:
            return
        begun = self.groups.setdefault(command.together.group, [])
        begun.append(command.case.device.selector)
        assert len(command.together.selectors) > 1
        assert begun == list(command.together.selectors)[: len(begun)]
        self.unmet = None if begun == list(command.together.selectors) else command.together.group

    def at_the_end(self, dispatcher: Dispatcher) -> None:
        assert dispatcher.is_done
        assert dispatcher.next_deadline is None
        assert not self.active, "an attempt never ended"
        assert self.unmet is None, "one that others wait for was never begun"
        assert set(self.verdicts) == {case.key for case in self.cases}, "a case was lost"
        closed = {DeviceState.RELEASED, DeviceState.LOST}
        assert all(view.state in closed for view in dispatcher.devices())
