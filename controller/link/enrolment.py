"""EnrolmentService on the wire. Enrol and Recover are for callers without a certificate, Renew for those with one.

Whoever is refused often from one address waits: guessing a 256-bit secret is hopeless, but every try costs a commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog

from controller.identity.enrolment import Enrolment
from gridpivot.clock import Clock
from gridpivot.errors import GridpivotError, Refused
from gridpivot.link.peer import certified
from gridpivot.link.refusals import Refusals
from gridpivot.v1 import enrolment_pb2 as pb
from gridpivot.v1 import enrolment_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
DEADLINE_S = 30.0
log = structlog.get_logger("controller.enrolment")


class EnrolmentServicer(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """Serves one port; `counts` are shared by both: outcomes by word."""

    def __init__(self, enrolment: Enrolment, clock: Clock, counts: dict[str, int]) -> None:
        self._enrolment, self._clock, self.counts = enrolment, clock, counts
        self._refusals = Refusals()

    async def Enrol(self, request: pb.EnrolRequest, context: Context) -> pb.EnrolResponse:  # noqa: N802
        """Token in, certificate out."""
        async with self._answering(context, "enrol"):
            answer = await self._enrolment.enrol(request.token, request.csr_der, context.peer())
            log.info("site enrolled", peer=context.peer(), agent_version=request.agent_version[:32])
            return answer
        raise AssertionError("unreachable: _answering aborts")

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:  # noqa: N802
        """A live certificate's successor."""
        async with self._answering(context, "renew"):
            peer = certified(context.auth_context())
            if peer is None:
                raise Refused("renewing needs the site's certificate; call the mutual-TLS port")
            answer = await self._enrolment.renew(peer, request.csr_der)
            log.info("certificate renewed", site=peer.name, peer=context.peer())
            return pb.RenewResponse(identity=answer)
        raise AssertionError("unreachable: _answering aborts")

    async def Recover(self, request: pb.RecoverRequest, context: Context) -> pb.RecoverResponse:  # noqa: N802
        """An expired certificate's way back."""
        async with self._answering(context, "recover"):
            answer = await self._enrolment.recover(request, context.peer())
            log.info("recovery asked", state=answer.state, fingerprint=answer.fingerprint, peer=context.peer())
            return answer
        raise AssertionError("unreachable: _answering aborts")

    @asynccontextmanager
    async def _answering(self, context: Context, what: str) -> AsyncIterator[None]:
        address = context.peer().rpartition(":")[0]
        if self._refusals.too_many(address, self._clock.now().monotonic_s):
            self._count(what, "throttled")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "refused too often; wait a minute")
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield
        except Refused as error:
            self._refusals.note(address, self._clock.now().monotonic_s)
            self._count(what, "refused")
            log.warning("enrolment refused", call=what, why=str(error), peer=context.peer())
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except (GridpivotError, TimeoutError) as error:
            self._count(what, "failed")
            log.exception("enrolment failed", call=what)
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the controller cannot do this now: {error}")
        self._count(what, "ok")

    def _count(self, what: str, outcome: str) -> None:
        key = f"{what}_{outcome}"
        self.counts[key] = self.counts.get(key, 0) + 1
