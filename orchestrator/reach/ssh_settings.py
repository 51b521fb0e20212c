"""What a person's SSH configuration says of a host, as ``ssh HOST`` would read it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncssh

from orchestrator.reach.base import Step, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: ssh_config(5): the person's settings come first, and of each key the first value counts.
_CONFIG_FILES: Final = ("~/.ssh/config", "/etc/ssh/ssh_config")
_USER_KNOWN_HOSTS: Final = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS: Final = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_IDENTITIES: Final = tuple(f"~/.ssh/id_{name}" for name in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk"))

#: A connection on which nothing was heard for so long is asked for a sign of life, and given up after so many of them:
#: a cable that is put back within two minutes costs no connection. Whoever waits for an answer has a deadline.
KEEPALIVE_INTERVAL_S: Final = 10
KEEPALIVE_COUNT: Final = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Identities:
    """The keys to log in with."""

    #: Private keys; one with the file of its certificate is tried with it, and then without.
    keys: tuple[asyncssh.SSHKey | tuple[asyncssh.SSHKey, str], ...] = field(repr=False)
    #: Where they were read from.
    files: tuple[Path, ...]
    #: Key files that a passphrase guards; they are of use through an agent only.
    locked: tuple[Path, ...]
    #: Where the agent listens.
    agent_path: str | None
    #: Public parts of the keys that are asked of the agent; all of its keys where this is empty.
    agent_keys: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How one host is reached."""

    #: As the config names it.
    address: str
    #: As the SSH configuration translates it (``HostName``).
    host: str
    port: int
    user: str
    #: ``HostKeyAlias``: the name under which its key is known.
    alias: str | None
    #: ``ProxyJump``: hosts to go through, as they are written there.
    jumps: str | None
    proxy_command: str | None
    known_hosts: tuple[Path, ...]
    identities: Identities
    has_own_key_algorithms: bool
    options: asyncssh.SSHClientConnectionOptions = field(repr=False)

    @property
    def place(self) -> str:
        """How it is called in messages."""
        named = self.host if self.host == self.address else f"{self.address} ({self.host})"
        return named if self.port == asyncssh.DEFAULT_PORT else f"{named} port {self.port}"


def read_settings(address: str, *, user: str | None, port: int | None) -> Settings:
    """Read the SSH configuration for ``address``; ``user`` and ``port`` win over it. Raises UnreachableError.

    It reads files and may run programs (``Match exec``): not for the thread of an event loop.
    """
    try:
        return _settings(address, _options(address, user, port))
    except (ValueError, OSError) as error:
        raise UnreachableError(
            Step.RESOLVE,
            f"the SSH configuration cannot be used: {error}",
            remedy=f"mend it until this names the host: ssh -G {address}",
        ) from error


def _options(address: str, user: str | None, port: int | None) -> asyncssh.SSHClientConnectionOptions:
    files = [path for name in _CONFIG_FILES if os.access(path := Path(name).expanduser(), os.R_OK)]
    options = asyncssh.SSHClientConnectionOptions(
        config=files,
        host=address,
        username=() if user is None else user,
        port=() if port is None else port,
        # Keys are read one by one: a bad one must not keep the others out.
        client_keys=None,
        x509_trusted_certs=None,
        # Nobody is there to type anything, and nothing of this machine is lent to the host.
        password_auth=False,
        kbdint_auth=False,
        agent_forwarding=False,
        x11_forwarding=False,
        request_pty=False,
        # Deadlines are ours.
        connect_timeout=None,
        login_timeout=0,
        keepalive_interval=KEEPALIVE_INTERVAL_S,
        keepalive_count_max=KEEPALIVE_COUNT,
    )
    canonical = _canonical_name(address, options)
    if canonical is not None or options.config.has_match_final():
        # ssh_config(5): the files are read again, `Host` then matches the canonical name, and `Match final` matches.
        options.update(host=canonical or address, reload=True, canonical=canonical is not None, final=True)
    return options


def _canonical_name(address: str, options: asyncssh.SSHClientConnectionOptions) -> str | None:
    """Return ``address`` in the first of the ``CanonicalDomains`` that has it, if the configuration asks for that."""
    mode = options.canonicalize_hostname
    is_indirect = options.config.get("ProxyJump") or options.config.get("ProxyCommand")
    if not mode or (is_indirect and mode != "always") or address.count(".") > options.canonicalize_max_dots:
        return None
    for domain in options.canonical_domains:
        with contextlib.suppress(OSError, ValueError):
            socket.getaddrinfo(f"{address}.{domain}", None)
            return f"{address}.{domain}"
    return None


def _settings(address: str, options: asyncssh.SSHClientConnectionOptions) -> Settings:
    get = options.config.get
    alias = _text(get("HostKeyAlias"))
    tokens = {
        "h": options.host,
        "k": alias or options.host,
        "n": address,
        "p": str(options.port),
        "r": options.username,
        "d": str(Path.home()),
        "i": str(os.getuid()),
        "%": "%",
    }
    jumps = _text(get("ProxyJump"))
    own_known = _words(get("UserKnownHostsFile"), _USER_KNOWN_HOSTS)
    known = (*own_known, *_words(get("GlobalKnownHostsFile"), _GLOBAL_KNOWN_HOSTS))
    return Settings(
        address=address,
        host=options.host,
        port=options.port,
        user=options.username,
        alias=alias,
        jumps=None if jumps is None else _expanded(jumps, tokens),
        proxy_command=_text(get("ProxyCommand")),
        known_hosts=tuple(Path(_expanded(name, tokens)).expanduser() for name in known),
        identities=_identities(options),
        has_own_key_algorithms=get("HostKeyAlgorithms") is not None,
        options=options,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _words(value: object, default: Sequence[str]) -> Sequence[str]:
    return [str(word) for word in value] if isinstance(value, list) else default


def _expanded(text: str, tokens: Mapping[str, str]) -> str:
    """Return ``text`` with what ssh_config(5) calls tokens, and the environment, filled in."""
    filled = re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), text)
    return re.sub(r"\$\{(\w+)\}", lambda match: os.environ.get(match[1], ""), filled)


# --- keys to log in with ---


def _identities(options: asyncssh.SSHClientConnectionOptions) -> Identities:
    get = options.config.get
    files = [Path(name).expanduser() for name in _words(get("IdentityFile"), _IDENTITIES)]
    certificates = [path for name in _words(get("CertificateFile"), ()) if (path := Path(name).expanduser()).is_file()]
    keys: list[asyncssh.SSHKey | tuple[asyncssh.SSHKey, str]] = []
    read: list[Path] = []
    locked: list[Path] = []
    for path in files:
        try:
            key = _private_key(path, _stamp(path))
        except (OSError, ValueError):
            continue  # as `ssh` does: most of the default ones are not there
        if key is None:
            locked.append(path)
        else:
            read.append(path)
            keys.extend([(key, str(one)) for one in _certificates_of(key, path, certificates)] or [key])
    only = bool(get("IdentitiesOnly"))
    agent_keys = tuple(blob for path in files for blob in _public_blobs(path)) if only else ()
    return Identities(
        keys=tuple(keys),
        files=tuple(read),
        locked=tuple(locked),
        agent_path=None if only and not agent_keys else _agent_path(get("IdentityAgent", ())),
        agent_keys=agent_keys,
    )


def _stamp(path: Path) -> tuple[int, int]:
    """Return what changes when the file does. Raises OSError."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=64)
def _private_key(path: Path, stamp: tuple[int, int]) -> asyncssh.SSHKey | None:
    """Read a private key, once for all hosts (RSA takes a tenth of a second); ``None`` if it wants a passphrase.

    Raises OSError and ValueError.
    """
    try:
        return asyncssh.read_private_key(path)
    except asyncssh.KeyImportError as error:
        if str(error).startswith("Passphrase"):
            return None
        raise


def _certificates_of(key: asyncssh.SSHKey, path: Path, named: Sequence[Path]) -> Sequence[Path]:
    """Return the files that certify this key: the one beside it, and those that the configuration names."""
    fitting = []
    for candidate in (path.with_name(f"{path.name}-cert.pub"), *named):
        with contextlib.suppress(OSError, ValueError):
            if asyncssh.read_certificate(candidate).key.public_data == key.public_data:
                fitting.append(candidate)
    return fitting


def _public_blobs(path: Path) -> Sequence[bytes]:
    """Return the public key and the certificate that lie beside a private key, whether or not that one is there."""
    blobs = []
    for candidate in (path.with_name(f"{path.name}.pub"), path):
        with contextlib.suppress(OSError, ValueError):
            blobs.append(asyncssh.read_public_key(candidate).public_data)
    with contextlib.suppress(OSError, ValueError):
        blobs.append(asyncssh.read_certificate(path.with_name(f"{path.name}-cert.pub")).public_data)
    return blobs


def _agent_path(configured: object) -> str | None:
    """Return where the agent listens: ``IdentityAgent``, which asyncssh gives as ``None`` where it is ``none``."""
    if configured is None:
        return None
    environment = os.environ.get("SSH_AUTH_SOCK") or None
    if not isinstance(configured, str) or configured == "SSH_AUTH_SOCK":
        return environment
    if configured.startswith("$"):
        return os.environ.get(configured.lstrip("${").rstrip("}")) or None
    return configured
