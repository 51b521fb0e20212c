"""Who is told of a run, and what becomes of it where that fails: real HTTP and mail servers, real programs."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from pydantic import ValidationError

from orchestrator.config.scheduling import NotifyConfig, Occasion
from orchestrator.schedules.notices import is_told
from orchestrator.schedules.telling import PAUSE_S, signature, tell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOTICE: dict[str, Any] = {
    "schema_version": 1,
    "event": "regression",
    "text": "night, run 7f3a01: regression; ünï",
    "schedule": "night",
    "regressions": [
        {"device": "a/gpu:0", "model": "alexnet", "pass": "forward", "before_ms": 10.0, "after_ms": 12.5, "ratio": 1.25}
    ],
    "failures": [{"device": "b/cpu", "model": "alexnet", "pass": "forward", "verdict": "oom", "reason": "no memory"}],
    "commands": {"show": "muster show 7f3a01"},
}


class Receiver:
    """A webhook's receiver: answers what it is told to, in turn, and keeps what it got."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with contextlib.closing(Receiver()) as found:
        yield found


def told(**config: Any) -> tuple[tuple[str, ...], list[float]]:
    """How telling went, and the pauses between tries."""
    pauses: list[float] = []
    return tell(NotifyConfig.model_validate(config), NOTICE, pause=pauses.append), pauses


# --- webhooks --------------------------------------------------------------------------------------------------


def test_a_webhook_gets_the_notice_as_json(receiver: Receiver) -> None:
    assert told(webhook={"url": f"{receiver.url}/hook"}) == (("webhook: told",), [])
    ((path, headers, body),) = receiver.got
    assert (path, headers["content-type"], json.loads(body)) == ("/hook", "application/json", NOTICE)
    assert "x-muster-signature" not in headers


@pytest.mark.parametrize("kind", ["env", "file"])
def test_it_is_signed_with_a_secret_from_the_environment_or_a_file(
    receiver: Receiver, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    monkeypatch.setenv("HOOK_URL", f"{receiver.url}/from-env")
    (tmp_path / "secret").write_text("s3cret\n")
    given = {"secret_env": "HOOK_SECRET"} if kind == "env" else {"secret_file": str(tmp_path / "secret")}
    told(webhook={"url_env": "HOOK_URL", **given})
    ((path, headers, body),) = receiver.got
    assert path == "/from-env"
    assert headers["x-muster-signature"] == signature("s3cret", headers["x-muster-timestamp"], body)
    assert signature("other", headers["x-muster-timestamp"], body) != headers["x-muster-signature"]


def test_a_signature_is_hmac_sha256_of_time_and_body() -> None:
    # printf '1700000000.{}' | openssl dgst -sha256 -hmac s3cret
    expected = "97926816e98fbb41ccb1673225ff29a2f35369099990e1b1561651e7bd097ebf"
    assert signature("s3cret", "1700000000", b"{}") == f"sha256={expected}"


def test_it_is_tried_again_with_longer_pauses_and_then_said(receiver: Receiver) -> None:
    receiver.answers = [(500, {}), (503, {})]
    assert told(webhook={"url": receiver.url}) == (("webhook: told, at try 3",), [PAUSE_S, 4 * PAUSE_S])
    receiver.answers = [(500, {})] * 2
    lines, pauses = told(webhook={"url": receiver.url}, attempts=2)
    assert lines == (f"webhook: not told, after 2 tries: {receiver.url} answers 500",)
    assert pauses == [PAUSE_S]


def test_a_redirect_is_followed_on_the_same_host_alone(receiver: Receiver) -> None:
    receiver.answers = [(307, {"Location": "/moved"})]
    assert told(webhook={"url": f"{receiver.url}/hook"})[0] == ("webhook: told",)
    assert [path for path, *_ in receiver.got] == ["/hook", "/moved"]
    with contextlib.closing(Receiver()) as other:
        receiver.answers = [(302, {"Location": f"{other.url}/steal"})]
        lines, _ = told(webhook={"url": receiver.url}, attempts=1)
        assert lines[0].endswith("answers 302 and names another host: not followed")
        assert other.got == []
    receiver.answers = [(307, {"Location": "/again"})] * 10
    assert told(webhook={"url": receiver.url}, attempts=1)[0] == (
        f"webhook: not told, after 1 try: {receiver.url} answers 307",
    )


def test_a_receiver_that_does_not_answer_costs_no_more_than_its_time(receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/T0KEN"
        lines, _ = told(webhook={"url": url, "timeout": "200ms"}, attempts=1)
    assert "cannot be told: ReadTimeoutError" in lines[0]
    assert "T0KEN" not in lines[0]


def test_a_secret_that_is_not_there_is_named_and_not_sent_without(receiver: Receiver, tmp_path: Path) -> None:
    lines, _ = told(webhook={"url": receiver.url, "secret_env": "NO_SUCH_SECRET"}, attempts=1)
    assert lines[0].endswith("the webhook's secret: the variable NO_SUCH_SECRET is not set")
    lines, _ = told(webhook={"url": receiver.url, "secret_file": str(tmp_path / "none")}, attempts=1)
    assert lines[0].endswith(f"the webhook's secret: {tmp_path / 'none'} cannot be read: No such file or directory")
    assert receiver.got == []


# --- commands and mail -----------------------------------------------------------------------------------------


def test_a_command_gets_the_notice_on_its_standard_input_without_a_shell(tmp_path: Path) -> None:
    target = tmp_path / "a file; rm -rf x"
    assert told(command=["tee", str(target)])[0] == ("command tee: told",)
    assert json.loads(target.read_text()) == NOTICE


def test_a_command_that_fails_says_why_and_one_that_is_not_there_too() -> None:
    lines, _ = told(command=["sh", "-c", "echo first >&2; echo no disk >&2; exit 3"], attempts=1)
    assert lines == ("command sh: not told, after 1 try: exit code 3: no disk",)
    lines, _ = told(command=["no-such-program"], attempts=1)
    assert "No such file or directory: 'no-such-program'" in lines[0]


class Mailbox:
    """What a mail server was given."""

    def __init__(self) -> None:
        self.messages: list[tuple[list[str], bytes]] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # aiosmtpd's
        self.messages.append((envelope.rcpt_tos, envelope.content))
        return "250 OK"


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A mail server's certificate for localhost; whoever trusts ``tmp_path / "cert.pem"`` trusts it."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def logged_in(names: list[tuple[bytes, bytes]]) -> Any:
    def authenticate(server: object, session: object, envelope: object, mechanism: str, given: Any) -> AuthResult:
        names.append((given.login, given.password))
        return AuthResult(success=given.password == b"s3cret")

    return authenticate


# Encrypted from the first byte on there is nothing to require.
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_is_encrypted_and_its_password_said_to_a_server_that_is_trusted(
    security: str, certificate: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox, names, port = Mailbox(), list[tuple[bytes, bytes]](), free_port()
    way: dict[str, Any] = (
        {"ssl_context": certificate} if security == "tls" else {"tls_context": certificate, "require_starttls": True}
    )
    (tmp_path / "password").write_text("s3cret\n")
    mail = {
        "to": "a@lab.example", "from": "muster@lab.example", "host": "localhost", "port": port, "security": security,
        "user": "muster", "password_file": str(tmp_path / "password"),
    }  # fmt: skip
    controller = Controller(
        mailbox, hostname="localhost", port=port, server_hostname="localhost", authenticator=logged_in(names),
        auth_required=True, auth_require_tls=security == "starttls", **way,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    controller.start()
    try:
        assert told(email=mail)[0] == ("e-mail to a@lab.example: told",)
        assert names == [(b"muster", b"s3cret")]
        assert len(mailbox.messages) == 1
        monkeypatch.delenv("SSL_CERT_FILE")
        lines, _ = told(email=mail, attempts=1)
        assert "not told" in lines[0]
        assert "certificate" in lines[0].lower()
    finally:
        controller.stop()
    assert len(names) == len(mailbox.messages) == 1


def test_people_get_an_e_mail_with_the_notice_in_it() -> None:
    mailbox = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        mail = {"to": ["a@lab.example", "b@lab.example"], "from": "muster@lab.example", "host": "127.0.0.1"}
        lines, _ = told(email={**mail, "port": port, "security": "none"})
    finally:
        controller.stop()
    assert lines == ("e-mail to a@lab.example, b@lab.example: told",)
    ((to, content),) = mailbox.messages
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert to == ["a@lab.example", "b@lab.example"]
    assert message["Subject"] == "muster: night: regression"
    text, attached = message.iter_parts()
    assert "slower: a/gpu:0 alexnet forward: 10 -> 12.5 ms" in text.get_content()
    assert "no figure: b/cpu alexnet forward: oom: no memory" in text.get_content()
    assert json.loads(attached.get_content()) == NOTICE


def test_one_who_cannot_be_told_keeps_no_other_from_it(receiver: Receiver, tmp_path: Path) -> None:
    lines, _ = told(command=["false"], webhook={"url": receiver.url}, attempts=1)
    assert lines == ("command false: not told, after 1 try: exit code 1", "webhook: told")


# --- configs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "it says nobody to tell"),
        ({"webhook": {}}, "a webhook needs one of url, url_env and url_file"),
        ({"webhook": {"url": "https://a.example", "url_env": "X"}}, "a webhook needs one of"),
        ({"webhook": {"url": "ftp://a.example"}}, "'ftp://a.example' is no webhook"),
        ({"webhook": {"url": "https://me:pw@a.example"}}, "a webhook's URL holds no password"),
        ({"webhook": {"url": "https://a.example", "secret_env": "A", "secret_file": "b"}}, "exclude each other"),
        ({"email": {"to": "a@b.c", "from": "d@e.f", "host": "h", "user": "u"}}, "belong together"),
        (
            {
                "email": {
                    "to": "a@b.c",
                    "from": "d@e.f",
                    "host": "h",
                    "user": "u",
                    "password_env": "P",
                    "security": "none",
                }
            },
            "a password is never sent without encryption",
        ),
    ],
)
def test_what_is_nobody_to_tell_is_told(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NotifyConfig.model_validate(given)
    assert message in str(caught.value)


def test_who_is_told_of_what() -> None:
    usual = NotifyConfig(command=("true",)).on
    assert [outcome for outcome in ("ok", "failure", "regression", "recovery") if is_told(outcome, usual)] == [
        "failure",
        "regression",
        "recovery",
    ]
    assert is_told("ok", [Occasion.ALWAYS])
    assert not is_told("regression", [Occasion.FAILURE])
