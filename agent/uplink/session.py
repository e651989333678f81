"""The session: dial out, say hello, send lanes under a window, take plans and heartbeats, start again.

One stream carries everything. An acknowledgement frees the spool; `await write()` does not. The stream is given up
when nothing has been heard for `dead_after_s`, whatever TCP or keepalive believe.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from agent.uplink.spool import Spool
from gridpivot import __version__
from gridpivot.clock import Clock
from gridpivot.errors import SpoolError
from gridpivot.link.credentials import CLIENT_OPTIONS
from gridpivot.link.heartbeat import LinkWatch, backoff_s
from gridpivot.link.lanes import LANES, Lane, Outbox, Pending
from gridpivot.link.pace import PART_BYTES, Allowance, Pace
from gridpivot.v1 import plan_pb2, session_pb2_grpc
from gridpivot.v1 import session_pb2 as wire

log = structlog.get_logger("agent.uplink")

CONNECT_DEADLINE_S = 10.0
WRITE_DEADLINE_S = 10.0
FETCH_DEADLINE_S = 10.0
STOOD_S = 10.0
LONGEST_PAUSE_S = 60.0  # whatever a goaway asks for
QUICK_TRIES, QUICK_TRY_S, SELDOM_TRY_S = 24, 2.5, 15.0
FIRST_WINDOW_BYTES = 512 * 1024
# Six hours of roll-ups are 7 MB: back within a minute, and forty sites together stay under a tenth of what a controller takes.
BACKLOG_BYTES_PER_S = 256 * 1024.0
Stream = grpc.aio.StreamStreamCall[wire.SessionRequest, wire.SessionResponse]


@dataclass(frozen=True, slots=True)
class UplinkTarget:
    """Where to dial and as whom."""

    address: str
    credentials: grpc.ChannelCredentials
    site: str


@dataclass(slots=True)
class UplinkState:
    """What the site may want to know of its link; all times monotonic [s]."""

    connected: bool = False
    since_s: float = float("-inf")
    last_error: str = ""
    sessions_total: int = 0
    records_sent_total: int = 0
    records_acked_total: int = 0
    rotations_total: int = 0  # sessions that went over to new credentials without a pause
    device_ack_s: float | None = None  # from spooling to acknowledgement, of the newest device table


class Uplink:
    """One site's end of the session protocol."""

    def __init__(
        self,
        target: UplinkTarget,
        spool_path: Path,
        clock: Clock,
        on_plan: Callable[[plan_pb2.SignedPlan], None],
        on_heartbeat: Callable[[wire.Heartbeat], None],
        hello: Callable[[], wire.Hello],
        on_link: Callable[[bool, str], None],
        inventory_wanted: Callable[[], None],
    ) -> None:
        self._target, self._clock = target, clock
        self._on_plan, self._on_heartbeat, self._hello = on_plan, on_heartbeat, hello
        self._on_link, self._inventory_wanted = on_link, inventory_wanted
        self.on_controller_clock: Callable[[float], None] = lambda _unix_s: None
        self.state = UplinkState()
        self.outbox = Outbox(FIRST_WINDOW_BYTES)
        self.pace = Pace()
        self._backlog = Allowance(BACKLOG_BYTES_PER_S, BACKLOG_BYTES_PER_S)
        self._cut: list[_Cut] = []  # records of which a part is still to be sent, the most urgent last
        self._tables: dict[int, float] = {}  # device tables of this session: sequence number to when it was spooled
        self._undurable: dict[Lane, set[int]] = {lane: set() for lane in LANES}
        self._more = asyncio.Event()
        self._instance_id = os.urandom(16)
        self._ready: grpc.aio.Channel | None = None  # connected under new credentials, waiting to take over
        self._rotating: asyncio.Task[None] | None = None
        self._current: asyncio.Task[tuple[float, str]] | None = None
        self._loop = asyncio.get_running_loop()
        self.spool = Spool(spool_path, self._spooled, self._let_go)
        for record in self.spool.opened.pending:
            self.outbox.add(record)

    def send(self, lane: Lane, kind: int, payload: bytes) -> int:
        """Spool a record and send it when its turn comes; returns its sequence number."""
        now = self._clock.now()
        seq = self.spool.append(lane, kind, payload, now.unix_ms)
        self._undurable[lane].add(seq)
        if lane == wire.LANE_DEVICES and self.state.connected:
            self._tables[seq] = now.monotonic_s
        return seq

    def tables_under_way(self) -> int:
        """Device tables of this session that are not acknowledged (count)."""
        return len(self._tables)

    def waiting(self) -> int:
        """Records that are not acknowledged, those not yet on disk included (count)."""
        return sum(len(self._undurable[lane]) + self.outbox.waiting(lane) for lane in LANES)

    def _spooled(self, records: Sequence[Pending]) -> None:
        self._call(self._add, records)

    def _let_go(self, lane: Lane, seqs: Sequence[int]) -> None:
        self._call(self._forget, lane, seqs)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to tell
            self._loop.call_soon_threadsafe(function, *arguments)

    def _forget(self, lane: Lane, seqs: Sequence[int]) -> None:
        self._undurable[lane].difference_update(seqs)
        self.outbox.forget(lane, seqs)
        if lane == wire.LANE_DEVICES:
            for seq in seqs:
                self._tables.pop(seq, None)

    def _add(self, records: Sequence[Pending]) -> None:
        for record in records:
            self._undurable[record.lane].discard(record.seq)
            self.outbox.add(record)
        self._more.set()

    async def run(self) -> None:
        """Keep a session up until cancelled."""
        attempt = 0
        try:
            while True:
                before, began_s = self.state.sessions_total, self._clock.now().monotonic_s
                self._current = asyncio.create_task(self._attempt())
                await asyncio.wait((self._current,))
                if self._current.cancelled() and self._ready is not None:
                    self.state.rotations_total += 1
                    continue
                pause_s, reason = self._current.result()
                # A session that falls at once is no session: a controller in trouble must not be run at by forty sites.
                stood = self.state.sessions_total > before and self._clock.now().monotonic_s - began_s >= STOOD_S
                attempt = 0 if stood else attempt + 1
                if self.state.connected:
                    self.state.connected = False
                    self._on_link(False, reason)
                self.state.last_error = reason
                # A restarting controller is back within seconds: a minute of quick tries, then seldom ones.
                most_s = QUICK_TRY_S if attempt < QUICK_TRIES else SELDOM_TRY_S
                jittered_s = backoff_s(attempt, random.random(), most_s=most_s)  # noqa: S311 - jitter, not a secret
                wait_s = max(min(pause_s, LONGEST_PAUSE_S), jittered_s)
                log.info("session ended", site=self._target.site, reason=reason, retry_in_s=round(wait_s, 1))
                await asyncio.sleep(wait_s)
        finally:
            for task in (self._current, self._rotating):
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            self.spool.close()

    def rotate(self, target: UplinkTarget) -> None:
        """Go on under new credentials: a second channel is opened, and only when it stands is the first one left.

        If it cannot be opened the session goes on as it is; the next one that has to be dialled uses the new ones.
        """
        self._target = target
        if self._rotating is not None:
            self._rotating.cancel()
        self._rotating = asyncio.create_task(self._rotate(target))

    async def _rotate(self, target: UplinkTarget) -> None:
        channel = self._channel(target)
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                await channel.channel_ready()
        except (TimeoutError, asyncio.CancelledError):
            await channel.close()
            log.warning("second channel did not stand; the session goes on as it is", site=target.site)
            return
        self._ready = channel
        if self._current is not None and not self._current.done():
            self._current.cancel()

    def _channel(self, target: UplinkTarget) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(target.address, target.credentials, options=list(CLIENT_OPTIONS))

    async def _attempt(self) -> tuple[float, str]:
        """A session whose defects end it and nothing else: the governor beside it goes on without a link."""
        try:
            return await self._session()
        except SpoolError as error:
            return 1.0, str(error)
        except Exception as error:
            log.exception("session failed", site=self._target.site)
            return 5.0, f"{type(error).__name__}: {error}"

    async def _session(self) -> tuple[float, str]:
        """One session from dial to end; returns (pause before the next [s], why it ended)."""
        ready, self._ready = self._ready, None
        async with ready if ready is not None else self._channel(self._target) as channel:
            stream: Stream = session_pb2_grpc.SessionServiceStub(channel).Session()
            try:
                return await self._speak(stream)
            except grpc.aio.AioRpcError as error:
                return 0.0, f"{error.code().name}: {error.details()}"
            except TimeoutError:
                return 0.0, f"{self._target.address} took nothing for {CONNECT_DEADLINE_S:.0f} s"
            except asyncio.InvalidStateError as error:
                return 0.0, f"stream broke: {error}"
            finally:
                stream.cancel()

    async def _speak(self, stream: Stream) -> tuple[float, str]:
        now = self._clock.now()
        self.outbox.restart()
        self._cut.clear()
        self._tables.clear()
        hello = self._hello()
        hello.boot_id = self.spool.opened.boot_id
        hello.instance_id = self._instance_id
        hello.agent_version = __version__
        last = self.spool.last_seq
        for lane in LANES:
            hello.spool.append(self._lane_range(lane, last[lane]))
        hello.wall_clock_unix_ms, hello.monotonic_ms = now.unix_ms, round(now.monotonic_s * 1000)
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            await stream.write(wire.SessionRequest(hello=hello))
            first = await stream.read()
        if isinstance(first, wire.SessionResponse) and first.HasField("goaway"):
            return first.goaway.retry_after_ms / 1000.0, f"{first.goaway.code}: {first.goaway.message}"
        if not isinstance(first, wire.SessionResponse) or not first.HasField("welcome"):
            return 1.0, "the controller ended the stream without a welcome"
        watch = self._welcomed(first.welcome)
        tasks = [asyncio.create_task(part) for part in (self._read(stream, watch), self._write(stream, watch))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _lane_range(self, lane: Lane, last_seq: int) -> wire.LaneRange:
        # A record on its way to the disk is held too: were it left out, the controller would call it lost.
        held = (self.outbox.lowest(lane) or last_seq + 1, *self._undurable[lane])
        return wire.LaneRange(lane=lane, first_seq=min(held), last_seq=last_seq)

    def _welcomed(self, welcome: wire.Welcome) -> LinkWatch:
        now_s = self._clock.now().monotonic_s
        for ack in welcome.acked:
            self.spool.delete(ack.lane, self.outbox.acked(ack))
        self.outbox.window_bytes = welcome.window_bytes or FIRST_WINDOW_BYTES
        # What the last session found out of the link is where this one begins.
        first = min(max(self.pace.window_bytes, Pace().window_bytes), 256.0 * 1024)
        self.pace = Pace(window_bytes=first, most_bytes=float(self.outbox.window_bytes))
        if not self.state.connected:  # a session that took over from another is no news
            self._on_link(True, "")
        self.state.connected, self.state.since_s = True, now_s
        self.state.sessions_total += 1
        self.on_controller_clock(welcome.wall_clock_unix_ms / 1000.0)
        if welcome.inventory_wanted:
            self._inventory_wanted()
        if welcome.HasField("plan"):
            self._on_plan(welcome.plan)
        heartbeat_s = min(max(0.2, welcome.heartbeat_ms / 1000.0), 30.0)
        return LinkWatch(heartbeat_s, min(max(1.0, welcome.dead_after_ms / 1000.0), 120.0), now_s)

    async def _read(self, stream: Stream, watch: LinkWatch) -> tuple[float, str]:
        while True:
            response = await stream.read()
            if not isinstance(response, wire.SessionResponse):
                return 0.0, "the controller closed the stream"
            watch.heard(self._clock.now().monotonic_s)
            match response.WhichOneof("kind"):
                case "acks":
                    self._acked(response.acks)
                case "plan":
                    self._on_plan(response.plan)
                case "heartbeat":
                    watch.peer_monotonic_ms = response.heartbeat.monotonic_ms
                    self._on_heartbeat(response.heartbeat)
                case "goaway":
                    return response.goaway.retry_after_ms / 1000.0, f"{response.goaway.code}: {response.goaway.message}"
                case _:
                    pass

    def _acked(self, acks: wire.LaneAcks) -> None:
        now_s = self._clock.now().monotonic_s
        self.pace.received(acks.received_bytes, now_s)
        for ack in acks.lanes:
            done = self.outbox.acked(ack)
            self.state.records_acked_total += len(done)
            self.spool.delete(ack.lane, done)
            if ack.lane == wire.LANE_DEVICES:
                for seq in sorted(set(done) & self._tables.keys()):
                    self.state.device_ack_s = now_s - self._tables.pop(seq)
        self._more.set()

    async def _write(self, stream: Stream, watch: LinkWatch) -> tuple[float, str]:
        while True:
            now_s = self._clock.now().monotonic_s
            if watch.dead(now_s):
                return 0.0, f"nothing heard for {watch.dead_after_s:.0f} s"
            if watch.due(now_s):
                beat = wire.Heartbeat(monotonic_ms=round(now_s * 1000), echo_monotonic_ms=watch.peer_monotonic_ms)
                await self._put(stream, wire.SessionRequest(heartbeat=beat))
            self._more.clear()
            if self.pace.may_send(PART_BYTES if self.pace.slow else 1) and await self._send_next(stream):
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(watch.heartbeat_s / 2):
                    await self._more.wait()

    async def _send_next(self, stream: Stream) -> bool:
        """One record, or one part of one; False when nothing waits that may go now."""
        now_s = self._clock.now().monotonic_s
        above = self._cut[-1].pending.lane if self._cut else None
        record = self.outbox.take(backlog=self._backlog.has(now_s), above=above)
        if record is not None:
            body = await self._fetch(record)
            if body is None:
                self.outbox.forget(record.lane, (record.seq,))
                return True
            if record.backlog:
                self._backlog.took(record.size)
            self._cut.append(_Cut(record, body))
        if not self._cut:
            return False
        cut = self._cut[-1]
        piece = cut.next(PART_BYTES if self.pace.slow else len(cut.body.payload))
        if cut.done:
            self._cut.pop()
            self.state.records_sent_total += 1
        self.pace.sent(len(piece.payload), now_s)
        await self._put(stream, wire.SessionRequest(batch=wire.LaneBatch(lane=cut.pending.lane, records=[piece])))
        return True

    async def _fetch(self, record: Pending) -> wire.LaneRecord | None:
        try:
            async with asyncio.timeout(FETCH_DEADLINE_S):
                return await asyncio.wrap_future(self.spool.fetch(record))
        except TimeoutError:
            raise SpoolError(f"the spool gave no record for {FETCH_DEADLINE_S:.0f} s; check the disk") from None

    async def _put(self, stream: Stream, request: wire.SessionRequest) -> None:
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await stream.write(request)


class _Cut:
    """A record on its way out, piece by piece; the size of its pieces is fixed by the first."""

    def __init__(self, pending: Pending, body: wire.LaneRecord) -> None:
        self.pending, self.body = pending, body
        self._piece_bytes = 0
        self._part = 0

    @property
    def done(self) -> bool:
        """Whether its last piece was taken."""
        return self._part * self._piece_bytes >= max(1, len(self.body.payload)) and self._part > 0

    def next(self, piece_bytes: int) -> wire.LaneRecord:
        """The next piece."""
        self._piece_bytes = self._piece_bytes or max(1, piece_bytes)
        payload, start = self.body.payload, self._part * self._piece_bytes
        parts = -(-len(payload) // self._piece_bytes) or 1
        piece = wire.LaneRecord(
            seq=self.body.seq,
            spooled_at_unix_ms=self.body.spooled_at_unix_ms,
            kind=self.body.kind,
            payload=payload[start : start + self._piece_bytes],
            part=self._part,
            parts=parts,
            thinned=self.body.thinned,
        )
        self._part += 1
        return piece
