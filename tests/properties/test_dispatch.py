"""What the dispatcher promises, held against random labs and random turns of events."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
    PeerFinished,
    PrepareDevice,
    PutAside,
    ResultRecovered,
    StartCase,
    StopRequested,
)
from orchestrator.dispatch.settings import DispatchSettings, HostConcurrency
from orchestrator.dispatch.transitions import DeviceState
from orchestrator.engine.simulated import Fault, SimulatedEngine
from orchestrator.runner import Runner, Stopper
from tests.builders import a_case, a_device, a_result, a_sampling, a_workload
from tests.properties.watching import Watch
from workers.protocol import Company, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.dispatch.messages import Command, Event
    from workers.protocol import Case, Device, Progress, Result

#: What a throw of twelve must show for what would end most runs before they become interesting.
SELDOM = 7

SELECTORS = ("gpu:0", "gpu:1", "gpu:2", "cpu", "cpu:0-7")

devices = st.builds(a_device, st.sampled_from(["gpu01", "gpu02", "attic"]), st.sampled_from(SELECTORS))
durations_s = st.sampled_from([1.0, 2.5, 10.0])
dispatch_settings = st.builds(
    DispatchSettings,
    host_concurrency=st.sampled_from(HostConcurrency),
    attempts=st.integers(1, 3),
    prepare_timeout_s=durations_s,
    lease_timeout_s=durations_s,
    start_timeout_s=durations_s,
    case_timeout_s=durations_s,
    collect_timeout_s=durations_s,
    cancel_timeout_s=durations_s,
    retry_delay_s=st.sampled_from([0.0, 0.0, 3.0]),
    queue_timeout_s=st.sampled_from([5.0, 1e5, 1e5]),
    host_grace_s=st.sampled_from([0.0, 4.0, 30.0]),
    quarantine_after=st.sampled_from([0, 0, 1, 2]),
)


def plan(of: Sequence[Device]) -> tuple[Case, ...]:
    """One case for each mention of a device, in that order."""
    return tuple(
        a_case(device, a_workload(batch_size=number), a_sampling(warmup=1, min_steps=2, max_steps=2), f"case-{number}")
        for number, device in enumerate(of, 1)
    )


def compared(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Each case alone, and then all of a host together: cases of one number are of one workload."""
    found: list[Case] = []
    for place, case in enumerate(cases):
        number = 1 + sum(other.device.id == case.device.id for other in cases[:place])
        workload = a_workload(batch_size=number)
        one = replace(case, workload=workload)
        found += [replace(one, key=f"{case.key} {company.value}", company=company) for company in Company]
    return tuple(
        sorted(found, key=lambda each: (each.workload.batch_size, each.company is Company.TOGETHER, each.device.host))
    )


def shared(of: Sequence[Sequence[Device]]) -> tuple[Case, ...]:
    """One case for each group of devices: for all of its first one's kind."""
    firsts = plan([group[0] for group in of])
    return tuple(
        replace(case, peers=tuple(each for each in group[1:] if each.kind is case.device.kind))
        for case, group in zip(firsts, of, strict=True)
    )


plans = st.lists(devices, min_size=1, max_size=12).map(plan)
plans |= st.lists(devices, min_size=1, max_size=6).map(plan).map(compared)
groups = st.lists(devices, min_size=1, max_size=4, unique_by=lambda device: device.id)
plans |= st.lists(groups, min_size=1, max_size=8).map(shared)


@dataclass
class Child:
    """One attempt as its host sees it: what it has still to say."""

    case: Case
    attempt: int
    is_waiting: bool = False
    has_started: bool = False
    is_measured: bool = False


class DispatchMachine(RuleBasedStateMachine):
    """A lab whose devices say, in any order and with any delay, whatever agents could say."""

    @initialize(cases=plans, given=dispatch_settings, before=st.lists(st.integers(0, 2), min_size=12, max_size=12))
    def begin(self, cases: tuple[Case, ...], given: DispatchSettings, before: list[int]) -> None:
        self.at = 0.0
        made = {case.key: number for case, number in zip(cases, before, strict=False)}
        self.dispatcher = Dispatcher(cases, given, attempts_before=made)
        self.watch = Watch(cases, given, made)
        self.unready: list[str] = []
        self.alive: list[str] = []
        self.children: list[Child] = []
        #: What peers still have to end, by device: the attempt that another device times.
        self.parts: dict[str, Child] = {}
        #: Attempts whose agents are gone; their hosts may keep a result.
        self.missing: list[Child] = []
        #: Hosts whose silence was told.
        self.silent: list[str] = []
        self.taken: set[tuple[str, int]] = set()
        self.obey(self.dispatcher.begin(self.at))

    def hear(self, event: Event) -> None:
        if isinstance(event, CaseFinished | ResultRecovered) and self.dispatcher.awaits(event.case_key, event.attempt):
            assert (event.case_key, event.attempt) not in self.taken, "taken twice"
            self.taken.add((event.case_key, event.attempt))
        self.watch.event(event)
        self.obey(self.dispatcher.handle(event))
        self.dispatcher.check_invariants()

    def obey(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self.watch.command(command)
            if isinstance(command, PrepareDevice):
                for known in (self.unready, self.alive):
                    if command.device.id not in known:
                        known.append(command.device.id)
            if isinstance(command, StartCase):
                child = Child(command.case, command.attempt)
                self.children.append(child)
                self.parts |= {peer.id: child for peer in command.case.peers}

    @rule(seconds=durations_s)
    def time_passes(self, seconds: float) -> None:
        self.at += seconds / 8

    @precondition(lambda self: self.unready)
    @rule(data=st.data())
    def a_device_is_ready(self, data: st.DataObject) -> None:
        device_id = data.draw(st.sampled_from(self.unready))
        self.unready.remove(device_id)
        self.hear(DeviceReady(at=self.at, device_id=device_id))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), is_told_again=st.booleans(), chance=st.integers(1, 12))
    def a_device_is_lost(self, data: st.DataObject, is_told_again: bool, chance: int) -> None:
        if chance not in (SELDOM, SELDOM + 1, SELDOM + 2):
            return
        is_final = chance == SELDOM
        device_id = data.draw(st.sampled_from(self.alive))
        if not is_told_again:
            self.alive.remove(device_id)
        self.unready = [each for each in self.unready if each != device_id]
        self.parts.pop(device_id, None)
        self.missing += [child for child in self.children if child.case.device.id == device_id]
        self.children = [child for child in self.children if child.case.device.id != device_id]
        self.hear(DeviceLost(at=self.at, device_id=device_id, reason="gone", is_final=is_final))

    @precondition(lambda self: any(device.state is DeviceState.AWAY for device in self.dispatcher.devices()))
    @rule(data=st.data())
    def somebody_comes_back(self, data: st.DataObject) -> None:
        self.a_deadline_passes()
        if self.unready:
            self.a_device_is_ready(data)

    @precondition(lambda self: self.missing_of_unready())
    @rule(data=st.data(), verdict=st.sampled_from([Verdict.OK, Verdict.CRASHED, Verdict.CANCELLED]))
    def a_result_is_recovered(self, data: st.DataObject, verdict: Verdict) -> None:
        self.recover(data.draw(st.sampled_from(self.missing_of_unready())), verdict)

    @precondition(lambda self: self.unready)
    @rule(data=st.data(), verdict=st.sampled_from([Verdict.OK, Verdict.CRASHED, Verdict.OOM]), ahead=st.integers(0, 2))
    def a_result_of_an_earlier_head_is_recovered(self, data: st.DataObject, verdict: Verdict, ahead: int) -> None:
        unbegun = [
            case for case in self.watch.cases if case.device.id in self.unready and not self.watch.begun[case.key]
        ]
        if unbegun:
            case = data.draw(st.sampled_from(unbegun))
            self.recover(Child(case, self.watch.before[case.key] + ahead), verdict)

    def missing_of_unready(self) -> list[Child]:
        return [child for child in self.missing if child.case.device.id in self.unready]

    def recover(self, child: Child, verdict: Verdict) -> None:
        result = a_result(child.case, child.attempt, verdict=verdict)
        self.hear(ResultRecovered(at=self.at, case_key=child.case.key, attempt=child.attempt, result=result))

    @precondition(lambda self: self.missing)
    @rule(data=st.data())
    def a_result_comes_late(self, data: st.DataObject) -> None:
        child = data.draw(st.sampled_from(self.missing))
        self.missing.remove(child)
        result = a_result(child.case, child.attempt)
        self.hear(CaseFinished(at=self.at, case_key=child.case.key, attempt=child.attempt, result=result))

    @rule(data=st.data(), chance=st.integers(1, 12))
    def a_host_falls_silent_or_is_heard(self, data: st.DataObject, chance: int) -> None:
        host = data.draw(st.sampled_from(sorted({case.device.host for case in self.watch.cases})))
        if host in self.silent:
            self.silent.remove(host)
            self.hear(HostHeard(at=self.at, host=host))
        elif chance in (SELDOM, SELDOM + 1):
            self.silent.append(host)
            self.hear(HostSilent(at=self.at, host=host))

    def beginning(self, *, is_waiting: bool) -> list[Child]:
        return [
            child
            for child in self.children
            if not child.has_started and not child.is_measured and child.is_waiting is is_waiting
        ]

    @precondition(lambda self: self.beginning(is_waiting=False) or self.beginning(is_waiting=True))
    @rule(data=st.data(), reason=st.sampled_from(["held by alice", "held by bob"]))
    def a_case_waits_for_its_device(self, data: st.DataObject, reason: str) -> None:
        child = data.draw(st.sampled_from(self.beginning(is_waiting=False) + self.beginning(is_waiting=True)))
        child.is_waiting = True
        self.hear(CaseWaiting(at=self.at, case_key=child.case.key, attempt=child.attempt, reason=reason))

    @precondition(lambda self: self.beginning(is_waiting=True))
    @rule(data=st.data())
    def a_case_is_granted_its_device(self, data: st.DataObject) -> None:
        child = data.draw(st.sampled_from(self.beginning(is_waiting=True)))
        child.is_waiting = False
        self.hear(CaseGranted(at=self.at, case_key=child.case.key, attempt=child.attempt))

    @precondition(lambda self: self.beginning(is_waiting=False))
    @rule(data=st.data())
    def a_case_starts(self, data: st.DataObject) -> None:
        child = data.draw(st.sampled_from(self.beginning(is_waiting=False)))
        child.has_started = True
        self.hear(CaseStarted(at=self.at, case_key=child.case.key, attempt=child.attempt))

    @precondition(lambda self: any(not child.is_measured and not child.is_waiting for child in self.children))
    @rule(data=st.data())
    def a_case_is_measured(self, data: st.DataObject) -> None:
        working = [child for child in self.children if not child.is_measured and not child.is_waiting]
        child = data.draw(st.sampled_from(working))
        child.is_measured = True
        self.hear(CaseMeasured(at=self.at, case_key=child.case.key, attempt=child.attempt))

    @precondition(lambda self: self.children)
    @rule(
        data=st.data(),
        verdict=st.sampled_from([Verdict.OK, Verdict.OOM, Verdict.BUSY, Verdict.TIMEOUT] + 2 * [Verdict.CRASHED]),
    )
    def a_case_finishes(self, data: st.DataObject, verdict: Verdict) -> None:
        child = data.draw(st.sampled_from(self.children))
        self.children.remove(child)
        result = a_result(child.case, child.attempt, verdict=verdict)
        self.hear(CaseFinished(at=self.at, case_key=child.case.key, attempt=child.attempt, result=result))

    def ending_parts(self) -> list[str]:
        """The peers whose attempt has been ended by its own device, or has lost that."""
        return [device_id for device_id, child in self.parts.items() if child not in self.children]

    @precondition(lambda self: self.ending_parts())
    @rule(data=st.data())
    def a_peer_finishes(self, data: st.DataObject) -> None:
        device_id = data.draw(st.sampled_from(self.ending_parts()))
        child = self.parts.pop(device_id)
        ended = PeerFinished(at=self.at, device_id=device_id, case_key=child.case.key, attempt=child.attempt)
        self.hear(ended)

    @precondition(lambda self: self.dispatcher.next_deadline is not None)
    @rule()
    def a_deadline_passes(self) -> None:
        self.at = max(self.at, self.dispatcher.next_deadline or 0.0)
        self.hear(DeadlinePassed(at=self.at))

    @rule(now=st.booleans(), chance=st.integers(1, 12))
    def somebody_stops_the_run(self, now: bool, chance: int) -> None:
        if chance == SELDOM:
            self.hear(StopRequested(at=self.at, now=now, reason="Ctrl-C"))

    @invariant()
    def it_waits_for_something_until_it_is_done(self) -> None:
        if hasattr(self, "dispatcher") and not self.dispatcher.is_done:
            assert self.dispatcher.next_deadline is not None

    def teardown(self) -> None:
        """Whatever came before, and though nobody says another word: the deadlines alone end every run."""
        if not hasattr(self, "dispatcher"):
            return
        for _ in range(60 * len(self.watch.cases) * self.watch.settings.attempts):
            if self.dispatcher.next_deadline is None:
                break
            self.a_deadline_passes()
        self.watch.at_the_end(self.dispatcher)


TestDispatch = DispatchMachine.TestCase
TestDispatch.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


# --- the same promises with the runner and the simulated engine ------------------------------------------------

faults = st.builds(
    Fault,
    crash_on_attempts=st.sampled_from([(), (), (1,), (1, 2), (2,)]),
    oom_above_batch_size=st.sampled_from([None, None, 3]),
    hangs=st.booleans(),
    ignores_cancel=st.booleans(),
    start_delay_s=st.sampled_from([0.0, 2.0, 300.0]),
    held_for_s=st.sampled_from([None, None, 0.0, 5.0, 5000.0]),
    never_prepares=st.booleans(),
    lost_after_s=st.sampled_from([None, None, 0.5, 6.0, 30.0]),
    back_after_s=st.sampled_from([None, 0.0, 3.0, 20.0]),
    losses=st.integers(1, 3),
)


class Kept:
    """A store in memory."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, int]] = []
        self.verdicts: dict[str, Verdict] = {}

    def save_attempt(self, run_id: str, result: Result) -> None:
        self.attempts.append((result.case_key, result.attempt))

    def save_verdict(self, run_id: str, case_key: str, verdict: Verdict, reason: str | None) -> None:
        assert case_key not in self.verdicts
        self.verdicts[case_key] = verdict

    def save_late(self, run_id: str, result: Result) -> bool:
        return (result.case_key, result.attempt) not in self.attempts

    def put_aside(self, run_id: str, command: PutAside) -> None:
        pass


class Onlooker:
    """Passes everything on to the watch, and asks for a stop at the moment that it was given."""

    def __init__(self, watch: Watch, stop: Callable[[], None], stop_after: int | None) -> None:
        self.watch = watch
        self.stop = stop
        self.left = stop_after

    def heard(self, news: Event | Progress | Command) -> None:
        self.watch.event(news)
        self.watch.command(news)
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.stop()


@settings(max_examples=150, deadline=None)
@given(
    cases=plans,
    given=dispatch_settings,
    faulty=st.lists(st.tuples(st.integers(0, 11), st.booleans(), faults), max_size=4),
    stop_after=st.none() | st.integers(1, 60),
    now=st.booleans(),
)
def test_a_simulated_run_ends_whatever_goes_wrong(
    cases: tuple[Case, ...],
    given: DispatchSettings,
    faulty: list[tuple[int, bool, Fault]],
    stop_after: int | None,
    now: bool,
) -> None:
    targets = {
        (cases[index % len(cases)].key if is_case else cases[index % len(cases)].device.id): fault
        for index, is_case, fault in faulty
    }
    watch, kept, stopper = Watch(cases, given), Kept(), Stopper()
    onlooker = Onlooker(watch, lambda: stopper.ask("Ctrl-C", now=now), stop_after)
    outcome = asyncio.run(
        Runner(
            run_id="a-run",
            cases=cases,
            settings=given,
            engine=SimulatedEngine(faults=targets),
            recorder=kept,
            listeners=(onlooker,),
            stopper=stopper,
        ).run()
    )
    assert not watch.active
    assert kept.verdicts == watch.verdicts == {found.case.key: found.verdict for found in outcome.cases}
    assert set(kept.verdicts) == {case.key for case in cases}
    assert Counter(kept.attempts) == Counter(
        (key, n) for key, tries in watch.begun.items() for n in range(1, tries + 1)
    )
    for found in outcome.cases:
        assert found.verdict is not None
        if found.verdict.has_figure:
            assert found.result is not None
            assert found.result.samples_ms
