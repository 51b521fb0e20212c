"""What a person asked of the server, checked before it begins."""

from __future__ import annotations

import ipaddress
import secrets
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from orchestrator.errors import UsageError

#: A shorter token could be guessed.
_LEAST_TOKEN: Final = 16


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Where the server listens, and what it lets people do."""

    store_url: str
    host: str = "127.0.0.1"
    port: int = 8787
    #: What browsers and scripts must show; ``None`` for nothing, on this machine alone.
    token: str | None = field(default=None, repr=False)
    #: Whether schedules can be paused and asked for runs.
    allow_runs: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def scheme(self) -> str:
        """How browsers speak to it."""
        return "http" if self.tls_cert is None else "https"


def checked(settings: ServeSettings) -> ServeSettings:
    """Return the settings; raises UsageError for what would be unsafe or cannot be done."""
    if settings.token is None and not is_loopback(settings.host):
        raise UsageError(
            f"--host {settings.host}: others could reach the dashboard, and no token is set",
            remedy=f"set one: export MUSTER_SERVE_TOKEN={secrets.token_urlsafe(24)}, or --token-file FILE",
        )
    if settings.token is not None and len(settings.token) < _LEAST_TOKEN:
        raise UsageError(
            f"the token has {len(settings.token)} characters, and could be guessed",
            remedy=f"take {_LEAST_TOKEN} or more, such as {secrets.token_urlsafe(24)}",
        )
    if settings.token is not None and not (settings.token.isascii() and settings.token.isprintable()):
        raise UsageError("the token has characters that no header can carry", remedy="take letters and digits")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise UsageError("TLS takes a certificate and its key", remedy="--tls-cert FILE --tls-key FILE")
    if settings.tls_cert is not None and settings.tls_key is not None:
        _try_tls(settings.tls_cert, settings.tls_key)
    return settings


def token_of(file: Path | None, environment: str | None) -> str | None:
    """Return the token from a file, else from the environment; raises UsageError for an empty one."""
    if file is None:
        return environment or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {file}: {error}", remedy="name a file with one line of text") from error
    if not token:
        raise UsageError(f"--token-file {file}: it is empty", remedy="put the token into it, on one line")
    return token


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _try_tls(cert: Path, key: Path) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"--tls-cert {cert} --tls-key {key}: {error}", remedy="a PEM certificate, and the key that belongs to it"
        ) from error
