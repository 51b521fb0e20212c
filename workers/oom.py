"""Evidence that the kernel's out-of-memory killer ended a child, and not somebody else who sent SIGKILL.

What is asked, in this order:

1. The kernel's log, where we may read it and our process ids are the kernel's own (not in a container): it names every
   process that was killed.
2. The counter of the control group that the child was started in: its processes are few, and ours.
3. The host's counter, where there is no such group. It counts everybody's, so the child must have held a large share of
   the host's memory as well.

A counter is evidence by having risen while the child ran. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The share of the host's memory that a child must have held, at its largest, for the host's counter to mean it.
LARGE_SHARE: Final = 0.25

#: The pid namespace of the machine itself: ``PROC_PID_INIT_INO`` in the kernel's include/linux/proc_ns.h.
_FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"

#: As mm/oom_kill.c writes it, since Linux 2.6.
_KILLED: Final = re.compile(rb"Killed process (\d+)[ ,]")

_COUNT: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_TOTAL: Final = re.compile(r"^MemTotal:\s+(\d+) kB$", re.MULTILINE)

#: One record of the kernel's log; longer ones are cut by the kernel (CONSOLE_EXT_LOG_MAX).
_RECORD_BYTES: Final = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Kills:
    """How many out-of-memory kills the kernel has counted."""

    #: In our control group, by the file of its counter; empty where there is no group but the host itself.
    of_group: tuple[tuple[Path, int], ...]
    of_host: int


def kills(root: Path = Path("/")) -> Kills:
    """Return the kernel's counts; one that cannot be read is not there."""
    groups = ((path, _count(path)) for path in _group_counters(root))
    return Kills(
        of_group=tuple((path, count) for path, count in groups if count is not None),
        of_host=_count(root / "proc/vmstat") or 0,
    )


class Witness:
    """Looks before a child starts and after it has ended. Used by one thread; :meth:`close` it."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before = kills(root)
        self._log = KernelLog.from_now_on(root)

    def evidence(self, pid: int, max_rss_bytes: int | None) -> str | None:
        """Return what says that the child ``pid``, which SIGKILL has ended, was killed for want of memory.

        ``max_rss_bytes`` is the most memory that it held, as far as that is known.
        """
        after = kills(self._root)
        host_rise = after.of_host - self._before.of_host
        named = None if self._log is None else self._log.killed()
        if named is not None and pid in named:
            return f"the kernel's log names process {pid}"
        if named and len(named) >= host_rise:
            return None  # it tells of all kills, and this is none of them
        if after.of_group:
            return self._rise_of_group(after)
        total_bytes = _total_bytes(self._root)
        if host_rise > 0 and total_bytes and (max_rss_bytes or 0) >= LARGE_SHARE * total_bytes:
            held = f"{(max_rss_bytes or 0) / 2**30:.1f} of {total_bytes / 2**30:.1f} GiB"
            return f"the kernel killed something for want of memory, and this process had {held}"
        return None

    def close(self) -> None:
        """Give back what was opened; safe to call twice."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def _rise_of_group(self, after: Kills) -> str | None:
        before = dict(self._before.of_group)
        for path, count in after.of_group:
            if count > before.get(path, count):
                return f"the kernel counted an out-of-memory kill in the control group {path.parent}"
        return None


class KernelLog:
    """What the kernel says from a certain moment on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def from_now_on(cls, root: Path = Path("/")) -> KernelLog | None:
        """Open it at its end; ``None`` where it cannot be read, or names processes by other ids than ours."""
        try:
            if str((root / "proc/self/ns/pid").readlink()) != _FIRST_PID_NAMESPACE:
                return None
            descriptor = os.open(root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.lseek(descriptor, 0, os.SEEK_END)
        return cls(descriptor)

    def killed(self) -> tuple[int, ...] | None:
        """Return who was killed for want of memory since this was last asked; ``None`` if some may be missing."""
        found: list[int] = []
        while True:
            try:
                record = os.read(self._descriptor, _RECORD_BYTES)
            except BlockingIOError:
                return tuple(found)
            except OSError:  # EPIPE: records were overwritten before we came to them
                return None
            if not record:
                return tuple(found)
            found += [int(pid) for pid in _KILLED.findall(record)]

    def close(self) -> None:
        """Give the log back."""
        os.close(self._descriptor)


def _group_counters(root: Path) -> tuple[Path, ...]:
    """Return where kills in our control group are counted, by version 2 and version 1; nothing for the host's root."""
    try:
        groups = (root / "proc/self/cgroup").read_text()
    except OSError:
        return ()
    mount, found = root / "sys/fs/cgroup", []
    for line in groups.splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            # The root of all has no such file; where it is there at "/", that is a container's own group.
            found += [_existing(mount, group, "memory.events"), mount / "unified" / group.lstrip("/") / "memory.events"]
        elif "memory" in controllers.split(",") and group != "/":
            found.append(_existing(mount / "memory", group, "memory.oom_control"))
    return tuple(found)


def _existing(mount: Path, group: str, name: str) -> Path:
    """Return the group's file; inside a container the path may be the host's, and the mount is the group itself."""
    inner = mount / group.lstrip("/") / name
    return inner if inner.exists() else mount / name


def _count(path: Path) -> int | None:
    try:
        found = _COUNT.search(path.read_text())
    except OSError:
        return None
    return int(found[1]) if found else None


def _total_bytes(root: Path) -> int | None:
    try:
        found = _TOTAL.search((root / "proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
