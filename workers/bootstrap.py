"""The first thing that a host runs: makes sure that our code is there, and becomes the keeper.

The head sends this file's text as the first line, so that nothing needs to be there but Python; it must be *read* by
Python 3.6 or newer, to refuse an old one politely. Standard library only.
"""

import hashlib
import importlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path

#: The oldest Python that the rest of our code is written for.
OLDEST = (3, 10)

#: Code of other versions that is kept, however old: the newest ones.
KEPT = 3

#: Seconds after its last use that code of another version is kept.
KEPT_S = 30 * 24 * 3600.0

#: Lies in a folder that is whole; its time is that of the last use.
MARKER = "complete"


def boot(stdin: io.FileIO, key: str, grace_s: float, patience_s: float) -> int:
    """Run the keeper from the code whose SHA-256 is ``key``, which the head sends where it is not there yet.

    ``stdin`` is not buffered, so that what follows on it is left to the keeper. Returns the exit code.
    """
    if sys.version_info < OLDEST:
        version = ".".join(map(str, sys.version_info[:3]))
        oldest = ".".join(map(str, OLDEST))
        reason = f"{sys.executable} is Python {version}, and {oldest} or newer is needed"
        return _fail(reason, "name a newer one with `python:`, or install: true")
    try:
        folder = _code(stdin, Path.home() / ".cache" / "muster" / "code", key)
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        return _fail(f"our code cannot be kept under ~/.cache/muster: {error}", "df -h ~; ls -ld ~/.cache")
    sys.path.insert(0, str(folder))
    return int(importlib.import_module("workers.keeper").keep(grace_s=grace_s, patience_s=patience_s))


def _code(stdin: io.FileIO, shelf: Path, key: str) -> Path:
    folder = shelf / key
    is_there = (folder / MARKER).exists()
    _say({"event": "CodeSought", "is_there": is_there})
    if not is_there:
        _keep(_received(stdin), folder, key)
    os.utime(str(folder / MARKER))
    _tidy(shelf, key, time.time() - KEPT_S)
    return folder


def _received(stdin: io.FileIO) -> bytes:
    """Return what the head sends: a line with a number, and that many bytes."""
    missing = int(stdin.readline())
    parts = []
    while missing:
        part = stdin.read(missing)
        if not part:
            raise OSError("the head let go while it sent it")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _keep(packed: bytes, folder: Path, key: str) -> None:
    """Unpack beside and rename: hosts that share a home may do so at the same time, and see all or nothing."""
    if hashlib.sha256(packed).hexdigest() != key:
        raise ValueError("what came is not what was sent")
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=str(folder.parent)))
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            archive.extractall(str(fresh))
        (fresh / MARKER).touch()
        if folder.exists() and not (folder / MARKER).exists():  # somebody has cleaned up half of it
            folder.rename(fresh.with_name(fresh.name + "-broken"))
        fresh.rename(folder)
    except OSError:
        if not (folder / MARKER).exists():  # otherwise another host was faster
            raise
    finally:
        shutil.rmtree(str(fresh), ignore_errors=True)


def _tidy(shelf: Path, key: str, before: float) -> None:
    """Remove code that nobody has used for long, and what was left half unpacked, but for the newest few."""
    others = sorted((_last_use(each), each.name) for each in shelf.iterdir() if each.name != key)
    for used, name in others[:-KEPT]:
        if used < before:
            shutil.rmtree(str(shelf / name), ignore_errors=True)


def _last_use(folder: Path) -> float:
    marker = folder / MARKER
    try:
        return (marker if marker.exists() else folder).stat().st_mtime
    except OSError:  # another host has removed it meanwhile
        return 0.0


def _fail(reason: str, remedy: str) -> int:
    _say({"event": "Failed", "reason": reason, "remedy": remedy})
    return 1


def _say(event: dict) -> None:  # type: ignore[type-arg]  # dict[str, Any] is an error when it is run by Python 3.6
    os.write(1, (json.dumps(event) + "\n").encode())
