"""Storms: a simulated lab in which everything goes wrong at once, and heads that die over it, one after the other.

What a storm is like follows from a few numbers and a seed, so that large labs cost hypothesis nothing.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.dispatch.messages import (
    AcknowledgeResult,
    CaseFinished,
    DeviceLost,
    HostSilent,
    PutAside,
    ResultRecovered,
)
from orchestrator.engine.faults import Fault, Silence
from orchestrator.engine.simulated import SimulatedEngine
from orchestrator.results import Attempt, CaseResult
from orchestrator.runner import Runner, Stopper
from tests.builders import a_case, a_device, a_sampling, a_workload
from tests.properties.watching import Watch
from workers.protocol import Verdict

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.dispatch.messages import Command, Event
    from orchestrator.dispatch.settings import DispatchSettings
    from orchestrator.engine.base import Act
    from orchestrator.runner import Outcome
    from workers.protocol import Case, Progress, Result

#: A head of more devices than these is not looked into after every event, for that takes time with its size.
FEW_DEVICES = 20
#: Of a larger one every so manieth event.
SAMPLED = 997


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What a storm is like."""

    seed: int
    hosts: int
    devices_each: int
    cases_each: int
    #: The share of devices, of hosts and of cases with which something is wrong.
    wrong: float
    #: After how many steps each head ends, and how: the last one does not.
    heads: tuple[Ending, ...]
    settings: DispatchSettings


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a head ends: killed, or asked to stop."""

    after_steps: int
    #: ``kill``, ``stop`` or ``stop now``.
    kind: str


class HeadKilledError(Exception):
    """The head was killed at this very moment."""


@dataclass
class Storm:
    """A lab, what goes wrong in it and when."""

    weather: Weather
    cases: tuple[Case, ...] = ()
    faults: dict[str, Fault] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weather, chance = self.weather, random.Random(self.weather.seed)
        cases, faults = [], self.faults
        sampling = a_sampling(warmup=1, min_steps=2, max_steps=2)
        for host in (f"h{number}" for number in range(weather.hosts)):
            if chance.random() < weather.wrong:
                faults[host] = Fault(silences=tuple(_a_silence(chance) for _ in range(chance.randint(1, 3))))
            for number in range(weather.devices_each):
                device = a_device(host, f"gpu:{number}" if number else "cpu")
                if chance.random() < weather.wrong:
                    faults[device.id] = _a_devices_fault(chance)
                cases += [
                    a_case(device, a_workload(batch_size=2**each), sampling) for each in range(weather.cases_each)
                ]
        # Where hosts have several devices, some cases hold a GPU of each of a few hosts.
        gpus = list({case.device.id: case.device for case in cases if case.device.selector == "gpu:1"}.values())
        cases += [
            dataclasses.replace(a_case(own[0], a_workload(batch_size=999 + number), sampling), peers=tuple(own[1:]))
            for number in range(0, len(gpus) - 1, 3)
            if len(own := gpus[number : number + 3]) > 1
        ]
        for case in cases:
            if chance.random() < weather.wrong / 2:
                faults[case.key] = _a_cases_fault(chance)
        chance.shuffle(cases)
        self.cases = tuple(cases)

    @property
    def latest_s(self) -> float:
        """Until when on the lab's clock every run must have ended, with all heads that die in between; seconds.

        No case begins after the queue's time; then each attempt that is out has its deadlines, each of which begins
        anew when a host is heard again, and each loss of an agent its grace.
        """
        settings = self.weather.settings
        attempt_s = (
            settings.start_timeout_s * 2
            + settings.lease_timeout_s
            + settings.case_timeout_s
            + settings.collect_timeout_s
            + settings.cancel_timeout_s
        )
        silences = [silence for fault in self.faults.values() for silence in fault.silences]
        quiet_s = max((silence.until_s for silence in silences), default=0.0)
        often = 1 + max((len(fault.silences) for fault in self.faults.values()), default=0)
        a_head_s = settings.queue_timeout_s + often * (
            attempt_s + 2 * (settings.host_grace_s + settings.prepare_timeout_s)
        )
        return quiet_s + (len(self.weather.heads) + 1) * a_head_s


def _a_silence(chance: random.Random) -> Silence:
    for_s = chance.choice([2.0, 20.0, 50.0, 90.0, 400.0]) * chance.uniform(0.5, 1.5)
    return Silence(from_s=chance.uniform(0.0, 300.0), for_s=for_s)


def _a_devices_fault(chance: random.Random) -> Fault:
    return Fault(
        never_prepares=chance.random() < 0.1,
        ignores_cancel=chance.random() < 0.2,
        held_for_s=chance.choice([None, None, 0.0, 5.0, 5000.0]),
        oom_above_batch_size=chance.choice([None, None, 1]),
        lost_after_s=chance.choice([None, chance.uniform(0.0, 60.0)]),
        back_after_s=chance.choice([None, 0.0, chance.uniform(0.0, 90.0)]),
        losses=chance.randint(1, 12),
    )


def _a_cases_fault(chance: random.Random) -> Fault:
    return Fault(
        crash_on_attempts=chance.choice([(), (1,), (1, 2), (1, 2, 3, 4, 5, 6, 7, 8)]),
        hangs=chance.random() < 0.3,
        ignores_cancel=chance.random() < 0.2,
        start_delay_s=chance.choice([0.0, 2.0, 300.0]),
    )


class Ledger:
    """A store that outlives every head: what was written to it stays."""

    def __init__(self) -> None:
        self.attempts: dict[tuple[str, int], Result] = {}
        self.late: list[Result] = []
        self.verdicts: dict[str, Verdict] = {}
        self.aside: list[str] = []

    def save_attempt(self, run_id: str, result: Result) -> None:
        assert (result.case_key, result.attempt) not in self.attempts, "kept twice"
        self.attempts[result.case_key, result.attempt] = result

    def save_late(self, run_id: str, result: Result) -> bool:
        if self.has(result):
            return False
        self.late.append(result)
        return True

    def save_verdict(self, run_id: str, case_key: str, verdict: Verdict, reason: str | None) -> None:
        assert case_key not in self.verdicts or not self.verdicts[case_key].is_final, "two verdicts"
        assert reason or verdict.has_figure, "no figure, and no reason"
        self.verdicts[case_key] = verdict

    def put_aside(self, run_id: str, command: PutAside) -> None:
        self.aside.append(command.target)

    def has(self, result: Result) -> bool:
        return self.attempts.get((result.case_key, result.attempt)) == result or result in self.late

    def numbers(self) -> set[tuple[str, int]]:
        return {*self.attempts, *((result.case_key, result.attempt) for result in self.late)}

    def known_of(self, cases: Sequence[Case]) -> dict[str, CaseResult]:
        found = {case.key: CaseResult(case=case, position=number) for number, case in enumerate(cases)}
        for key, number in sorted(self.attempts):
            kept = Attempt(number=number, result=self.attempts[key, number])
            found[key] = dataclasses.replace(found[key], attempts=(*found[key].attempts, kept))
        for late in self.late:
            known, kept = found[late.case_key], Attempt(number=late.attempt, result=late)
            found[late.case_key] = dataclasses.replace(known, superseded=(*known.superseded, kept))
        return found


class Lab(SimulatedEngine):
    """The simulated hosts, which see to it that nothing is acknowledged that is not in the store."""

    def __init__(self, ledger: Ledger, faults: Mapping[str, Fault], seed: int, lease_timeout_s: float) -> None:
        super().__init__(seed=seed, faults=faults, lease_timeout_s=lease_timeout_s)
        self._ledger = ledger
        self.heard: dict[tuple[str, int], Result] = {}
        self.acknowledged: set[tuple[str, int]] = set()
        self.step: Callable[[], None] = lambda: None

    async def start(self, act: Act) -> None:
        if isinstance(act, AcknowledgeResult):
            assert self._ledger.has(self.heard[act.case_key, act.attempt]), "acknowledged, and not kept"
            self.acknowledged.add((act.case_key, act.attempt))
            self.step()
        await super().start(act)


class Head:
    """One head, from its begin to its end, watched; also the recorder and the listener of its runner."""

    def __init__(self, storm: Storm, lab: Lab, ledger: Ledger, ending: Ending | None, seen: Counter[str]) -> None:
        known = ledger.known_of(storm.cases)
        done = {key for key, verdict in ledger.verdicts.items() if verdict.is_final}
        cases = tuple(case for case in storm.cases if case.key not in done)
        self.watch = Watch(cases, storm.weather.settings, dict(sorted(ledger.numbers())))
        self._seen = seen
        self._lab, self._ledger, self._ending = lab, ledger, ending
        self._stopper = Stopper()
        self._steps = 0
        lab.step = self._step
        self._is_small = len(storm.cases) <= FEW_DEVICES * 3
        self.runner = Runner(
            run_id="a-run",
            cases=cases,
            settings=storm.weather.settings,
            engine=lab,
            recorder=self,
            listeners=(self,),
            stopper=self._stopper,
            earlier=known,
        )

    async def run(self) -> Outcome | None:
        """Return how the run ended; ``None`` where this head was killed first."""
        try:
            outcome = await self.runner.run()
        except HeadKilledError:
            return None
        self.watch.at_the_end(self.runner._dispatcher)
        return outcome

    # Every step is a moment at which it may be killed: also between a result and its verdict.

    def _step(self) -> None:
        self._steps += 1
        if self._ending is None or self._steps != self._ending.after_steps:
            return
        if self._ending.kind == "kill":
            raise HeadKilledError
        self._stopper.ask("Ctrl-C", now=self._ending.kind == "stop now")

    def heard(self, news: Event | Progress | Command) -> None:
        self._step()
        if isinstance(news, DeviceLost | HostSilent | ResultRecovered | PutAside):
            self._seen[type(news).__name__] += 1
        if isinstance(news, CaseFinished | ResultRecovered):
            self._lab.heard[news.case_key, news.attempt] = news.result
        self.watch.event(news)
        self.watch.command(news)
        if self._is_small or self._steps % SAMPLED == 0:
            self.runner._dispatcher.check_invariants()

    def save_attempt(self, run_id: str, result: Result) -> None:
        self._step()
        self._ledger.save_attempt(run_id, result)
        self._step()

    def save_late(self, run_id: str, result: Result) -> bool:
        return self._ledger.save_late(run_id, result)

    def save_verdict(self, run_id: str, case_key: str, verdict: Verdict, reason: str | None) -> None:
        self._step()
        self._ledger.save_verdict(run_id, case_key, verdict, reason)
        self._step()

    def put_aside(self, run_id: str, command: PutAside) -> None:
        self._ledger.put_aside(run_id, command)


async def brave(storm: Storm, seen: Counter[str]) -> None:
    """Have a storm go over the lab, hold what was promised against what is left, and count what there was."""
    ledger = Ledger()
    lab = Lab(ledger, storm.faults, storm.weather.seed, storm.weather.settings.lease_timeout_s)
    for ending in (*storm.weather.heads, None):
        head = Head(storm, lab, ledger, ending, seen)
        if await head.run() is None:
            seen["heads killed"] += 1
        lab.abandon()
    check_what_is_left(storm, lab, ledger)
    seen["storms"] += 1
    seen["devices"] += storm.weather.hosts * storm.weather.devices_each
    seen["cases"] += len(storm.cases)
    seen["results acknowledged"] += len(lab.acknowledged)
    seen["results kept as late"] += len(ledger.late)
    for verdict in ledger.verdicts.values():
        seen[f"verdict {verdict.value}"] += 1


def check_what_is_left(storm: Storm, lab: Lab, ledger: Ledger) -> None:
    """Hold the store against the plan once the last head is through."""
    assert set(ledger.verdicts) == {case.key for case in storm.cases}, "not the rows that were planned"
    still_open = {verdict for verdict in ledger.verdicts.values() if not verdict.is_final}
    assert still_open <= ({Verdict.NOT_RUN} if ledger.aside else set()), "left open though nobody stopped"
    for key in lab.acknowledged:
        assert ledger.has(lab.heard[key]), "acknowledged, and lost"
    known = ledger.known_of(storm.cases)
    for case_key, verdict in ledger.verdicts.items():
        if verdict.has_figure:
            last = known[case_key].attempts[-1].result
            assert (last.verdict, bool(last.samples_ms)) == (verdict, True), "a figure without its samples"
    late = [(result.case_key, result.attempt) for result in ledger.late]
    assert len(late) == len(set(late)), "a late result twice"
    for key in late:
        assert key not in ledger.attempts or not ledger.attempts[key].samples_ms, "two figures of one attempt"
    assert lab.now() <= storm.latest_s, f"{lab.now():.0f} s and no end by {storm.latest_s:.0f} s"
