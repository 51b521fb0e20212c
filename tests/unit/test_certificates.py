"""Certificates of a cluster, held by real TLS connections."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from orchestrator.cluster.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from workers.orders import TlsMaterial


def _context(folder: Path, material: TlsMaterial, purpose: ssl.Purpose) -> ssl.SSLContext:
    folder.mkdir()
    for name, text in (("ca", material.ca_certificate), ("crt", material.certificate), ("key", material.key)):
        (folder / name).write_text(text)
    context = ssl.create_default_context(purpose, cafile=str(folder / "ca"))
    context.load_cert_chain(folder / "crt", folder / "key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, address: str) -> None:
    """Let the two speak through memory until both are content; raises what either of them minds."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=address),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
        if not ends:
            return
    raise AssertionError("they never came to an end")


def test_hosts_of_one_cluster_trust_each_other(tmp_path: Path) -> None:
    authority = Authority()
    server = _context(tmp_path / "a", authority.issue("gpu01", ("10.77.0.2",)), ssl.Purpose.CLIENT_AUTH)
    client = _context(tmp_path / "b", authority.issue("head", ("10.77.0.1",)), ssl.Purpose.SERVER_AUTH)
    _shake_hands(server, client, "10.77.0.2")
    _shake_hands(server, client, "127.0.0.1")


def test_a_certificate_of_another_cluster_is_refused(tmp_path: Path) -> None:
    server = _context(tmp_path / "a", Authority().issue("gpu01", ("10.77.0.2",)), ssl.Purpose.CLIENT_AUTH)
    stranger = _context(tmp_path / "b", Authority().issue("head", ("10.77.0.1",)), ssl.Purpose.SERVER_AUTH)
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(server, stranger, "10.77.0.2")


def test_a_host_cannot_stand_in_for_another_address(tmp_path: Path) -> None:
    authority = Authority()
    server = _context(tmp_path / "a", authority.issue("gpu01", ("10.77.0.2",)), ssl.Purpose.CLIENT_AUTH)
    client = _context(tmp_path / "b", authority.issue("head", ("10.77.0.1",)), ssl.Purpose.SERVER_AUTH)
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        _shake_hands(server, client, "10.77.0.3")


def test_the_key_is_not_shown() -> None:
    material = Authority().issue("gpu01", ("10.77.0.2",))
    assert "PRIVATE KEY" in material.key
    assert "PRIVATE KEY" not in repr(material)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="lab"):
        Authority().issue("gpu01", ("lab.example",))


def test_long_host_names_fit() -> None:
    assert "CERTIFICATE" in Authority().issue("g" * 200, ("10.77.0.2",)).certificate
