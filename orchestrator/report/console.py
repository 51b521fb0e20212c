"""Where text for a terminal is drawn before it is written: the same words with and without colours."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

#: Columns of a console without a width: as wide as it takes.
UNBOUNDED: Final = 100_000


def drawing_console(width: int | None, color: bool) -> Console:
    """Return a console that keeps what is printed on it; :func:`drawn` gives it back."""
    from rich.console import Console

    return Console(
        file=io.StringIO(),
        width=width or UNBOUNDED,
        color_system="standard" if color else None,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        # What the caller decided is not to be changed by NO_COLOR, COLUMNS or TERM.
        _environ={},
    )


def drawn(console: Console) -> str:
    """Return everything that was printed on a drawing console."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
