"""Run muster as a person would, and put what it showed into the README: ``python docs/capture.py``.

The run goes on a pseudo-terminal. Its screen on the way and at its end becomes ``docs/images/run.svg``; its table, as
Markdown, goes between the README's markers. Do it on a quiet machine, for the figures are what people will read.
"""

from __future__ import annotations

import argparse
import fcntl
import html
import io
import itertools
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyte
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"
PICTURE: Final = ROOT / "docs" / "images" / "run.svg"

#: The README's part that is filled; what stands between is replaced.
MARKED: Final = re.compile(r"(<!-- captured: make run -->\n).*?(<!-- end -->)", re.DOTALL)

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What stood on the screen at some moment of a run."""

    #: Seconds after the start.
    at_s: float
    lines: tuple[Text, ...]

    @property
    def is_measuring(self) -> bool:
        """True where a device's bar is there and has begun to count."""
        return any(re.search(r"━.* [1-9]\d*/\d+ .* ms ", line.plain) for line in self.lines)


def main(arguments: Sequence[str]) -> int:
    """Run a config and write the picture and the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, default=ROOT / "configs" / "local.yaml")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where the picture goes")
    parser.add_argument("--no-readme", action="store_true", help="leave the README as it is")
    asked = parser.parse_args(arguments)
    muster = Path(sys.executable).with_name("muster")
    with tempfile.TemporaryDirectory(prefix="muster-capture-") as folder:
        place = Path(folder)
        (place / "configs").mkdir()
        shutil.copy(asked.config, place / "configs" / asked.config.name)
        command = ("muster", "run", f"configs/{asked.config.name}")
        shown = tuple(watch((str(muster), *command[1:]), place))
        table = subprocess.run(
            [muster, "show", "--format", "md"], cwd=place, check=True, capture_output=True, text=True
        )
    asked.picture.parent.mkdir(parents=True, exist_ok=True)
    asked.picture.write_text(picture(" ".join(command), shown), encoding="utf-8")
    if not asked.no_readme:
        README.write_text(with_table(README.read_text(encoding="utf-8"), table.stdout), encoding="utf-8")
    print(table.stdout)
    return 0


def watch(command: Sequence[str], folder: Path) -> Iterator[Shown]:
    """Run a command on a pseudo-terminal, and give its screen whenever it has changed, the last one at the end.

    Raises RuntimeError if the command fails.
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
    if process.wait() != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")


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
    """Return an SVG of the screen three quarters through the measuring, and of the screen at the end."""
    measuring = [each for each in shown if each.is_measuring]
    last = shown[-1]
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", "bold"))
    if measuring:
        on_the_way = measuring[len(measuring) * 3 // 4]
        _print(console, on_the_way)
        console.print(Text(f"\n… after {last.at_s:.0f} s:\n", "dim italic"))
    _print(console, last)
    return console.export_svg(
        title=command, code_format=_SVG.replace("TITLE", html.escape(command)), unique_id="muster"
    )


def _print(console: Console, shown: Shown) -> None:
    for line in shown.lines:
        console.print(line, soft_wrap=True)


def with_table(readme: str, table: str) -> str:
    """Return the README with this table, given as Markdown; raises ValueError where it has no markers."""
    title, _, rest = table.partition("\n")
    body = f"![muster at work, and its table](docs/images/run.svg)\n\n*{title.removeprefix('### ')}*\n{rest}"
    text, count = MARKED.subn(lambda found: f"{found[1]}\n{body.strip()}\n\n{found[2]}", readme)
    if count != 1:
        raise ValueError(f"the README has {count} parts marked as captured, and must have one")
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
