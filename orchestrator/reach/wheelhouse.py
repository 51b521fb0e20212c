"""The wheels that hosts' environments are made of: downloaded once by this machine's pip, or found in a folder.

``python -m orchestrator.reach.wheelhouse KIND PYTHON MACHINE FOLDER`` fills a folder for a head without internet.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import hashlib
import importlib.resources
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.errors import ClusterError, MusterError
from orchestrator.reach.requirements import MACHINES, Target, chosen, key_of, pins_for
from workers.codec import CodecError, from_json, to_json
from workers.orders import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.reach.requirements import Pin

#: Which builds of TensorFlow there are lists for.
KINDS: Final = ("cpu", "gpu")

#: Seconds for a download; the wheels for GPU hosts are some 3 GB.
DOWNLOAD_TIMEOUT_S: Final = 3600.0

#: Seconds after its last use that a wheelhouse is kept.
KEPT_S: Final = 60 * 24 * 3600.0

#: Seconds after which a download that left a folder behind is surely over.
_ABANDONED_S: Final = 24 * 3600.0

#: Seconds that pip may take over TERM before KILL.
_GRACE_S: Final = 5.0

#: Lies in a wheelhouse that is whole: its wheels and their hashes; its time is that of the last use.
_INDEX: Final = "wheels.json"

_LIST: Final = "requirements.txt"
_UNFINISHED: Final = ".new-"
_CHUNK_BYTES: Final = 2**20

#: Longer lines of pip's are an error; its longest lists the versions of a package.
_MAX_LINE_BYTES: Final = 2**20

#: Packages that are named when they are missing; the rest is counted.
_NAMED: Final = 12

#: What pip says of a wheel, and not of the metadata beside it, when it begins with it.
_BEGUN: Final = re.compile(
    r"\s*(?:Downloading|Using cached|Processing)\s+(?:\S*/)?([^\s/]+\.whl)(?:\s+\(([\d.]+ \w+)\))?(?:\s|$)"
)


class WheelhouseError(ClusterError):
    """The wheels for hosts cannot be had."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheelhouse:
    """All wheels of one environment."""

    #: What the environment is kept under on hosts.
    key: str
    wheels: tuple[Wheel, ...]
    #: Where they lie, each under its name.
    folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class _Index:
    wheels: tuple[Wheel, ...]


def say_nothing(text: str) -> None:
    """Tell nobody."""


async def wheelhouse(
    kind: str,
    python_minor: str,
    machine: str,
    *,
    folder: Path | None = None,
    say: Callable[[str], None] = say_nothing,
) -> Wheelhouse:
    """Return the wheels for hosts with that TensorFlow (:data:`KINDS`), Python (``3.11``) and processor (``x86_64``).

    They are those of ``folder``, or else downloaded, once, into this user's cache. ``say`` is told of the progress.
    Raises :class:`WheelhouseError`.
    """
    target = _target(kind, python_minor, machine)
    locked = importlib.resources.files("orchestrator.reach").joinpath("data", f"hosts-{kind}.txt")
    pins = pins_for(target, await asyncio.to_thread(locked.read_text, encoding="utf-8"))
    if folder is not None:
        return await asyncio.to_thread(found_in, folder, target, pins)
    return await downloaded(target, pins, say=say)


def _target(kind: str, python_minor: str, machine: str) -> Target:
    own = "make an environment there by yourself, and name its interpreter with `python:` instead of `install: true`"
    if kind not in KINDS:
        raise WheelhouseError(f"there is no list of wheels for {kind} hosts", remedy=own)
    if machine not in MACHINES:
        raise WheelhouseError(f"there are no wheels of TensorFlow for Linux on {machine}", remedy=own)
    if re.fullmatch(r"3\.\d{1,3}", python_minor) is None:
        raise WheelhouseError(f"there are no wheels for Python {python_minor}", remedy=own)
    return Target(kind=kind, python_minor=python_minor, machine=machine)


# --- a folder that a person names ------------------------------------------------------------------------------


def found_in(folder: Path, target: Target, pins: Sequence[Pin]) -> Wheelhouse:
    """Return the wheels of a folder that may hold others too. Raises :class:`WheelhouseError`."""
    argv = ("python", "-m", "orchestrator.reach.wheelhouse", target.kind, target.python_minor, target.machine)
    remedy = f"where there is internet: {shlex.join((*argv, str(folder)))}"
    try:
        wheels, missing = chosen(target, pins, _wheels_in(folder))
    except OSError as error:
        raise WheelhouseError(f"the wheelhouse {folder} cannot be read: {error.strerror}", remedy=remedy) from error
    if missing:
        named = ", ".join(str(pin) for pin in missing[:_NAMED])
        others = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise WheelhouseError(
            f"the wheelhouse {folder} lacks {len(missing)} of {len(pins)} wheels for {target}: {named}{others}",
            remedy=remedy,
        )
    return Wheelhouse(key=key_of(target, pins), wheels=wheels, folder=folder)


def _wheels_in(folder: Path) -> tuple[Wheel, ...]:
    """Return the wheels of a folder; only those are read whole whose hash is not written beside them."""
    known = {(wheel.name, wheel.size): wheel for wheel in _indexed(folder)}
    sizes = {path: path.stat().st_size for path in sorted(folder.iterdir()) if path.suffix == ".whl"}
    return tuple(
        known.get((path.name, size)) or Wheel(name=path.name, sha256=_sha256(path), size=size)
        for path, size in sizes.items()
    )


def _indexed(folder: Path) -> tuple[Wheel, ...]:
    # A lie in there comes to light: a host checks what it takes.
    try:
        return from_json(_Index, (folder / _INDEX).read_text(encoding="utf-8")).wheels
    except (OSError, UnicodeError, CodecError):
        return ()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _write_index(folder: Path, wheels: tuple[Wheel, ...]) -> None:
    fresh = folder / f".{_INDEX}-{os.getpid()}"
    fresh.write_text(to_json(_Index(wheels=wheels)), encoding="utf-8")
    fresh.replace(folder / _INDEX)


# --- our own, downloaded ---------------------------------------------------------------------------------------


def shelf() -> Path:
    """Return the folder below which this user's wheelhouses lie."""
    named = Path(os.environ.get("XDG_CACHE_HOME") or "~")
    # The XDG specification has relative paths ignored.
    return (named if named.is_absolute() else Path.home() / ".cache") / "muster" / "wheelhouse"


async def downloaded(
    target: Target,
    pins: Sequence[Pin],
    *,
    say: Callable[[str], None] = say_nothing,
    timeout_s: float = DOWNLOAD_TIMEOUT_S,
) -> Wheelhouse:
    """Return this user's wheelhouse for ``pins``, made now if it is not there. Raises :class:`WheelhouseError`."""
    folder = shelf() / key_of(target, pins)
    try:
        kept = await asyncio.to_thread(_kept, folder, target, pins)
        if kept is None:
            fresh = await asyncio.to_thread(_unfinished)
            try:
                await _download(target, pins, fresh, say, timeout_s)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
            say("checking wheels")
            kept = await asyncio.to_thread(_put, fresh, folder, target, pins)
        return kept
    except OSError as error:
        where = error.filename or folder
        raise WheelhouseError(f"wheels cannot be kept at {where}: {error.strerror}", remedy=f"df -h {where}") from error


def _kept(folder: Path, target: Target, pins: Sequence[Pin]) -> Wheelhouse | None:
    """Return what is in ``folder``; ``None`` where it is not whole."""
    if not (folder / _INDEX).exists():
        return None
    with contextlib.suppress(WheelhouseError):
        found = found_in(folder, target, pins)
        (folder / _INDEX).touch()
        return found
    return None


def _unfinished() -> Path:
    folder = shelf()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _tidy(folder, time.time())
    return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))


def _put(fresh: Path, folder: Path, target: Target, pins: Sequence[Pin]) -> Wheelhouse:
    """Rename, so that nobody ever sees half of it; where another head was faster, its own is as good."""
    broken = fresh.with_name(f"{fresh.name}-broken")
    try:
        _write_index(fresh, _wheels_in(fresh))
        found_in(fresh, target, pins)
        if folder.exists() and _kept(folder, target, pins) is None:  # somebody has removed a part of it
            folder.rename(broken)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another head was faster
                raise
        return found_in(folder, target, pins)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(broken, ignore_errors=True)


def _tidy(folder: Path, now: float) -> None:
    """Remove wheelhouses that were not used for long, and what downloads left that were killed."""
    for each in folder.iterdir():
        with contextlib.suppress(OSError):  # another head may do the same
            index = each / _INDEX
            used = (index if index.exists() else each).stat().st_mtime
            if used < now - (_ABANDONED_S if each.name.startswith(_UNFINISHED) else KEPT_S):
                shutil.rmtree(each)


# --- pip -------------------------------------------------------------------------------------------------------


async def _download(
    target: Target, pins: Sequence[Pin], folder: Path, say: Callable[[str], None], timeout_s: float
) -> None:
    """Have pip bring the files of ``pins`` into a folder. Where from is for its own settings to say."""
    listed = folder / _LIST
    listed.write_text("".join(f"{pin.line}\n" for pin in pins), encoding="utf-8")
    say(f"downloading {len(pins)} wheels for {target}")
    process = await asyncio.create_subprocess_exec(
        *_pip(target, listed, folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=_MAX_LINE_BYTES,
        start_new_session=True,
    )
    try:
        complaints = await asyncio.wait_for(_follow(process, len(pins), say), timeout_s)
    except asyncio.TimeoutError as error:
        raise WheelhouseError(
            f"pip did not download the wheels for {target} within {timeout_s:.0f} s",
            remedy="try again: what it has brought is kept by it; or name a folder of wheels, cluster.wheelhouse",
        ) from error
    finally:
        await _end(process)
    if process.returncode:
        raise WheelhouseError(
            f"pip did not download the wheels for {target}: {complaints or f'exit {process.returncode}'}",
            remedy="see that `pip download` works here, or name a folder of wheels made elsewhere: cluster.wheelhouse",
        )


def _pip(target: Target, listed: Path, folder: Path) -> tuple[str, ...]:
    platforms = [word for name in target.platforms for word in ("--platform", name)]
    # All that is needed is in the list, so nothing is resolved: pip would do so for this machine, not for the hosts.
    options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-input", "--progress-bar", "off")
    python = ("--implementation", "cp", "--python-version", target.python_minor, *platforms)
    pip = (sys.executable, "-m", "pip", "download", "--disable-pip-version-check")
    return (*pip, *options, *python, "--dest", str(folder), "--requirement", str(listed))


async def _follow(process: asyncio.subprocess.Process, total: int, say: Callable[[str], None]) -> str:
    """Tell of each wheel that pip begins with; return what it complained of when it ended."""
    assert process.stdout is not None  # a pipe
    complaints: collections.deque[str] = collections.deque(maxlen=2)
    begun: set[str] = set()
    async for raw in process.stdout:
        line = raw.decode(errors="replace").rstrip()
        if match := _BEGUN.match(line):
            name, size = match.groups()
            begun.add(name)
            say(f"downloading wheel {len(begun)} of {total}: {name.split('-')[0]}{f' ({size})' if size else ''}")
        elif line.startswith("ERROR:") or "No module named pip" in line:
            complaints.append(line.removeprefix("ERROR:").strip())
    await process.wait()
    return "; ".join(complaints)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End pip and what it started, if it still runs."""
    for number, wait_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), wait_s)


# --- for a head without internet -------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Fill a folder with the wheels for some hosts, beside what it has; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.reach.wheelhouse", description="Fill a folder with the wheels for some hosts."
    )
    parser.add_argument("kind", choices=KINDS, help="which TensorFlow")
    parser.add_argument("python", help="the hosts' Python: 3.11")
    parser.add_argument("machine", choices=MACHINES, help="the hosts' processor")
    parser.add_argument("folder", type=Path, help="what cluster.wheelhouse will name")
    given = parser.parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    try:
        house = asyncio.run(wheelhouse(given.kind, given.python, given.machine, say=say))
        fill(given.folder, house)
    except MusterError as error:
        say(f"{error.message}\n{error.remedy or ''}".strip())
        return int(error.exit_code)
    say(f"{len(house.wheels)} wheels are in {given.folder}")
    return 0


def fill(folder: Path, house: Wheelhouse) -> None:
    """Copy a wheelhouse into a folder, beside what it has. Raises :class:`WheelhouseError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for wheel in house.wheels:
            shutil.copy2(house.folder / wheel.name, folder / wheel.name)
        _write_index(folder, _wheels_in(folder))
    except OSError as error:
        raise WheelhouseError(f"{error.filename or folder}: {error.strerror}", remedy=f"df -h {folder}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
