"""Every way in which a host is not reached, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import socket
import threading
from typing import TYPE_CHECKING

import asyncssh
import asyncssh.misc
import pytest

from orchestrator.reach.base import Step
from orchestrator.reach.ssh import connect
from orchestrator.reach.ssh_failures import MEANINGS, meaning_of
from tests.integration.leaks import assert_no_more_than, held
from tests.integration.reaching import (
    SOON_S,
    at,
    failure,
    free_port,
    says_hello,
)
from tests.sshd import keygen, make_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sshd import SshLab


def test_a_refused_login_says_who_and_what_was_tried_and_what_to_type(lab: SshLab) -> None:
    server = lab.server()
    make_key(lab.ssh / "id_ed25519_new")
    (lab.ssh / "id_ed25519_new").replace(lab.ssh / "id_ed25519")
    error = failure(at(server.port))
    assert error.step is Step.LOGIN
    assert f"let {server.user} in" in error.message
    assert str(lab.ssh / "id_ed25519") in error.message
    assert error.remedy == f"ssh-copy-id -p {server.port} {server.user}@127.0.0.1"


def test_the_user_of_a_remedy_is_quoted(lab: SshLab) -> None:
    error = failure(at(lab.server().port, user="bench; rm -rf ~"))
    assert error.step is Step.LOGIN
    assert shlex.split(error.remedy or "")[-1] == "bench; rm -rf ~@127.0.0.1"


def test_a_key_that_a_passphrase_guards_is_a_case_for_the_agent(lab: SshLab) -> None:
    server = lab.server()
    key = lab.ssh / "id_ed25519"
    keygen("-p", "-P", "", "-N", "secret", "-f", str(key))
    error = failure(at(server.port))
    assert error.step is Step.LOGIN
    assert f"ssh-add {key}" in (error.remedy or "")


def test_without_any_key_the_remedy_makes_one(lab: SshLab) -> None:
    server = lab.server()
    (lab.ssh / "id_ed25519").unlink()
    error = failure(at(server.port))
    assert "no key" in error.message
    assert (error.remedy or "").startswith("ssh-keygen")


def test_a_server_that_takes_no_keys_says_so(lab: SshLab) -> None:
    server = lab.server(extra="PubkeyAuthentication no\nKbdInteractiveAuthentication yes")
    error = failure(at(server.port))
    assert error.step is Step.LOGIN
    assert "takes no keys" in error.message


def test_too_many_keys_are_told_as_such(lab: SshLab) -> None:
    server = lab.server(extra="MaxAuthTries 2")
    (lab.ssh / "id_ed25519").rename(lab.ssh / "the_right_one")
    for kind in ("rsa", "ecdsa", "ed25519"):
        make_key(lab.ssh / f"id_{kind}", kind=kind)
    error = failure(at(server.port))
    assert error.step is Step.LOGIN
    assert "too many keys" in error.message
    assert "IdentitiesOnly" in (error.remedy or "")
    lab.configure("IdentityFile ~/.ssh/the_right_one\n")
    assert says_hello(at(server.port))


# --- no connection ---


def test_a_name_that_does_not_resolve(lab: SshLab) -> None:
    for name in ("no-such-host.invalid", "a" * 70 + ".invalid", "two words"):
        error = failure(at(None, name))
        assert error.step is Step.RESOLVE
        assert name in error.message


def test_a_closed_port(lab: SshLab) -> None:
    port = free_port()
    error = failure(at(port))
    assert error.step is Step.CONNECT
    assert f"127.0.0.1 port {port} refuses connections" in error.message
    assert "port" in (error.remedy or "")


def test_a_host_that_does_not_answer(lab: SshLab) -> None:
    with contextlib.ExitStack() as stack:
        # What is beyond a full queue of a listener that takes nobody waits, as for a machine that is off.
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = int(listener.getsockname()[1])
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        error = failure(at(port, timeout_s=0.5))
    assert error.step is Step.CONNECT
    assert f"127.0.0.1 port {port} does not answer within 0.5 s" in error.message
    assert "connect_timeout" in (error.remedy or "")


def test_a_server_that_is_slow_to_answer_is_not_dead(lab: SshLab) -> None:
    server = lab.server()
    server.may_answer.clear()
    timer = threading.Timer(3.0, server.may_answer.set)
    timer.start()
    try:
        assert says_hello(at(server.port, timeout_s=40.0))
    finally:
        timer.join()


def test_a_server_that_never_answers_is_given_up_at_the_limit(lab: SshLab) -> None:
    server = lab.server()
    server.may_answer.clear()
    error = failure(at(server.port, timeout_s=0.5), servers=1)
    assert error.step is Step.CONNECT
    assert "within 0.5 s" in error.message
    assert "connect_timeout" in (error.remedy or "")


@contextlib.contextmanager
def _server(*answers: bytes) -> Iterator[int]:
    """Something that says what it says to whoever connects, and closes where it has nothing more to say."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                stack.enter_context(connection)
                for answer in answers:
                    connection.sendall(answer)
                if not answers:
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            thread.join(SOON_S)


def test_a_server_that_greets_and_then_falls_silent_is_given_up_too(lab: SshLab) -> None:
    with _server(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        error = failure(at(port, timeout_s=0.5), servers=1)
    assert error.step is Step.HOST_KEY
    assert "within 0.5 s" in error.message


def test_a_server_that_hangs_up_at_once(lab: SshLab) -> None:
    with _server() as port:
        error = failure(at(port))
    assert error.step is Step.CONNECT
    assert "MaxStartups" in (error.remedy or "")


@pytest.mark.parametrize("greeting", [b"SSH-1.5-old\r\n", b"SSH-2.0-\xff\xfe\r\n", b"SSH-2.0-x\r\n" + b"\xff" * 4096])
def test_a_server_of_another_kind_is_a_failure_and_no_crash(lab: SshLab, greeting: bytes) -> None:
    with _server(greeting) as port:
        assert failure(at(port), servers=1).step in {Step.CONNECT, Step.HOST_KEY}


def test_giving_up_in_the_middle_leaves_nothing(lab: SshLab) -> None:
    server = lab.server()
    server.may_answer.clear()

    async def scene() -> None:
        connecting = asyncio.ensure_future(connect(at(server.port)))
        await asyncio.wait({connecting}, timeout=0.5)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert asyncio.all_tasks() == {asyncio.current_task()}

    before = held()
    asyncio.run(scene())
    server.may_answer.set()
    assert_no_more_than(before)


# --- asyncssh's exceptions ---

#: What only a server, a file transfer or a key generator raises, and never a client's connection.
_NEVER = {"BreakReceived", "SignalReceived", "TerminalSizeChanged", "SoftEOFReceived", "ProcessError", "TimeoutError"}
_EXCEPTIONS = sorted(
    {
        kind
        for module in (asyncssh, asyncssh.misc)
        for name, kind in vars(module).items()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and kind.__module__.startswith("asyncssh")
        and not name.startswith("SFTP")
        and name not in _NEVER
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", _EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_every_exception_of_the_library_has_a_meaning(kind: type[Exception]) -> None:
    assert meaning_of(kind.__new__(kind)).text
    own = [ancestor for ancestor in kind.__mro__ if ancestor.__module__.startswith("asyncssh")]
    assert any(ancestor in MEANINGS for ancestor in own if ancestor is not asyncssh.Error) or kind is asyncssh.Error


def test_what_no_library_documents_has_a_meaning_too() -> None:
    assert meaning_of(IndexError()).text
