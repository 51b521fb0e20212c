"""A person's SSH configuration, agent and known hosts count for us as they do for `ssh`."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.reach.base import Step
from tests.integration.reaching import (
    at,
    failure,
    reached,
    remedied,
    says_hello,
)
from tests.sshd import keygen, make_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.reach.ssh import SshReach
    from tests.sshd import SshLab


def test_a_port_of_the_configuration_counts(lab: SshLab) -> None:
    lab.configure(f"Host gpu01\n  HostName 127.0.0.1\n  Port {lab.server().port}\n")
    assert says_hello(at(None, "gpu01"))


def test_a_port_and_a_user_of_ours_win_over_the_configuration(lab: SshLab) -> None:
    server = lab.server()
    lab.configure("Host 127.0.0.1\n  Port 1\n  User nobody-at-all\n")
    assert says_hello(at(server.port, user=server.user))


def test_the_persons_configuration_wins_over_later_parts_of_it(lab: SshLab) -> None:
    lab.configure(f"Host gpu*\n  Port {lab.server().port}\nHost *\n  Port 1\n  HostName 127.0.0.1\n")
    assert says_hello(at(None, "gpu07"))


def test_an_identity_file_is_used_and_one_that_is_missing_or_bad_does_no_harm(lab: SshLab) -> None:
    server = lab.server()
    (lab.ssh / "id_ed25519").rename(lab.ssh / "work key")
    (lab.ssh / "id_rsa").write_text("this is no key")
    lab.configure('IdentityFile ~/.ssh/missing\nIdentityFile ~/.ssh/id_rsa\nIdentityFile "~/.ssh/work key"\n')
    assert says_hello(at(server.port))
    lab.configure("")
    refused = failure(at(server.port))
    assert refused.step is Step.LOGIN
    assert "no key to try" in refused.message


def test_a_configuration_that_cannot_be_read_is_told_with_its_line(lab: SshLab) -> None:
    lab.configure("Host *\n  Port twentytwo\n")
    error = failure(at(None))
    assert "config line 2" in error.message
    assert error.remedy is not None


@contextlib.contextmanager
def _agent(lab: SshLab, *keys: Path) -> Iterator[str]:
    """A real ssh-agent that holds ``keys``."""
    path = str(lab.home / "agent.sock")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()  # it says where it listens when it does
        subprocess.run(["ssh-add", "-q", *keys], check=True, env={**os.environ, "SSH_AUTH_SOCK": path}, timeout=60)
        yield path
    finally:
        agent.terminate()
        agent.communicate(timeout=60)


def test_an_agents_key_is_used(lab: SshLab, monkeypatch: pytest.MonkeyPatch) -> None:
    server, key = lab.server(), lab.ssh / "id_ed25519"
    with _agent(lab, key) as path:
        key.unlink()
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        assert says_hello(at(server.port))
        # With IdentitiesOnly, the public part says which of its keys.
        lab.configure("IdentitiesOnly yes\n")
        assert says_hello(at(server.port))
        lab.configure("IdentitiesOnly yes\nIdentityFile ~/.ssh/other\n")
        assert failure(at(server.port)).step is Step.LOGIN
        lab.configure("IdentityAgent none\n")
        assert failure(at(server.port)).step is Step.LOGIN
        monkeypatch.delenv("SSH_AUTH_SOCK")
        lab.configure(f"IdentityAgent {path}\n")
        assert says_hello(at(server.port))


def test_an_agent_that_is_gone_does_no_harm(lab: SshLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(lab.home / "gone.sock"))
    assert says_hello(at(lab.server().port))


def test_a_certificate_lets_in(lab: SshLab) -> None:
    make_key(lab.home / "ca")
    authority = (lab.home / "ca.pub").read_text()
    server = lab.server(extra="TrustedUserCAKeys " + str(lab.home / "ca.pub"))
    make_key(lab.ssh / "id_ecdsa", kind="ecdsa")
    (lab.ssh / "id_ed25519").unlink()
    assert failure(at(server.port)).step is Step.LOGIN
    assert authority
    keygen("-s", str(lab.home / "ca"), "-I", "me", "-n", server.user, str(lab.ssh / "id_ecdsa.pub"))
    assert says_hello(at(server.port))


# --- the host's key ---


def test_an_unknown_key_is_told_with_its_fingerprint_and_mended_by_the_remedy(lab: SshLab) -> None:
    server = lab.server(known=False)
    error = failure(at(server.port))
    assert error.step is Step.HOST_KEY
    assert "is not known" in error.message
    fingerprint = keygen("-lf", str(server.home.parent / "host_key.pub")).split()[1]
    assert fingerprint in error.message
    assert f"ssh-keyscan -p {server.port} -H 127.0.0.1 >> ~/.ssh/known_hosts" in (error.remedy or "")
    remedied(error.remedy, "then: ")
    assert "127.0.0.1" not in (lab.ssh / "known_hosts").read_text(), "it should be hashed"
    assert says_hello(at(server.port))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_changed_key_is_told_as_something_else_and_mended_by_the_remedy(lab: SshLab, kind: str) -> None:
    server = lab.server(known=False, key_kind=kind)
    old = make_key(lab.home / "old")
    lab.know(f"[127.0.0.1]:{server.port} {old}")
    error = failure(at(server.port))
    assert error.step is Step.HOST_KEY
    assert "CHANGED" in error.message
    assert "SHA256:" in error.message
    remedy = error.remedy or ""
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in remedy
    # ssh-keygen reads its home from the account, not from HOME.
    remedied(remedy.replace("ssh-keygen -R", f"ssh-keygen -f {lab.ssh}/known_hosts -R"), "then: ")
    assert says_hello(at(server.port))


def test_a_key_of_the_same_name_on_another_port_is_not_a_changed_key(lab: SshLab) -> None:
    server = lab.server(known=False)
    lab.know(f"127.0.0.1 {make_key(lab.home / 'other')}")
    assert "is not known" in failure(at(server.port)).message
    lab.know(f"127.0.0.1 {server.host_key}")
    assert says_hello(at(server.port)), "ssh takes it where it fits"


def test_a_revoked_key_is_refused(lab: SshLab) -> None:
    server = lab.server()
    lab.know(f"@revoked [127.0.0.1]:{server.port} {server.host_key}")
    error = failure(at(server.port))
    assert error.step is Step.HOST_KEY
    assert "revoked" in error.message


@pytest.mark.parametrize("pattern", ["[127.0.0.1]:{port}", "[127.0.0.*]:{port}", "[127.*]:*", "x,[127.0.0.1]:{port}"])
def test_known_hosts_are_matched_as_openssh_matches_them(lab: SshLab, pattern: str) -> None:
    server = lab.server(known=False)
    lab.know("this line is rubbish")
    lab.know("also rubbish-rsa AAAA")
    lab.know(f"{pattern.format(port=server.port)} {server.host_key}")
    assert says_hello(at(server.port))


def test_an_alias_is_the_name_under_which_the_key_is_known(lab: SshLab) -> None:
    server = lab.server(known=False)
    lab.know(f"gpu-alias {server.host_key}")
    lab.configure("HostKeyAlias gpu-alias\n")
    assert says_hello(at(server.port))


def test_known_hosts_may_lie_elsewhere_and_none_is_not_trust(lab: SshLab) -> None:
    server = lab.server(known=False)
    (lab.home / "known at work").write_text(server.known_hosts_line)
    lab.configure('UserKnownHostsFile "~/known at work"\n')
    assert says_hello(at(server.port))
    lab.configure("GlobalKnownHostsFile /dev/null %d/known\\ at\\ work\n".replace("\\ ", "?"))
    (lab.home / "known?at?work").write_text(server.known_hosts_line)
    assert says_hello(at(server.port))
    for nothing in ("none", "/dev/null"):
        lab.configure(f"UserKnownHostsFile {nothing}\nStrictHostKeyChecking no\n")
        assert failure(at(server.port)).step is Step.HOST_KEY


def test_a_certified_host_key_is_known_by_its_authority(lab: SshLab) -> None:
    server = lab.server(known=False, extra="")
    folder = server.home.parent
    authority = make_key(lab.home / "ca")
    keygen("-s", str(lab.home / "ca"), "-h", "-I", "host", "-n", "127.0.0.1", str(folder / "host_key.pub"))
    with (folder / "sshd_config").open("a") as config:
        config.write(f"HostCertificate {folder}/host_key-cert.pub\n")
    lab.know(f"@cert-authority [127.0.0.1]:* {authority}")
    assert says_hello(at(server.port))
    keygen("-s", str(lab.home / "ca"), "-h", "-I", "host", "-n", "elsewhere", str(folder / "host_key.pub"))
    error = failure(at(server.port))
    assert error.step is Step.HOST_KEY
    assert "certificate" in error.message


def test_the_only_way_around_a_key_is_asked_for_and_shows(lab: SshLab) -> None:
    server = lab.server(known=False)
    lab.know(f"[127.0.0.1]:{server.port} {make_key(lab.home / 'old')}")

    async def act(reach: SshReach) -> bool:
        return reach.is_insecure

    assert reached(at(server.port, insecure_host_keys=True), act)
    assert not reached(at(lab.server().port), act)
