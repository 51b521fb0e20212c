"""Try every fault and write down what it cost: ``python docs/faults.py``, as root, on a quiet machine.

Runs all of ``tests/faults`` and makes the table in ``docs/reliability.md`` from what the tests have measured. With
``--from FILE`` it makes the table from an earlier run's lines. Nothing is written where a test fails.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if __name__ == "__main__":  # started as a script: the packages lie one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from docs.generate import table

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs/reliability.md"

#: The order in which the table tells of them.
KINDS: Final = ("child", "agent", "host", "network", "head", "disk")

_PART: Final = re.compile(r"(<!-- measured: faults -->\n).*?(<!-- end -->)", re.DOTALL)


def main(arguments: Sequence[str]) -> int:
    """Measure, unless told otherwise, and write the table; return the exit code of the tests."""
    parser = argparse.ArgumentParser(description="Try every fault and write down what it cost.")
    parser.add_argument("--from", dest="source", type=Path, help="lines of an earlier run")
    source = parser.parse_args(arguments).source
    if source is None:
        source = Path(tempfile.mkdtemp()) / "faults.jsonl"
        command = [sys.executable, "-m", "pytest", "tests/faults", "-v", "-m", "long or not long"]
        environment = {**os.environ, "MUSTER_FAULTS": str(source)}
        code = subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode
        print(f"what was measured is in {source}")
        if code != 0:
            return code
    PAGE.write_text(_PART.sub(lambda part: f"{part[1]}\n{_measured(source)}\n\n{part[2]}", PAGE.read_text()))
    return 0


def _measured(source: Path) -> str:
    figures = [json.loads(line) for line in source.read_text().splitlines()]
    figures.sort(key=lambda figure: KINDS.index(figure["kind"]))
    today = datetime.datetime.fromtimestamp(source.stat().st_mtime, datetime.timezone.utc)
    where = f"*Measured on {today:%Y-%m-%d}: {os.cpu_count()} cores, {_cpu()}, Python {platform.python_version()}.*"
    headings = ("Fault", "Lost", "Measured twice", "Noticed after (s)", "Went on after (s)", "Left behind", "Outcome")
    return f"{where}\n\n{table(headings, [_row(figure) for figure in figures])}"


def _row(figure: dict[str, Any]) -> tuple[str, ...]:
    return (
        figure["fault"],
        str(figure["lost"]),
        str(figure["measured_twice"]),
        _seconds(figure["noticed_s"]),
        _seconds(figure["went_on_s"]),
        str(figure["left"]) if figure["left"] else "nothing",
        figure["outcome"],
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if value >= 0.05 else "< 0.1"


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
