"""The controller's end of the session protocol: who is let in, one live session per site, who has to go.

A site's certificate speaks for that site alone, until it ends or is revoked; a second agent of the same name is refused
while the first lives, and said on both sides. The same agent may dial again (a renewed certificate, a link that broke
without telling us): its new session takes over from its old one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from controller.fleet.tables import Fleet
from controller.identity.gate import Gate
from controller.link.session import (
    HIGHEST_NUMBER,
    WRITE_DEADLINE_S,
    Board,
    Context,
    Ended,
    LinkCounters,
    LinkTiming,
    LiveSession,
    unwelcome,
)
from controller.store.store import Store
from gridpivot.clock import Clock
from gridpivot.link.peer import Certified, certified
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import session_pb2_grpc
from gridpivot.vocabulary import GoawayCode

log = structlog.get_logger("controller.link")

HELLO_DEADLINE_S = 10.0


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """Serves agents on the mutual-TLS port."""

    def __init__(
        self, fleet: Fleet, store: Store, board: Board, timing: LinkTiming, clock: Clock, gate: Gate | None = None
    ) -> None:
        """Without a gate, which only tests do, nothing but TLS itself looks at certificates."""
        self._fleet, self._store, self._board, self._timing, self._clock = fleet, store, board, timing, clock
        self._gate = gate
        self.on_plan_seen: Callable[[str, int, int], Awaitable[None]] | None = None  # highest that a site has seen
        self._live: dict[str, LiveSession] = {}
        self.counters = LinkCounters()

    async def Session(  # type: ignore[override]  # noqa: N802 - grpc.aio hands the context read and write
        self, request_iterator: AsyncIterator[wire.SessionRequest], context: Context
    ) -> None:
        """One session, from hello to the end of the stream."""
        try:
            session = await self._admit(context)
        except Ended as end:
            await self._refuse(context, end)
            return
        site = session.live.name
        before = self._live.get(site)
        self._live[site] = session
        if before is not None:
            await before.give_way()
        self.counters.sessions_total += 1
        log.info("session up", site=site, agent_version=session.hello.agent_version, peer=context.peer())
        reason = "stream closed"
        try:
            reason = await session.run()
        finally:
            if self._live.get(site) is session:
                del self._live[site]
                session.live.note_disconnected(self._clock.now())
            log.info("session down", site=site, reason=reason)

    async def _refuse(self, context: Context, end: Ended) -> None:
        code = end.goaway.code
        self.counters.refused_total[code] = self.counters.refused_total.get(code, 0) + 1
        log.warning("session refused", code=code, message=end.goaway.message, peer=context.peer())
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await context.write(wire.SessionResponse(goaway=end.goaway))

    async def _admit(self, context: Context) -> LiveSession:
        """Read hello and decide; raises Ended with the word for a refusal."""
        try:
            async with asyncio.timeout(HELLO_DEADLINE_S):
                first = await context.read()
        except TimeoutError:
            raise Ended(GoawayCode.PROTOCOL_ERROR, "no hello within 10 s", 5_000) from None
        if not isinstance(first, wire.SessionRequest) or not first.HasField("hello"):
            raise Ended(GoawayCode.PROTOCOL_ERROR, "the first message of a session must be hello", 5_000)
        hello = first.hello
        peer = certified(context.auth_context())
        named = peer.name if peer is not None and peer.kind == "site" else None
        if named != hello.site:
            text = f"the certificate speaks for site {named!r}, hello for {hello.site!r}; correct `site` or enrol again"
            raise Ended(GoawayCode.WRONG_SITE, text, 30_000)
        assert peer is not None
        refusal = self._gate.refusal(peer) if self._gate is not None else None
        if refusal is not None:
            raise unwelcome(refusal, hello.site)
        if hello.site not in self._fleet:
            text = f"site {hello.site!r} is not in the controller's settings; add a [[sites]] entry"
            raise Ended(GoawayCode.NOT_ENROLLED, text, 30_000)
        if len(hello.boot_id) != 16:
            raise Ended(GoawayCode.PROTOCOL_ERROR, "boot_id must have 16 bytes", 30_000)
        if any(held.first_seq > HIGHEST_NUMBER for held in hello.spool):
            raise Ended(GoawayCode.PROTOCOL_ERROR, "a spool range past 2^63", 30_000)
        other = self._live.get(hello.site)
        if other is not None and not (hello.instance_id and hello.instance_id == other.hello.instance_id):
            text = f"another agent of site {hello.site!r} is connected; stop one of the two"
            raise Ended(GoawayCode.DUPLICATE_SITE, text, 5_000)
        live = self._fleet[hello.site]
        return LiveSession(self, context, hello, peer, live, self._store, self._board, self._timing, self._clock)

    def look_again(self) -> None:
        """Who may speak has changed: live sessions that may no longer are ended now."""
        for session in list(self._live.values()):
            refusal = self._gate.refusal(session.peer) if self._gate is not None else None
            if refusal is not None:
                session.end(unwelcome(refusal, session.live.name))

    def refusal_of(self, peer: Certified) -> GoawayCode | None:
        """Why a certificate may not speak now."""
        return None if self._gate is None else self._gate.refusal(peer)

    async def shut_down(self) -> None:
        """Tell every agent to come back later, spread over two seconds."""
        for index, session in enumerate(list(self._live.values())):
            session.end(Ended(GoawayCode.SHUTTING_DOWN, "the controller is stopping", 500 + 50 * index))
        await asyncio.sleep(0)
