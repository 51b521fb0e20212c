"""Jumps and proxies, and connections that break."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import ClusterError
from orchestrator.reach import ssh_settings
from orchestrator.reach.base import ChannelClosedError, Step
from orchestrator.reach.ssh import SshReach, connect
from tests.integration.leaks import assert_no_more_than, held
from tests.integration.reaching import (
    SOON_S,
    at,
    failure,
    free_port,
    greeting,
    reached,
    says_hello,
    servers_running,
)

if TYPE_CHECKING:
    from tests.sshd import SshLab


def test_a_host_behind_a_jump_host_is_reached_and_does_not_see_this_machine(lab: SshLab) -> None:
    bastion, target = lab.server(), lab.server()
    lab.configure(
        f"Host bastion\n  HostName 127.0.0.1\n  Port {bastion.port}\n"
        f"Host gpu01\n  HostName 127.0.0.1\n  Port {target.port}\n  ProxyJump bastion\n"
    )

    async def act(reach: SshReach) -> tuple[str, str | None]:
        return await greeting(reach), reach.local_ip

    assert reached(at(None, "gpu01"), act) == ("hello", None)
    assert (bastion.taken, target.taken) == (1, 1)


@pytest.mark.parametrize(
    "way",
    ["{user}@127.0.0.1:{port}", "ssh://127.0.0.1:{port}", "ssh://{user}@127.0.0.1:{port}/", "two,127.0.0.1:{port}"],
)
def test_a_jump_host_is_named_in_every_way_that_ssh_knows(lab: SshLab, way: str) -> None:
    bastion, two, target = lab.server(), lab.server(), lab.server()
    lab.configure(
        f"Host two\n  HostName 127.0.0.1\n  Port {two.port}\n"
        f"Host gpu01\n  HostName 127.0.0.1\n  Port {target.port}\n"
        f"  ProxyJump {way.format(user=bastion.user, port=bastion.port)}\n"
    )
    assert says_hello(at(None, "gpu01"))
    assert bastion.taken == 1
    assert two.taken == ("two" in way)


def test_many_hosts_share_a_jump_host_and_the_last_one_closes_it(lab: SshLab) -> None:
    bastion, target = lab.server(extra="MaxStartups 1"), lab.server()
    lab.configure(f"Host gpu*\n  HostName 127.0.0.1\n  Port {target.port}\n  ProxyJump 127.0.0.1:{bastion.port}\n")

    async def scene() -> list[str]:
        reaches = await asyncio.gather(*(connect(at(None, f"gpu{n:02}")) for n in range(6)))
        await reaches[0].close()
        greetings = [await greeting(reach) for reach in reaches[1:]]
        await asyncio.gather(*(reach.close() for reach in reaches))
        again = await connect(at(None, "gpu99"))
        greetings.append(await greeting(again))
        await again.close()
        return greetings

    before = held()
    assert asyncio.run(scene()) == ["hello"] * 6
    assert_no_more_than(before)
    assert bastion.taken == 2


def test_a_failure_on_the_jump_host_is_told_as_one(lab: SshLab) -> None:
    target = lab.server()
    lab.configure(f"Host gpu01\n  HostName 127.0.0.1\n  Port {target.port}\n  ProxyJump 127.0.0.1:{free_port()}\n")
    refused = failure(at(None, "gpu01"))
    assert refused.message.startswith("the jump host 127.0.0.1: ")
    assert "refuses connections" in refused.message
    assert refused.step is Step.RESOLVE, "nothing is known of the host itself"
    stranger = lab.server(known=False)
    lab.configure(f"Host gpu01\n  HostName 127.0.0.1\n  Port {target.port}\n  ProxyJump 127.0.0.1:{stranger.port}\n")
    unknown = failure(at(None, "gpu01", insecure_host_keys=True))
    assert unknown.message.startswith("the jump host 127.0.0.1: the key of")


def test_a_failure_behind_the_jump_host_is_told_of_the_host(lab: SshLab) -> None:
    bastion, closed = lab.server(), free_port()
    lab.configure(f"Host gpu01\n  HostName 127.0.0.1\n  Port {closed}\n  ProxyJump 127.0.0.1:{bastion.port}\n")
    error = failure(at(None, "gpu01"))
    assert error.step is Step.CONNECT
    assert "the jump host makes no connection to it" in error.message
    hidden = lab.server(known=False)
    lab.configure(f"Host gpu01\n  HostName 127.0.0.1\n  Port {hidden.port}\n  ProxyJump 127.0.0.1:{bastion.port}\n")
    unknown = failure(at(None, "gpu01"))
    assert unknown.step is Step.HOST_KEY
    assert "ssh-keyscan" not in (unknown.remedy or ""), "it does not get through"
    forbidding = lab.server(extra="AllowTcpForwarding no")
    lab.configure(f"Host gpu01\n  HostName 127.0.0.1\n  Port {hidden.port}\n  ProxyJump 127.0.0.1:{forbidding.port}\n")
    assert "AllowTcpForwarding" in (failure(at(None, "gpu01")).remedy or "")


def test_a_jump_host_that_leads_to_itself_is_an_error_and_no_hang(lab: SshLab) -> None:
    lab.configure("Host *\n  ProxyJump bastion\n")
    error = failure(at(None, "gpu01"))
    assert "circle" in error.message


_RELAY = """\
import os, socket, sys, threading
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def copy():
    while data := os.read(0, 65536): there.sendall(data)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=copy, daemon=True).start()
while data := there.recv(65536): os.write(1, data)
"""


def test_a_proxy_command_is_a_shell_command_and_ends_with_its_connection(lab: SshLab) -> None:
    server = lab.server()
    (lab.home / "relay.py").write_text(_RELAY)
    relay = f"{sys.executable} {lab.home}/relay.py 127.0.0.1 {server.port}"
    lab.know(f"[gpu01.lab.example]:{server.port} {server.host_key}")
    lab.configure(
        f'Host gpu01.lab.example\n  Port {server.port}\n  ProxyCommand {relay} %h 2>/dev/null || echo "$HOME" >&2\n'
    )

    async def act(reach: SshReach) -> tuple[str, str | None]:
        return await greeting(reach), reach.local_ip

    assert reached(at(None, "gpu01.lab.example"), act) == ("hello", None)


def test_what_a_proxy_command_complains_of_is_told(lab: SshLab) -> None:
    lab.configure("ProxyCommand echo no way to %h >&2; exit 1\n")
    error = failure(at(None, "gpu01.lab.example"))
    assert error.step is Step.CONNECT
    assert "no way to gpu01.lab.example" in error.message


def test_a_proxy_command_that_goes_on_is_ended(lab: SshLab) -> None:
    lab.configure("ProxyCommand sleep 1000\n")
    error = failure(at(None, "gpu01.lab.example", timeout_s=0.5))
    assert error.step is Step.CONNECT
    assert "within 0.5 s" in error.message


# --- connections that break ---


def test_a_connection_that_breaks_ends_its_channels(lab: SshLab) -> None:
    server = lab.server()

    async def act(reach: SshReach) -> None:
        channel = await reach.open(["/bin/sleep", "60"])
        reading = asyncio.ensure_future(channel.read_line())
        await asyncio.get_running_loop().run_in_executor(None, server.cut)
        with pytest.raises(ChannelClosedError, match="connection broke"):
            await reading
        with pytest.raises(ClusterError):
            await reach.run(["/bin/true"], timeout_s=SOON_S)

    reached(at(server.port), act)


def test_a_connection_is_kept_through_two_minutes_in_which_nothing_comes_and_no_longer_than_three() -> None:
    assert 120 <= ssh_settings.KEEPALIVE_INTERVAL_S * ssh_settings.KEEPALIVE_COUNT <= 180


def test_a_connection_on_which_nothing_comes_is_given_up(lab: SshLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_settings, "KEEPALIVE_INTERVAL_S", 0.5)
    monkeypatch.setattr(ssh_settings, "KEEPALIVE_COUNT", 2)
    server = lab.server()

    async def act(reach: SshReach) -> None:
        channel = await reach.open(["/bin/sleep", "60"])
        servers = [one for parent in servers_running() for one in (parent, *parent.children(recursive=True))]
        for one in servers:
            one.suspend()  # as a cut cable does: nothing is closed, and nothing comes
        try:
            with pytest.raises(ChannelClosedError, match="not responding"):
                await channel.read_line()
        finally:
            for one in servers:
                one.resume()

    reached(at(server.port), act)


def test_a_server_that_opens_no_session_is_a_clear_error(lab: SshLab) -> None:
    server = lab.server(extra="MaxSessions 0")

    async def act(reach: SshReach) -> None:
        with pytest.raises(ClusterError, match="could not be started"):
            await reach.open(["/bin/true"])

    reached(at(server.port), act)
