"""The run as a person sees it: what each device is doing, how many cases are done, how much longer.

Pure but for a clock that is handed in. Hearing an event costs the same for 5 devices as for 5,000, for hundreds may be
heard between two looks at it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from orchestrator.cli.progress.news import label
from orchestrator.cli.progress.remaining import Load, Pace, Steps, queue_left_s, run_left_s, steps_left_s
from orchestrator.dispatch.messages import (
    CaseFinished,
    CaseGranted,
    CaseMeasured,
    CaseStarted,
    CaseWaiting,
    DeviceLost,
    DeviceReady,
    HostHeard,
    HostSilent,
    PrepareDevice,
    RecordAttempt,
    RecordVerdict,
    ReleaseDevice,
    StartCase,
)
from orchestrator.dispatch.settings import HostConcurrency
from workers.protocol import Phase, Progress, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.dispatch.messages import Command, Event
    from workers.protocol import Case, Device

#: Seconds for which a figure of how much longer is kept: it goes over every device.
_LEFT_KEPT_S: Final = 1.0

#: What a phase is called while it lasts.
PHASE_TEXT: Final = {
    Phase.IMPORT: "importing",
    Phase.BUILD: "building",
    Phase.WARMUP: "warming up",
    Phase.MEASURE: "measuring",
    Phase.PEAK: "peak",
}


class Activity(enum.Enum):
    """What a device is doing, in the order in which devices are counted."""

    MEASURING = "measuring"
    STARTING = "starting"
    WAITING = "waiting"
    PREPARING = "preparing"
    QUEUED = "queued"
    AWAY = "away"
    DONE = "done"
    LOST = "lost"


#: A device in one of these has something to show.
_BUSY: Final = frozenset({Activity.MEASURING, Activity.STARTING, Activity.WAITING, Activity.PREPARING})

#: In which of them a device is in each phase of a case.
_OF_PHASE: Final = {
    Phase.IMPORT: Activity.STARTING,
    Phase.BUILD: Activity.STARTING,
    Phase.WARMUP: Activity.MEASURING,
    Phase.MEASURE: Activity.MEASURING,
    Phase.PEAK: Activity.MEASURING,
}


@dataclass(kw_only=True, slots=True, eq=False)
class Attempted:
    """The case that a device is busy with."""

    case: Case
    number: int
    begun_at: float
    #: In words: ``warming up``, or whom it waits for.
    doing: str
    last_ms: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    #: ``None`` while no step is counted.
    steps: Steps | None = None
    #: True until the last step, when there is next to nothing left.
    has_steps_to_come: bool = True

    @property
    def label(self) -> str:
        """What it is called."""
        return label(self.case)


@dataclass(kw_only=True, slots=True, eq=False)
class Seen:
    """A device, as it goes on."""

    device: Device
    activity: Activity = Activity.QUEUED
    active: Attempted | None = None
    #: Why it is away or lost.
    reason: str | None = None
    #: It is being given up: cases of its end without having begun.
    is_down: bool = False
    #: Of its cases: all, those with a verdict, and those among them without a figure.
    total: int = 0
    done: int = 0
    failed: int = 0
    pace: Pace = field(default_factory=Pace)
    #: Of the cases that it has not begun: seconds of those with an estimate, and how many have none.
    known_s: float = 0.0
    unknown: int = 0

    @property
    def is_busy(self) -> bool:
        """True where something is going on."""
        return self.activity in _BUSY


class Picture:
    """What is known of a run, told by :meth:`heard`; ``clock`` gives seconds of any monotonic clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun_at = clock()
        self._concurrency = HostConcurrency.CONCURRENT
        self._cases: dict[str, Case] = {}
        self._estimates: Mapping[str, float] = {}
        self._queued: set[str] = set()
        #: By the maker's name for the device: what is found out on one holds for the others.
        self._paces: dict[str, Pace] = {}
        self._left: tuple[float, float | None] | None = None
        #: Cases whose latest attempt went away with its agent, and was recorded once that was back.
        self._missed: set[str] = set()
        #: Hosts that give no sign of life.
        self.silent: set[str] = set()
        self.has_begun = False
        #: Cases with a verdict, and those among them without a figure.
        self.done = 0
        self.failed = 0
        #: By device id, in the plan's order.
        self.devices: dict[str, Seen] = {}
        #: The same, of those that are busy: longest first.
        self.busy: dict[str, Seen] = {}
        #: How many devices are at each activity.
        self.counts: dict[Activity, int] = dict.fromkeys(Activity, 0)
        #: What goes on around the cases, in words, and how much of how much where that is counted.
        self.stages: dict[str, tuple[int, int] | None] = {}

    def expect(
        self,
        cases: Sequence[Case],
        estimates: Mapping[str, float],
        concurrency: HostConcurrency = HostConcurrency.CONCURRENT,
    ) -> None:
        """Take note of the cases that will be run, and of the seconds that some of them will take, by key."""
        self._concurrency = concurrency
        self._estimates = estimates
        for case in cases:
            self._cases[case.key] = case
            if case.device.id not in self.devices:
                self.devices[case.device.id] = Seen(device=case.device)
                self.counts[Activity.QUEUED] += 1
            self.devices[case.device.id].total += 1
            self._queue(case)

    # --- what is to be seen ---

    @property
    def total(self) -> int:
        """How many cases there are."""
        return len(self._cases)

    @property
    def cases(self) -> Mapping[str, Case]:
        """All of them, by key."""
        return self._cases

    @property
    def elapsed_s(self) -> float:
        """Seconds since there was a picture."""
        return self._clock() - self._begun_at

    @property
    def left_s(self) -> float | None:
        """Seconds until the last case will have ended; ``None`` where nobody knows."""
        now = self._clock()
        if self._left is None or now - self._left[0] >= _LEFT_KEPT_S:
            loads = (
                Load(host=seen.device.host, kind=seen.device.kind, left_s=self._device_left_s(seen, now))
                for seen in self.devices.values()
            )
            self._left = (now, run_left_s(loads, self._concurrency))
        return self._left[1]

    def case_left_s(self, seen: Seen) -> float | None:
        """Return the seconds until the case that a device is busy with will have ended; ``None`` if nobody knows."""
        return None if seen.active is None else self._case_left_s(seen, seen.active, self._clock())

    def _device_left_s(self, seen: Seen, now: float) -> float | None:
        if seen.activity in (Activity.DONE, Activity.LOST):
            return 0.0
        queue_s = queue_left_s(seen.known_s, seen.unknown, seen.pace, self._mean_s(seen))
        if seen.active is None or queue_s is None:
            return queue_s
        case_s = self._case_left_s(seen, seen.active, now)
        return None if case_s is None else queue_s + case_s

    def _case_left_s(self, seen: Seen, active: Attempted, now: float) -> float | None:
        if seen.activity is Activity.WAITING:
            return None
        if not active.has_steps_to_come:
            return 0.0
        if active.steps is not None:
            return steps_left_s(active.case.sampling, active.steps, now)
        estimate_s = self._estimates.get(active.case.key)
        expected_s = self._mean_s(seen) if estimate_s is None else estimate_s * seen.pace.ratio
        return None if expected_s is None else max(0.0, expected_s - (now - active.begun_at))

    def _mean_s(self, seen: Seen) -> float | None:
        return (seen.pace if seen.pace.cases else self._paces.get(seen.device.name, seen.pace)).mean_s

    # --- what is heard ---

    def stage(self, text: str, done: int | None, total: int | None) -> bool:
        """Take note of what goes on around the cases; return whether it is new, and not another number of the same."""
        is_news = text not in self.stages
        if is_news:
            # What is not counted has no end of its own: it has ended when something else begins.
            self.stages = {told: number for told, number in self.stages.items() if number is not None}
        self.stages[text] = None if done is None or total is None else (done, total)
        if done is not None and total is not None and done >= total:
            del self.stages[text]
        return is_news

    def heard(self, news: Event | Progress | Command) -> None:
        """Take note of ``news``."""
        match news:
            case Progress():
                self._progress(news)
            case StartCase():
                self._start(news)
            case RecordVerdict():
                self._verdict(news)
            case CaseFinished() | RecordAttempt():
                self._ended(news)
            case PrepareDevice() | DeviceReady() | DeviceLost() | ReleaseDevice():
                self._device(news)
            case HostSilent():
                self.silent.add(news.host)
            case HostHeard():
                self.silent.discard(news.host)
            case CaseWaiting() | CaseGranted() | CaseStarted() | CaseMeasured():
                self._phase(news)
            case _:
                pass

    def _device(self, news: PrepareDevice | DeviceReady | DeviceLost | ReleaseDevice) -> None:
        seen = self.devices.get(news.device.id if isinstance(news, PrepareDevice) else news.device_id)
        if seen is None or seen.activity in (Activity.DONE, Activity.LOST):
            return
        match news:
            case PrepareDevice():
                self._begin()
                if seen.activity is not Activity.AWAY:  # that, until it is back
                    self._move(seen, Activity.PREPARING)
            case DeviceReady():
                seen.reason = None
                self._move(seen, Activity.QUEUED)
            case DeviceLost():
                self._drop(seen)
                if seen.activity is not Activity.AWAY or news.is_final:
                    seen.reason = news.reason
                self._move(seen, Activity.LOST if news.is_final else Activity.AWAY)
            case _:
                self._drop(seen)
                is_lost = seen.is_down or seen.activity is Activity.AWAY
                self._move(seen, Activity.LOST if is_lost else Activity.DONE)

    def _start(self, news: StartCase) -> None:
        seen = self.devices.get(news.case.device.id)
        if seen is None:
            return
        self._begin()
        self._missed.discard(news.case.key)
        self._unqueue(news.case)
        seen.active = Attempted(case=news.case, number=news.attempt, begun_at=self._clock(), doing="starting")
        self._move(seen, Activity.STARTING)

    def _phase(self, news: CaseWaiting | CaseGranted | CaseStarted | CaseMeasured) -> None:
        seen = self._at_work(news.case_key, news.attempt)
        if seen is None or seen.active is None:
            return
        match news:
            case CaseWaiting():
                seen.active.doing = f"waiting: {news.reason}"
                self._move(seen, Activity.WAITING)
            case CaseGranted():
                # The wait does not count as time that the case took.
                seen.active.begun_at, seen.active.doing = self._clock(), "starting"
                self._move(seen, Activity.STARTING)
            case CaseStarted():
                seen.active.doing = PHASE_TEXT[Phase.WARMUP]
                self._move(seen, Activity.MEASURING)
            case _:
                seen.active.doing, seen.active.has_steps_to_come = "collecting", False
                self._move(seen, Activity.MEASURING)

    def _progress(self, news: Progress) -> None:
        seen = self._at_work(news.case_key, news.attempt)
        if seen is None or seen.active is None:
            return
        active = seen.active
        active.doing = PHASE_TEXT[news.phase]
        active.last_ms = news.last_ms
        active.temperature_c, active.power_w = news.temperature_c, news.power_w
        active.has_steps_to_come = news.phase is not Phase.PEAK
        if news.phase is Phase.MEASURE:
            now = self._clock()
            first = (now, news.step) if active.steps is None else (active.steps.first_at, active.steps.first)
            active.steps = Steps(first_at=first[0], first=first[1], last_at=now, last=news.step, last_ms=news.last_ms)
        self._move(seen, _OF_PHASE[news.phase])

    def _ended(self, news: CaseFinished | RecordAttempt) -> None:
        """Note the end of an attempt: its case waits for its verdict, or for the next attempt."""
        seen = self._at_work(news.case_key, news.attempt)
        if seen is None or seen.active is None:
            if isinstance(news, RecordAttempt):
                self._missed.add(news.case_key)
            return
        if isinstance(news, CaseFinished) and news.result.verdict.has_figure:
            self._keep_pace(seen, news.case_key, self._clock() - seen.active.begun_at)
        self._drop(seen)
        if seen.is_busy:
            self._move(seen, Activity.QUEUED)

    def _verdict(self, news: RecordVerdict) -> None:
        case = self._cases.get(news.case_key)
        if case is None:
            return
        seen = self.devices[case.device.id]
        self._unqueue(case)
        self.done += 1
        seen.done += 1
        if not news.verdict.has_figure:
            self.failed += 1
            seen.failed += 1
        if news.verdict is Verdict.HOST_DOWN and news.case_key not in self._missed:
            # Its device is given up, which no event tells.
            seen.is_down, seen.reason = True, news.reason
        self._missed.discard(news.case_key)

    # --- and what follows from it ---

    def _begin(self) -> None:
        self.has_begun = True
        self.stages.clear()

    def _at_work(self, case_key: str, attempt: int) -> Seen | None:
        """Return the device that is busy with an attempt; ``None`` where it no longer is."""
        case = self._cases.get(case_key)
        seen = None if case is None else self.devices[case.device.id]
        if seen is None or seen.active is None or (seen.active.case.key, seen.active.number) != (case_key, attempt):
            return None
        return seen

    def _drop(self, seen: Seen) -> None:
        if seen.active is not None:
            self._queue(seen.active.case)
            seen.active = None

    def _move(self, seen: Seen, activity: Activity) -> None:
        self.counts[seen.activity] -= 1
        self.counts[activity] += 1
        seen.activity = activity
        if not seen.is_busy:
            self.busy.pop(seen.device.id, None)
        elif seen.device.id not in self.busy:
            self.busy[seen.device.id] = seen

    def _queue(self, case: Case) -> None:
        self._queued.add(case.key)
        self._count(case, +1)

    def _unqueue(self, case: Case) -> None:
        if case.key in self._queued:
            self._queued.remove(case.key)
            self._count(case, -1)

    def _count(self, case: Case, change: int) -> None:
        seen = self.devices[case.device.id]
        estimate_s = self._estimates.get(case.key)
        if estimate_s is None:
            seen.unknown += change
        else:
            seen.known_s += change * estimate_s

    def _keep_pace(self, seen: Seen, case_key: str, took_s: float) -> None:
        estimate_s = self._estimates.get(case_key)
        seen.pace = seen.pace.with_case(took_s, estimate_s)
        name = seen.device.name
        self._paces[name] = self._paces.get(name, Pace()).with_case(took_s, estimate_s)
