"""Certificates for one cluster: an authority that exists in memory alone, and one certificate a host.

Ray takes them by ``RAY_TLS_*``; both sides of every connection show one, so who has none is refused. They end with the
cluster, or after a few days should it stay up: nothing is ever renewed.
"""

from __future__ import annotations

import datetime
import ipaddress
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from workers.orders import TlsMaterial

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

#: How long a cluster may stay up: `muster cluster up` keeps one for days.
LIFETIME: Final = datetime.timedelta(days=30)

#: Hosts' clocks differ, some by hours: a certificate is valid from that long ago.
CLOCK_ALLOWANCE: Final = datetime.timedelta(days=1)


class Authority:
    """The one that every host of a cluster trusts; its key never leaves this process."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("muster cluster")
        self._certificate = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, host: str, addresses: tuple[str, ...]) -> TlsMaterial:
        """Return what the host that is reached under these IP addresses needs; its loopback ones are added.

        Raises ValueError for what is no IP address.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        every = dict.fromkeys((*addresses, "127.0.0.1", "::1"))
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(each)) for each in every])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = (
            _builder(_name(host), self._name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return TlsMaterial(ca_certificate=_pem(self._certificate), certificate=_pem(certificate), key=_key_pem(key))


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_ALLOWANCE)
        .not_valid_after(now + LIFETIME)
    )


def _name(text: str) -> x509.Name:
    # A common name has 64 characters at most; nothing depends on it.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
