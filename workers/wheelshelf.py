"""Where installations are kept below ``~/.cache/muster``, and the wheels among them.

Hosts may share a home: all of it is right with several keepers on several machines at once. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workers.orders import Wheel

#: Seconds after their last use that wheels and environments are kept.
KEPT_S: Final = 60 * 24 * 3600.0

#: Seconds after which a wheel that was not taken whole is surely nobody's any more.
_ABANDONED_S: Final = 24 * 3600.0

_CHUNK_BYTES: Final = 2**20
_UNFINISHED: Final = ".new-"

_WHEEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!]*(-[A-Za-z0-9._+!]+){4,5}\.whl")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class InstallationError(Exception):
    """An environment cannot be made: why, and what mends it."""

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


# --- places ------------------------------------------------------------------------------------------------------


def shelf(name: str) -> Path:
    """Return one of our folders, made if it is not there. Raises OSError."""
    folder = Path.home() / ".cache" / "muster" / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Tell what the file system refuses as an :class:`InstallationError`."""
    try:
        yield
    except OSError as error:
        where = error.filename or Path.home() / ".cache" / "muster"
        remedy = f"df -h {shlex.quote(str(where))}; ls -ld ~/.cache/muster"
        raise InstallationError(f"{where}: {error.strerror or error}", remedy) from error


def check_room(folder: Path, needed_bytes: float, what: str) -> None:
    """Raise :class:`InstallationError` where ``what`` would not fit."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise InstallationError(
            f"{what} needs {needed_bytes / 1e9:.1f} GB in {folder}, and {free_bytes / 1e9:.1f} GB are free",
            f"make room there: df -h {shlex.quote(str(folder))}",
        )


# --- wheels ------------------------------------------------------------------------------------------------------


def path_of(wheel: Wheel) -> Path:
    """Return where a wheel is kept. Raises :class:`InstallationError` for what is no wheel's name."""
    if _WHEEL_NAME.fullmatch(wheel.name) is None or _SHA256.fullmatch(wheel.sha256) is None:
        raise InstallationError(f"{wheel.name!r} with SHA-256 {wheel.sha256!r} is no wheel")
    return shelf("wheels") / wheel.sha256 / wheel.name


def has_size(path: Path, size: int) -> bool:
    """Return whether there is a file of so many bytes."""
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def touch(folder: Path) -> None:
    """Note that something is used: its folder's time is that of the last use."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(folder)


class Body:
    """The bytes of one wheel on a stream that goes on behind them."""

    def __init__(self, stream: BinaryIO, wheel: Wheel) -> None:
        self.wheel = wheel
        self._stream = stream
        self._missing = wheel.size

    def chunks(self) -> Iterator[bytes]:
        """Yield what has not been read yet. Raises :class:`InstallationError` where the stream ends before."""
        while self._missing > 0:
            chunk = self._stream.read(min(self._missing, _CHUNK_BYTES))
            if not chunk:
                came = self.wheel.size - self._missing
                raise InstallationError(f"{self.wheel.name} ended after {came} of {self.wheel.size} bytes")
            self._missing -= len(chunk)
            yield chunk

    def drain(self) -> None:
        """Read the rest, so that what follows on the stream can be read."""
        with contextlib.suppress(InstallationError):  # at the end of the stream there is nobody to be told
            for _ in self.chunks():
                pass


def keep(body: Body, path: Path) -> None:
    """Write a wheel beside and rename it: it is there whole, or not at all. Raises :class:`InstallationError`."""
    folder = shelf("wheels")
    check_room(folder, body.wheel.size, body.wheel.name)
    descriptor, fresh = tempfile.mkstemp(prefix=_UNFINISHED, dir=folder)
    try:
        digest = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as file:
            for chunk in body.chunks():
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())  # a name that survives a power cut must not have lost its bytes
        if digest.hexdigest() != body.wheel.sha256:
            raise InstallationError(
                f"{body.wheel.name} is not what it was on the head: its SHA-256 is {digest.hexdigest()}",
                "run it again; if it stays so, remove ~/.cache/muster/wheelhouse on the head",
            )
        path.parent.mkdir(mode=0o700, exist_ok=True)
        Path(fresh).replace(path)
    finally:
        Path(fresh).unlink(missing_ok=True)


def unpacked_bytes(wheel: Path) -> int:
    """Return how much room a wheel's files take. One that is damaged is removed; raises :class:`InstallationError`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        wheel.unlink(missing_ok=True)
        raise InstallationError(f"the wheel {wheel.name} was damaged: {error}", "run it again") from error


def remove_damaged(wheels: dict[str, Path]) -> None:
    """Remove the wheels that are not what they were, so that they are brought again; raises if there are any."""
    damaged = [name for name, path in wheels.items() if _sha256(path) != path.parent.name]
    for name in damaged:
        wheels[name].unlink(missing_ok=True)
    if damaged:
        raise InstallationError(f"damaged wheels were removed: {', '.join(damaged)}", "run it again")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def remove_unused_wheels(now: float) -> None:
    """Remove the wheels that nobody has used for long, and what was left of such as were not taken whole."""
    for each in shelf("wheels").iterdir():
        if each.name.startswith(_UNFINISHED):
            if last_use(each) < now - _ABANDONED_S:
                each.unlink(missing_ok=True)
        elif last_use(each) < now - KEPT_S:
            shutil.rmtree(each, ignore_errors=True)


def last_use(path: Path) -> float:
    """Return when a folder was last touched, in seconds since the epoch."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another host that shares this home has removed it
        return time.time()
