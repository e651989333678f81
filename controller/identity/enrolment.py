"""Letting sites in: tokens into certificates, live certificates into their successors, expired ones after an approval.

Plain calls: gRPC puts them on the wire (controller/link/enrolment.py), tests call them directly. Nothing of a request
but its key goes into a certificate; the site's name comes from the token or from the certificate that is replaced.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controller.identity.gate import Gate
from controller.store.identities import CertificateRow, Identities, RecoveryRow, TokenRow
from gridpivot.clock import Clock
from gridpivot.errors import Refused
from gridpivot.link import token as tokens
from gridpivot.link.certificates import Authority, certify_site, read_request, serial_of, signed_by, uris_of
from gridpivot.link.credentials import identity_in
from gridpivot.link.peer import Certified
from gridpivot.v1 import enrolment_pb2 as pb

ASK_AGAIN_S = 60.0
RECOVER_CONTEXT = b"gridpivot-recover-v1\0"


@dataclass(frozen=True, slots=True)
class Terms:
    """What certificates are made of."""

    fleet: str
    days: float
    planner_keys: Mapping[str, bytes]  # by key id, 32 raw bytes
    session_address: str
    operator_address: str


class Enrolment:
    """Issues certificates. Without a CA key here everything is refused, with the reason."""

    def __init__(
        self,
        authority: Authority | None,
        terms: Terms,
        identities: Identities,
        gate: Gate | None,
        clock: Clock,
        is_site: Callable[[str], bool],
    ) -> None:
        self._authority, self._terms, self._identities = authority, terms, identities
        self._gate, self._clock, self._is_site = gate, clock, is_site

    async def create_token(self, site: str, valid_s: float) -> tuple[str, TokenRow]:
        """A new token for a site: its text, which is shown once, and its record. Raises Refused for an unknown site."""
        if not self._is_site(site):
            raise Refused(f"site {site!r} is not in the settings; add a [[sites]] entry first")
        now_ms = self._clock.now().unix_ms
        row = TokenRow(secrets.token_hex(6), site, now_ms, now_ms + round(valid_s * 1000), None, None, None)
        secret = secrets.token_bytes(32)
        ca = self._ca().certificate.public_bytes(serialization.Encoding.DER)
        await self._identities.add_token(row, tokens.secret_sha256(secret))
        terms = self._terms
        token = pb.AgentToken(
            token_id=row.token_id,
            secret=secret,
            site=site,
            session_address=terms.session_address,
            operator_address=terms.operator_address,
            ca_der=ca,
            expires_at_unix_ms=row.expires_at_unix_ms,
        )
        return tokens.encode(token), row

    async def enrol(self, text: str, csr_der: bytes, origin: str) -> pb.EnrolResponse:
        """A certificate for a token; raises Refused."""
        token = tokens.decode(text)
        key = _key_of(csr_der)
        self._ca()

        def issue(site: str) -> CertificateRow:
            if not self._is_site(site):
                raise Refused(f"site {site!r} is no longer in the controller's settings")
            return self._issue(site, key)

        row = await self._identities.use_token(
            token.token_id, tokens.secret_sha256(token.secret), origin, self._clock.now().unix_ms, issue
        )
        return await self._answer(row)

    async def renew(self, peer: Certified, csr_der: bytes) -> pb.EnrolResponse:
        """The successor of a live certificate; raises Refused."""
        if peer.kind != "site" or not self._is_site(peer.name):
            raise Refused("this certificate names no site of the controller's settings")
        refusal = self._gate.refusal(peer) if self._gate is not None else None
        if refusal is not None:
            raise Refused(f"this certificate is {refusal.value}")
        row = self._issue(peer.name, _key_of(csr_der))
        await self._identities.add_certificate(row)
        return await self._answer(row)

    async def recover(self, request: pb.RecoverRequest, origin: str) -> pb.RecoverResponse:
        """Where the request of a site with an expired certificate stands; raises Refused for one that proves nothing."""
        site = self._proven_site(request)
        key = _key_of(request.csr_der)
        now_ms = self._clock.now().unix_ms
        fingerprint = hashlib.sha256(request.csr_der).hexdigest()
        row = await self._identities.ask_recovery(
            RecoveryRow(site, fingerprint, request.csr_der, now_ms, origin[:128], "pending")
        )
        response = pb.RecoverResponse(
            state=row.state, fingerprint=fingerprint, retry_after_ms=round(ASK_AGAIN_S * 1000)
        )
        if row.state == "approved":
            certificate = self._issue(site, key)
            await self._identities.close_recovery(row, certificate)
            response.identity.CopyFrom(await self._answer(certificate))
        return response

    def _proven_site(self, request: pb.RecoverRequest) -> str:
        """The site that an expired certificate names, once its key has signed the request."""
        try:
            old = x509.load_der_x509_certificate(request.certificate_der)
            named = [identity_in(uri) for uri in uris_of(old)]
            public = old.public_key()
        except ValueError:
            raise Refused("the certificate cannot be read") from None
        if not signed_by(old, self._ca().certificate) or not isinstance(public, ec.EllipticCurvePublicKey):
            raise Refused("the certificate is not from this controller's CA; enrol with a token")
        try:
            public.verify(request.signature, RECOVER_CONTEXT + request.csr_der, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Refused("the request is not signed with the certificate's key") from None
        found = named[0] if len(named) == 1 else None
        if found is None or found[0] != "site" or not self._is_site(found[1]):
            raise Refused("the certificate names no site of the controller's settings")
        begin, end = old.not_valid_before_utc.timestamp(), old.not_valid_after_utc.timestamp()
        peer = Certified("site", found[1], serial_of(old), round(begin * 1000), round(end * 1000))
        if self._gate is not None and self._gate.revoked(peer):
            raise Refused("the certificate was revoked; enrol with a token")
        return found[1]

    def _issue(self, site: str, key: ec.EllipticCurvePublicKey) -> CertificateRow:
        now = self._clock.now()
        moment = dt.datetime.fromtimestamp(now.unix_s, dt.UTC)
        certificate = certify_site(self._ca(), self._terms.fleet, site, key, moment, self._terms.days)
        return CertificateRow(
            serial_of(certificate),
            "site",
            site,
            now.unix_ms,
            round(certificate.not_valid_after_utc.timestamp() * 1000),
            certificate.public_bytes(serialization.Encoding.DER),
        )

    async def _answer(self, row: CertificateRow) -> pb.EnrolResponse:
        if self._gate is not None:
            await self._gate.look()  # the certificate may be shown at once
        return pb.EnrolResponse(
            certificate_chain_der=[row.certificate_der],
            ca_der=self._ca().certificate.public_bytes(serialization.Encoding.DER),
            planner_keys=self._terms.planner_keys,
            not_after_unix_ms=row.not_after_unix_ms,
        )

    def _ca(self) -> Authority:
        if self._authority is None:
            raise Refused("the CA's key is not kept on this controller; sites cannot be enrolled or renewed here")
        return self._authority


def _key_of(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return read_request(csr_der)
    except ValueError as error:
        raise Refused(f"the certificate request is refused: {error}") from None
