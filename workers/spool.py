"""Results that the head has not acknowledged yet: on the host that made them, each in a file of its own.

A folder for each run lies below ``$XDG_STATE_HOME/muster/spool``, else ``~/.local/state/muster/spool``; the variable
``MUSTER_SPOOL_FOLDER`` names another place for them, for hosts whose homes are small or read only. Hosts may share a
home: what is there of another host's devices is left alone. A file is there whole or not at all, also after a power
cut. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from workers.codec import CodecError, from_json, to_json
from workers.protocol import Result  # noqa: TC001  # the codec looks for it here

#: Names another folder for the folders of all runs.
FOLDER_VARIABLE: Final = "MUSTER_SPOOL_FOLDER"

#: A run that nobody has gone on with for so long is given up: its config and machines have most likely changed.
KEEP_S: Final = 30 * 24 * 3600.0

#: The folder may be removed by another agent between two of our steps, but hardly so often in a row.
_TRIES: Final = 1000

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Spooled:
    """One result as it lies on the host."""

    #: The device that it was measured on, and whose agent will tell of it.
    device_id: str
    result: Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What a spool holds."""

    results: tuple[Result, ...]
    #: What is there and cannot be read, each with its path and why; it is left where it is.
    problems: tuple[str, ...] = ()


def folder_of_all() -> Path:
    """Return the folder for the folders of all runs. Raises OSError where this user has no home."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME", "")
    # Relative ones are to be ignored: XDG Base Directory Specification 0.8.
    return (Path(state) if Path(state).is_absolute() else _home() / ".local" / "state") / "muster" / "spool"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # a container may run under an id that has no name
        raise OSError(f"this user has no home: set {FOLDER_VARIABLE}") from error


class Spool:
    """The results of one run on this host; several processes may use it at the same time.

    ``folder`` is where all runs have theirs, instead of :func:`folder_of_all`.
    """

    def __init__(self, run_id: str, folder: Path | None = None) -> None:
        self._run = _plain(run_id)
        self._base = folder

    @property
    def folder(self) -> Path:
        """Where this run's results lie; it need not be there. Raises OSError where this user has no home."""
        return (self._base or folder_of_all()) / self._run

    def keep(self, device_id: str, result: Result) -> None:
        """Write ``result`` down, in place of an earlier one of the same attempt; when this returns it is on the disk.

        Raises OSError where that cannot be done; then nothing has changed.
        """
        data = to_json(Spooled(device_id=device_id, result=result)).encode()
        with self._new_file() as file:
            temporary = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(self._path(result.case_key, result.attempt))
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        _sync(self.folder)

    def contents(self, device_id: str | None = None) -> Contents:
        """Return what is there of that device, or of all; what cannot be read is passed over, and told."""
        results: list[Result] = []
        problems: list[str] = []
        try:
            paths = sorted(path for path in self.folder.iterdir() if _is_ours(path))
        except FileNotFoundError:
            paths = []
        except OSError as error:
            return Contents(results=(), problems=(f"the spool cannot be read: {error}",))
        for path in paths:
            try:
                spooled = _read(path)
            except (OSError, CodecError, UnicodeDecodeError) as error:
                problems.append(f"{path}: {error}")
                continue
            if spooled is not None and device_id in (None, spooled.device_id):
                results.append(spooled.result)
        return Contents(results=tuple(results), problems=tuple(problems))

    def results(self, device_id: str | None = None) -> tuple[Result, ...]:
        """Return the results of that device, or of all, as far as they can be read."""
        return self.contents(device_id).results

    def find(self, case_key: str, attempt: int) -> Result | None:
        """Return the result of an attempt; ``None`` where there is none that can be read."""
        try:
            spooled = _read(self._path(case_key, attempt))
        except (OSError, CodecError, UnicodeDecodeError):
            return None
        return None if spooled is None else spooled.result

    def forget(self, case_key: str, attempt: int) -> None:
        """Remove an attempt's result if it is there, and the run's folder when it is empty. Raises OSError."""
        self._path(case_key, attempt).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something is in it, or it is gone already
            self.folder.rmdir()

    def prune(self) -> None:
        """Remove the folders of other runs to which nobody has added or taken anything for :data:`KEEP_S`."""
        try:
            folders = [path for path in self.folder.parent.iterdir() if path.name != self._run]
        except OSError:  # nothing was ever kept here, or it cannot be read
            return
        for folder in folders:
            with contextlib.suppress(OSError):
                if folder.lstat().st_mtime < time.time() - KEEP_S:
                    shutil.rmtree(folder, ignore_errors=True)

    def _path(self, case_key: str, attempt: int) -> Path:
        return self.folder / f"{_plain(case_key)}-{attempt}.json"

    def _new_file(self) -> IO[bytes]:
        """Open a new file in the run's folder, under a name that no result has."""
        tries = _TRIES
        while True:
            _make_folder(self.folder)
            tries -= 1
            try:
                return tempfile.NamedTemporaryFile(dir=self.folder, prefix=".", suffix=".tmp", delete=False)
            except FileNotFoundError:  # another agent has just removed the folder, empty as it was
                if tries == 0:
                    raise


def _plain(name: str) -> str:
    """Return ``name`` if it can be part of a file's name on any system, else a hash of it."""
    return name if _PLAIN_NAME.fullmatch(name) else f"_{hashlib.sha256(name.encode()).hexdigest()}"


def _is_ours(path: Path) -> bool:
    return path.suffix == ".json" and not path.name.startswith(".")


def _read(path: Path) -> Spooled | None:
    """Return what a file holds, ``None`` where it has gone. Raises OSError, CodecError and UnicodeDecodeError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return from_json(Spooled, data)


def _make_folder(folder: Path) -> None:
    """Make the folder, for this user alone, so that it outlives a power cut."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # another agent was faster
        folder.mkdir(mode=0o700)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
