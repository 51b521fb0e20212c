"""How a host is doing right now: what changes from one minute to the next, as facts. Standard library only.

None of it is kept with a result: it is for `muster check`, which asks whether a host is fit to be measured.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from workers.lease import holders
from workers.lockfiles import LeaseError
from workers.protocol import Fact

#: Where Ray and muster keep what lives as long as a run.
_TEMPORARY: Final = "tmp"


def condition_facts(root: Path = Path("/")) -> dict[str, Fact]:
    """Return the host's load, free memory and free disk, and whose they are; ``root`` is for captured hosts."""
    return {
        "cpu.load": _load(root),
        "disk.home_free_bytes": _home_free(root),
        "disk.tmp_free_bytes": _free_bytes(root / _TEMPORARY),
        "host.leases": _leases() if root == Path("/") else Fact(value=None, reason="another host's were captured"),
        "host.user": _user(),
        "memory.available_bytes": _available(root),
        "python.executable": Fact(value=sys.executable),
    }


def parse_loadavg(text: str) -> float | None:
    """Return how many processes ran or wanted to, on average over the last minute, from ``/proc/loadavg``."""
    found = re.match(r"\d+\.\d+(?= )", text)
    return float(found[0]) if found else None


def parse_available(text: str) -> int | None:
    """Return the bytes that could be had without swapping, from ``/proc/meminfo``."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _load(root: Path) -> Fact:
    try:
        load = parse_loadavg((root / "proc/loadavg").read_text())
    except OSError as error:
        return Fact(value=None, reason=f"/proc/loadavg cannot be read: {error.strerror}")
    return Fact(value=load, reason="/proc/loadavg has no load" if load is None else None)


def _available(root: Path) -> Fact:
    try:
        available = parse_available((root / "proc/meminfo").read_text())
    except OSError as error:
        return Fact(value=None, reason=f"/proc/meminfo cannot be read: {error.strerror}")
    return Fact(value=available, reason="/proc/meminfo has no MemAvailable" if available is None else None)


def _home_free(root: Path) -> Fact:
    try:
        home = Path.home()
    except RuntimeError as error:
        return Fact(value=None, reason=str(error))
    return _free_bytes(root / home.relative_to(home.anchor))


def _free_bytes(folder: Path) -> Fact:
    """Return what an ordinary user may still write there."""
    try:
        return Fact(value=shutil.disk_usage(folder).free)
    except OSError as error:
        return Fact(value=None, reason=f"{folder} cannot be looked at: {error.strerror}")


def _leases() -> Fact:
    """Return who measures here now, whichever muster it is of; nothing where nobody does."""
    try:
        return Fact(value=", ".join(holders()))
    except (LeaseError, OSError) as error:
        return Fact(value=None, reason=str(error))


def _user() -> Fact:
    """Return who is asking: by the kernel and not by the environment, which may say anything."""
    try:
        return Fact(value=pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return Fact(value=None, reason=f"user {os.getuid()} has no name")
