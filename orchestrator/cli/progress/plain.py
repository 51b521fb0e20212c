"""A run told in plain lines, one an event: for files, pipes and terminals that cannot move the cursor."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from orchestrator.cli.progress.news import Teller
from orchestrator.cli.progress.picture import Picture
from orchestrator.dispatch.settings import HostConcurrency
from orchestrator.report.printable import printable
from orchestrator.report.words import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.cli.progress.news import Told
    from orchestrator.dispatch.messages import Command, Event
    from workers.protocol import Case, Progress


class PlainView:
    """One line an event."""

    def __init__(self) -> None:
        self._picture = Picture(time.monotonic)
        self._teller = Teller(self._picture.cases)

    def __enter__(self) -> PlainView:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Print what was held back."""
        self._print(self._teller.rest())

    def expect(
        self,
        cases: Sequence[Case],
        *,
        estimates: Mapping[str, float] | None = None,
        concurrency: HostConcurrency = HostConcurrency.CONCURRENT,
    ) -> None:
        """Say how much there is to do."""
        self._picture.expect(cases, estimates or {}, concurrency)
        self.say(count(self._picture.total, "case"))

    def heard(self, news: Event | Progress | Command) -> None:
        """Print what matters of ``news``."""
        self._picture.heard(news)
        self._print(self._teller.heard(news))

    def stage(self, text: str, done: int | None, total: int | None) -> None:
        """Print what goes on, once; not every number of it."""
        if self._picture.stage(text, done, total):
            self.say(printable(text))

    def say(self, text: str) -> None:
        """Print one line, after what was held back."""
        self._print(self._teller.rest())
        print(text, file=sys.stderr, flush=True)

    def _print(self, told: Sequence[Told]) -> None:
        for each in told:
            print(f"[{self._picture.done}/{self._picture.total}] {each.text}", file=sys.stderr, flush=True)
