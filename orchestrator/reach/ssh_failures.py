"""What it means for a host that asyncssh raises something: one table, and the message for people."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncssh

from orchestrator.reach.base import Step, UnreachableError
from orchestrator.reach.ssh_host_keys import key_trouble

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.reach.ssh_host_keys import KnownKeys
    from orchestrator.reach.ssh_settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What an exception says."""

    #: In which step it is a failure; ``None`` for the one that was on.
    step: Step | None = None
    text: str


#: Every exception of the library that can come out of a connection, the more special ones by themselves.
MEANINGS: Final[Mapping[type[BaseException], Meaning]] = {
    asyncssh.PermissionDenied: Meaning(step=Step.LOGIN, text="the login was refused"),
    asyncssh.IllegalUserName: Meaning(step=Step.LOGIN, text="that cannot be a user"),
    asyncssh.PasswordChangeRequired: Meaning(step=Step.LOGIN, text="the host wants a new password"),
    asyncssh.HostKeyNotVerifiable: Meaning(step=Step.HOST_KEY, text="the host's key is not accepted"),
    asyncssh.KeyExchangeFailed: Meaning(step=Step.HOST_KEY, text="the two ends have no cipher in common"),
    asyncssh.ConnectionLost: Meaning(text="the connection broke"),
    asyncssh.CompressionError: Meaning(text="the two ends did not understand each other"),
    asyncssh.MACError: Meaning(text="what came over the network was not what was sent"),
    asyncssh.ProtocolError: Meaning(text="the two ends did not understand each other"),
    asyncssh.ProtocolNotSupported: Meaning(step=Step.CONNECT, text="that is no SSH server of version 2"),
    asyncssh.ServiceNotAvailable: Meaning(text="the SSH server does not let anybody in now"),
    asyncssh.DisconnectError: Meaning(text="the SSH server ended the connection"),
    asyncssh.ChannelOpenError: Meaning(step=Step.CONNECT, text="the jump host makes no connection to it"),
    asyncssh.ChannelListenError: Meaning(text="the SSH server did not listen"),
    asyncssh.ConfigParseError: Meaning(step=Step.RESOLVE, text="the SSH configuration cannot be read"),
    asyncssh.KeyImportError: Meaning(step=Step.LOGIN, text="a key cannot be read"),
    asyncssh.KeyExportError: Meaning(step=Step.LOGIN, text="a key cannot be used"),
    asyncssh.KeyEncryptionError: Meaning(step=Step.LOGIN, text="a key cannot be decrypted"),
    asyncssh.KeyGenerationError: Meaning(step=Step.LOGIN, text="a key cannot be made"),
    asyncssh.Error: Meaning(text="the SSH server said no"),
    OSError: Meaning(text="the connection broke"),
    ValueError: Meaning(text="the SSH server said what nobody can read"),
}


#: What OpenSSH says where a person has more keys than it lets one try (MaxAuthTries).
_TOO_MANY: Final = "Too many authentication failures"


def meaning_of(error: BaseException) -> Meaning:
    """Return the meaning of an exception, or of the nearest of its ancestors."""
    for kind in type(error).__mro__:
        if kind in MEANINGS:
            return MEANINGS[kind]
    return Meaning(text="connecting failed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """How far a connection came that failed."""

    settings: Settings
    known: KnownKeys
    #: Which step was on.
    step: Step
    #: The host's key that was not accepted.
    offered: asyncssh.SSHKey | None
    #: Nothing lies between this machine and the host.
    is_direct: bool
    #: The host would have taken keys.
    takes_keys: bool
    timeout_s: float


def failure(error: BaseException, attempt: Attempt) -> UnreachableError:
    """Return what to tell of a connection that failed."""
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return key_trouble(attempt.settings, attempt.known, attempt.offered, error.reason, is_direct=attempt.is_direct)
    meaning = meaning_of(error)
    step = meaning.step or attempt.step
    if step is Step.LOGIN and (isinstance(error, asyncssh.PermissionDenied) or _TOO_MANY in str(error)):
        return _refused(error, attempt)
    message = f"{attempt.settings.place}: {meaning.text}"
    reason = str(error)
    if reason:
        message += f" ({reason})"
    return UnreachableError(step, message, remedy=_remedy(error, step, attempt))


def too_slow(attempt: Attempt) -> UnreachableError:
    """Return what to tell of a connection whose time is over."""
    missing = {
        Step.CONNECT: "says nothing: no SSH server answered",
        Step.HOST_KEY: "did not finish the exchange of keys",
        Step.LOGIN: f"did not let {attempt.settings.user} in or refuse it",
    }[attempt.step]
    return UnreachableError(
        attempt.step,
        f"{attempt.settings.place} {missing} within {attempt.timeout_s:g} s",
        remedy="is an SSH server behind that port? A slower one needs a larger `limits: {connect_timeout: ...}`",
    )


def _remedy(error: BaseException, step: Step, attempt: Attempt) -> str | None:
    if isinstance(error, asyncssh.ChannelOpenError):
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            return "let the jump host's sshd forward (AllowTcpForwarding yes in its sshd_config)"
        return "is the host up, and does the jump host know it by that name?"
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return f"see what it offers: ssh -vv {_login(attempt)} true"
    if step is Step.CONNECT and attempt.is_direct:
        return "its sshd may have too many logins at once (MaxStartups in its sshd_config), or not let this machine in"
    return f"see how far this comes: ssh -v {_login(attempt)} true"


def _login(attempt: Attempt) -> str:
    return shlex.join(["-p", str(attempt.settings.port), f"{attempt.settings.user}@{attempt.settings.address}"])


def _refused(error: BaseException, attempt: Attempt) -> UnreachableError:
    settings, identities = attempt.settings, attempt.settings.identities
    message = f"{settings.place} refuses to let {settings.user} in"
    if _TOO_MANY in str(error):
        message += ": it was offered too many keys that it does not know"
        host = settings.address
        remedy = f"say in ~/.ssh/config which key is for it: Host {host}, IdentityFile ..., IdentitiesOnly yes"
        return UnreachableError(Step.LOGIN, message, remedy=remedy)
    if not attempt.takes_keys:
        message += "; it takes no keys, and a password is never asked for"
        return UnreachableError(Step.LOGIN, message, remedy="let its sshd take keys (PubkeyAuthentication yes)")
    tried = [str(path) for path in identities.files]
    if identities.agent_path is not None:
        tried.append(f"the agent at {identities.agent_path}")
    message += f"; tried: public keys of {', '.join(tried)}" if tried else "; there is no key to try"
    remedy = f"ssh-copy-id {_login(attempt)}"
    if identities.locked:
        paths = shlex.join(map(str, identities.locked))
        remedy = f"if a passphrase guards the right key: ssh-add {paths}; otherwise: {remedy}"
    elif not tried:
        remedy = f"ssh-keygen -t ed25519 && {remedy}"
    return UnreachableError(Step.LOGIN, message, remedy=remedy)
