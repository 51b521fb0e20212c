"""What a command shows on stderr while it waits for hosts: one line that comes and goes, on a terminal alone."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from orchestrator.cluster.base import no_stage
from orchestrator.report.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.cluster.base import Stage


@contextlib.contextmanager
def waiting(*, quiet: bool = False) -> Iterator[Stage]:
    """Give what is to be told of each stage; with ``quiet`` it is shown nowhere."""
    if quiet or not sys.stderr.isatty():
        yield no_stage
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("looking at hosts") as status:

        def show(text: str, done: int | None, total: int | None) -> None:
            counted = "" if done is None or total is None else f" {done}/{total}"
            status.update(Text(printable(f"{text}{counted}")))

        yield show
