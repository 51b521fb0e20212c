"""How much of a host's memory a process may take so that neither the host swaps nor the kernel kills. Standard library.

The kernel's own estimate of what is available counts (proc(5), MemAvailable), and what the control groups that this
process is in may still hold; the files among what they hold, which could be read again, do not count.
"""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workers.condition import parse_available

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is left to all others on the host, and to what a process takes beside its data: the code of its libraries.
SHARE: Final = 0.75

_INACTIVE: Final = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)

#: Where the figures of a control group are, by version: its limit, what it holds.
_FILES: Final = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def headroom_bytes(root: Path = Path("/")) -> int | None:
    """Return the most memory that a new process should take for its data; ``None`` where the host does not tell."""
    available = _available(root)
    left = [*([] if available is None else [available]), *_left_in_groups(root)]
    return int(SHARE * min(left)) if left else None


def limit_data(memory_bytes: int) -> None:
    """Let allocations of this process fail above so many bytes of data, its own and what it maps for itself.

    By RLIMIT_DATA, which since Linux 4.7 counts private writable mappings (getrlimit(2)); the address space, which
    RLIMIT_AS counts, is reserved by frameworks in far larger pieces than they use.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _available(root: Path) -> int | None:
    try:
        return parse_available((root / "proc/meminfo").read_text())
    except OSError:
        return None


def _left_in_groups(root: Path) -> Iterator[int]:
    """Give what is left in each of our control groups that has a limit, from the innermost outwards."""
    for group in _groups(root):
        for limit_name, usage_name in _FILES:
            limit, usage = _number(group / limit_name), _number(group / usage_name)
            if limit is not None and usage is not None:
                yield max(limit - usage + _inactive(group / "memory.stat"), 0)


def _groups(root: Path) -> Iterator[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            yield from _upwards(mount, name)
        elif "memory" in controllers.split(","):
            yield from _upwards(mount / "memory", name)


def _upwards(mount: Path, name: str) -> Iterator[Path]:
    """Give a group's folder and those above it; inside a container the name may be the host's: then the mount alone."""
    folder = Path(os.path.normpath(mount / name.lstrip("/")))
    if not folder.is_relative_to(mount):
        folder = mount
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _number(path: Path) -> int | None:
    """Return the number in a file; ``None`` for one that is not there, or that says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _inactive(path: Path) -> int:
    try:
        found = _INACTIVE.findall(path.read_text())
    except OSError:
        return 0
    return int(found[-1]) if found else 0
