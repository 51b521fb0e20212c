"""Python environments on this host, made without root and without a network of wheels that the head brings.

Below ``~/.cache/muster``::

    wheels/SHA256/NAME.whl      every wheel that was brought, whole or not there
    environments/KEY-PYTHON/    a venv: KEY says what is in it, PYTHON which interpreter it was made from
    environments/*.lock         held alone by who makes or removes it, shared by every keeper that uses it

Hosts may share a home: all of it is right with several keepers on several machines at once. What nobody has used for
:data:`workers.wheelshelf.KEPT_S` is removed. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from workers.orders import EnvironmentFound, EnvironmentInstalled, WheelTaken
from workers.process import ChildProcess, Silence
from workers.wheelshelf import (
    KEPT_S,
    Body,
    InstallationError,
    check_room,
    has_size,
    keep,
    last_use,
    path_of,
    remove_damaged,
    remove_unused_wheels,
    shelf,
    touch,
    translated,
    unpacked_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workers.orders import FindEnvironment, InstallEnvironment, TakeWheel

#: Seconds that another keeper, which makes the same environment, is waited for.
LOCK_TIMEOUT_S: Final = 1800.0

#: Seconds for pip. TensorFlow for GPUs is some 6 GB unpacked, and a home may lie on the network.
PIP_TIMEOUT_S: Final = 1800.0

#: Seconds for compiling what pip has unpacked; it takes 20 of one core's.
COMPILE_TIMEOUT_S: Final = 300.0

#: Seconds for a look at what pip has made.
VERIFY_TIMEOUT_S: Final = 120.0

#: Lies in an environment that is whole.
MARKER: Final = "complete"

#: What an environment takes, as a multiple of its files: compiled modules are added.
_WITH_BYTECODE: Final = 1.1

#: The kernel cannot wait for a lock until a deadline, so we look this often.
_POLL_S: Final = 0.25

_KEY: Final = re.compile(r"[0-9a-z][0-9a-z-]{0,99}")

#: Imports what is quick to import and would stop everything, and sees that the rest is there.
_VERIFY: Final = """
import importlib, importlib.metadata, sys
for name in sys.argv[1:]:
    importlib.metadata.distribution(name)
    if name in ("numpy", "ray"):
        importlib.import_module(name)
"""

#: Descriptors of the locks that this process holds until it ends, by environment.
_locks: dict[Path, int] = {}


# --- the three orders ------------------------------------------------------------------------------------------


def find_environment(order: FindEnvironment) -> EnvironmentFound:
    """Return the environment, which then is not removed while this process lives, or which wheels are missing.

    Raises :class:`InstallationError` where there is no room for them.
    """
    with translated():
        environment = _environment(order.key)
        wheels = {wheel: path_of(wheel) for wheel in order.wheels}
        for path in wheels.values():
            touch(path.parent)
        if _is_kept(environment):
            return EnvironmentFound(python=str(environment.python))
        missing = [wheel for wheel, path in wheels.items() if not has_size(path, wheel.size)]
        check_room(shelf("wheels"), sum(wheel.size for wheel in missing), "bringing the wheels")
        return EnvironmentFound(python=None, missing=tuple(wheel.sha256 for wheel in missing))


def take_wheel(order: TakeWheel, stream: BinaryIO) -> WheelTaken:
    """Keep the wheel whose bytes come next on ``stream``; all of them are read, whatever is wrong.

    Raises :class:`InstallationError`.
    """
    body = Body(stream, order.wheel)
    try:
        with translated():
            path = path_of(order.wheel)
            if not has_size(path, order.wheel.size):  # otherwise another host that shares this home was faster
                keep(body, path)
    finally:
        body.drain()
    return WheelTaken()


def install_environment(order: InstallEnvironment) -> EnvironmentInstalled:
    """Make the environment of wheels that were taken; one that is there, or is just being made, is as good.

    It is not removed while this process lives. Raises :class:`InstallationError`.
    """
    began = time.monotonic()
    with translated():
        environment = _environment(order.key)
        wheels = {wheel.name: path_of(wheel) for wheel in order.wheels}
        while not (_is_kept(environment) or _is_made(environment, wheels)):
            if time.monotonic() - began > LOCK_TIMEOUT_S:
                raise InstallationError(
                    f"another muster has been busy with {environment.folder} for {LOCK_TIMEOUT_S:.0f} s",
                    "wait until it has ended, or end it",
                )
            time.sleep(_POLL_S)
    with contextlib.suppress(OSError):  # what cannot be removed is no reason to run nothing
        _tidy(time.time())
    return EnvironmentInstalled(python=str(environment.python), seconds=time.monotonic() - began)


# --- names and places ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Environment:
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def is_whole(self) -> bool:
        """Also false where the interpreter that it was made from is gone."""
        return (self.folder / MARKER).exists() and self.python.exists()


def _environment(key: str) -> _Environment:
    if _KEY.fullmatch(key) is None:
        raise InstallationError(f"{key!r} is no key of an environment")
    # Hosts that share a home may have unlike Pythons in unlike places.
    python = hashlib.sha256(os.path.realpath(sys.executable).encode()).hexdigest()[:8]
    return _Environment(folder=shelf("environments") / f"{key}-{python}")


# --- the environment -------------------------------------------------------------------------------------------


def _make(environment: _Environment, wheels: dict[str, Path]) -> None:
    """Make it anew, the marker last; whoever calls has it alone."""
    for name, path in wheels.items():
        if not path.exists():
            raise InstallationError(f"the wheel {name} is not there any more", "run it again")
    folder = environment.folder
    if folder.exists():
        shutil.rmtree(folder)
    check_room(folder.parent, _WITH_BYTECODE * sum(map(unpacked_bytes, wheels.values())), "the environment")
    try:
        _make_venv(folder)
        _run_pip(environment, wheels)
        _compile(environment)
        _verify(environment, wheels)
        (folder / MARKER).touch()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _make_venv(folder: Path) -> None:
    remedy = "install all of Python on that host (Debian: python3-venv), or name another one with `python:`"
    try:
        # Some distributions leave parts of the standard library out.
        import venv
    except ImportError as error:
        raise InstallationError(f"{sys.executable} cannot make environments: {error}", remedy) from error
    # No pip: that would need ensurepip, which Debian leaves out. Ours comes as a wheel.
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)


def _run_pip(environment: _Environment, wheels: dict[str, Path]) -> None:
    """Unpack the wheels with the pip that is among them, from inside its wheel."""
    pip = next((path for name, path in wheels.items() if _is_pip(name)), None)
    if pip is None:
        raise InstallationError("there is no pip among the wheels", "make the wheelhouse anew")
    options = ("--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--no-input", "--no-warn-script-location")
    quiet = ("--disable-pip-version-check", "--progress-bar=off")
    # Not itself: what is kept under a hash of its content is not to be added to.
    files = [str(path) for name, path in wheels.items() if not _is_pip(name)]
    argv = (str(environment.python), "-I", str(pip / "pip"), "install", *options, *quiet, *files)
    try:
        _run(argv, "pip did not install the wheels", PIP_TIMEOUT_S, environment.folder)
    except InstallationError as error:
        remove_damaged(wheels)
        remedy = "make an environment on that host by yourself, and name its interpreter with `python:`"
        raise InstallationError(error.reason, error.remedy or remedy) from error


def _is_pip(name: str) -> bool:
    return name.startswith("pip-")


def _compile(environment: _Environment) -> None:
    """Compile every module on all cores: a case's first import would take five times as long, on one core."""
    argv = (str(environment.python), "-I", "-m", "compileall", "-qq", "-j", "0", str(environment.folder / "lib"))
    with contextlib.suppress(InstallationError):  # some packages hold templates that are no modules; all works without
        _run(argv, "modules were not compiled", COMPILE_TIMEOUT_S, environment.folder)


def _verify(environment: _Environment, wheels: dict[str, Path]) -> None:
    names = [name.partition("-")[0] for name in wheels if not _is_pip(name)]
    argv = (str(environment.python), "-I", "-c", _VERIFY, *names)
    _run(argv, "the new environment does not work", VERIFY_TIMEOUT_S, environment.folder)


def _run(argv: Sequence[str], failure: str, timeout_s: float, folder: Path) -> None:
    """Run a program to its end. Raises :class:`InstallationError` that begins with ``failure``."""
    # A person's settings for pip or Python could send files elsewhere.
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    until = time.monotonic() + timeout_s
    with ChildProcess(argv, env={**variables, "PIP_CONFIG_FILE": os.devnull}, cwd=folder) as child:
        while isinstance(line := child.next_line(until), bytes):
            pass
        child.stop()
        ending = child.ending()
    if line is Silence.DEADLINE:
        raise InstallationError(f"{failure} within {timeout_s:.0f} s", f"df -h {shlex.quote(str(folder.parent))}")
    if ending.exit_code != 0:
        how = f"exit {ending.exit_code}" if ending.signal is None else ending.signal
        raise InstallationError(f"{failure} ({how}): {_last_line(ending.stderr_tail)}")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


# --- who uses it -----------------------------------------------------------------------------------------------


def _is_kept(environment: _Environment) -> bool:
    """Return whether the environment is whole, and from now on nobody else can make it anew or remove it."""
    if not environment.is_whole or not _has_locked(environment, fcntl.LOCK_SH):
        return False
    touch(environment.folder)
    return environment.is_whole


def _is_made(environment: _Environment, wheels: dict[str, Path]) -> bool:
    """Make the environment, unless somebody else has it; return whether it is ours to use."""
    if not _has_locked(environment, fcntl.LOCK_EX):
        return False
    try:
        if not environment.is_whole:
            _make(environment, wheels)
    except BaseException:
        fcntl.flock(_locks[environment.folder], fcntl.LOCK_UN)
        raise
    # What the kernel cannot do in one step: somebody else may be faster, and finds it whole.
    return _has_locked(environment, fcntl.LOCK_SH)


def _has_locked(environment: _Environment, kind: int) -> bool:
    """Take the environment's lock, or turn what we have of it into ``kind``, if that can be had at once."""
    if environment.folder not in _locks:
        _locks[environment.folder] = os.open(_lock_file(environment.folder), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(_locks[environment.folder], kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_file(folder: Path) -> Path:
    # Never removed: who waits for it and who comes later must mean the same file.
    return folder.with_name(f"{folder.name}.lock")


# --- tidying ---------------------------------------------------------------------------------------------------


def _tidy(now: float) -> None:
    """Remove what nobody has used for long."""
    remove_unused_wheels(now)
    for each in shelf("environments").iterdir():
        if each.is_dir() and each not in _locks and last_use(each) < now - KEPT_S:
            _remove_unused(each)


def _remove_unused(folder: Path) -> None:
    """Remove an environment unless another keeper uses it."""
    descriptor = os.open(_lock_file(folder), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / MARKER).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
