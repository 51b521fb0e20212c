"""What a host holds that it did not hold when it came up."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from tests.integration.muster import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds for what is on its way out: a host that lost its head goes on for ten before it ends what it holds.
SETTLE_TIMEOUT_S: Final = 30.0

#: Folders of memory that are empty on a fresh host, and anything in which is somebody's.
_VOLATILE: Final = ("tmp", "dev/shm", "var/tmp", "run")

#: Where leases are: the files may stay, a lock on one may not.
_LEASES: Final = "tmp/muster-leases"

#: The checkout is this machine's, and may itself be in a folder that is otherwise empty.
_CHECKOUT: Final = f"{ROOT}/".removeprefix("/")

#: What may stay in a home: code and environments by their hashes; what TensorFlow's Keras writes when it is imported;
#: where clusters that are kept are written down; and where people work.
_ALLOWED: Final = (".cache/muster", ".keras", ".local", "work")


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftovers:
    """False where there are none."""

    #: Number and command line of each.
    processes: tuple[str, ...] = ()
    #: Paths as the host sees them.
    files: tuple[str, ...] = ()
    #: Files on which a lock is held.
    locks: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.processes or self.files or self.locks)


class Watch:
    """Knows what a host held at first, and tells it from what came later."""

    def __init__(self, pid: int, home: Path) -> None:
        self._root = Path(f"/proc/{pid}/root")
        self._namespace = _pid_namespace(pid)
        self._home = home
        self._own: set[psutil.Process] = set(self.processes())
        #: Processes whose descendants are no business of ours either.
        self._families: set[psutil.Process] = set()
        self._files: set[str] = set(self._paths())

    def processes(self) -> tuple[psutil.Process, ...]:
        """Every process of the host."""
        return tuple(each for each in psutil.process_iter() if _pid_namespace(each.pid) == self._namespace)

    def accept(self) -> None:
        """Take all that is there now, and what comes of it, for the host's own."""
        self._families |= set(self.processes()) - self._own
        self._files |= set(self._paths())
        self._files |= {f"{path}/" for path in self._files}

    def strangers(self) -> list[psutil.Process]:
        """Every process that is not the host's own."""
        return [each for each in self.processes() if each not in self._own and not self._is_family(each)]

    def leftovers(self) -> Leftovers:
        """Return what is there now."""
        return Leftovers(
            processes=tuple(f"{each.pid} {command_line(each)}" for each in self.strangers()),
            files=tuple(path for path in self._paths() if not self._is_accepted(path)),
            locks=tuple(self._held_locks()),
        )

    def settled(self, timeout_s: float = SETTLE_TIMEOUT_S) -> Leftovers:
        """Wait for processes that are on their way out, then return what is there."""
        deadline = time.monotonic() + timeout_s
        while (strangers := self.strangers()) and time.monotonic() < deadline:
            psutil.wait_procs(strangers, timeout=max(0.0, deadline - time.monotonic()))
        return self.leftovers()

    def _is_family(self, process: psutil.Process) -> bool:
        if process in self._families:
            return True
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(parent in self._families for parent in process.parents())
        # It has ended while it was looked at.
        return True

    def _is_accepted(self, path: str) -> bool:
        return path in self._files or any(path.startswith(prefix) for prefix in self._files if prefix.endswith("/"))

    def _paths(self) -> Iterator[str]:
        for folder in _VOLATILE:
            yield from (
                f"/{path}"
                for path in _below(self._root / folder, folder)
                if path != _LEASES and not path.startswith((f"{_LEASES}/", _CHECKOUT))
            )
        yield from (f"~/{path}" for path in _below(self._home, "") if not _may_stay(path))

    def _held_locks(self) -> Iterator[str]:
        held = set(_locked_inodes())
        leases = self._root / _LEASES
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(leases.iterdir()):
                found = path.stat()
                if (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino) in held:
                    yield f"/{_LEASES}/{path.name}"


def _may_stay(path: str) -> bool:
    """Whether this is a folder of what may stay, something in it, or on the way to it."""
    return any(f"{path}/".startswith(f"{allowed}/") or allowed.startswith(f"{path}/") for allowed in _ALLOWED)


def _below(folder: Path, prefix: str) -> Iterator[str]:
    """Yield everything below, files before the folders that they are in; without what vanishes meanwhile."""
    for root, folders, files in os.walk(folder):
        own = Path(prefix, os.path.relpath(root, folder))
        yield from (str(own / name) for name in sorted([*folders, *files]))


def _pid_namespace(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return None


def command_line(process: psutil.Process) -> str:
    """Return the command of a process, as far as it is still there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()) or process.name()
    return ""


def _locked_inodes() -> Iterator[tuple[int, int, int]]:
    """Yield device and inode of every file on this machine that is locked; see proc_locks(5)."""
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "->" not in fields:  # one that waits for its turn holds nothing
            major, minor, inode = fields[5].split(":")
            yield int(major, 16), int(minor, 16), int(inode)
