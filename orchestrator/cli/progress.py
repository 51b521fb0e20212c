"""What a person sees while a run goes on: the only writer to the terminal during that time.

On a terminal a bar for the run and a line for each busy device; elsewhere one plain line an event. Both write to
stderr, so that stdout holds the table alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.cli.output import count
from orchestrator.dispatch.messages import (
    CaseFinished,
    CaseStarted,
    DeviceLost,
    PrepareDevice,
    RecordVerdict,
    StartCase,
    StopRequested,
)
from workers.protocol import Phase, Progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.progress import TaskID

    from orchestrator.dispatch.messages import Command, Event
    from workers.protocol import Case

#: What a phase is called while it lasts.
PHASE_TEXT: Final = {
    Phase.IMPORT: "importing",
    Phase.BUILD: "building",
    Phase.WARMUP: "warming up",
    Phase.MEASURE: "measuring",
    Phase.PEAK: "peak",
}


class ProgressView(Protocol):
    """A listener that is entered before a run and left after it."""

    def __enter__(self) -> ProgressView: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def heard(self, news: Event | Progress | Command) -> None:
        """Show an event that came in, progress, or a command that went out."""

    def say(self, text: str) -> None:
        """Show one line."""


def view(cases: Sequence[Case], *, quiet: bool) -> ProgressView:
    """Return the view that fits where stderr goes."""
    if quiet:
        return QuietView()
    if sys.stderr.isatty():
        return LiveView(cases)
    return PlainView(cases)


def label(case: Case) -> str:
    """Return what a case is called in one short line."""
    workload = case.workload
    return f"{workload.model} {workload.pass_.value} b{workload.batch_size} {workload.precision.value}"


class QuietView:
    """Says nothing."""

    def __enter__(self) -> ProgressView:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def heard(self, news: Event | Progress | Command) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""


class PlainView:
    """One line an event."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = {case.key: case for case in cases}
        self._done = 0

    def __enter__(self) -> ProgressView:
        """Say how much there is to do."""
        self.say(count(len(self._cases), "case"))
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def heard(self, news: Event | Progress | Command) -> None:
        """Print what matters of ``news``."""
        if isinstance(news, CaseFinished):
            self._done += 1
        text = text_of(news, self._cases)
        if text is not None:
            self.say(f"[{self._done}/{len(self._cases)}] {text}")

    def say(self, text: str) -> None:
        """Print one line."""
        print(text, file=sys.stderr, flush=True)


def text_of(news: Event | Progress | Command, cases: dict[str, Case]) -> str | None:
    """Return the line that tells of ``news``; ``None`` where there is nothing to tell."""
    if isinstance(news, StartCase):
        again = "" if news.attempt == 1 else f" (attempt {news.attempt})"
        return f"{news.case.device.id}: {label(news.case)}: starting{again}"
    if isinstance(news, CaseFinished):
        return _end_of(news, cases[news.case_key])
    if isinstance(news, RecordVerdict) and not news.verdict.has_figure:
        case = cases[news.case_key]
        return f"{case.device.id}: {label(case)}: {news.verdict.value}: {news.reason}"
    if isinstance(news, DeviceLost):
        return f"{news.device_id}: lost: {news.reason}"
    if isinstance(news, StopRequested):
        return f"stopping: {news.reason}"
    return None


def _end_of(news: CaseFinished, case: Case) -> str | None:
    samples = news.result.samples_ms
    if not news.result.verdict.has_figure or not samples:
        return None  # told by its verdict
    mean_ms = sum(samples) / len(samples)
    return f"{case.device.id}: {label(case)}: {mean_ms:.4g} ms a step over {len(samples)} steps"


class LiveView:
    """A bar for the run, and a line for each device that is at work."""

    def __init__(self, cases: Sequence[Case]) -> None:
        # Loaded here and not above, for only a run on a terminal needs it.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._cases = {case.key: case for case in cases}
        self._lines: dict[str, TaskID] = {}
        self._console = Console(stderr=True, highlight=False)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._total = self._bars.add_task("cases", total=len(self._cases), now="starting Ray")

    def __enter__(self) -> ProgressView:
        """Begin to draw."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End drawing and leave the terminal as it was."""
        self._bars.stop()

    def heard(self, news: Event | Progress | Command) -> None:
        """Draw what ``news`` changes."""
        if isinstance(news, PrepareDevice):
            self._bars.update(self._total, now="starting agents")
        elif isinstance(news, StartCase):
            self._begin(news.case)
        elif isinstance(news, CaseStarted):
            self._update(news.case_key, now=PHASE_TEXT[Phase.WARMUP])
        elif isinstance(news, Progress):
            self._progress(news)
        elif isinstance(news, RecordVerdict):
            self._end(news.case_key)
        text = None if isinstance(news, StartCase) else text_of(news, self._cases)
        if text is not None:
            self.say(text)

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, markup=False, soft_wrap=True)

    def _begin(self, case: Case) -> None:
        self._bars.update(self._total, now="")
        name = f"{case.device.id} {label(case)}"
        if case.key in self._lines:
            self._bars.remove_task(self._lines[case.key])
        self._lines[case.key] = self._bars.add_task(name, total=case.sampling.max_steps, now="starting")

    def _progress(self, news: Progress) -> None:
        last = "" if news.last_ms is None else f"{news.last_ms:.4g} ms"
        now = last if news.phase is Phase.MEASURE else f"{PHASE_TEXT[news.phase]} {last}"
        self._update(news.case_key, completed=news.step, now=now.strip())

    def _update(self, case_key: str, *, now: str, completed: int | None = None) -> None:
        if case_key in self._lines:
            self._bars.update(self._lines[case_key], completed=completed, now=now)

    def _end(self, case_key: str) -> None:
        line = self._lines.pop(case_key, None)
        if line is not None:
            self._bars.remove_task(line)
        self._bars.advance(self._total)
