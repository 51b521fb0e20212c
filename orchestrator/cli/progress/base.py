"""What every way to show a run offers, and the one that shows nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from orchestrator.dispatch.settings import HostConcurrency

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from orchestrator.dispatch.messages import Command, Event
    from workers.protocol import Case, Progress


class ProgressView(Protocol):
    """A listener that is entered before a run, or before the lab is brought up for it, and left afterwards."""

    def __enter__(self) -> ProgressView: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def expect(
        self,
        cases: Sequence[Case],
        *,
        estimates: Mapping[str, float] | None = None,
        concurrency: HostConcurrency = HostConcurrency.CONCURRENT,
    ) -> None:
        """Learn which cases will be run, once, before any event.

        ``estimates`` are the seconds that cases are expected to take, by key, where that is known.
        """

    def heard(self, news: Event | Progress | Command) -> None:
        """Show an event that came in, progress, or a command that went out."""

    def stage(self, text: str, done: int | None, total: int | None) -> None:
        """Show what goes on around the cases, and how much of how much where that is counted."""

    def say(self, text: str) -> None:
        """Show one line."""


class QuietView:
    """Says nothing."""

    def __enter__(self) -> QuietView:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def expect(
        self,
        cases: Sequence[Case],
        *,
        estimates: Mapping[str, float] | None = None,
        concurrency: HostConcurrency = HostConcurrency.CONCURRENT,
    ) -> None:
        """Do nothing."""

    def heard(self, news: Event | Progress | Command) -> None:
        """Do nothing."""

    def stage(self, text: str, done: int | None, total: int | None) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""
