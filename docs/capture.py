"""Run muster as a person would, and put what it showed into the README: ``python docs/capture.py``.

Two runs go on a pseudo-terminal: this machine with ``configs/local.yaml``, and the four hosts of a lab over SSH, which
are those of the tests and take root. The screen on the way and at the end becomes a picture in ``docs/images``; config
and table go between the README's markers. Do it on a quiet machine, for the figures are what people will read.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if __name__ == "__main__":  # started as a script: the packages lie one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from docs.screen import picture, watch
from orchestrator.config.load import load_text
from orchestrator.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"
IMAGES: Final = ROOT / "docs" / "images"

#: A lab of four hosts, each with other devices. One of them has no GPU, though the config says so: that is a row, too.
LAB: Final = """\
version: 1
name: lab
cluster: {mode: ssh}                # log in to each host, start Ray there, and end it afterwards
defaults:
  python: ~/env/bin/python          # has Ray and TensorFlow; `install: true` would bring them from here
hosts:
  - {name: oak, devices: cpu}
  - {name: elm, devices: "cpu:0"}
  - {name: ash, devices: ["cpu:0", "cpu:1"]}
  - {name: yew, devices: [cpu, "gpu:0"]}
workloads:
  - {model: alexnet, batch_size: 16}
measure: {warmup: 2, steps: 20}
report: {references: []}            # the published rows have another batch size
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    """A run as the README shows it."""

    #: Its picture's file name in ``docs/images``.
    image: str
    svg: str
    #: What stands between the README's markers.
    body: str


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for, and write the pictures and the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CAPTURES), help="capture this one alone")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder for the pictures")
    parser.add_argument("--no-readme", action="store_true", help="leave the README as it is, and print its parts")
    asked = parser.parse_args(arguments)
    names = [asked.only] if asked.only else list(CAPTURES)
    problem = _what_is_missing() if "lab" in names else None
    if problem is not None:
        print(f"no lab here: {problem}", file=sys.stderr)
        return ExitCode.USAGE
    for name in names:
        captured = CAPTURES[name]()
        asked.images.mkdir(parents=True, exist_ok=True)
        (asked.images / captured.image).write_text(captured.svg, encoding="utf-8")
        print(captured.body)
        if not asked.no_readme:
            README.write_text(filled(README.read_text(encoding="utf-8"), name, captured.body), encoding="utf-8")
    return ExitCode.OK


def capture_machine() -> Captured:
    """Run this machine's config, as `make run` does."""
    config = ROOT / "configs" / "local.yaml"
    muster = Path(sys.executable).with_name("muster")
    with tempfile.TemporaryDirectory(prefix="muster-capture-") as folder:
        place = Path(folder)
        (place / "configs").mkdir()
        shutil.copy(config, place / "configs" / config.name)
        command = ("muster", "run", f"configs/{config.name}")
        shown = tuple(watch((str(muster), *command[1:]), place))
        table = subprocess.run(
            [muster, "show", "--format", "md"], cwd=place, check=True, capture_output=True, text=True
        )
    return Captured(
        image="run.svg",
        svg=picture(" ".join(command), shown),
        body=with_table("muster at work, and its table", "run.svg", table.stdout),
    )


def capture_lab() -> Captured:
    """Bring a lab up, run its config on its head, and take it down."""
    from tests.lab.hosts import HostOptions
    from tests.lab.lab import MUSTER, Lab

    hosts = load_text(LAB, "lab.yaml").config.hosts
    with Lab(0, [HostOptions(name=host.name) for host in hosts]) as lab:
        folder = lab.write_config(LAB)
        head = lab.head
        run = head.namespaces.entering(
            (*MUSTER, "run", "lab.yaml"), user=head.user, cwd=folder, env={"TERM": "xterm-256color"}
        )
        # One of its devices is not there.
        shown = tuple(watch(run, ROOT, allowed=(ExitCode.INCOMPLETE,)))
        table = lab.muster("show", "--format", "md", cwd=folder)
    if table.code != ExitCode.OK:
        raise RuntimeError(f"muster show: exit code {table.code}\n{table.err}")
    command = "muster run lab.yaml"
    return Captured(image="lab.svg", svg=picture(command, shown), body=lab_part(LAB, command, table.out))


#: What can be captured, by the name that its part of the README has.
CAPTURES: Final[Mapping[str, Callable[[], Captured]]] = {"make run": capture_machine, "lab": capture_lab}


def _what_is_missing() -> str | None:
    from tests.lab.needs import what_is_missing

    return what_is_missing()


# --- the README ------------------------------------------------------------------------------------------------


def part_of(name: str) -> re.Pattern[str]:
    """Return what finds a part of the README that is filled: its beginning, what stands there now, and its end."""
    return re.compile(rf"(<!-- captured: {re.escape(name)} -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def filled(readme: str, name: str, body: str) -> str:
    """Return the README with ``body`` as one of its parts; raises ValueError where that is not marked once."""
    text, count = part_of(name).subn(lambda found: f"{found[1]}\n{body.strip()}\n\n{found[3]}", readme)
    if count != 1:
        raise ValueError(f"the README has {count} parts marked as captured: {name}; it must have one")
    return text


def with_table(caption: str, image: str, table: str) -> str:
    """Return a picture and a table, given as Markdown, whose title is no heading of the page."""
    title, _, rest = table.partition("\n")
    return f"![{caption}](docs/images/{image})\n\n*{title.removeprefix('### ')}*\n{rest}"


def lab_part(config: str, command: str, table: str) -> str:
    """Return a lab's config, how it is run, and what that showed."""
    shown = with_table("a lab at work, and its table", "lab.svg", table)
    return f"```yaml config\n{config}```\n\n```console\n$ {command}\n```\n\n{shown}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
