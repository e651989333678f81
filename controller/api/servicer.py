"""OperatorService on the wire: a caller with a role, `Operations` asked, plain words back.

On the server-only TLS port a bearer token says who calls, on the mutual-TLS port an operator's certificate. A refusal
is FAILED_PRECONDITION, NOT_FOUND or PERMISSION_DENIED with one sentence; tokens are never logged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

import grpc

from controller.api import telling
from controller.api.identities import IdentityDecisions
from controller.api.summary import fleet_summary, site_summary
from controller.identity.caller import Caller
from controller.identity.gate import Gate
from controller.operations import Operations
from controller.planner import PlanLoop
from controller.questions import Questions
from gridpivot.errors import GridpivotError, Refused
from gridpivot.link.peer import certified
from gridpivot.observability import get_logger
from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import operator_pb2_grpc, plan_pb2
from gridpivot.vocabulary import Role, Rung

Context = grpc.aio.ServicerContext[Any, Any]
DECISIONS, MOST_DECISIONS = 20, 1_000
MOST_AUDIT = 1_000
log = get_logger(__name__)


class OperatorServicer(operator_pb2_grpc.OperatorServiceServicer):
    """Answers operators. `loop` is woken by every order, so that plans follow at once."""

    def __init__(self, operations: Operations, loop: PlanLoop, gate: Gate, decisions: IdentityDecisions) -> None:
        self._operations, self._loop, self._gate, self._identities = operations, loop, gate, decisions
        self._questions = Questions(operations.ledger, loop.parameters)

    async def ListSites(self, request: op.ListSitesRequest, context: Context) -> op.ListSitesResponse:  # noqa: N802
        """All sites, or those named."""
        async with self._answering(context):
            operations, now = self._operations, self._operations.clock.now()
            state = {site.name: site for site in operations.see(now).sites}
            last = self._loop.last
            decided = {d.site: d for d in last.decision.sites} if last is not None else {}
            summaries = [
                site_summary(operations, live, state.get(live.name), decided.get(live.name), now)
                for live in operations.fleet
            ]
            wanted = {operations.known(name) for name in request.sites}
            return op.ListSitesResponse(
                sites=[s for s in summaries if not wanted or s.site in wanted],
                fleet=fleet_summary(operations, summaries, self._loop, now),
            )
        raise AssertionError("unreachable: _answering aborts")

    async def GetPlan(self, request: op.GetPlanRequest, context: Context) -> op.GetPlanResponse:  # noqa: N802
        """The plan in force and its fate."""
        async with self._answering(context):
            site = self._operations.known(request.site)
            posted = self._operations.board.posted(site)
            plan: plan_pb2.Plan | None = posted.plan if posted is not None else None
            return op.GetPlanResponse(plan=plan, statuses=self._operations.board.statuses(site))
        raise AssertionError("unreachable: _answering aborts")

    async def Explain(self, request: op.ExplainRequest, context: Context) -> op.ExplainResponse:  # noqa: N802
        """Which constraint binds and what it costs."""
        async with self._answering(context):
            site = self._operations.known(request.site)
            found = self._loop.explanation(site)
            if found is None:
                raise Refused(f"no decision on {site} yet: it has not reported since the controller started")
            explanation, last = found
            notice_usd: tuple[tuple[str, float], ...] = ()
            if explanation.rung is Rung.PLAN:
                notice_usd = await self._questions.notice(last.fleet, site)
            return telling.explained(explanation, last.at.unix_ms, notice_usd)
        raise AssertionError("unreachable: _answering aborts")

    async def SetOverride(self, request: op.SetOverrideRequest, context: Context) -> op.SetOverrideResponse:  # noqa: N802
        """Lower a ceiling, or let go."""
        async with self._answering(context, Role.OPERATOR) as caller:
            done = await self._operations.set_override(
                request.site,
                request.ceiling_w if request.HasField("ceiling_w") else None,
                request.for_s if request.HasField("for_s") else None,
                request.reason,
                request.idempotency_key,
                caller,
            )
            self._loop.wake()
            log.info("override", site=request.site, ceiling_w=done.ceiling_w, audit_id=done.audit_id)
            return op.SetOverrideResponse(ceiling_w=done.ceiling_w, audit_id=done.audit_id)
        raise AssertionError("unreachable: _answering aborts")

    async def CreateEvent(self, request: op.CreateEventRequest, context: Context) -> op.CreateEventResponse:  # noqa: N802
        """A grid event."""
        async with self._answering(context, Role.OPERATOR) as caller:
            done = await self._operations.create_event(
                tuple(request.sites),
                **_event(request),
                reason=request.reason,
                key=request.idempotency_key,
                caller=caller,
            )
            self._loop.wake()
            log.info("grid event", event_id=done.event_id, sites=len(done.sites), audit_id=done.audit_id)
            return op.CreateEventResponse(event_id=done.event_id, sites=done.sites, audit_id=done.audit_id)
        raise AssertionError("unreachable: _answering aborts")

    async def PreviewEvent(self, request: op.PreviewEventRequest, context: Context) -> op.PreviewEventResponse:  # noqa: N802
        """What a grid event would do; nothing is recorded, nothing is sent."""
        async with self._answering(context):
            event = self._operations.imagined(tuple(request.sites), **_event(request))
            return telling.previewed(await self._questions.preview(event))
        raise AssertionError("unreachable: _answering aborts")

    async def ListDecisions(self, request: op.ListDecisionsRequest, context: Context) -> op.ListDecisionsResponse:  # noqa: N802
        """The newest decisions."""
        async with self._answering(context):
            limit = min(request.limit or DECISIONS, MOST_DECISIONS)
            return telling.listed(await self._operations.ledger.decision_lines(limit))
        raise AssertionError("unreachable: _answering aborts")

    async def ReplayDecision(self, request: op.ReplayDecisionRequest, context: Context) -> op.ReplayDecisionResponse:  # noqa: N802
        """A decision taken again from its record."""
        async with self._answering(context):
            record, done = await self._questions.replay(request.decision_id)
            if not done.same:
                log.warning("replay differs", decision_id=record.decision_id, differences=list(done.differences))
            return telling.replayed(record, done)
        raise AssertionError("unreachable: _answering aborts")

    async def ListEvents(self, request: op.ListEventsRequest, context: Context) -> op.ListEventsResponse:  # noqa: N802
        """Grid events and overrides."""
        async with self._answering(context):
            now = self._operations.clock.now()
            return telling.events(self._operations.events(now, ended=request.ended))
        raise AssertionError("unreachable: _answering aborts")

    async def ReleaseEvent(self, request: op.ReleaseEventRequest, context: Context) -> op.ReleaseEventResponse:  # noqa: N802
        """The end of a grid event."""
        async with self._answering(context, Role.OPERATOR) as caller:
            done = await self._operations.release_event(
                request.event_id, request.reason, request.idempotency_key, caller
            )
            self._loop.wake()
            log.info("grid event released", event_id=done.event_id, audit_id=done.audit_id)
            return op.ReleaseEventResponse(sites=done.sites, audit_id=done.audit_id)
        raise AssertionError("unreachable: _answering aborts")

    async def ListAudit(self, request: op.ListAuditRequest, context: Context) -> op.ListAuditResponse:  # noqa: N802
        """Who changed what."""
        async with self._answering(context):
            limit = min(request.limit or 50, MOST_AUDIT)
            return telling.audited(await self._operations.ledger.audit_trail(limit))
        raise AssertionError("unreachable: _answering aborts")

    async def ListIdentities(self, request: op.ListIdentitiesRequest, context: Context) -> op.ListIdentitiesResponse:  # noqa: N802
        """Certificates, and who asks to come back."""
        async with self._answering(context):
            return await self._identities.listed()
        raise AssertionError("unreachable: _answering aborts")

    async def DecideRecovery(self, request: op.DecideRecoveryRequest, context: Context) -> op.DecideRecoveryResponse:  # noqa: N802
        """Yes or no to a site that asks to come back."""
        async with self._answering(context, Role.ADMIN) as caller:
            site = self._operations.known(request.site)
            return await self._identities.decide(site, request, caller)
        raise AssertionError("unreachable: _answering aborts")

    async def RevokeSite(self, request: op.RevokeSiteRequest, context: Context) -> op.RevokeSiteResponse:  # noqa: N802
        """The end of a site's certificates."""
        async with self._answering(context, Role.ADMIN) as caller:
            site = self._operations.known(request.site)
            return await self._identities.revoke(site, request.reason, caller)
        raise AssertionError("unreachable: _answering aborts")

    def _caller(self, context: Context) -> Caller | None:
        """Who calls: the certificate where the port asks for one, else the token."""
        peer = certified(context.auth_context())
        if peer is not None:
            return self._gate.caller_by_certificate(peer, context.peer())
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        return self._gate.caller_by_token(given if isinstance(given, bytes) else given.encode(), context.peer())

    @asynccontextmanager
    async def _answering(self, context: Context, least: Role = Role.VIEWER) -> AsyncIterator[Caller]:
        """Recognise the caller, then turn what is raised inside into a status with one sentence."""
        caller = self._caller(context)
        if caller is None:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "nobody known here: token or certificate is missing, wrong or revoked; give --token-file or --cert and --key",
            )
            raise AssertionError("unreachable: abort raises")
        if not caller.may(least):
            log.warning("call refused", operator=caller.name, role=caller.role.value, least=least.value)
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"{caller.name} is {caller.role.value}; this needs {least.value}"
            )
        try:
            yield caller
        except Refused as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except GridpivotError as error:
            log.exception("operator call failed")
            await context.abort(grpc.StatusCode.INTERNAL, str(error))


class _Event(TypedDict):
    ceiling_w: float | None
    ceiling_ratio: float | None
    starts_at_unix_ms: int | None
    ends_at_unix_ms: int | None
    product: str


def _event(request: op.CreateEventRequest | op.PreviewEventRequest) -> _Event:
    """Ceiling and times as asked; None where a field was not given."""
    return {
        "ceiling_w": request.ceiling_w if request.HasField("ceiling_w") else None,
        "ceiling_ratio": request.ceiling_ratio if request.HasField("ceiling_ratio") else None,
        "starts_at_unix_ms": request.starts_at_unix_ms if request.HasField("starts_at_unix_ms") else None,
        "ends_at_unix_ms": request.ends_at_unix_ms if request.HasField("ends_at_unix_ms") else None,
        "product": request.product,
    }
