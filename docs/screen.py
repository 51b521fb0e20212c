"""A command as a terminal shows it: its screen at each moment, and a picture of two of them."""

from __future__ import annotations

import fcntl
import html
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import termios
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyte
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

COLUMNS: Final = 110
#: More lines than a run writes, so that nothing scrolls away.
LINES: Final = 200

#: rich's own template loads fonts from the network; this one takes what the reader has.
_SVG: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="TITLE">
  <style>
    .{unique_id}-matrix {{
      font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
      font-size: {char_height}px;
      line-height: {line_height}px;
      font-variant-east-asian: full-width;
    }}
    .{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
    {styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
  </defs>
  {chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
      {matrix}
    </g>
  </g>
</svg>
"""

#: Variables that would change what is shown.
_UNWANTED: Final = ("COLUMNS", "LINES", "MUSTER_STORE", "NO_COLOR")

#: What pyte calls a colour and rich calls otherwise.
_COLORS: Final = {"brown": "yellow", "brightbrown": "bright_yellow", "default": "default"}

#: A device's line whose steps have begun to count.
_COUNTING: Final = re.compile(r"━.* [1-9]\d*/\d+ .* ms\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What stood on the screen at some moment of a run."""

    #: Seconds after the start.
    at_s: float
    lines: tuple[Text, ...]

    @property
    def measuring(self) -> int:
        """How many devices' bars are there and have begun to count."""
        return sum(_COUNTING.search(line.plain) is not None for line in self.lines)


def watch(command: Sequence[str], folder: Path, *, allowed: Collection[int] = (0,)) -> Iterator[Shown]:
    """Run a command on a pseudo-terminal, and give its screen whenever it has changed, the last one at the end.

    Raises RuntimeError if the command ends with an exit code that is not ``allowed``; the screen is in its message.
    """
    begun_at = time.monotonic()
    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    process = subprocess.Popen(
        command, cwd=folder, env={**kept, "TERM": "xterm-256color"}, stdin=inner, stdout=inner, stderr=inner
    )
    os.close(inner)
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    while chunk := _read(terminal):
        stream.feed(chunk)
        yield Shown(at_s=time.monotonic() - begun_at, lines=tuple(_lines(screen)))
    os.close(terminal)
    if process.wait() not in allowed:
        last = "\n".join(line.plain for line in _lines(screen))
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{last}")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 2**16)
    except OSError:  # what Linux answers once the last process has closed its end
        return b""


def _lines(screen: pyte.Screen) -> Iterator[Text]:
    used = [text.rstrip() for text in screen.display]
    while used and not used[-1]:
        used.pop()
    for number, plain in enumerate(used):
        characters = [screen.buffer[number][column] for column in range(len(plain))]
        line = Text()
        for style, together in itertools.groupby(characters, key=lambda one: _style(one.fg, bold=one.bold)):
            line.append("".join(one.data for one in together), style)
        yield line


def _style(color: str, *, bold: bool) -> str:
    if re.fullmatch(r"[0-9a-f]{6}", color):
        name = f"#{color}"
    else:
        name = _COLORS.get(color, re.sub("^bright", "bright_", color))
    return f"bold {name}" if bold else name


def picture(command: str, shown: Sequence[Shown]) -> str:
    """Return an SVG of the screen on the way, while most devices were measuring, and of the screen at the end."""
    last = shown[-1]
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", "bold"))
    most = max(each.measuring for each in shown)
    if most:
        busiest = [each for each in shown if each.measuring == most]
        # Three quarters through it, where bars are long and more than one figure has been told.
        _print(console, busiest[len(busiest) * 3 // 4])
        console.print(Text(f"\n… after {last.at_s:.0f} s:\n", "dim italic"))
    _print(console, last)
    return console.export_svg(
        title=command, code_format=_SVG.replace("TITLE", html.escape(command)), unique_id="muster"
    )


def _print(console: Console, shown: Shown) -> None:
    for line in shown.lines:
        console.print(line, soft_wrap=True)
