"""Asking the controller for certificates: enrol with a token, renew with a live one, recover with an expired one.

Each call has a deadline and answers with values; what is written where is decided by who calls.
"""

from __future__ import annotations

import hashlib

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gridpivot import __version__
from gridpivot.errors import GridpivotError, Refused, Unreachable
from gridpivot.link.certificates import make_request
from gridpivot.link.credentials import CLIENT_OPTIONS, KeyPair, client_credentials
from gridpivot.v1 import enrolment_pb2 as pb
from gridpivot.v1 import enrolment_pb2_grpc

DEADLINE_S = 20.0
RECOVER_CONTEXT = b"gridpivot-recover-v1\0"
_NO = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED)


async def enrol(address: str, ca_der: bytes, text: str, key: ec.EllipticCurvePrivateKey, site: str) -> pb.EnrolResponse:
    """Trade a token; trusts the CA of the token and no other. Raises Refused, Unreachable."""
    ca_pem = x509.load_der_x509_certificate(ca_der).public_bytes(serialization.Encoding.PEM)
    request = pb.EnrolRequest(token=text, csr_der=make_request(key, site), agent_version=__version__)
    async with _channel(address, client_credentials(ca_pem, None)) as channel:
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(channel)
        try:
            return await stub.Enrol(request, timeout=DEADLINE_S, wait_for_ready=False)
        except grpc.aio.AioRpcError as error:
            raise _sentence(error, address) from None


async def renew(
    address: str, ca_pem: bytes, own: KeyPair, key: ec.EllipticCurvePrivateKey, site: str
) -> pb.EnrolResponse:
    """The successor of a live certificate. Raises Refused, Unreachable."""
    request = pb.RenewRequest(csr_der=make_request(key, site), agent_version=__version__)
    async with _channel(address, client_credentials(ca_pem, own)) as channel:
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(channel)
        try:
            return (await stub.Renew(request, timeout=DEADLINE_S)).identity
        except grpc.aio.AioRpcError as error:
            raise _sentence(error, address) from None


async def recover(
    address: str, ca_pem: bytes, expired: x509.Certificate, old: ec.EllipticCurvePrivateKey, csr_der: bytes
) -> pb.RecoverResponse:
    """Where the request to come back stands. Raises Refused, Unreachable."""
    request = pb.RecoverRequest(
        certificate_der=expired.public_bytes(serialization.Encoding.DER),
        csr_der=csr_der,
        signature=old.sign(RECOVER_CONTEXT + csr_der, ec.ECDSA(hashes.SHA256())),
        agent_version=__version__,
    )
    async with _channel(address, client_credentials(ca_pem, None)) as channel:
        stub = enrolment_pb2_grpc.EnrolmentServiceStub(channel)
        try:
            return await stub.Recover(request, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            raise _sentence(error, address) from None


def fingerprint_of(csr_der: bytes) -> str:
    """What an operator compares (hex)."""
    return hashlib.sha256(csr_der).hexdigest()


def chain_pem(identity: pb.EnrolResponse) -> bytes:
    """The certificate chain as PEM; raises GridpivotError when it cannot be read."""
    try:
        chain = [x509.load_der_x509_certificate(der) for der in identity.certificate_chain_der]
    except ValueError as error:
        raise GridpivotError(f"the controller sent a certificate that cannot be read: {error}") from error
    if not chain:
        raise GridpivotError("the controller sent no certificate")
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)


def _channel(address: str, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(address, credentials, options=list(CLIENT_OPTIONS))


def _sentence(error: grpc.aio.AioRpcError, address: str) -> GridpivotError:
    details = " ".join((error.details() or error.code().name).split())
    if error.code() in _NO:
        return Refused(details)
    if any(word in details for word in ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification", "Tls handshake failed")):
        return Refused(
            f"{address}: whoever answers there is not the controller of the token; check the address and the clock"
        )
    return Unreachable(f"{address}: {details}; is the controller running, and is this port open outwards?")
