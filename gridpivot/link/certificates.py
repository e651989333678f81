"""Making certificates: a CA, servers, sites, operators. P-256 everywhere; sites carry `spiffe://<fleet>/site/<name>`.

A site makes its key itself and sends a request; `issue_site` makes key and certificate at once, for the demo and tests.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gridpivot.link.credentials import KeyPair

MOST_REQUEST_BYTES = 16 * 1024


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


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The secret (PEM, unencrypted: keep it 0600)."""
    return _key_pem(key)


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """An elliptic-curve key from PEM; raises ValueError when it is none."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic-curve key")
    return key


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
    try:
        key = load_key(key_pem)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the CA key: {error}") from error
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    if _spki(certificate.public_key()) != _spki(key.public_key()):
        raise ValueError("the CA's key does not belong to its certificate")
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise ValueError("the certificate is not a CA's (basic constraints)")
    return Authority(key, certificate)


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _issue(
    authority: Authority,
    common_name: str,
    names: Sequence[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    now: dt.datetime,
    days: int,
) -> KeyPair:
    key = new_key()
    certificate = _sign(authority, key.public_key(), common_name, names, usage, now, days)
    return KeyPair(_key_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def _sign(
    authority: Authority,
    public_key: ec.EllipticCurvePublicKey,
    common_name: str,
    names: Sequence[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    now: dt.datetime,
    days: float,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


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


def issue_operator(authority: Authority, fleet: str, name: str, now: dt.datetime, days: int = 365) -> KeyPair:
    """An operator's client certificate."""
    names = [x509.UniformResourceIdentifier(f"spiffe://{fleet}/operator/{name}")]
    return _issue(authority, name, names, ExtendedKeyUsageOID.CLIENT_AUTH, now, days)


def make_request(key: ec.EllipticCurvePrivateKey, site: str) -> bytes:
    """A PKCS#10 request (DER). What it says of names is for people: the controller writes the names itself."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(site))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def read_request(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a request; raises ValueError unless it is P-256 and the request is signed with it."""
    if len(csr_der) > MOST_REQUEST_BYTES:
        raise ValueError(f"a request of {len(csr_der)} bytes, at most {MOST_REQUEST_BYTES} are read")
    request = x509.load_der_x509_csr(csr_der)
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the request's key is not P-256")
    if not request.is_signature_valid:
        raise ValueError("the request is not signed with its own key")
    return key


def certify_site(
    authority: Authority, fleet: str, site: str, key: ec.EllipticCurvePublicKey, now: dt.datetime, days: float
) -> x509.Certificate:
    """A certificate over a site's own key. Nothing of the request but the key goes in."""
    names = [x509.UniformResourceIdentifier(f"spiffe://{fleet}/site/{site}")]
    return _sign(authority, key, site, names, ExtendedKeyUsageOID.CLIENT_AUTH, now, days)


def certify_node(
    authority: Authority,
    fleet: str,
    site: str,
    node: str,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    days: float,
) -> x509.Certificate:
    """A certificate over the key of a site's node, from the site's own CA for nodes."""
    names = [x509.UniformResourceIdentifier(f"spiffe://{fleet}/site/{site}/node/{node}")]
    return _sign(authority, key, node, names, ExtendedKeyUsageOID.CLIENT_AUTH, now, days)


def load_pem(chain_pem: bytes) -> x509.Certificate:
    """The first certificate of a chain; raises ValueError."""
    return x509.load_pem_x509_certificate(chain_pem)


def serial_of(certificate: x509.Certificate) -> str:
    """Serial number as the registry keeps it (hex)."""
    return f"{certificate.serial_number:x}"


def uris_of(certificate: x509.Certificate) -> list[str]:
    """URIs in the certificate's SAN."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether this very CA signed it; says nothing of dates."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
