"""Who may speak now: certificates by serial and date, operators by token or certificate.

The answers rest on a look at the store that is at most `LOOK_S` old, since tokens and revocations are also written by
`gridpivot-controller` in a process of its own. What ends a live session is told to `on_change`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping

from controller.identity.caller import Caller
from controller.store.identities import Identities, Standing
from gridpivot.clock import Clock
from gridpivot.errors import GridpivotError
from gridpivot.link.peer import Certified
from gridpivot.observability import get_logger
from gridpivot.vocabulary import GoawayCode, Role

LOOK_S = 1.0
log = get_logger(__name__)


class Gate:
    """The newest look, and the questions it answers."""

    def __init__(self, identities: Identities, clock: Clock, first_token: str) -> None:
        """`first_token` is the one that `init` made: an admin named operator."""
        self._identities, self._clock = identities, clock
        self._first = hashlib.sha256(first_token.encode()).digest()
        self._standing = Standing()
        self.on_change: Callable[[], None] = lambda: None

    async def look(self) -> None:
        """Look now."""
        fresh = await self._identities.standing(self._clock.now().unix_ms)
        changed = fresh != self._standing
        self._standing = fresh
        if changed:
            self.on_change()

    async def run(self) -> None:
        """Look again and again; a store that does not answer leaves the last look in force."""
        failing = False
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
                failing = False
            except Exception as error:  # the gate must not fall because the disk does
                if not failing:
                    log.warning("identities cannot be read; the last look stays in force", why=str(error))
                failing = True

    def refusal(self, peer: Certified) -> GoawayCode | None:
        """Why this certificate may not (or no longer) speak; None when it may."""
        if self.revoked(peer):
            return GoawayCode.REVOKED
        return GoawayCode.EXPIRED if self._clock.now().unix_ms >= peer.not_after_unix_ms else None

    def revoked(self, peer: Certified) -> bool:
        """Whether somebody has ended this certificate before its time."""
        standing = self._standing
        if peer.serial in standing.revoked_serials:
            return True
        if peer.serial in standing.valid_serials or peer.kind != "site":
            return False
        # A certificate that is not on record (made elsewhere under our CA) ends with the site's.
        revoked_ms = standing.revoked_sites.get(peer.name)
        return revoked_ms is not None and peer.not_before_unix_ms < revoked_ms

    def site_ends(self) -> Mapping[str, int]:
        """End of each site's newest certificate that is not revoked [ms]."""
        return self._standing.site_ends

    def caller_by_token(self, authorization: bytes, origin: str) -> Caller | None:
        """Whose API token this is; all tokens are compared, in constant time each."""
        given = hashlib.sha256(authorization.removeprefix(b"Bearer ")).digest()
        found = Caller("operator", Role.ADMIN, origin) if hmac.compare_digest(given, self._first) else None
        for row in self._standing.operators.values():
            if row.token_sha256 is not None and hmac.compare_digest(given, row.token_sha256):
                found = None if row.revoked_at_unix_ms is not None else Caller(row.name, Role(row.role), origin)
        return found if authorization.startswith(b"Bearer ") else None

    def caller_by_certificate(self, peer: Certified, origin: str) -> Caller | None:
        """The operator whom a certificate names, if he is on record and neither is revoked."""
        row = self._standing.operators.get(peer.name)
        if peer.kind != "operator" or row is None or row.revoked_at_unix_ms is not None:
            return None
        return None if self.refusal(peer) is not None else Caller(row.name, Role(row.role), origin)


async def open_gate(identities: Identities, clock: Clock, first_token: str) -> Gate:
    """A gate that has looked once; raises GridpivotError for a token that is too short to be one."""
    if len(first_token) < 16:
        raise GridpivotError("operator token is shorter than 16 characters; run gridpivot-controller init")
    gate = Gate(identities, clock, first_token)
    await gate.look()
    return gate
