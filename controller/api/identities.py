"""What operators see and decide of sites' identities; every decision is audited before it counts."""

from __future__ import annotations

import json

from controller.identity.caller import Caller
from controller.identity.gate import Gate
from controller.store.identities import Identities
from controller.store.ledger import AuditEntry, Ledger
from gridpivot.clock import Clock
from gridpivot.errors import Refused
from gridpivot.v1 import operator_pb2 as op


class IdentityDecisions:
    """Reads and writes the registry for the API."""

    def __init__(self, identities: Identities, ledger: Ledger, gate: Gate, clock: Clock) -> None:
        self._identities, self._ledger, self._gate, self._clock = identities, ledger, gate, clock

    async def listed(self) -> op.ListIdentitiesResponse:
        """Newest certificate of each site, and waiting recoveries."""
        now_ms = self._clock.now().unix_ms
        return op.ListIdentitiesResponse(
            sites=[
                op.SiteIdentity(
                    site=row.name,
                    serial="" if row.serial.startswith("mark-") else row.serial,
                    issued_at_unix_ms=row.issued_at_unix_ms,
                    not_after_unix_ms=row.not_after_unix_ms,
                    state=row.state(now_ms),
                )
                for row in await self._identities.certificates()
            ],
            recoveries=[
                op.Recovery(
                    site=row.site, fingerprint=row.fingerprint, asked_at_unix_ms=row.asked_at_unix_ms, origin=row.origin
                )
                for row in await self._identities.recoveries()
            ],
        )

    async def decide(self, site: str, request: op.DecideRecoveryRequest, caller: Caller) -> op.DecideRecoveryResponse:
        """Let a site come back, or not; raises Refused for a fingerprint that does not wait."""
        word = "approve" if request.approve else "refuse"
        _needs_reason(request.reason)
        waiting = [r for r in await self._identities.recoveries() if r.site == site]
        if not any(r.fingerprint.startswith(request.fingerprint.lower()) for r in waiting):
            raise Refused(f"no waiting request of {site} has this fingerprint; see gridpivot identity list")
        asked = {"site": site, "fingerprint": request.fingerprint, "decision": word}
        audit_id = await self._audit(caller, "recovery", request.reason, asked)
        state = await self._identities.decide_recovery(
            site, request.fingerprint, approve=request.approve, now_unix_ms=self._clock.now().unix_ms
        )
        return op.DecideRecoveryResponse(state=state, audit_id=audit_id)

    async def revoke(self, site: str, reason: str, caller: Caller) -> op.RevokeSiteResponse:
        """End every certificate and unused token of a site; live streams are closed by the gate's look."""
        _needs_reason(reason)
        audit_id = await self._audit(caller, "revocation", reason, {"site": site})
        count = await self._identities.revoke("site", site, self._clock.now().unix_ms)
        await self._gate.look()
        return op.RevokeSiteResponse(revoked=count, audit_id=audit_id)

    async def _audit(self, caller: Caller, action: str, reason: str, request: dict[str, str]) -> str:
        entry = AuditEntry(
            caller.name, action, reason, json.dumps(request), "{}", role=caller.role.value, origin=caller.origin
        )
        return (await self._ledger.record_order(entry, (), self._clock.now())).audit_id


def _needs_reason(reason: str) -> None:
    if not reason.strip():
        raise Refused("a reason is needed; it goes into the audit record (--reason)")
