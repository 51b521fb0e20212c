"""The one place that holds muster's version."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Final

VERSION: Final = "0.1.0.dev0"

#: The folder that this package lies in: a checkout's root, where it is one.
_ROOT: Final = Path(__file__).resolve().parent.parent


def commit(root: Path = _ROOT) -> str | None:
    """Return the commit that runs: a checkout's, or the one that pip was given; ``None`` where nobody knows.

    Of a checkout it is that of its HEAD: what is changed and not committed is not told. PEP 610 has the other.
    """
    return _head_of(root / ".git") or _installed()


def _head_of(folder: Path) -> str | None:
    """Return what HEAD stands for; gitrepository-layout(5). A worktree's ``.git`` is a file that names the folder."""
    try:
        if folder.is_file():
            folder = (folder.parent / folder.read_text().partition("gitdir: ")[2].strip()).resolve()
        head = (folder / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head or None
        name = head.removeprefix("ref: ")
        shared = folder
        if (folder / "commondir").is_file():
            shared = (folder / (folder / "commondir").read_text().strip()).resolve()
        if (shared / name).is_file():
            return (shared / name).read_text().strip()
        packed = (shared / "packed-refs").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(" ")[0] for line in packed if line.endswith(f" {name}")), None)


def _installed() -> str | None:
    try:
        text = importlib.metadata.distribution("muster-bench").read_text("direct_url.json")
        told = json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    return told if isinstance(told, str) else None
