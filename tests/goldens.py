"""Expected outputs as files: compared with, or rewritten by ``make golden`` and then reviewed as a diff."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, actual: str) -> None:
    """Hold ``actual`` against ``tests/golden/name``; with ``MUSTER_GOLDEN=write`` write it there instead."""
    file = _FOLDER / name
    if os.environ.get("MUSTER_GOLDEN") == "write":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(actual, encoding="utf-8")
    assert actual == file.read_text(encoding="utf-8"), f"differs from {name}; if that is right: make golden"
