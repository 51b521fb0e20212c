"""Who is let in, and what browsers are told: every route, without a token, with a wrong one, and with the right one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from orchestrator.cli.app import call
from orchestrator.errors import ExitCode, UsageError
from orchestrator.web.app import create_app
from orchestrator.web.guard import MOST_ADDRESS_BYTES, MOST_BODY_BYTES, OPEN
from orchestrator.web.session import COOKIE, LASTS_S, MOST_WRONG, Sessions
from orchestrator.web.settings import ServeSettings, checked, token_of

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "a-token-that-is-long-enough"


def browser(**given: Any) -> TestClient:
    app = create_app(ServeSettings(store_url="sqlite://", **given))
    return TestClient(app, base_url="http://127.0.0.1:8787", follow_redirects=False)


@pytest.fixture
def guarded() -> Iterator[TestClient]:
    with browser(token=TOKEN, allow_runs=True) as client:
        yield client


def routes(client: TestClient) -> list[tuple[str, str]]:
    """Method and address of each route, with something in place of what stands in braces."""
    app: Any = client.app
    return [
        (method, re.sub(r"\{\w+\}", "something", route.path))
        for route in _flat(app.router.routes)
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ]


def _flat(found: Any) -> list[Any]:
    flat = []
    for route in found:
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        flat += _flat(inner) if inner and not isinstance(route, APIRoute) else [route]
    return flat


def test_no_route_but_the_way_in_answers_without_the_token(guarded: TestClient) -> None:
    found = [*routes(guarded), ("GET", "/api/v1/openapi.json"), ("GET", "/nowhere"), ("POST", "/")]
    assert len(found) > 40
    for method, path in found:
        if path in OPEN:
            continue
        answer = guarded.request(method, path, headers={"accept": "*/*"})
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        for wrong in ("Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer"):
            assert guarded.request(method, path, headers={"authorization": wrong}).status_code == 401, (method, path)
        cookie = {"cookie": f"{COOKIE}=99999999999.x.{'0' * 64}"}
        assert guarded.request(method, path, headers=cookie).status_code == 401, (method, path)
        right = (
            guarded.request(method, path, headers={"authorization": f"Bearer {TOKEN}"})
            if "events" not in path
            else None
        )
        assert right is None or right.status_code not in (401, 500), (method, path)


def test_what_is_open_tells_nothing(guarded: TestClient) -> None:
    assert guarded.get("/healthz").text == "ok\n"
    assert "Token" in guarded.get("/login").text
    assert guarded.get("/static/muster.css").status_code == 200


def test_a_browser_is_asked_for_the_token_and_led_to_where_it_wanted(guarded: TestClient) -> None:
    asked = guarded.get("/runs?q=x", headers={"accept": "text/html"})
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=%2Fruns%3Fq%3Dx")
    assert 'value="/runs?q=x"' in guarded.get(asked.headers["location"]).text
    wrong = guarded.post("/login", data={"token": "wrong", "next": "/runs"})
    assert wrong.status_code == 401
    assert "That is not the token" in wrong.text
    right = guarded.post("/login", data={"token": TOKEN, "next": "/runs?q=x"})
    assert (right.status_code, right.headers["location"]) == (303, "/runs?q=x")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert guarded.get("/runs").status_code == 200
    guarded.post("/logout")
    assert guarded.get("/runs").status_code == 401


@pytest.mark.parametrize(
    "where", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\\b", "/\r\nX: y", ""]
)
def test_the_way_in_leads_nowhere_else(guarded: TestClient, where: str) -> None:
    right = guarded.post("/login", data={"token": TOKEN, "next": where})
    assert right.headers["location"] == "/"


def test_who_guesses_has_to_wait(guarded: TestClient) -> None:
    for _ in range(MOST_WRONG):
        assert guarded.post("/login", data={"token": "wrong"}).status_code == 401
    assert guarded.post("/login", data={"token": "wrong"}).status_code == 429


def test_sessions_end_and_are_this_servers_alone() -> None:
    now = [1000.0]
    sessions = Sessions(TOKEN, clock=lambda: now[0])
    cookie = sessions.new()
    assert sessions.is_session(cookie)
    assert not Sessions(TOKEN, clock=lambda: now[0]).is_session(cookie)
    until, _, rest = cookie.partition(".")
    for forged in (f"{int(until) + 1}.{rest}", f"{until}.{rest}0", "", "..", "9" * 40, f"-{cookie}", f"{until}."):
        assert not sessions.is_session(forged), forged
    now[0] += LASTS_S
    assert not sessions.is_session(cookie)


def test_wrong_tokens_are_forgotten_after_a_while() -> None:
    now = [1000.0]
    sessions = Sessions(TOKEN, clock=lambda: now[0])
    for _ in range(MOST_WRONG):
        sessions.note_wrong()
    assert sessions.is_held_off()
    now[0] += 60
    assert not sessions.is_held_off()


# --- other sites, other names, too much -------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8787", "localhost", "LOCALHOST:1", "[::1]:8787", "127.9.9.9"])
def test_on_this_machine_it_answers_to_its_own_names(host: str) -> None:
    with browser() as client:
        assert client.get("/runs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil:8787", "[::1", "0.0.0.0"]
)
def test_a_name_that_leads_here_by_somebody_elses_will_is_refused(host: str) -> None:
    with browser() as client:
        assert client.get("/runs", headers={"host": host}).status_code == 421


def test_with_a_token_any_name_will_do(guarded: TestClient) -> None:
    headers = {"host": "lab.example", "authorization": f"Bearer {TOKEN}"}
    assert guarded.get("/runs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/schedules/x/pause", "/api/v1/schedules/x/pause", "/login", "/logout"])
def test_other_sites_change_nothing(headers: dict[str, str], path: str) -> None:
    with browser(allow_runs=True) as client:
        answer = client.post(path, headers=headers)
    assert (answer.status_code, answer.text) == (403, "this came from another site\n")


def test_too_much_is_refused(guarded: TestClient) -> None:
    assert guarded.post("/login", content=b"x" * (MOST_BODY_BYTES + 1)).status_code == 413
    assert guarded.post("/login", content=b"", headers={"content-length": "-1"}).status_code == 413
    assert guarded.get("/login", params={"next": "x" * MOST_ADDRESS_BYTES}).status_code == 414


def test_a_body_of_untold_length_ends_at_the_limit(guarded: TestClient) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 1024

    assert guarded.post("/login", content=body()).status_code == 413
    assert guarded.post("/login", content=iter([b"token=", TOKEN.encode()])).status_code == 303


def test_no_file_of_the_server_is_served() -> None:
    with browser() as client:
        for path in (
            "../app.py",
            "%2e%2e/app.py",
            "..%2fapp.py",
            "....//app.py",
            "/etc/passwd",
            "%2fetc%2fpasswd",
        ):
            answer = client.get(f"/static/{path}")
            assert answer.status_code in (404, 405), (path, answer.headers)
            assert "FastAPI" not in answer.text
            assert "root:" not in answer.text


def test_every_answer_says_what_browsers_may_do_with_it(guarded: TestClient) -> None:
    for path in ("/login", "/runs", "/healthz", "/static/live.js", "/nowhere"):
        headers = guarded.get(path).headers
        policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "server" not in headers


# --- what a person asks for -------------------------------------------------------------------------------------


def settings(**given: Any) -> ServeSettings:
    return checked(ServeSettings(store_url="sqlite://", **given))


def test_any_address_but_this_machines_own_needs_a_token() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.3.4.5"):
        assert settings(host=host).token is None
    for host in ("0.0.0.0", "::", "192.168.0.7", "lab.example", ""):
        with pytest.raises(UsageError, match="no token is set"):
            settings(host=host)
        assert settings(host=host, token=TOKEN).token == TOKEN
    with pytest.raises(UsageError, match="has 5 characters, and could be guessed"):
        settings(token="short")
    with pytest.raises(UsageError, match="no header can carry"):
        settings(token="ünsichtbar-und-lang-genug")
    assert TOKEN not in repr(settings(token=TOKEN))


def test_the_token_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(UsageError, match="No such file"):
        token_of(file, TOKEN)
    file.write_text(" \n")
    with pytest.raises(UsageError, match="is empty"):
        token_of(file, TOKEN)
    file.write_text(f"{TOKEN}\n")
    assert token_of(file, "other") == TOKEN
    assert token_of(None, "other") == "other"
    assert token_of(None, "") is None


def test_tls_files_are_tried_before_anything_begins(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with pytest.raises(UsageError, match="takes a certificate and its key"):
        settings(tls_cert=cert)
    with pytest.raises(UsageError, match="No such file"):
        settings(tls_cert=cert, tls_key=key)
    for path in (cert, key):
        path.write_text("nonsense")
    with pytest.raises(UsageError, match="PEM"):
        settings(tls_cert=cert, tls_key=key)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=x"],
        check=True,
        capture_output=True,
    )
    assert settings(tls_cert=cert, tls_key=key).scheme == "https"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "no token is set"),
        (["--port", "99999"], "less than or equal to 65535"),
        (["--host", "192.0.2.1", "--token-file", "token"], "cannot listen on 192.0.2.1"),
        (["--port", "0", "--store", "mysql://x"], "not supported yet"),
        (["--tls-cert", "nothing.pem"], "takes a certificate and its key"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_SERVE_TOKEN", raising=False)
    Path("token").write_text(TOKEN)
    assert call(["serve", *arguments]) == ExitCode.USAGE
    assert message in capsys.readouterr().err
