"""One live session with a site, from the welcome to the end: read, commit, speak, pass plans on.

Read applies records to the live tables and queues them for the store; commit stores and then acknowledges; speak sends
heartbeats, acknowledgements and plans. A site that sends faster than the store commits waits at its own stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import grpc
import structlog

from controller.fleet.tables import SiteLive, Took
from controller.link.assembly import Assembly
from controller.store.energy import energy_of
from controller.store.lanes import Arrival
from controller.store.store import Store
from controller.store.writer import StoreClosed
from gridpivot import __version__
from gridpivot.clock import Clock, Instant
from gridpivot.errors import BadReport, GridpivotError
from gridpivot.link.codec import decode_payload, unpacked_bytes
from gridpivot.link.cursors import LaneCursor
from gridpivot.link.heartbeat import LinkWatch
from gridpivot.link.lanes import LANES, Lane
from gridpivot.link.peer import Certified
from gridpivot.v1 import plan_pb2
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import GoawayCode

log = structlog.get_logger("controller.link")

WRITE_DEADLINE_S = 10.0
STORE_RETRY_S = 1.0  # besides what the database itself waits for a lock
MOST_QUEUED_BATCHES = 256
# A commit carries records of all sites; one number that the database cannot hold would fail it for all of them.
HIGHEST_NUMBER = 2**63 - 1
MOST_QUEUED_BYTES = 16 * 2**20  # of one site, waiting for the store; beyond it the stream is not read
UNPACKED_AT_ONCE_BYTES = 2**20  # of one site, before the other sites have their turn
TELL_EVERY_BYTES = 4 * 1024
TOOK_OVER = "a newer session of the same agent took over"
Context = grpc.aio.ServicerContext[wire.SessionRequest, wire.SessionResponse]


class Board(Protocol):
    """Where plans come from and statuses go."""

    def current(self, site: str) -> plan_pb2.SignedPlan | None:
        """Plan in force."""
        ...

    def subscribe(self, site: str) -> asyncio.Queue[plan_pb2.SignedPlan]:
        """New plans of a site, newest last."""
        ...

    def note_status(self, site: str, status: pb.PlanStatus, now: Instant) -> Awaitable[None] | None:
        """A site said what became of a plan."""
        ...


@dataclass(frozen=True, slots=True)
class LinkTiming:
    """Heartbeats and windows."""

    heartbeat_ms: int
    dead_after_ms: int
    window_bytes: int


@dataclass(slots=True)
class LinkCounters:
    """For metrics."""

    sessions_total: int = 0
    refused_total: dict[str, int] = field(default_factory=dict)
    ended_total: dict[str, int] = field(default_factory=dict)  # live sessions, by the word of the goaway
    records_total: dict[int, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    let_go_total: dict[int, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))  # thinned or dropped by sites
    bad_records_total: int = 0
    bytes_total: int = 0


class Ended(Exception):
    """The session is over; carries the goaway to send."""

    def __init__(self, code: GoawayCode, message: str, retry_after_ms: int) -> None:
        super().__init__(message)
        self.goaway = wire.Goaway(code=code, message=message, retry_after_ms=retry_after_ms)


def unwelcome(code: GoawayCode, site: str) -> Ended:
    """The goodbye for a certificate that may not speak (any more)."""
    if code is GoawayCode.EXPIRED:
        text = f"the certificate of {site} has run out; the agent asks to come back, and an admin approves it"
    else:
        text = f"the certificate of {site} was revoked; enrol the site again with a new token"
    return Ended(code, text, 30_000)


class Owner(Protocol):
    """What a session needs of the servicer that it belongs to."""

    counters: LinkCounters
    on_plan_seen: Callable[[str, int, int], Awaitable[None]] | None

    def refusal_of(self, peer: Certified) -> GoawayCode | None:
        """Why a certificate may not speak now."""
        ...


class LiveSession:
    """One live session."""

    def __init__(
        self,
        owner: Owner,
        context: Context,
        hello: wire.Hello,
        peer: Certified,
        live: SiteLive,
        store: Store,
        board: Board,
        timing: LinkTiming,
        clock: Clock,
    ) -> None:
        self._owner, self._context, self.hello, self.peer, self.live = owner, context, hello, peer, live
        self._over = asyncio.Event()
        self._store, self._board, self._timing, self._clock = store, board, timing, clock
        self._queue: asyncio.Queue[tuple[Lane, list[Arrival], int]] = asyncio.Queue(MOST_QUEUED_BATCHES)
        self._out: asyncio.Queue[wire.SessionResponse] = asyncio.Queue()
        self._watch = LinkWatch(timing.heartbeat_ms / 1000.0, timing.dead_after_ms / 1000.0, clock.now().monotonic_s)
        self._plan_identity: tuple[int, int] = (0, 0)
        self._assembly = Assembly()
        self._received_bytes = self._told_bytes = 0
        self._queued_bytes = 0
        self._drained = asyncio.Event()
        self._tasks: list[asyncio.Task[str]] = []
        self._unwelcome = self._gives_way = False

    def end(self, end: Ended) -> None:
        """Say goodbye and stop."""
        ended, code = self._owner.counters.ended_total, end.goaway.code
        ended[code] = ended.get(code, 0) + 1
        self._out.put_nowait(wire.SessionResponse(goaway=end.goaway))

    async def give_way(self) -> None:
        """A newer session of the same agent is here: stop, with what was queued committed or to be sent again."""
        self._gives_way = True
        for task in self._tasks:
            task.cancel()
        await self._over.wait()

    async def run(self) -> str:
        """Welcome, then serve until something ends; returns why."""
        try:
            return await self._run()
        finally:
            self._over.set()

    async def _run(self) -> str:
        now = self._clock.now()
        self.live.note_connected(self.hello.agent_version, self.hello.wall_clock_unix_ms, now)
        plans = self._board.subscribe(self.live.name)
        seen = self.hello.plan_epoch, self.hello.plan_version
        if self._owner.on_plan_seen is not None and min(seen) > 0 and max(seen) <= HIGHEST_NUMBER:
            await self._owner.on_plan_seen(self.live.name, *seen)
        tasks = self._tasks
        try:
            try:
                welcome = await self._welcome(now)
            except GridpivotError as error:
                later = Ended(GoawayCode.OVERLOADED, "the controller's store does not answer", 5_000)
                await self._write(wire.SessionResponse(goaway=later.goaway))
                return str(error)
            await self._write(wire.SessionResponse(welcome=welcome))
            if self._gives_way:
                return TOOK_OVER
            tasks += [
                asyncio.create_task(part, name=f"{name} {self.live.name}")
                for name, part in (
                    ("read", self._read()),
                    ("commit", self._commit()),
                    ("speak", self._speak()),
                    ("plans", self._pass_plans(plans)),
                )
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            first = next(iter(done))
            return TOOK_OVER if first.cancelled() else first.result()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, TimeoutError, asyncio.InvalidStateError) as error:
            return f"stream broke: {error!r}"
        except GridpivotError as error:
            return str(error)
        except Exception as error:
            log.exception("session failed", site=self.live.name)
            return f"{type(error).__name__}: {error}"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _welcome(self, now: Instant) -> wire.Welcome:
        acked = []
        site, boot_id = self.live.name, self.hello.boot_id
        before = await self._store.acked_through(site, boot_id)
        for held in self.hello.spool:
            if held.lane in LANES:
                gone = before.get(held.lane, LaneCursor()).let_go_below(held.first_seq)[1]
                self._note_let_go(held.lane, gone)
                cursor = await self._store.let_go(site, boot_id, held.lane, held.first_seq)
                acked.append(_ack(held.lane, cursor))
        if not self.live.inventory_hash:
            stored = await self._store.lanes.inventory(self.live.name)
            if stored is not None and stored.inventory_hash == self.hello.inventory_hash:
                self.live.take_inventory(stored)
        plan = self._board.current(self.live.name)
        self._name_plan(plan)
        return wire.Welcome(
            controller_version=__version__,
            acked=acked,
            plan=plan,
            heartbeat_ms=self._timing.heartbeat_ms,
            dead_after_ms=self._timing.dead_after_ms,
            window_bytes=self._timing.window_bytes,
            wall_clock_unix_ms=now.unix_ms,
            inventory_wanted=self.live.inventory_hash != self.hello.inventory_hash,
        )

    def _note_let_go(self, lane: Lane, count: int) -> None:
        """What the spool no longer holds and never sent: on purpose, except for events."""
        if not count:
            return
        self._owner.counters.let_go_total[lane] += count
        if lane == wire.LANE_EVENTS:
            log.error("events lost", site=self.live.name, records=count)
        else:
            log.info("records thinned by the site", site=self.live.name, lane=wire.Lane.Name(lane), records=count)

    def _name_plan(self, signed: plan_pb2.SignedPlan | None) -> None:
        if signed is not None:
            plan = plan_pb2.Plan.FromString(signed.plan)
            self._plan_identity = (plan.epoch, plan.version)

    async def _read(self) -> str:
        while True:
            request: object = await self._context.read()
            if not isinstance(request, wire.SessionRequest):
                return "the agent closed the stream"
            now = self._clock.now()
            self._watch.heard(now.monotonic_s)
            self.live.note_heard(now)
            match request.WhichOneof("kind"):
                case "batch":
                    await self._take(request.batch, now)
                case "heartbeat":
                    self._watch.peer_monotonic_ms = request.heartbeat.monotonic_ms
                case _:
                    self.end(Ended(GoawayCode.PROTOCOL_ERROR, "hello twice, or an unknown message", 5_000))

    async def _take(self, batch: wire.LaneBatch, now: Instant) -> None:
        if batch.lane not in LANES:
            self.end(Ended(GoawayCode.PROTOCOL_ERROR, f"lane {batch.lane} is unknown", 30_000))
            return
        counters = self._owner.counters
        if not all(0 < record.seq <= HIGHEST_NUMBER for record in batch.records):
            self.end(Ended(GoawayCode.PROTOCOL_ERROR, "sequence numbers run from 1 to 2^63 - 1", 30_000))
            return
        size = sum(len(part.payload) for part in batch.records)
        counters.bytes_total += size
        self._received_bytes += size
        arrivals: list[Arrival] = []
        weight = unpacked = 0
        for part in batch.records:
            try:
                record = self._assembly.add(batch.lane, part)
            except BadReport as error:
                self.end(Ended(GoawayCode.PROTOCOL_ERROR, str(error), 30_000))
                return
            if record is None:
                continue
            counters.records_total[batch.lane] += 1
            message = self._apply(record, now)
            # The store has no use for a table; waiting for the commit with it would only keep it in memory.
            kept = None if isinstance(message, pb.DeviceReport) else message
            arrivals.append(Arrival(record.seq, kept))
            weight += len(record.payload) if kept is None else max(len(record.payload), kept.ByteSize())
            unpacked += unpacked_bytes(record.payload)
            if max(weight, unpacked) >= UNPACKED_AT_ONCE_BYTES:
                await self._enqueue(batch.lane, arrivals, weight)
                arrivals, weight, unpacked = [], 0, 0
                await asyncio.sleep(0)
        if arrivals:
            await self._enqueue(batch.lane, arrivals, weight)
        if self._received_bytes - self._told_bytes >= TELL_EVERY_BYTES:
            self._out.put_nowait(wire.SessionResponse(acks=self._acks([])))

    async def _enqueue(self, lane: Lane, arrivals: list[Arrival], size: int) -> None:
        """Hand over to the store; a site that sends faster than it commits waits here, and its stream with it."""
        while self._queued_bytes > MOST_QUEUED_BYTES:
            self._drained.clear()
            await self._drained.wait()
        self._queued_bytes += size
        await self._queue.put((lane, arrivals, size))

    def _acks(self, lanes: list[wire.LaneAck]) -> wire.LaneAcks:
        self._told_bytes = self._received_bytes
        return wire.LaneAcks(lanes=lanes, received_bytes=self._received_bytes)

    def _apply(
        self, record: wire.LaneRecord, now: Instant
    ) -> pb.SiteEvent | pb.SiteRollup | pb.DeviceReport | pb.Inventory | None:
        """Decode a record into the live tables; what contradicts the contract is counted and changes nothing."""
        try:
            message = decode_payload(record.kind, record.payload)
            if record.thinned and isinstance(message, pb.SiteRollup):
                message.thinned = True
            match message:
                case pb.Inventory():
                    self.live.take_inventory(message)
                case pb.SiteRollup():
                    if max(message.plan_epoch, message.plan_version) > HIGHEST_NUMBER:
                        raise BadReport("plan numbers past 2^63")
                    if message.HasField("energy"):
                        energy_of(message.energy)
                    self.live.take_rollup(message, now)
                case pb.DeviceReport():
                    if self.live.take_report(message, now) is Took.UNKNOWN_INVENTORY:
                        log.debug("report for another inventory", site=self.live.name)
                case pb.SiteEvent() if message.HasField("plan_status"):
                    noted = self._board.note_status(self.live.name, message.plan_status, now)
                    if noted is not None:
                        asyncio.ensure_future(noted)  # noqa: RUF006 - the board keeps its own tasks
                case pb.SiteEvent():
                    log.info("site event", site=self.live.name, kind=message.kind, message=message.message)
                case _:
                    return None
        except BadReport as error:
            self._owner.counters.bad_records_total += 1
            log.warning("bad record", site=self.live.name, error=str(error))
            return None
        except Exception as error:
            # Not acknowledged it would come back with every session: nothing that a site sends may stop its lane.
            self._owner.counters.bad_records_total += 1
            log.exception("record not understood", site=self.live.name, kind=record.kind, error=repr(error))
            return None
        return message

    async def _commit(self) -> str:
        """Store what arrived, lane by lane, and acknowledge after the commit."""
        while True:
            lanes: dict[Lane, list[Arrival]] = {}
            lane, arrivals, taken = await self._queue.get()
            lanes.setdefault(lane, []).extend(arrivals)
            while not self._queue.empty():
                lane, arrivals, size = self._queue.get_nowait()
                lanes.setdefault(lane, []).extend(arrivals)
                taken += size
            site, boot_id = self.live.name, self.hello.boot_id
            cursors = await asyncio.gather(
                *(self._stored(site, boot_id, lane, arrivals) for lane, arrivals in lanes.items())
            )
            acks = [
                _ack(lane, cursor, arrivals) for (lane, arrivals), cursor in zip(lanes.items(), cursors, strict=True)
            ]
            self._queued_bytes -= taken
            self._drained.set()
            self._out.put_nowait(wire.SessionResponse(acks=self._acks(acks)))

    async def _stored(self, site: str, boot_id: bytes, lane: Lane, arrivals: list[Arrival]) -> LaneCursor:
        """Append, however long the store refuses: what is not acknowledged waits here, bounded, and the session lives on,
        since plans and heartbeats must not wait for a disk."""
        said = ""
        while True:
            try:
                cursor = await self._store.append(site, boot_id, lane, arrivals)
            except StoreClosed:
                raise
            except GridpivotError as error:
                if not said:
                    log.warning(
                        "records wait for the store", site=site, lane=wire.Lane.Name(lane), why=str(error)[:300]
                    )
                said = str(error)
                await asyncio.sleep(STORE_RETRY_S)
                continue
            if said:
                log.info("the store takes records again", site=site, lane=wire.Lane.Name(lane))
            return cursor

    async def _pass_plans(self, plans: asyncio.Queue[plan_pb2.SignedPlan]) -> str:
        while True:
            signed = await plans.get()
            while not plans.empty():
                signed = plans.get_nowait()
            self._name_plan(signed)
            self._out.put_nowait(wire.SessionResponse(plan=signed))

    async def _speak(self) -> str:
        while True:
            now_s = self._clock.now().monotonic_s
            if self._watch.dead(now_s):
                return f"nothing heard for {self._watch.dead_after_s:.0f} s"
            refusal = self._owner.refusal_of(self.peer)
            if refusal is not None and not self._unwelcome:
                self._unwelcome = True
                self.end(unwelcome(refusal, self.live.name))
            if self._watch.due(now_s):
                epoch, version = self._plan_identity
                beat = wire.Heartbeat(
                    monotonic_ms=round(now_s * 1000),
                    echo_monotonic_ms=self._watch.peer_monotonic_ms,
                    plan_epoch=epoch,
                    plan_version=version,
                )
                await self._write(wire.SessionResponse(heartbeat=beat))
            try:
                async with asyncio.timeout(self._watch.heartbeat_s / 2):
                    response = await self._out.get()
            except TimeoutError:
                if self._received_bytes != self._told_bytes:
                    await self._write(wire.SessionResponse(acks=self._acks([])))
                continue
            await self._write(response)
            if response.HasField("goaway"):
                return f"{response.goaway.code}: {response.goaway.message}"

    async def _write(self, response: wire.SessionResponse) -> None:
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await self._context.write(response)


def _ack(lane: Lane, cursor: LaneCursor, arrivals: list[Arrival] | None = None) -> wire.LaneAck:
    """Cumulative acknowledgement, with the single records above the watermark that were just committed."""
    just_now = cursor.also_seqs if arrivals is None else [a.seq for a in arrivals if a.seq > cursor.through_seq]
    return wire.LaneAck(lane=lane, through_seq=cursor.through_seq, also_seqs=just_now)
