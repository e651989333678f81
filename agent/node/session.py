"""The node's session with its site's agent: dial out, say hello, report at the beat, take limits, start again.

Nothing is spooled: a report that could not be sent is replaced by the next. The lease is renewed only by what comes
back of this node's own clock, so that a link that delivers late renews nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import structlog

from agent.gpu.reading import GpuReading
from agent.node.gpus import NodeGpus
from agent.node.report import boards, report
from agent.uplink.session import UplinkTarget
from gridpivot import __version__
from gridpivot.clock import Clock
from gridpivot.errors import BadReport
from gridpivot.link.credentials import CLIENT_OPTIONS
from gridpivot.link.heartbeat import LinkWatch, backoff_s
from gridpivot.v1 import node_pb2 as pb
from gridpivot.v1 import node_pb2_grpc
from gridpivot.v1 import session_pb2 as wire

log = structlog.get_logger("agent.node")
CONNECT_DEADLINE_S = 10.0
WRITE_DEADLINE_S = 10.0
LONGEST_PAUSE_S = 60.0
MOST_BACKOFF_S = 5.0  # one host among some dozens at a site
LEAST_APART_S = 0.1
Stream = grpc.aio.StreamStreamCall[pb.NodeServiceSessionRequest, pb.NodeServiceSessionResponse]


@dataclass(slots=True)
class LinkState:
    """For status and metrics."""

    connected: bool = False
    last_error: str = ""
    sessions_total: int = 0
    reports_total: int = 0
    limits_total: int = 0
    limits_refused_total: int = 0


class NodeLink:
    """One node's end of the protocol."""

    def __init__(
        self,
        target: UplinkTarget,
        node: str,
        gpus: NodeGpus,
        guarded_after_s: float | None,
        host: Callable[[Sequence[GpuReading]], tuple[float, str] | None],
        clock: Clock,
    ) -> None:
        """`guarded_after_s`: fallbacks hold this long after the end of this process; None = nobody sees to it.

        `host`: watts at the wall and their source, beside these GPUs; may block.
        """
        self._target, self._node, self._gpus, self._clock = target, node, gpus, clock
        self._guarded_after_s, self._host = guarded_after_s, host
        self._instance_id = os.urandom(16)
        self.state = LinkState()
        self._more = asyncio.Event()
        self._current: asyncio.Task[tuple[float, str]] | None = None
        self._rotated = False
        gpus.on_scan = self._more.set

    def rotate(self, target: UplinkTarget) -> None:
        """Go on under new credentials: the session ends and the next is dialled at once, well inside the lease."""
        self._target, self._rotated = target, True
        if self._current is not None:
            self._current.cancel()

    async def run(self) -> None:
        """Keep a session up until cancelled."""
        attempt = 0
        try:
            while True:
                before = self.state.sessions_total
                self._current = asyncio.create_task(self._attempt())
                await asyncio.wait((self._current,))
                pause_s, reason = (0.0, "new credentials") if self._current.cancelled() else self._current.result()
                if self._rotated:
                    self._rotated = False
                    continue
                attempt = 0 if self.state.sessions_total > before else attempt + 1
                jittered_s = backoff_s(attempt, random.random(), most_s=MOST_BACKOFF_S)  # noqa: S311 - jitter
                wait_s = max(min(pause_s, LONGEST_PAUSE_S), jittered_s)
                log.info("session ended", node=self._node, reason=reason, retry_in_s=round(wait_s, 1))
                await asyncio.sleep(wait_s)
        finally:
            if self._current is not None:
                self._current.cancel()
                await asyncio.gather(self._current, return_exceptions=True)

    async def _attempt(self) -> tuple[float, str]:
        """A session whose defects end it and nothing else: GPUs are held beside it."""
        pause_s, reason = 0.0, ""
        try:
            pause_s, reason = await self._session()
        except Exception as error:
            log.exception("session failed", node=self._node)
            pause_s, reason = 5.0, f"{type(error).__name__}: {error}"
        finally:
            self.state.connected = False
        self.state.last_error = reason
        return pause_s, reason

    async def _session(self) -> tuple[float, str]:
        """One session from dial to end; returns (pause before the next [s], why it ended)."""
        target = self._target
        if not self._gpus.uuids:
            return 1.0, f"no GPU answers here yet (NVML: {self._gpus.nvml.state.value})"
        async with grpc.aio.secure_channel(target.address, target.credentials, options=list(CLIENT_OPTIONS)) as channel:
            stream: Stream = node_pb2_grpc.NodeServiceStub(channel).Session()
            try:
                return await self._speak(stream)
            except grpc.aio.AioRpcError as error:
                return 0.0, f"{error.code().name}: {error.details()}"
            except TimeoutError:
                return 0.0, f"{target.address} took nothing for {CONNECT_DEADLINE_S:.0f} s"
            except asyncio.InvalidStateError as error:
                return 0.0, f"stream broke: {error}"
            finally:
                stream.cancel()

    async def _speak(self, stream: Stream) -> tuple[float, str]:
        gpus, uuids = self._gpus, self._gpus.uuids
        hello = pb.NodeHello(
            site=self._target.site,
            node=self._node,
            instance_id=self._instance_id,
            agent_version=__version__,
            gpus=boards(gpus.readings),
            guarded_after_ms=0 if self._guarded_after_s is None else round(1000 * self._guarded_after_s),
        )
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            await stream.write(pb.NodeServiceSessionRequest(hello=hello))
            first = await stream.read()
        if isinstance(first, pb.NodeServiceSessionResponse) and first.HasField("goaway"):
            return first.goaway.retry_after_ms / 1000.0, f"{first.goaway.code}: {first.goaway.message}"
        if not isinstance(first, pb.NodeServiceSessionResponse) or not first.HasField("welcome"):
            return 1.0, "the site's agent ended the stream without a welcome"
        welcome, now_s = first.welcome, self._clock.now().monotonic_s
        gpus.begin_session(welcome.lease_ms / 1000.0)
        self.state.connected, self.state.last_error = True, ""
        self.state.sessions_total += 1
        log.info("session up", node=self._node, site_agent=self._target.address)
        beat_s = min(max(0.2, welcome.beat_ms / 1000.0), 30.0)
        watch = LinkWatch(beat_s, min(max(1.0, welcome.dead_after_ms / 1000.0), 120.0), now_s, now_s)
        turn = _Turn(stream, watch, uuids, now_s)
        tasks = [asyncio.create_task(part) for part in (self._read(turn), self._write(turn))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, turn: _Turn) -> tuple[float, str]:
        lease = self._gpus.lease
        while True:
            response = await turn.stream.read()
            if not isinstance(response, pb.NodeServiceSessionResponse):
                return 0.0, "the site's agent closed the stream"
            now_s = self._clock.now().monotonic_s
            turn.watch.heard(now_s)
            match response.WhichOneof("kind"):
                case "limits":
                    lease.renew(response.limits.echo_monotonic_ms / 1000.0, now_s)
                    await self._take(turn, response.limits)
                case "heartbeat":
                    lease.renew(response.heartbeat.echo_monotonic_ms / 1000.0, now_s)
                case "goaway":
                    return response.goaway.retry_after_ms / 1000.0, f"{response.goaway.code}: {response.goaway.message}"
                case _:
                    pass

    async def _take(self, turn: _Turn, limits: pb.NodeLimits) -> None:
        if limits.sequence == self._gpus.lease.sequence:
            return  # sent again: it is being held
        self.state.limits_total += 1
        try:
            await self._gpus.take(limits)
            turn.refused = self._gpus.trouble
        except BadReport as error:
            self.state.limits_refused_total += 1
            turn.refused = str(error)
            turn.refused_sequence = limits.sequence
            log.error("limits refused", why=str(error))
        self._more.set()

    async def _write(self, turn: _Turn) -> tuple[float, str]:
        gpus = self._gpus
        while True:
            now_s = self._clock.now().monotonic_s
            if turn.watch.dead(now_s):
                return 0.0, f"nothing heard for {turn.watch.dead_after_s:.0f} s"
            if gpus.uuids != turn.uuids:
                return 0.0, "other GPUs stand here than when the session began"
            self._more.clear()
            await self._acknowledge(turn)
            if self._may_report(turn, now_s):
                await self._report(turn)
            elif turn.watch.due(now_s):
                beat = wire.Heartbeat(monotonic_ms=round(self._clock.now().monotonic_s * 1000))
                await self._put(turn, pb.NodeServiceSessionRequest(heartbeat=beat))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(turn.watch.heartbeat_s / 4):
                    await self._more.wait()

    def _may_report(self, turn: _Turn, now_s: float) -> bool:
        """At the beat, and at once when new limits were read back; never a scan that was told already."""
        began_s = self._gpus.nvml.scan_began_s
        if began_s is None or began_s <= max(turn.told_scan_s, turn.hello_at_s):
            return False
        news = self._gpus.applied_sequence != turn.told_sequence
        return news or now_s - turn.reported_at_s >= turn.watch.heartbeat_s - LEAST_APART_S

    async def _report(self, turn: _Turn) -> None:
        gpus = self._gpus
        host = await asyncio.to_thread(self._host, gpus.readings)
        now = self._clock.now()
        turn.sequence += 1
        turn.told_scan_s = gpus.nvml.scan_began_s or turn.told_scan_s
        turn.told_sequence, turn.reported_at_s = gpus.applied_sequence, now.monotonic_s
        observed_ms = round(1000 * (now.unix_s - (now.monotonic_s - turn.told_scan_s)))
        message = report(
            gpus.readings, turn.sequence, turn.told_sequence, observed_ms, round(1000 * now.monotonic_s), host
        )
        self.state.reports_total += 1
        turn.watch.last_sent_s = now.monotonic_s
        await self._put(turn, pb.NodeServiceSessionRequest(report=message))

    async def _acknowledge(self, turn: _Turn) -> None:
        """Say what became of limits: once they were tried, and again when an outcome changes."""
        gpus = self._gpus
        if turn.refused_sequence:
            ack = pb.NodeLimitsAck(sequence=turn.refused_sequence, refused=turn.refused[:200])
            turn.refused_sequence = 0
        elif gpus.applied_sequence and gpus.applied_sequence == gpus.lease.sequence:
            ack = pb.NodeLimitsAck(sequence=gpus.applied_sequence, gpus=gpus.outcomes(), refused=turn.refused[:200])
            if ack == turn.acked:
                return
            turn.acked = ack
        else:
            return
        await self._put(turn, pb.NodeServiceSessionRequest(ack=ack))

    async def _put(self, turn: _Turn, request: pb.NodeServiceSessionRequest) -> None:
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await turn.stream.write(request)


@dataclass(slots=True)
class _Turn:
    """What one session remembers of itself."""

    stream: Stream
    watch: LinkWatch
    uuids: list[str]
    hello_at_s: float
    sequence: int = 0
    reported_at_s: float = float("-inf")
    told_scan_s: float = float("-inf")
    told_sequence: int = 0
    acked: pb.NodeLimitsAck | None = None
    refused: str = ""
    refused_sequence: int = 0
