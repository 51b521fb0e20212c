"""Signals as a loop hears them; real ones, sent to this very process."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from orchestrator.cli import signals
from orchestrator.runner import Stopper

if TYPE_CHECKING:
    import pytest


def heard(*numbers: signal.Signals) -> tuple[list[str], list[str]]:
    """Send signals one after the other, each once the one before was heard; return what came, and what was said."""
    said: list[str] = []

    async def scenario() -> list[str]:
        loop, reached = asyncio.get_running_loop(), asyncio.Event()
        with signals.Signals(Stopper(), said.append) as taken:
            ask = taken._ask

            def note(number: signal.Signals) -> None:
                ask(number)
                reached.set()

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, note, number)
            for number in numbers:
                reached.clear()
                os.kill(os.getpid(), number)
                await asyncio.wait_for(reached.wait(), 30)
            return list(taken.came)

    return asyncio.run(scenario()), said


def test_a_second_ctrl_c_counts_however_soon_it_comes() -> None:
    came, said = heard(signal.SIGINT, signal.SIGINT)
    assert came == ["Ctrl-C", "Ctrl-C"]
    assert said == ["stopping after the running cases; Ctrl-C again to stop now"]


def test_sigterm_and_its_echo_are_one() -> None:
    came, said = heard(signal.SIGTERM, signal.SIGTERM)
    assert came == ["SIGTERM"]
    assert said == ["stopped by SIGTERM: what runs now has 10 s to end"]


def test_sigterm_that_is_sent_again_later_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "ECHO_S", 0.0)
    assert heard(signal.SIGTERM, signal.SIGTERM)[0] == ["SIGTERM", "SIGTERM"]


def test_ctrl_c_after_sigterm_does_not_wait() -> None:
    assert heard(signal.SIGTERM, signal.SIGINT)[0] == ["SIGTERM", "Ctrl-C"]
