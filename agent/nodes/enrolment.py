"""EnrolmentService for nodes: a token of this site's agent in, a certificate for one node out; renewal by a live one.

The same service as the controller's, so that a node enrols and renews as a site does. A certificate that ran out does
not come back by itself: whoever runs the site makes another token.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.nodes.authority import Place
from agent.nodes.registry import CertificateRow, Registry
from gridpivot.clock import Clock
from gridpivot.errors import GridpivotError, Refused
from gridpivot.link import token as tokens
from gridpivot.link.certificates import Authority, certify_node, read_request, serial_of
from gridpivot.link.peer import certified
from gridpivot.link.refusals import Refusals
from gridpivot.v1 import enrolment_pb2 as pb
from gridpivot.v1 import enrolment_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
DEADLINE_S = 30.0
log = structlog.get_logger("agent.nodes")


class NodeEnrolment(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """Serves both ports: Enrol is for callers without a certificate, Renew for those with one."""

    def __init__(
        self,
        place: Place,
        authority: Authority,
        registry: Registry,
        days: float,
        clock: Clock,
        is_node: Callable[[str], bool],
    ) -> None:
        self._place, self._authority, self._registry, self._days = place, authority, registry, days
        self._clock, self._is_node = clock, is_node
        self._refusals = Refusals()
        self.on_issued: Callable[[], Awaitable[None]] | None = None  # the certificate may be shown at once

    async def Enrol(self, request: pb.EnrolRequest, context: Context) -> pb.EnrolResponse:  # noqa: N802
        """Token in, certificate out."""
        async with self._answering(context, "enrol"):
            token = tokens.decode(request.token)
            key = _key_of(request.csr_der)
            made: list[pb.EnrolResponse] = []

            def issue(node: str) -> CertificateRow:
                if not self._is_node(node):
                    raise Refused(f"no pool of this site's settings names node {node!r}; add it and restart the agent")
                row, answer = self._issue(node, key)
                made.append(answer)
                return row

            now_ms = self._clock.now().unix_ms
            row = await asyncio.to_thread(
                self._registry.use_token, token.token_id, token.secret, context.peer(), now_ms, issue
            )
            await self._issued()
            log.info("node enrolled", node=row.node, peer=context.peer(), agent_version=request.agent_version[:32])
            return made[0]
        raise AssertionError("unreachable: _answering aborts")

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:  # noqa: N802
        """A live certificate's successor."""
        async with self._answering(context, "renew"):
            peer = certified(context.auth_context())
            site, _, node = peer.name.partition("/") if peer is not None else ("", "", "")
            if peer is None or peer.kind != "node" or site != self._place.site or not self._is_node(node):
                raise Refused(
                    "renewing needs the certificate of a node of this site's settings; call the mutual-TLS port"
                )
            now_ms = self._clock.now().unix_ms
            refusal = (await asyncio.to_thread(self._registry.read)).refusal(peer, now_ms)
            if refusal is not None:
                raise Refused(f"this certificate is {refusal.value}")
            row, answer = self._issue(node, _key_of(request.csr_der))
            await asyncio.to_thread(self._registry.add_certificate, row, peer.serial)
            await self._issued()
            log.info("certificate renewed", node=node, peer=context.peer())
            return pb.RenewResponse(identity=answer)
        raise AssertionError("unreachable: _answering aborts")

    async def Recover(self, request: pb.RecoverRequest, context: Context) -> pb.RecoverResponse:  # noqa: N802
        """Refused: a node is let in again by a token."""
        async with self._answering(context, "recover"):
            raise Refused(
                "a node's certificate that ran out is not renewed; on the site: gridpivot-agent node-token create"
            )
        raise AssertionError("unreachable: _answering aborts")

    async def _issued(self) -> None:
        if self.on_issued is not None:
            await self.on_issued()

    def _issue(self, node: str, key: ec.EllipticCurvePublicKey) -> tuple[CertificateRow, pb.EnrolResponse]:
        now = self._clock.now()
        moment = dt.datetime.fromtimestamp(now.unix_s, dt.UTC)
        place = self._place
        certificate = certify_node(self._authority, place.fleet, place.site, node, key, moment, self._days)
        ends_ms = round(certificate.not_valid_after_utc.timestamp() * 1000)
        row = CertificateRow(
            serial=serial_of(certificate), node=node, issued_at_unix_ms=now.unix_ms, not_after_unix_ms=ends_ms
        )
        answer = pb.EnrolResponse(
            certificate_chain_der=[certificate.public_bytes(serialization.Encoding.DER)],
            ca_der=self._authority.certificate.public_bytes(serialization.Encoding.DER),
            not_after_unix_ms=ends_ms,
        )
        return row, answer

    @asynccontextmanager
    async def _answering(self, context: Context, what: str) -> AsyncIterator[None]:
        address, now_s = context.peer().rpartition(":")[0], self._clock.now().monotonic_s
        if self._refusals.too_many(address, now_s):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "refused too often; wait a minute")
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield
        except Refused as error:
            self._refusals.note(address, now_s)
            log.warning("enrolment refused", call=what, why=str(error), peer=context.peer())
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except (GridpivotError, TimeoutError) as error:
            log.exception("enrolment failed", call=what)
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the site's agent cannot do this now: {error}")


def _key_of(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return read_request(csr_der)
    except ValueError as error:
        raise Refused(f"the certificate request is refused: {error}") from None


def make_token(
    registry: Registry,
    place: Place,
    authority: Authority,
    node: str,
    valid_s: float,
    ports: tuple[int, int],
    now_ms: int,
) -> tuple[str, str, int]:
    """A token for one node: its text, which is shown once, its id, its end [ms]. `ports`: sessions, enrolment. Blocks."""
    row, secret = registry.add_token(node, now_ms, valid_s)
    token = pb.AgentToken(
        token_id=row.token_id,
        secret=secret,
        site=place.site,
        node=node,
        session_address=f"{place.host}:{ports[0]}",
        operator_address=f"{place.host}:{ports[1]}",
        ca_der=authority.certificate.public_bytes(serialization.Encoding.DER),
        expires_at_unix_ms=row.expires_at_unix_ms,
    )
    return tokens.encode(token), row.token_id, row.expires_at_unix_ms
