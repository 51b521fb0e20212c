"""The scheduler: looks at the calendar, begins runs, each in a process of its own, and takes up what was cut off.

One leads for a store at a time. Whatever it decides is in the store before anything begins, each time of a schedule
once: a scheduler that is killed and started again, or a second one, finds what was decided and what came of it.
"""

from __future__ import annotations

import datetime
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.errors import MusterError
from orchestrator.results import FiringState
from orchestrator.schedules.decisions import decide

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.config.scheduling import ScheduleConfig
    from orchestrator.results import Firing, Schedule
    from orchestrator.store.schedules import ScheduleBook

#: The name under which the leading scheduler holds the store.
LEADER: Final = "scheduler"

#: What a firing's process ends with where hosts or the store were busy: it is asked again later.
BUSY: Final = 75

#: Seconds from one look at busy hosts to the next, and after which nobody waits for them any more.
BUSY_PAUSE_S: Final = 60.0
BUSY_MOST_S: Final = 3600.0

#: How often a firing's process is begun; one that ends each time without a word never will.
MOST_STARTS: Final = 3


def holder_of(firing_id: int) -> str:
    """Return the name under which a firing's process holds the store."""
    return f"firing-{firing_id}"


class Process(Protocol):
    """A firing's process."""

    def poll(self) -> int | None:
        """Return its exit code; ``None`` while it runs."""


class Scheduler:
    """Decides and begins; call :meth:`tick` often.

    ``now`` is the calendar's clock; ``schedule_of`` reads a schedule's config, and raises MusterError where it cannot;
    ``spawn`` begins the process of a firing; ``at_work`` tells under which names somebody writes to the store now;
    ``log`` takes an event and what belongs to it.
    """

    def __init__(
        self,
        book: ScheduleBook,
        *,
        now: Callable[[], datetime.datetime],
        schedule_of: Callable[[Schedule], ScheduleConfig],
        spawn: Callable[[Firing], Process],
        at_work: Callable[[], frozenset[str]],
        log: Callable[..., None],
    ) -> None:
        self._book = book
        self._now = now
        self._schedule_of = schedule_of
        self._spawn = spawn
        self._at_work = at_work
        self._log = log
        self._processes: dict[int, Process] = {}
        self._starts: dict[int, int] = {}
        #: Until when firings wait whose hosts were busy.
        self._busy: dict[int, datetime.datetime] = {}
        self._unreadable: set[str] = set()

    @property
    def running(self) -> int:
        """How many processes of its own are at work."""
        return len(self._processes)

    def tick(self) -> None:
        """See what has ended, decide what is due, begin what can begin."""
        self._reap()
        open_firings = Counter(firing.schedule for firing in self._book.open())
        for schedule in self._book.every():
            if (config := self._readable(schedule)) is not None:
                self._decide(schedule, config, open_firings[schedule.name])
        self._begin()

    def _readable(self, schedule: Schedule) -> ScheduleConfig | None:
        try:
            return self._schedule_of(schedule)
        except MusterError as error:
            if schedule.name not in self._unreadable:
                self._unreadable.add(schedule.name)
                self._log("schedule cannot be read", schedule=schedule.name, reason=error.message)
            return None

    def _decide(self, schedule: Schedule, config: ScheduleConfig, open_firings: int) -> None:
        decision = decide(
            config,
            schedule.name,
            decided_until=schedule.decided_until,
            now=self._now(),
            open_firings=open_firings,
            is_paused=schedule.is_paused,
        )
        if not decision.firings or not self._book.decide(schedule, decision.firings, decision.decided_until):
            return
        for firing in decision.firings:
            said = {} if firing.reason is None else {"reason": firing.reason}
            self._log(firing.state.value, schedule=schedule.name, due=firing.due_at.isoformat(), **said)

    def _begin(self) -> None:
        at_work, now = self._at_work(), self._now()
        seen: set[str] = set()
        for firing in self._book.open():
            is_first = firing.schedule not in seen
            seen.add(firing.schedule)
            if firing.id in self._processes or holder_of(firing.id) in at_work:
                continue
            if firing.state is FiringState.RUNNING:
                self._start(firing, "taken up again")
            elif is_first and now >= self._busy.get(firing.id, firing.begins_at):
                self._start(firing, "begun")

    def _start(self, firing: Firing, event: str) -> None:
        starts = self._starts[firing.id] = self._starts.get(firing.id, 0) + 1
        if starts > MOST_STARTS:
            reason = f"its process ended {MOST_STARTS} times without a word"
            self._end(firing, FiringState.DONE, reason, outcome="failure")
            return
        self._log(event, schedule=firing.schedule, firing=firing.id, due=firing.due_at.isoformat())
        self._processes[firing.id] = self._spawn(firing)

    def _reap(self) -> None:
        for firing_id, process in list(self._processes.items()):
            if (code := process.poll()) is None:
                continue
            del self._processes[firing_id]
            firing = self._book.firing(firing_id)
            if firing is None:
                continue
            self._log("ended", schedule=firing.schedule, firing=firing_id, code=code, outcome=firing.outcome or "-")
            if code == BUSY and firing.state is FiringState.WAITING:
                self._wait_for_hosts(firing)

    def _wait_for_hosts(self, firing: Firing) -> None:
        """Ask again later, for an hour at most."""
        self._starts[firing.id] = 0
        now = self._now()
        if now - firing.begins_at >= datetime.timedelta(seconds=BUSY_MOST_S):
            self._end(firing, FiringState.SKIPPED, f"hosts were busy for {BUSY_MOST_S / 60:.0f} minutes and more")
            return
        self._busy[firing.id] = now + datetime.timedelta(seconds=BUSY_PAUSE_S)

    def _end(self, firing: Firing, state: FiringState, reason: str, outcome: str | None = None) -> None:
        self._book.change(firing.id, state=state, reason=reason, ended_at=self._now(), outcome=outcome)
        self._log(state.value, schedule=firing.schedule, firing=firing.id, reason=reason)
