"""From a store's URL to the place where it lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.errors import UsageError

_SQLITE: Final = "sqlite://"

#: Real and effective user may differ; what counts is what the kernel will let this process do.
_EFFECTIVE: Final = os.access in os.supports_effective_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """Where a store lies."""

    url: str
    #: The database file, absolute and with links followed; ``None`` for a store in memory.
    path: Path | None

    @property
    def place(self) -> str:
        """The store's name in messages."""
        return str(self.path or "the store in memory")


class Presence:
    """Whether a store's file is still the one that was opened.

    SQLite goes on writing to a file that was removed, replaced, or taken away with its file system, and says that all
    is well; what it writes there is lost.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._opened: tuple[int, int] | None = None

    def note(self) -> None:
        """Take note of the file, once it is open for writing; raises OSError.

        Not earlier: on layered file systems it becomes another file when it is first opened so.
        """
        if self._path is not None and self._opened is None:
            self._opened = identity(self._path)

    def is_lost(self) -> bool:
        """Return whether another file is there than the one that was noted; raises OSError where none is."""
        return self._path is not None and self._opened is not None and identity(self._path) != self._opened


def identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one in its place; raises OSError where there is none."""
    found = path.stat()
    return found.st_dev, found.st_ino


def locate(url: str) -> Location:
    """Return where ``url`` points; reads the folder, writes nothing.

    ``sqlite:///relative.db``, ``sqlite:////absolute.db`` and ``sqlite://`` (in memory) are understood.
    Raises :class:`UsageError` for every other URL, for a missing folder, and for something that is not a file.
    """
    name = _database_name(url)
    if name in ("", ":memory:"):
        return Location(url=url, path=None)
    path = Path(name).expanduser().resolve()
    if not path.parent.is_dir():
        raise UsageError(f"{path}: its folder does not exist", remedy=f"Make it first: mkdir -p {path.parent}")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file", remedy=f"Name a file: --store sqlite:///{path / 'muster.db'}")
    return Location(url=url, path=path)


def is_writable(path: Path) -> bool:
    """True where this user may write the file and its folder, in which SQLite keeps its journal."""
    targets = (path, path.parent) if path.exists() else (path.parent,)
    return all(os.access(target, os.W_OK, effective_ids=_EFFECTIVE) for target in targets)


def _database_name(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise UsageError(f"{url!r} is not a store's URL", remedy=f"Write it so: sqlite:///{url or 'muster.db'}")
    if not url.startswith(_SQLITE):
        raise UsageError(
            f"{url}: a store of kind {scheme!r} is not supported yet",
            remedy="Use sqlite:///muster.db, or postgresql+psycopg://user@host/muster",
        )
    name = url.removeprefix(_SQLITE)
    if name and not name.startswith("/"):
        raise UsageError(f"{url}: a file needs three slashes", remedy=f"Write it so: sqlite:///{name}")
    if "?" in name or "\0" in name:
        raise UsageError(f"{url!r}: a store's URL takes no options", remedy="Give the file's name alone.")
    return name[1:]
