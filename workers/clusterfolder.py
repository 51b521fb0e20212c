"""The folder of one Ray on this machine, with its token, sockets and logs; and those whose owners were killed.

A file in each is locked for as long as its owner lives: the kernel lets go of it, however that ends. Standard library
only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Short, and not under TMPDIR: Ray puts UNIX sockets below it, whose paths end at 107 bytes.
PLACE: Final = Path("/tmp")  # made by mkdtemp, for its user alone

_PREFIX: Final = "muster-"

#: As :func:`tempfile.mkdtemp` makes them; other things of ours have longer or shorter names.
_NAME: Final = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")

_LOCK: Final = "lock"

#: Seconds that a folder is left alone in any case: its owner has just made it, and takes the lock in a moment.
_NEW_S: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterFolder:
    """A folder that is ours as long as this process lives, or until it is removed."""

    path: Path
    #: The descriptor by which the lock is held; no other process inherits it.
    held: int

    @classmethod
    def make(cls, place: Path = PLACE) -> ClusterFolder:
        """Make a folder for this user alone, after those are gone whose owners are. Raises OSError."""
        for left in stale(place):
            shutil.rmtree(left, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        held = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(path=path, held=held)

    def remove(self) -> None:
        """Remove it and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.held)

    def leave(self) -> None:
        """Let it stay, also when this process has ended: somebody is going to look into it."""
        (self.path / _LOCK).unlink(missing_ok=True)
        os.close(self.held)


def is_ours(path: Path) -> bool:
    """Return whether that is such a folder of this user, as far as its name and its owner tell."""
    try:
        return path.parent == PLACE and bool(_NAME.fullmatch(path.name)) and path.lstat().st_uid == os.getuid()
    except OSError:
        return False


def stale(place: Path = PLACE) -> Iterator[Path]:
    """Yield the folders of this user whose owners are gone."""
    for path in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is somebody else's, or is going just now
            if _NAME.fullmatch(path.name) and _is_old(path) and _is_left(path / _LOCK):
                yield path


def _is_old(path: Path) -> bool:
    found = path.lstat()
    return found.st_uid == os.getuid() and time.time() - found.st_mtime > _NEW_S


def _is_left(lock: Path) -> bool:
    """Return whether nobody holds a lock. Raises OSError where there is none: it was left there to be looked at."""
    handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
