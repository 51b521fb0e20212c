"""A run on a terminal: lines that are drawn again and again, and above them what was said.

A thread of its own draws, a few times a second: whatever the head is busy with, time goes on on the screen; hundreds
of devices cost no more than the lines that fit; and a terminal that is held up (Ctrl-S) holds up no run.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Final

from orchestrator.cli.progress.drawing import ASCII, Drawing, Symbols
from orchestrator.cli.progress.news import Teller, Tone
from orchestrator.cli.progress.picture import Picture
from orchestrator.dispatch.settings import HostConcurrency

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from orchestrator.cli.progress.news import Told
    from orchestrator.dispatch.messages import Command, Event
    from workers.protocol import Case, Progress

#: Seconds between two drawings.
_EVERY_S: Final = 0.2

#: Seconds that the last drawing may take before the terminal is waited for by whoever writes next.
_LAST_S: Final = 5.0

#: Lines of a terminal that are left to what was said.
_KEPT_LINES: Final = 4

#: With more devices than these, figures are not told one by one: they would drive what went wrong off the screen.
_FEW_DEVICES: Final = 8

#: In rich's words.
_STYLES: Final = {
    Tone.PLAIN: "",
    Tone.FIGURE: "",
    Tone.DOUBTFUL: "yellow",
    Tone.BAD: "red",
    Tone.FAINT: "dim",
    Tone.DONE: "green",
}


class LiveView:
    """The picture of a run on a terminal, and above it what went wrong and what was said, as it came."""

    def __init__(self, console: Console) -> None:
        # Loaded here and not above, for only a run on a terminal needs it.
        from rich.live import Live

        self._console = console
        self._picture = Picture(time.monotonic)
        self._teller = Teller(self._picture.cases)
        self._drawing = Drawing(self._picture, ASCII if console.options.ascii_only else Symbols())
        #: Guards all of the above, which two threads use, and what is still to be said. Never held while writing.
        self._lock = threading.Lock()
        self._unsaid: list[tuple[str, Tone]] = []
        self._is_over = threading.Event()
        self._drawer = threading.Thread(target=self._draw_until_over, name="muster-progress", daemon=True)
        self._live = Live(console=console, get_renderable=lambda: _Region(self), auto_refresh=False, transient=True)

    def __enter__(self) -> LiveView:
        """Begin to draw."""
        self._live.start()
        self._drawer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Say what is still to be said, end drawing and leave the terminal as it was."""
        self._is_over.set()
        self._drawer.join(_LAST_S)
        with contextlib.suppress(OSError):  # a terminal that is gone needs no mending
            self._draw()
            self._live.stop()

    def expect(
        self,
        cases: Sequence[Case],
        *,
        estimates: Mapping[str, float] | None = None,
        concurrency: HostConcurrency = HostConcurrency.CONCURRENT,
    ) -> None:
        """Draw these cases from now on."""
        with self._lock:
            self._picture.expect(cases, estimates or {}, concurrency)

    def heard(self, news: Event | Progress | Command) -> None:
        """Take note of ``news`` for the next drawing."""
        with self._lock:
            self._picture.heard(news)
            self._keep(self._teller.heard(news))

    def stage(self, text: str, done: int | None, total: int | None) -> None:
        """Show what goes on before there are cases, or after."""
        with self._lock:
            self._picture.stage(text, done, total)

    def say(self, text: str) -> None:
        """Print one line above the drawing."""
        with self._lock:
            self._keep(self._teller.rest())
            self._unsaid.append((text, Tone.PLAIN))

    def lines(self, width: int, height: int) -> list[list[tuple[str, str]]]:
        """Return the drawing for a terminal of that size: texts and rich's names of their styles."""
        with self._lock:
            drawn = self._drawing.lines(width, max(2, height - _KEPT_LINES))
        return [[(text, _STYLES[tone]) for text, tone in line] for line in drawn]

    def _keep(self, told: Sequence[Told]) -> None:
        self._unsaid += [(each.text, each.tone) for each in told if self._is_worth_a_line(each.tone)]

    def _is_worth_a_line(self, tone: Tone) -> bool:
        if tone is Tone.FIGURE:
            return len(self._picture.devices) <= _FEW_DEVICES
        return tone is not Tone.PLAIN

    def _draw_until_over(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone; the run is not
            while not self._is_over.wait(_EVERY_S):
                self._draw()

    def _draw(self) -> None:
        from rich.text import Text

        with self._lock:
            self._keep(self._teller.rest())
            unsaid, self._unsaid = self._unsaid, []
        if unsaid:
            # All at once: the console draws the region below anew each time that it prints.
            lines = (Text(text, _STYLES[tone]) for text, tone in unsaid)
            self._console.print(Text("\n").join(lines), soft_wrap=True)
        else:
            self._live.refresh()


class _Region:
    """What rich draws: the lines as they are at that moment, for the size that the terminal has then."""

    def __init__(self, view: LiveView) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        width, height = console.size
        for number, line in enumerate(self._view.lines(width, height)):
            if number:
                yield Segment.line()
            yield from (Segment(text, console.get_style(style)) for text, style in line)
