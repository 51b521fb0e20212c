"""Fail unless the pure parts are covered whole, every branch of them. Run after pytest with --cov."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

#: Rooms without I/O: no excuse.
PURE: Final = (
    "orchestrator/dispatch/*",
    "orchestrator/planning.py",
    "orchestrator/grouping.py",
    *(f"orchestrator/schedules/{name}.py" for name in ("calendar", "decisions", "notices", "retention", "units")),
    "orchestrator/inventory.py",
    "orchestrator/diagnosis/*",
    "orchestrator/config/*",
    "orchestrator/analysis/*",
    "orchestrator/report/*",
)


def main() -> int:
    command = [sys.executable, "-m", "coverage", "report", f"--include={','.join(PURE)}", "--fail-under=100"]
    ended = subprocess.run([*command, "--show-missing", "--skip-covered"], check=False)
    if ended.returncode == 0:
        sys.stdout.write("the pure parts are covered whole\n")
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
