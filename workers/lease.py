"""Who may use a device now: locks on this host that every muster takes, whichever user and head started it.

A file for each device lies in one folder that all users share. Its lock is the kernel's, so it ends with the process
that holds it, however that ends. What is written in the file tells people who holds it, and means nothing else.

A case takes its host first, then its GPU or its cores; see :func:`claims_of`. Whoever finds something taken stands in
line: it holds the *turn* of what it waits for, and who comes later goes behind, so that neither a case that needs the
whole host nor the other muster is put off for ever. Turns and claims are taken in one order everywhere, so nobody
waits in a circle. Standard library only.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
import pwd
import re
import stat
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workers.codec import CodecError, from_json, to_json
from workers.protocol import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from workers.protocol import Device

#: Not ``$TMPDIR``, which is often a user's own: users must find each other here.
FOLDER: Final = Path("/tmp/muster-leases")

#: Names another folder, for hosts whose users do not share ``/tmp``. All of them must name the same.
FOLDER_VARIABLE: Final = "MUSTER_LEASE_FOLDER"

#: Everybody may add files and nobody may remove another's, as in ``/tmp`` itself.
_FOLDER_MODE: Final = 0o1777

#: The kernel can wait for a lock, but neither until a deadline nor until somebody calls, so we look this often.
POLL_S: Final = 0.25

#: Who holds a slot is written at ``slot * _SLOT_BYTES``.
_SLOT_BYTES: Final = 2048

#: Slots that are looked at, however long a file is that somebody has made.
_MAX_SLOTS: Final = 8192

#: So that a holder always fits in its slot, though JSON can take twelve bytes for a character.
_MAX_CHARACTERS: Final = 48

#: ``struct flock`` of 64-bit Linux: type, whence, start, length, pid; see fcntl(2). Open file description locks:
#: unlike plain POSIX locks they keep two threads apart, unlike ``flock`` they can be asked for without being taken.
_FLOCK: Final = struct.Struct("@hhqqi0q")


class LeaseError(Exception):
    """Leases cannot be had on this host; the message says where, why, and what mends it."""


class LeaseBusyError(Exception):
    """Somebody held it for longer than we would wait; the message says who, and since when."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds a lease."""

    user: str
    #: Name of the machine whose muster it is.
    head: str
    run_id: str
    pid: int
    #: Seconds since the epoch.
    since: float

    def __str__(self) -> str:
        return f"{_legible(self.user)} (run {_legible(self.run_id)} of {_legible(self.head)}{_since(self.since)})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One thing that a case needs for itself, or together with others."""

    file: str
    #: What it is, for people.
    label: str
    #: Several things may have one file, each in a slot of its own.
    slot: int = 0
    is_shared: bool = False

    @property
    def kind(self) -> int:
        """The kind of lock that it takes."""
        return fcntl.F_RDLCK if self.is_shared else fcntl.F_WRLCK

    @property
    def use(self) -> int:
        """The byte of the file whose lock is the right to use it."""
        return 2 * self.slot

    @property
    def turn(self) -> int:
        """The byte whose lock is the first place in the line."""
        return 2 * self.slot + 1


def claims_of(device: Device, *, is_alone: bool) -> tuple[Claim, ...]:
    """Return what a case on ``device`` needs, in the order in which everybody takes it.

    ``is_alone`` keeps the whole host free of other cases; otherwise a GPU keeps to itself, and a CPU device keeps its
    cores, each of them, so that two core sets that overlap exclude each other.
    """
    host = Claim(file="host", label="the host", is_shared=not is_alone)
    if device.kind is DeviceKind.GPU:
        own = re.sub(r"[^A-Za-z0-9._-]", "_", device.uuid or f"index-{device.index}")
        return host, Claim(file=f"gpu-{own}", label="the GPU")
    cores = () if is_alone else sorted(device.cores)
    return host, *(Claim(file="cpu", label=f"core {core}", slot=core) for core in cores)


def this_process(*, run_id: str, head: str) -> Holder:
    """Return the holder that this process is from now on."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user need not have a name
        user = f"uid {os.geteuid()}"
    return Holder(
        user=user[:_MAX_CHARACTERS],
        head=head[:_MAX_CHARACTERS],
        run_id=run_id[:_MAX_CHARACTERS],
        pid=os.getpid(),
        since=time.time(),
    )


class Lease:
    """Some claims: free until :meth:`take`, held until :meth:`give_back` or until this process and its heirs end.

    Used by one thread; as a context manager it is given back at the end.
    """

    def __init__(self, claims: Sequence[Claim], *, run_id: str, head: str, folder: Path | None = None) -> None:
        self._claims = tuple(claims)
        self._run_id, self._head = run_id, head
        self._folder = folder or Path(os.environ.get(FOLDER_VARIABLE) or FOLDER)
        self._files: dict[str, int] = {}
        self._written: list[Claim] = []

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a child inherits that shall hold the lease as long as it lives, even if this process is killed."""
        return tuple(self._files.values())

    def take(self, timeout_s: float, *, pause: Callable[[float], bool], tell: Callable[[str], None]) -> bool:
        """Take every claim, waiting ``timeout_s`` at most; return False, holding nothing, where ``pause`` ended it.

        ``pause(seconds)`` waits, and returns True if nothing is to be waited for any more. ``tell(reason)`` is called
        once somebody is waited for, and whenever the reason changes. Raises :class:`LeaseBusyError` past the time, and
        :class:`LeaseError` where the folder or a file in it is not what it must be.
        """
        until = time.monotonic() + timeout_s
        told = None
        try:
            for claim in self._claims:
                while not self._is_taken(claim):
                    reason = self._reason(claim)
                    if reason != told:
                        tell(reason)
                        told = reason
                    remaining_s = until - time.monotonic()
                    if remaining_s <= 0:
                        raise LeaseBusyError(f"{reason}, and was not free within {timeout_s:g} s")
                    if pause(min(POLL_S, remaining_s)):
                        self.give_back()
                        return False
        except BaseException as error:
            self.give_back()
            if isinstance(error, OSError):
                raise LeaseError(f"leases in {self._folder} cannot be had: {error.strerror or error}") from error
            raise
        return True

    def give_back(self) -> None:
        """End every lock, also for processes that inherited it; safe to call twice."""
        for claim in self._written:
            _write(self._files[claim.file], claim, b"")
        self._written.clear()
        for file in self._files.values():
            _set_lock(file, fcntl.F_UNLCK, 0, 0)
        self.leave_to_heirs()

    def leave_to_heirs(self) -> None:
        """Let go in this process alone: a child that has inherited the lease, and that nothing ends, holds it on."""
        while self._files:
            _, file = self._files.popitem()
            os.close(file)
        self._written.clear()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def _is_taken(self, claim: Claim) -> bool:
        """Take a claim that is free and that nobody else stands in line for; otherwise stand in line, and say no."""
        if claim.file not in self._files:
            with _opened_folder(self._folder) as folder:
                self._files[claim.file] = _opened_file(folder, self._folder / claim.file)
        file = self._files[claim.file]
        if _conflict(file, fcntl.F_WRLCK, claim.turn) is None and _set_lock(file, claim.kind, claim.use):
            _set_lock(file, fcntl.F_UNLCK, claim.turn)
            self._sign(file, claim)
            return True
        _set_lock(file, fcntl.F_WRLCK, claim.turn)
        return False

    def _sign(self, file: int, claim: Claim) -> None:
        if os.fstat(file).st_nlink == 0:
            raise LeaseError(f"{self._folder / claim.file} was removed while it was waited for: leave it there")
        os.utime(file)  # whoever clears old files away shall not find this one old
        if not claim.is_shared:
            _write(file, claim, to_json(this_process(run_id=self._run_id, head=self._head)).encode())
            self._written.append(claim)

    def _reason(self, claim: Claim) -> str:
        """Return who has what we wait for."""
        file = self._files[claim.file]
        conflict = _conflict(file, claim.kind, claim.use)
        if conflict is None:
            return f"{claim.label} is promised to somebody who came before"
        holders = [_read(file, claim.slot)] if conflict == fcntl.F_WRLCK else list(self._sharers())
        others = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
        return f"{claim.label} is held by {next(iter(holders), 'somebody')}{others}"

    def _sharers(self) -> Iterator[str]:
        """Give those who hold the host together with others, each once: each holds something for itself beside it."""
        found: dict[str, None] = {}
        with _opened_folder(self._folder) as folder:
            for name in sorted(os.listdir(folder)):  # noqa: PTH208  # a path can be swapped, a descriptor cannot
                with contextlib.suppress(OSError, LeaseError):
                    found.update(dict.fromkeys(_holders_in(folder, self._folder / name)))
        yield from found


def _holders_in(folder: int, path: Path) -> Iterator[str]:
    """Give who holds each slot of a file that is held."""
    file = _opened_file(folder, path)
    try:
        for slot in range(min(os.fstat(file).st_size // _SLOT_BYTES, _MAX_SLOTS)):
            if _conflict(file, fcntl.F_RDLCK, 2 * slot) is not None:
                yield _read(file, slot)
    finally:
        os.close(file)


# --- files -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened_folder(path: Path) -> Iterator[int]:
    """Open the folder, made if it is not there; files are opened by its descriptor, so nobody can swap it meanwhile."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            folder = os.open(path, flags)
        except FileNotFoundError:
            _make_folder(path)
            folder = os.open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise LeaseError(f"{path} must be a folder, and is not (a link is none): remove it: rm {path}") from error
    try:
        mode = os.fstat(folder).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise LeaseError(f"in {path} anybody may remove anybody's files: chmod {_FOLDER_MODE:o} {path}")
        yield folder
    finally:
        os.close(folder)


def _make_folder(path: Path) -> None:
    """Make the folder with its mode at once, whatever the umask: another user may come in the next moment."""
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    new.chmod(_FOLDER_MODE)
    try:
        new.rename(path)
    except OSError:  # another was faster
        new.rmdir()


def _opened_file(folder: int, path: Path) -> int:
    """Open the lease file ``path`` in ``folder``, made if it is not there. Raises :class:`LeaseError` and OSError."""
    # In a sticky folder the kernel refuses O_CREAT on a file of another user (sysctl fs.protected_regular).
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            file = os.open(path.name, flags, dir_fd=folder)
        except FileNotFoundError:
            file = _made_file(folder, path.name, flags)
    except PermissionError as error:
        hint = f"its owner, or root, types: chmod {_FOLDER_MODE:o} {path.parent}; chmod 666 {path}"
        raise LeaseError(f"{path}: {error.strerror}: {hint}") from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise _not_a_file(path) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _not_a_file(path)
    return file


def _made_file(folder: int, name: str, flags: int) -> int:
    try:
        file = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    except FileExistsError:  # another was faster
        return os.open(name, flags, dir_fd=folder)
    os.fchmod(file, 0o666)  # whatever the umask
    return file


def _not_a_file(path: Path) -> LeaseError:
    return LeaseError(f"{path} must be a plain file, and is not (a link is none): remove it: rm -r {path}")


# --- locks and what is written beside them -----------------------------------------------------------------------


def _set_lock(file: int, kind: int, start: int, length: int = 1) -> bool:
    """Set or end a lock on some bytes, up to the end where ``length`` is 0; return False where somebody has one."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except BlockingIOError:
        return False
    return True


def _conflict(file: int, kind: int, start: int) -> int | None:
    """Return the kind of lock that keeps us from one of ``kind``, ``None`` where nothing does; takes none."""
    answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0))
    found: int = _FLOCK.unpack(answer)[0]
    return None if found == fcntl.F_UNLCK else found


def _write(file: int, claim: Claim, text: bytes) -> None:
    # The lock is what counts: a full disk costs the name of its holder, no more.
    with contextlib.suppress(OSError):
        os.pwrite(file, text.ljust(_SLOT_BYTES, b"\0"), claim.slot * _SLOT_BYTES)


def _read(file: int, slot: int) -> str:
    """Return who holds a slot, as far as it can be read: any user of the host may have written there."""
    text = os.pread(file, _SLOT_BYTES, slot * _SLOT_BYTES).rstrip(b"\0")
    try:
        return str(from_json(Holder, text))
    except (CodecError, UnicodeDecodeError):
        return "somebody"


def _legible(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_CHARACTERS])


def _since(epoch_s: float) -> str:
    """Return ``epoch_s`` as this host's wall clock shows it: the time, and the date unless it is today."""
    try:
        then = datetime.datetime.fromtimestamp(epoch_s).astimezone()
        is_today = then.date() == datetime.datetime.now(then.tzinfo).date()
        return f", since {then:{'%H:%M' if is_today else '%Y-%m-%d %H:%M'}}"
    except (ValueError, OverflowError, OSError):
        return ""
