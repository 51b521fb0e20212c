"""Whose key a host has to show: ``known_hosts``, read as OpenSSH reads it, and what to do where it does not fit."""

from __future__ import annotations

import contextlib
import functools
import shlex
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncssh

from orchestrator.reach.base import Step, UnreachableError

if TYPE_CHECKING:
    from orchestrator.reach.ssh_settings import Settings

#: What OpenSSH offers of itself, in its order; ``ssh-rsa`` (SHA-1) only where a configuration asks for it.
_ALGORITHMS: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
_CERTIFICATE_ALGORITHMS: Final = tuple(
    f"{name.removesuffix('@openssh.com')}-cert-v01@openssh.com" for name in _ALGORITHMS
)

#: Several threads may read for the first time; a big file takes a second.
_READING: Final = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownKeys:
    """What is known of one host's key."""

    #: Its keys, and the authorities that may certify it.
    keys: tuple[asyncssh.SSHKey, ...]
    authorities: tuple[asyncssh.SSHKey, ...]
    revoked: tuple[asyncssh.SSHKey, ...]
    #: Files that know a key for just this name and port.
    files: tuple[Path, ...]

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What to ask the host for, best first: then it shows the key that is known, if it has that one."""
        certified = _CERTIFICATE_ALGORITHMS if self.authorities else ()
        known = [name.decode() for key in self.keys for name in key.sig_algorithms]
        return tuple(dict.fromkeys([*certified, *(name for name in known if name in _ALGORITHMS), *_ALGORITHMS]))


def known_keys(settings: Settings) -> KnownKeys:
    """Look a host's keys up. It reads files: not for the thread of an event loop."""
    keys: list[asyncssh.SSHKey] = []
    authorities: list[asyncssh.SSHKey] = []
    revoked: list[asyncssh.SSHKey] = []
    files = []
    exact, plain = _names(settings)
    for path in settings.known_hosts:
        known = _known_hosts(path)
        for name in {exact, plain}:
            found = known.match(name, "", None)
            keys += found[0]
            authorities += found[1]
            revoked += found[2]
            if name == exact and found[0]:
                files.append(path)
    return KnownKeys(keys=tuple(keys), authorities=tuple(authorities), revoked=tuple(revoked), files=tuple(files))


def key_trouble(
    settings: Settings, known: KnownKeys, offered: asyncssh.SSHKey | None, reason: str, *, is_direct: bool
) -> UnreachableError:
    """Return why a key was not accepted, and what mends it. ``reason`` is the library's own."""
    if offered is None:
        # A certificate, and not for want of an authority: too old, or of another name.
        return UnreachableError(Step.HOST_KEY, f"the host certificate of {settings.place} is not accepted: {reason}")
    shown = f"{offered.get_algorithm()} {offered.get_fingerprint()}"
    if offered in known.revoked:
        message = f"the key of {settings.place} is marked @revoked: {shown}"
        return UnreachableError(Step.HOST_KEY, message, remedy="do not connect; ask who runs that host")
    look = "compare it with the host's own (there: for f in /etc/ssh/ssh_host_*.pub; do ssh-keygen -lf $f; done)"
    accept = _acceptance(settings, is_direct=is_direct)
    if not known.files:
        message = f"the key of {settings.place} is not known: it shows {shown}"
        return UnreachableError(Step.HOST_KEY, message, remedy=f"{look}, then: {accept}")
    forget = "; ".join(_removal(settings, path) for path in known.files)
    return UnreachableError(
        Step.HOST_KEY,
        f"the key of {settings.place} has CHANGED: it shows {shown}, and that is not the known one. Either somebody is"
        " intercepting the connection, or the host was installed anew",
        remedy=f"if it was installed anew, {look}, then: {forget}; {accept}",
    )


def _names(settings: Settings) -> tuple[str, str]:
    """Return under which names OpenSSH looks: with the port, and if that is not known also without.

    One that is known without the port only is accepted if it fits, and is no changed key if it does not.
    """
    if settings.alias is not None:
        return settings.alias, settings.alias
    host = settings.host.lower()
    return (host if settings.port == asyncssh.DEFAULT_PORT else f"[{host}]:{settings.port}"), host


def _known_hosts(path: Path) -> asyncssh.SSHKnownHosts:
    try:
        status = path.stat()
        with _READING:
            return _parsed(path, status.st_mtime_ns, status.st_size)
    except OSError:
        return asyncssh.SSHKnownHosts()


@functools.lru_cache(maxsize=16)
def _parsed(path: Path, mtime_ns: int, size: int) -> asyncssh.SSHKnownHosts:
    """Read a file once for all hosts, as long as it stays the same. Raises OSError."""
    known = asyncssh.SSHKnownHosts()
    for line in path.read_text(errors="replace").splitlines():
        # As OpenSSH does: a line that nobody can read keeps no other one from being read.
        with contextlib.suppress(ValueError):
            known.load(line)
    return known


def _acceptance(settings: Settings, *, is_direct: bool) -> str:
    """Return the command that makes a key known, once its fingerprint was compared."""
    port = str(settings.port)
    if not is_direct or settings.alias is not None:
        # ssh-keyscan knows neither jumps nor aliases; ssh asks, and remembers the answer.
        return shlex.join(["ssh", "-p", port, f"{settings.user}@{settings.address}", "true"])
    file = _own_file(settings)
    return f"{shlex.join(['ssh-keyscan', '-p', port, '-H', settings.host])} >> {file}"


def _removal(settings: Settings, path: Path) -> str:
    name, _ = _names(settings)
    where = [] if path == Path("~/.ssh/known_hosts").expanduser() else ["-f", str(path)]
    return shlex.join(["ssh-keygen", *where, "-R", name])


def _own_file(settings: Settings) -> str:
    file = next(iter(settings.known_hosts), None)
    default = Path("~/.ssh/known_hosts").expanduser()
    return "~/.ssh/known_hosts" if file is None or file == default else shlex.quote(str(file))
