"""Making certificates: a CA, servers, sites. P-256 everywhere; sites carry `spiffe://<fleet>/site/<name>`.

Used by `gridpivot-controller init`, by the demo (certificates made at start) and by tests.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gridpivot.link.credentials import KeyPair


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that can sign."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def certificate_pem(self) -> bytes:
        """What the other side must trust (PEM)."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The secret (PEM, unencrypted: keep it 0600)."""
        return _key_pem(self.key)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def make_authority(fleet: str, now: dt.datetime, days: int = 3650) -> Authority:
    """A new self-signed CA for a fleet."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"gridpivot {fleet} CA")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(key, certificate)


def load_authority(key_pem: bytes, certificate_pem: bytes) -> Authority:
    """A CA from its PEM files; raises ValueError when they are not one."""
    key = serialization.load_pem_private_key(key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the CA key is not an elliptic-curve key")
    return Authority(key, x509.load_pem_x509_certificate(certificate_pem))


def _issue(
    authority: Authority,
    common_name: str,
    names: Sequence[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    now: dt.datetime,
    days: int,
) -> KeyPair:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return KeyPair(_key_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def issue_server(authority: Authority, hosts: Sequence[str], now: dt.datetime, days: int = 365) -> KeyPair:
    """A server certificate for host names and addresses."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return _issue(authority, hosts[0], names, ExtendedKeyUsageOID.SERVER_AUTH, now, days)


def issue_site(authority: Authority, fleet: str, site: str, now: dt.datetime, days: int = 30) -> KeyPair:
    """A site's client certificate; it speaks for that site alone."""
    names = [x509.UniformResourceIdentifier(f"spiffe://{fleet}/site/{site}")]
    return _issue(authority, site, names, ExtendedKeyUsageOID.CLIENT_AUTH, now, days)
