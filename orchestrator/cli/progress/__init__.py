"""What a person sees while a run goes on: the only writer to the terminal during that time.

On a terminal a bar for the run and a line for each busy device; elsewhere one plain line an event. Both write to
stderr, so that stdout holds the table alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.cli.progress.base import ProgressView, QuietView
from orchestrator.cli.progress.live import LiveView
from orchestrator.cli.progress.news import label
from orchestrator.cli.progress.plain import PlainView
from orchestrator.dispatch.settings import HostConcurrency

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workers.protocol import Case

__all__ = ["LiveView", "PlainView", "ProgressView", "QuietView", "label", "view"]


def view(
    cases: Sequence[Case] = (),
    *,
    quiet: bool,
    estimates: Mapping[str, float] | None = None,
    concurrency: HostConcurrency = HostConcurrency.CONCURRENT,
) -> ProgressView:
    """Return the view that fits where stderr goes.

    Cases that are not known yet can follow by :meth:`ProgressView.expect`; ``estimates`` are seconds by case key.
    """
    shown = QuietView() if quiet else _loud_view()
    if cases:
        shown.expect(cases, estimates=estimates, concurrency=concurrency)
    return shown


def _loud_view() -> ProgressView:
    if not sys.stderr.isatty():
        return PlainView()
    # Only here, for nothing but a terminal needs it.
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    can_be_drawn_on = console.is_terminal and not console.is_dumb_terminal
    return LiveView(console) if can_be_drawn_on else PlainView()
