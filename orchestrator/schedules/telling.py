"""Tells others of a run: a command, a webhook, e-mail.

What fails is tried again, and then said; no run ever fails by it. Secrets come from the environment or from files, and
are in no message.
"""

from __future__ import annotations

import datetime
import email.message
import email.utils
import hashlib
import hmac
import json
import os
import smtplib
import ssl
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

from orchestrator.config.scheduling import MailSecurity
from workers.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator.config.scheduling import EmailConfig, NotifyConfig, WebhookConfig

#: Seconds before the second try; four times as long before each further one.
PAUSE_S: Final = 2.0
MOST_PAUSE_S: Final = 120.0

#: Seconds that a command may take.
COMMAND_TIMEOUT_S: Final = 60.0

SIGNATURE_HEADER: Final = "X-Muster-Signature"
TIMESTAMP_HEADER: Final = "X-Muster-Timestamp"

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 3
_PORTS: Final = {MailSecurity.STARTTLS: 587, MailSecurity.TLS: 465, MailSecurity.NONE: 25}


class NotToldError(Exception):
    """Somebody could not be told; the message says why, and holds no secret."""


def tell(
    config: NotifyConfig, notice: Mapping[str, Any], *, pause: Callable[[float], None] = time.sleep
) -> tuple[str, ...]:
    """Tell everybody whom the config names; return a line for each, how it went. Never raises for what goes wrong."""
    return tuple(_tried(name, say, config.attempts, pause) for name, say in _listeners(config, notice))


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return what a webhook's receiver checks: HMAC-SHA256 over ``timestamp.body``, as ``sha256=HEX``."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


def _listeners(config: NotifyConfig, notice: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    body = json.dumps(notice, ensure_ascii=False, separators=(",", ":")).encode()
    if config.command is not None:
        argv = list(config.command)
        yield f"command {argv[0]}", lambda: _run(argv, body)
    if (webhook := config.webhook) is not None:
        yield "webhook", lambda: _post(webhook, body)
    if (mail := config.email) is not None:
        yield f"e-mail to {', '.join(mail.to)}", lambda: _send(mail, notice, body)


def _tried(name: str, say: Callable[[], None], attempts: int, pause: Callable[[float], None]) -> str:
    reason, pause_s = "", PAUSE_S
    for attempt in range(1, attempts + 1):
        try:
            say()
        except (NotToldError, OSError, smtplib.SMTPException, subprocess.SubprocessError) as error:
            reason = str(error) or type(error).__name__
        else:
            return f"{name}: told" if attempt == 1 else f"{name}: told, at try {attempt}"
        if attempt < attempts:
            pause(min(pause_s, MOST_PAUSE_S))
            pause_s *= 4
    tries = "1 try" if attempts == 1 else f"{attempts} tries"
    return f"{name}: not told, after {tries}: {reason}"


def _secret(what: str, variable: str | None, file: str | None) -> str | None:
    """Return what a variable or a file holds. Raises :class:`NotToldError` that names it and not what it holds."""
    if variable is not None:
        if not (value := os.environ.get(variable)):
            raise NotToldError(f"{what}: the variable {variable} is not set")
        return value
    if file is None:
        return None
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotToldError(f"{what}: {file} cannot be read: {getattr(error, 'strerror', error)}") from None


# --- a command -------------------------------------------------------------------------------------------------


def _run(argv: list[str], body: bytes) -> None:
    done = subprocess.run(
        argv, input=body, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=COMMAND_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        said = f": {lines[-1][:200]}" if lines else ""
        raise NotToldError(f"exit code {done.returncode}{said}")


# --- a webhook -------------------------------------------------------------------------------------------------


def _post(webhook: WebhookConfig, body: bytes) -> None:
    """Post the notice; a redirect is followed on the same host alone."""
    import urllib3

    url = webhook.url or _secret("the webhook's URL", webhook.url_env, webhook.url_file) or ""
    host = _origin(url)
    headers = {"Content-Type": "application/json", "User-Agent": f"muster/{VERSION}"}
    if secret := _secret("the webhook's secret", webhook.secret_env, webhook.secret_file):
        headers[TIMESTAMP_HEADER] = timestamp = str(int(datetime.datetime.now(datetime.timezone.utc).timestamp()))
        headers[SIGNATURE_HEADER] = signature(secret, timestamp, body)
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=webhook.timeout_s)) as pool:
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                answer = pool.request("POST", url, body=body, headers=headers, redirect=False)
            except urllib3.exceptions.HTTPError as error:
                # Its words may hold the URL, which may be a secret.
                raise NotToldError(f"{host} cannot be told: {type(error).__name__}") from None
            if answer.status not in _REDIRECTS:
                break
            url = urljoin(url, answer.headers.get("Location", ""))
            if _origin(url) != host:
                raise NotToldError(f"{host} answers {answer.status} and names another host: not followed")
    if not 200 <= answer.status < 300:
        raise NotToldError(f"{host} answers {answer.status}")


def _origin(url: str) -> str:
    """Return scheme, host and port: what two URLs have in common that are on one host."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotToldError("the webhook's URL is none: expected https://host/path")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


# --- e-mail ----------------------------------------------------------------------------------------------------


def _send(mail: EmailConfig, notice: Mapping[str, Any], body: bytes) -> None:
    message = email.message.EmailMessage()
    message["From"], message["To"] = mail.sender, ", ".join(mail.to)
    message["Subject"] = f"muster: {notice['schedule']}: {notice['event']}"
    message["Date"] = email.utils.localtime()
    message["Message-ID"] = email.utils.make_msgid(domain="muster.invalid")
    message.set_content(_as_text(notice))
    message.add_attachment(body, maintype="application", subtype="json", filename="notice.json")
    password = _secret("the mail server's password", mail.password_env, mail.password_file)
    port = mail.port or _PORTS[mail.security]
    context = ssl.create_default_context()
    if mail.security is MailSecurity.TLS:
        server: smtplib.SMTP = smtplib.SMTP_SSL(mail.host, port, timeout=mail.timeout_s, context=context)
    else:
        server = smtplib.SMTP(mail.host, port, timeout=mail.timeout_s)
    with server:
        if mail.security is MailSecurity.STARTTLS:
            server.starttls(context=context)
        if mail.user is not None and password is not None:
            server.login(mail.user, password)
        server.send_message(message)


def _as_text(notice: Mapping[str, Any]) -> str:
    lines = [notice["text"], ""]
    lines += [
        f"slower: {each['device']} {each['model']} {each['pass']}: {each['before_ms']:.4g} -> {each['after_ms']:.4g} ms"
        for each in notice["regressions"]
    ]
    lines += [
        f"no figure: {each['device']} {each['model']} {each['pass']}: {each['verdict']}: {each['reason']}"
        for each in notice["failures"]
    ]
    return "\n".join([*lines, "", *notice["commands"].values()]) + "\n"
