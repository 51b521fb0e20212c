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
import fcntl
import os
import pwd
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workers.codec import CodecError, from_json, to_json
from workers.company import FILE as COMPANY
from workers.company import is_led, lead
from workers.lockfiles import (
    LeaseError,
    conflict_with,
    lease_folder,
    opened_file,
    opened_folder,
    set_lock,
)
from workers.protocol import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from workers.protocol import Device

#: The kernel can wait for a lock, but neither until a deadline nor until somebody calls, so we look this often.
POLL_S: Final = 0.25

#: Who holds a slot is written at ``slot * _SLOT_BYTES``.
_SLOT_BYTES: Final = 2048

#: Slots that are looked at, however long a file is that somebody has made.
_MAX_SLOTS: Final = 8192

#: So that a holder always fits in its slot, though JSON can take twelve bytes for a character.
_MAX_CHARACTERS: Final = 48


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
    #: Of cases that are measured at once: one of them takes it for all.
    group: str | None = None

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


def claims_of(device: Device, *, is_alone: bool, group: str | None = None) -> tuple[Claim, ...]:
    """Return what a case on ``device`` needs, in the order in which everybody takes it.

    ``is_alone`` keeps the whole host free of other cases; otherwise a GPU keeps to itself, and a CPU device keeps its
    cores, each of them, so that two core sets that overlap exclude each other. The cases of a ``group`` keep the host
    free of all but themselves: whichever comes first takes it, for all of them.
    """
    host = Claim(file="host", label="the host", is_shared=not is_alone and group is None, group=group)
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
        self._folder = folder or lease_folder()
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
            set_lock(file, fcntl.F_UNLCK, 0, 0)
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
        file = self._opened(claim.file)
        if claim.group is not None and is_led(self._opened(COMPANY), claim.group):
            set_lock(file, fcntl.F_UNLCK, claim.turn)
            return True
        if conflict_with(file, fcntl.F_WRLCK, claim.turn) is None and set_lock(file, claim.kind, claim.use):
            set_lock(file, fcntl.F_UNLCK, claim.turn)
            self._sign(file, claim)
            if claim.group is not None:
                lead(self._opened(COMPANY), claim.group)
            return True
        set_lock(file, fcntl.F_WRLCK, claim.turn)
        return False

    def _opened(self, name: str) -> int:
        if name not in self._files:
            with opened_folder(self._folder) as folder:
                self._files[name] = opened_file(folder, self._folder / name)
        return self._files[name]

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
        conflict = conflict_with(file, claim.kind, claim.use)
        if conflict is None:
            return f"{claim.label} is promised to somebody who came before"
        holders = [_read(file, claim.slot)] if conflict == fcntl.F_WRLCK else list(self._sharers())
        others = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
        return f"{claim.label} is held by {next(iter(holders), 'somebody')}{others}"

    def _sharers(self) -> Iterator[str]:
        """Give those who hold the host together with others, each once: each holds something for itself beside it."""
        found: dict[str, None] = {}
        with opened_folder(self._folder) as folder:
            for name in sorted(os.listdir(folder)):  # noqa: PTH208  # a path can be swapped, a descriptor cannot
                with contextlib.suppress(OSError, LeaseError):
                    found.update(dict.fromkeys(_holders_in(folder, self._folder / name)))
        yield from found


def holders(folder: Path | None = None) -> tuple[str, ...]:
    """Return who holds something of this host now, each once, by the name of the file; takes and makes nothing.

    Every case holds the host, alone or with others: where nobody does, nobody measures here. Raises :class:`LeaseError`
    and OSError where the folder is not what it must be.
    """
    path = folder or lease_folder()
    if not path.exists():
        return ()
    found: dict[str, None] = {}
    with opened_folder(path) as opened:
        if "host" not in os.listdir(opened):  # noqa: PTH208  # a path can be swapped, a descriptor cannot
            return ()
        file = opened_file(opened, path / "host")
        try:
            is_held = conflict_with(file, fcntl.F_WRLCK, 0) is not None
        finally:
            os.close(file)
        for name in sorted(os.listdir(opened)) if is_held else ():  # noqa: PTH208
            with contextlib.suppress(OSError, LeaseError):
                found.update(dict.fromkeys(_holders_in(opened, path / name)))
    return tuple(found) or (("somebody",) if is_held else ())


def _holders_in(folder: int, path: Path) -> Iterator[str]:
    """Give who holds each slot of a file that is held."""
    file = opened_file(folder, path)
    try:
        for slot in range(min(os.fstat(file).st_size // _SLOT_BYTES, _MAX_SLOTS)):
            if conflict_with(file, fcntl.F_RDLCK, 2 * slot) is not None:
                yield _read(file, slot)
    finally:
        os.close(file)


# --- what is written beside locks ---------------------------------------------------------------------------------


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
