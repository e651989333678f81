"""Who is at the other end of a mutual-TLS connection, by the certificate that TLS has verified. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography import x509

from gridpivot.link.certificates import serial_of
from gridpivot.link.credentials import identity_of


@dataclass(frozen=True, slots=True)
class Certified:
    """What a peer's certificate says."""

    kind: str  # site, operator or node
    name: str
    serial: str
    not_before_unix_ms: int
    not_after_unix_ms: int


def certified(auth_context: Mapping[str, Iterable[bytes]]) -> Certified | None:
    """The peer's certificate, which TLS has verified; None when there is none that names somebody."""
    named = identity_of(auth_context)
    pem = next(iter(auth_context.get("x509_pem_cert", ())), None)
    if named is None or pem is None:
        return None
    certificate = x509.load_pem_x509_certificate(bytes(pem))
    return Certified(
        *named,
        serial_of(certificate),
        round(certificate.not_valid_before_utc.timestamp() * 1000),
        round(certificate.not_valid_after_utc.timestamp() * 1000),
    )
