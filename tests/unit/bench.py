"""A dispatcher on a bench: a test says what happens, and looks at what the dispatcher answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.dispatch.machine import Dispatcher
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
    PrepareDevice,
    RecordAttempt,
    RecordVerdict,
    ReleaseDevice,
    ResultRecovered,
    StartCase,
    StopRequested,
)
from orchestrator.dispatch.settings import DispatchSettings, HostConcurrency
from tests.builders import a_case, a_device, a_result, a_workload
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.dispatch.messages import Command, Event
    from orchestrator.dispatch.transitions import DeviceState
    from workers.protocol import Case

SETTINGS = DispatchSettings(
    attempts=2,
    prepare_timeout_s=10,
    lease_timeout_s=50,
    start_timeout_s=20,
    case_timeout_s=100,
    collect_timeout_s=5,
    cancel_timeout_s=3,
)
EXCLUSIVE = DispatchSettings(host_concurrency=HostConcurrency.EXCLUSIVE)
TOGETHER = DispatchSettings(host_concurrency=HostConcurrency.TOGETHER)
HELD = "the GPU is held by alice"
GONE = "the host went away"


def case_on(selector: str = "gpu:0", number: int = 1, host: str = "gpu01") -> Case:
    workload = a_workload(batch_size=number)
    return a_case(a_device(host, selector), workload, key=f"{host}-{selector}-{number}")


class Bench:
    """A dispatcher that has begun, invariants checked after every event; ``done`` is what the last one gave."""

    def __init__(
        self, *cases: Case, settings: DispatchSettings = SETTINGS, before: Mapping[str, int] | None = None
    ) -> None:
        self.dispatcher = Dispatcher(cases, settings, attempts_before=before)
        self.done = self.dispatcher.begin(0.0)
        #: When the last event happened.
        self.at = 0.0

    def hear(self, event: Event, *, stop: StopRequested | None = None) -> tuple[Command, ...]:
        self.at = event.at
        self.done = self.dispatcher.handle(event, stop=stop)
        self.dispatcher.check_invariants()
        return self.done

    def ready(self, *selectors: str, host: str = "gpu01", at: float = 1.0) -> tuple[Command, ...]:
        found = [command for s in selectors for command in self.hear(DeviceReady(at=at, device_id=f"{host}/{s}"))]
        return tuple(found)

    def waiting(self, case: Case, attempt: int = 1, at: float = 1.5, reason: str = HELD) -> tuple[Command, ...]:
        return self.hear(CaseWaiting(at=at, case_key=case.key, attempt=attempt, reason=reason))

    def granted(self, case: Case, attempt: int = 1, at: float = 31.5) -> tuple[Command, ...]:
        return self.hear(CaseGranted(at=at, case_key=case.key, attempt=attempt))

    def started(self, case: Case, attempt: int = 1, at: float = 2.0) -> tuple[Command, ...]:
        return self.hear(CaseStarted(at=at, case_key=case.key, attempt=attempt))

    def measured(self, case: Case, attempt: int = 1, at: float = 3.0) -> tuple[Command, ...]:
        return self.hear(CaseMeasured(at=at, case_key=case.key, attempt=attempt))

    def finished(
        self, case: Case, attempt: int = 1, verdict: Verdict = Verdict.OK, reason: str | None = None, at: float = 4.0
    ) -> tuple[Command, ...]:
        result = a_result(case, attempt, verdict=verdict, reason=reason)
        return self.hear(CaseFinished(at=at, case_key=case.key, attempt=attempt, result=result))

    def recovered(
        self, case: Case, attempt: int = 1, verdict: Verdict = Verdict.OK, at: float = 7.0
    ) -> tuple[Command, ...]:
        result = a_result(case, attempt, verdict=verdict)
        return self.hear(ResultRecovered(at=at, case_key=case.key, attempt=attempt, result=result))

    def recovered_and_stopped(self, case: Case, at: float = 7.0) -> tuple[Command, ...]:
        recovered = ResultRecovered(at=at, case_key=case.key, attempt=1, result=a_result(case, 1))
        return self.hear(recovered, stop=StopRequested(at=at, now=True, reason="Ctrl-C"))

    def lost(
        self, selector: str = "gpu:0", at: float = 5.0, reason: str = GONE, *, is_final: bool = False
    ) -> tuple[Command, ...]:
        return self.hear(DeviceLost(at=at, device_id=f"gpu01/{selector}", reason=reason, is_final=is_final))

    def silent(self, at: float = 5.0) -> tuple[Command, ...]:
        return self.hear(HostSilent(at=at, host="gpu01"))

    def heard(self, at: float = 30.0) -> tuple[Command, ...]:
        return self.hear(HostHeard(at=at, host="gpu01"))

    def overdue(self) -> tuple[Command, ...]:
        deadline = self.dispatcher.next_deadline
        assert deadline is not None
        return self.hear(DeadlinePassed(at=deadline))

    def stop(self, *, now: bool = False, at: float = 6.0) -> tuple[Command, ...]:
        return self.hear(StopRequested(at=at, now=now, reason="Ctrl-C"))

    def state(self, selector: str = "gpu:0") -> DeviceState:
        return self.dispatcher.device(f"gpu01/{selector}").state


def verdict(case: Case, verdict: Verdict, reason: str | None = None) -> RecordVerdict:
    return RecordVerdict(case_key=case.key, verdict=verdict, reason=reason)


def release(selector: str = "gpu:0") -> ReleaseDevice:
    return ReleaseDevice(device_id=f"gpu01/{selector}")


def host_down(case: Case, attempt: int = 1, reason: str = GONE) -> RecordAttempt:
    return RecordAttempt(case_key=case.key, attempt=attempt, verdict=Verdict.HOST_DOWN, reason=reason)


def start(case: Case, attempt: int = 1) -> StartCase:
    return StartCase(case=case, attempt=attempt)


def prepare(case: Case) -> PrepareDevice:
    return PrepareDevice(device=case.device)
