"""The site agent's end of the node protocol: who is let in, one live session per node, who has to go.

A node's certificate speaks for that node alone, until it ends or is revoked. Every report is answered at once, with
limits where the node has not said that it holds the newest, else with a heartbeat; both renew its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import structlog

from agent.nodes.pools import NodePools
from agent.nodes.registry import Book, Registry
from agent.nodes.reports import MOST_TEXT, read_boards, read_report
from agent.nodes.table import Node
from gridpivot import __version__
from gridpivot.clock import Clock
from gridpivot.errors import BadReport, GridpivotError
from gridpivot.link.peer import Certified, certified
from gridpivot.v1 import node_pb2 as pb
from gridpivot.v1 import node_pb2_grpc
from gridpivot.v1 import session_pb2 as wire
from gridpivot.vocabulary import GoawayCode

log = structlog.get_logger("agent.nodes")
HELLO_DEADLINE_S = 10.0
WRITE_DEADLINE_S = 10.0
LOOK_S = 1.0  # how old the look at revocations may be
DEAD_BEATS = 3.0
DEAD_LEAST_S = 2.0
HIGHEST_NUMBER = 2**63 - 1
MOST_WORD = 32
Context = grpc.aio.ServicerContext[pb.NodeServiceSessionRequest, pb.NodeServiceSessionResponse]


class Ended(Exception):
    """The session is over; carries the goaway to send."""

    def __init__(self, code: GoawayCode, message: str, retry_after_ms: int) -> None:
        super().__init__(message)
        self.goaway = wire.Goaway(code=code, message=message, retry_after_ms=retry_after_ms)


_EXPIRED = Ended(GoawayCode.EXPIRED, "the certificate has run out; enrol the node with a new token", 30_000)


class NodeServicer(node_pb2_grpc.NodeServiceServicer):
    """Serves nodes on the mutual-TLS port."""

    def __init__(self, site: str, pools: NodePools, registry: Registry, clock: Clock) -> None:
        self._site, self._pools, self._registry, self._clock = site, pools, registry, clock
        self._live: dict[str, NodeSession] = {}
        self._book: Book | None = None
        self._mark = (0, 0)
        self._trouble = ""

    async def look(self) -> None:
        """Look at tokens and revocations now. While they cannot be read nobody new comes; who is in stays."""
        mark = self._registry.mark()
        if self._book is not None and mark == self._mark:
            now_ms = self._clock.now().unix_ms
            ended = [s for s in self._live.values() if now_ms >= s.peer.not_after_unix_ms]
            for session in ended:
                session.end(self._unwelcome(session.peer, session.node.name) or _EXPIRED)
            return
        try:
            self._book, self._mark = await asyncio.to_thread(self._registry.read), mark
            self._trouble = ""
        except GridpivotError as error:
            self._book = None
            if str(error) != self._trouble:
                log.error("nodes cannot be let in", why=str(error))
            self._trouble = str(error)
            return
        for session in list(self._live.values()):
            if (end := self._unwelcome(session.peer, session.node.name)) is not None:
                session.end(end)

    async def run(self) -> None:
        """Notice revocations and certificates that run out, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    def _unwelcome(self, peer: Certified, node: str) -> Ended | None:
        if self._book is None:
            return Ended(GoawayCode.OVERLOADED, f"this agent cannot read who may come: {self._trouble}", 5_000)
        refusal = self._book.refusal(peer, self._clock.now().unix_ms)
        if refusal is None:
            return None
        text = f"the certificate of node {node} is {refusal.value}; enrol it with a new token"
        return Ended(refusal, text, 30_000)

    async def Session(  # type: ignore[override]  # noqa: N802 - grpc.aio hands the context read and write
        self, request_iterator: AsyncIterator[pb.NodeServiceSessionRequest], context: Context
    ) -> None:
        """One session, from hello to the end of the stream."""
        try:
            session = await self._admit(context)
        except Ended as end:
            self._pools.count_session(end.goaway.code)
            log.warning("node refused", code=end.goaway.code, message=end.goaway.message, peer=context.peer())
            async with asyncio.timeout(WRITE_DEADLINE_S):
                await context.write(pb.NodeServiceSessionResponse(goaway=end.goaway))
            return
        name, before = session.node.name, self._live.get(session.node.name)
        self._live[name] = session
        if before is not None:
            await before.give_way()
        self._pools.count_session("up")
        reason = "stream closed"
        try:
            session.begin()
            log.info("node up", node=name, gpus=len(session.node.boards), peer=context.peer())
            reason = await session.run()
        finally:
            if self._live.get(name) is session:
                del self._live[name]
                session.leave()
            log.info("node down", node=name, reason=reason)

    async def _admit(self, context: Context) -> NodeSession:
        """Read hello and decide; raises Ended with the word for a refusal."""
        try:
            async with asyncio.timeout(HELLO_DEADLINE_S):
                first = await context.read()
        except TimeoutError:
            raise Ended(GoawayCode.PROTOCOL_ERROR, "no hello within 10 s", 5_000) from None
        if not isinstance(first, pb.NodeServiceSessionRequest) or not first.HasField("hello"):
            raise Ended(GoawayCode.PROTOCOL_ERROR, "the first message of a session must be hello", 5_000)
        hello, peer = first.hello, certified(context.auth_context())
        named = peer.name if peer is not None and peer.kind == "node" else None
        if peer is None or named != f"{hello.site}/{hello.node}" or hello.site != self._site:
            text = f"the certificate speaks for {named!r}, hello for {hello.site[:64]}/{hello.node[:64]}, here is site {self._site}; enrol again"
            raise Ended(GoawayCode.WRONG_NODE, text, 30_000)
        if (unwelcome := self._unwelcome(peer, hello.node)) is not None:
            raise unwelcome
        node = self._pools.by_name.get(hello.node)
        if node is None:
            text = f"no pool of this site's settings names node {hello.node!r}; add it and restart the site's agent"
            raise Ended(GoawayCode.NOT_ENROLLED, text, 30_000)
        if len(hello.instance_id) != 16 or len(hello.agent_version) > MOST_TEXT:
            raise Ended(GoawayCode.PROTOCOL_ERROR, "instance_id must have 16 bytes, agent_version 128 at most", 30_000)
        other = self._live.get(hello.node)
        if other is not None and hello.instance_id != other.hello.instance_id:
            text = f"another process of node {hello.node!r} is connected; stop one of the two"
            raise Ended(GoawayCode.DUPLICATE_NODE, text, 2_000)
        try:
            return NodeSession(self._pools, context, hello, peer, node, self._clock)
        except BadReport as error:
            raise Ended(GoawayCode.PROTOCOL_ERROR, f"hello: {error}", 30_000) from None

    async def shut_down(self) -> None:
        """Tell every node to come back soon, spread over two seconds."""
        for index, session in enumerate(list(self._live.values())):
            session.end(Ended(GoawayCode.SHUTTING_DOWN, "the site's agent is stopping", 500 + 30 * index))
        await asyncio.sleep(0)


class NodeSession:
    """One live session."""

    def __init__(
        self, pools: NodePools, context: Context, hello: pb.NodeHello, peer: Certified, node: Node, clock: Clock
    ) -> None:
        """Raises BadReport for GPUs that make no sense."""
        self._pools, self._context, self._clock = pools, context, clock
        self.hello, self.peer, self.node = hello, peer, node
        self._boards = read_boards(hello.gpus)
        self._goaway: wire.Goaway | None = None
        self._more = asyncio.Event()
        self._owes = False  # an answer to a report
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[str]] = []
        beat_s = pools.settings.beat_s
        self._dead_after_s = max(DEAD_LEAST_S, DEAD_BEATS * beat_s)

    def begin(self) -> None:
        """From now on the node is this session's."""
        guarded_s = self.hello.guarded_after_ms / 1000.0 if self.hello.guarded_after_ms else None
        self._pools.changed[self.node.name] = self._more.set
        self._pools.admit(self.node, self._boards, self.hello.agent_version, guarded_s)

    def leave(self) -> None:
        """The node is nobody's."""
        self._pools.changed.pop(self.node.name, None)
        self._pools.part(self.node)

    def end(self, end: Ended) -> None:
        """Say goodbye and stop."""
        if self._goaway is None:
            self._pools.count_session(end.goaway.code)
            self._goaway = end.goaway
            self._more.set()

    async def give_way(self) -> None:
        """A newer session of the same process is here."""
        for task in self._tasks:
            task.cancel()
        await self._over.wait()

    async def run(self) -> str:
        """Welcome, then serve until something ends; returns why."""
        try:
            settings = self._pools.settings
            welcome = pb.NodeWelcome(
                agent_version=__version__,
                beat_ms=round(1000 * settings.beat_s),
                dead_after_ms=round(1000 * self._dead_after_s),
                lease_ms=round(1000 * settings.lease_s),
            )
            await self._write(pb.NodeServiceSessionResponse(welcome=welcome))
            self._tasks += [asyncio.create_task(part) for part in (self._read(), self._speak())]
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            first = next(iter(done))
            return "a newer session took over" if first.cancelled() else first.result()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, TimeoutError, asyncio.InvalidStateError) as error:
            return f"stream broke: {error!r}"
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._over.set()

    async def _read(self) -> str:
        node, pools = self.node, self._pools
        while True:
            request: object = await self._context.read()
            if not isinstance(request, pb.NodeServiceSessionRequest):
                return "the node closed the stream"
            match request.WhichOneof("kind"):
                case "report":
                    try:
                        pools.take(node, read_report(_bounded(request.report), len(self._boards)))
                    except BadReport as error:
                        # The lease is not renewed by nonsense, and nothing of it is believed.
                        pools.count_bad()
                        log.warning("bad report", node=node.name, error=str(error))
                        continue
                    self._owes = True
                    self._more.set()
                case "heartbeat":
                    if 0 <= request.heartbeat.monotonic_ms <= HIGHEST_NUMBER:
                        pools.heard(node, request.heartbeat.monotonic_ms)
                        self._owes = True
                        self._more.set()
                case "ack" if request.ack.sequence == node.asked_sequence:
                    if request.ack.refused:
                        log.error("node refuses its limits", node=node.name, why=request.ack.refused[:MOST_TEXT])
                    pools.judge(node, {gpu.row: gpu.outcome[:MOST_WORD] for gpu in request.ack.gpus})
                    clocks = {gpu.row: gpu.clock_outcome[:MOST_WORD] for gpu in request.ack.gpus if gpu.clock_outcome}
                    pools.table.judge_clocks(node, clocks)
                case "ack":
                    pass  # of limits that others have replaced
                case _:
                    self.end(Ended(GoawayCode.PROTOCOL_ERROR, "hello twice, or an unknown message", 5_000))

    async def _speak(self) -> str:
        node, sent = self.node, 0
        while True:
            silent_s = self._clock.now().monotonic_s - node.heard_at_s
            if silent_s > self._dead_after_s:
                return f"nothing heard for {self._dead_after_s:.0f} s"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._dead_after_s - silent_s + 0.01):
                    await self._more.wait()
            self._more.clear()
            if self._goaway is not None:
                await self._write(pb.NodeServiceSessionResponse(goaway=self._goaway))
                return f"{self._goaway.code}: {self._goaway.message}"
            fresh = node.asked_sequence != sent
            # What the node has not said to hold is sent again with every answer.
            if fresh or (self._owes and node.applied_sequence != node.asked_sequence):
                sent = node.asked_sequence
                await self._write(pb.NodeServiceSessionResponse(limits=self._pools.limits_of(node)))
            elif self._owes:
                now_ms = round(1000 * self._clock.now().monotonic_s)
                beat = wire.Heartbeat(monotonic_ms=now_ms, echo_monotonic_ms=self._pools.echo_of(node))
                await self._write(pb.NodeServiceSessionResponse(heartbeat=beat))
            self._owes = False

    async def _write(self, response: pb.NodeServiceSessionResponse) -> None:
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await self._context.write(response)


def _bounded(report: pb.NodeReport) -> pb.NodeReport:
    """A report whose numbers can be what they say; raises BadReport."""
    if not 0 < report.sequence <= HIGHEST_NUMBER or not 0 <= report.monotonic_ms <= HIGHEST_NUMBER:
        raise BadReport("sequence and monotonic_ms count from 1 and 0 to 2^63 - 1")
    return report
