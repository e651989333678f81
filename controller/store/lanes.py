"""What sites send, made durable: lane cursors, site events, roll-ups, inventories.

Delivery is at least once; the identity (site, boot_id, lane, seq) makes storage effectively once. All records of all
sites that arrive within one group are written by a handful of statements. Device reports move only their cursor:
their history lives at the site.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controller.store import schema
from controller.store.energy import EnergyStore, SiteEnergy
from controller.store.writer import Writer
from gridpivot.clock import Clock
from gridpivot.link.cursors import LaneCursor
from gridpivot.v1 import session_pb2 as session
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import EventKind

Key = tuple[str, bytes, int]  # site, boot id, lane
# What is done at a site by hand goes into the audit too.
LOCAL_ACTIONS = {EventKind.LOCAL_ORDER.value: "local-order", EventKind.LOCAL_RELEASE.value: "local-release"}
Message = pb.SiteEvent | pb.SiteRollup | pb.DeviceReport | pb.Inventory


@dataclass(frozen=True, slots=True)
class Arrival:
    """One record as it came. `message` None: its payload could not be read; it moves the cursor and nothing else."""

    seq: int
    message: Message | None


# Cursors; records fresh, repeated, lost; energy by site and ledger.
_Written = tuple[dict[Key, LaneCursor], int, int, int, dict[tuple[str, bytes], tuple[SiteEnergy, int]]]


@dataclass(slots=True)
class _Batch:
    seqs: dict[Key, list[int]] = field(default_factory=lambda: defaultdict(list))
    let_go: dict[Key, int] = field(default_factory=dict)
    rows: dict[Table, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    inventories: dict[str, dict[str, Any]] = field(default_factory=dict)
    energy: dict[tuple[str, bytes], tuple[SiteEnergy, int]] = field(default_factory=dict)
    done: asyncio.Future[_Written] | None = None


class LaneStore:
    """Appends records and answers how far each lane is committed."""

    def __init__(self, writer: Writer, readers: AsyncEngine, clock: Clock) -> None:
        self._writer, self._readers, self._clock = writer, readers, clock
        self._cursors: dict[Key, LaneCursor] = {}
        self._batch: _Batch | None = None
        self.energy = EnergyStore(readers)
        self.records_committed = 0
        self.records_repeated = 0
        self.records_lost = 0

    async def append(
        self, site: str, boot_id: bytes, lane: session.Lane.ValueType, records: Sequence[Arrival]
    ) -> LaneCursor:
        """Make records durable; resolves after the group's commit with the lane's cursor: what may be acknowledged."""
        key = (site, boot_id, int(lane))
        await self._known(key)
        batch = self._open_batch()
        batch.seqs[key].extend(record.seq for record in records)
        for record in records:
            self._add(batch, key, record)
        assert batch.done is not None
        await asyncio.shield(batch.done)
        return self._cursors[key]

    async def let_go(self, site: str, boot_id: bytes, lane: session.Lane.ValueType, first_seq: int) -> LaneCursor:
        """The site no longer holds records before `first_seq`; those that never came are counted as lost."""
        key = (site, boot_id, int(lane))
        await self._known(key)
        if self._cursors[key].through_seq >= first_seq - 1:
            return self._cursors[key]
        batch = self._open_batch()
        batch.let_go[key] = max(first_seq, batch.let_go.get(key, 0))
        assert batch.done is not None
        await asyncio.shield(batch.done)
        return self._cursors[key]

    async def acked_through(self, site: str, boot_id: bytes) -> dict[int, LaneCursor]:
        """Committed cursors of one boot of a site, by lane; lanes never heard of are absent."""
        table = schema.lane_cursors
        query = select(table).where(table.c.site == site, table.c.boot_id == boot_id)
        async with self._readers.connect() as connection:
            rows = (await connection.execute(query)).all()
        return {row.lane: LaneCursor(row.through_seq, tuple(json.loads(row.also_seqs))) for row in rows}

    async def inventory(self, site: str) -> pb.Inventory | None:
        """Newest inventory of a site, if it ever sent one."""
        table = schema.inventories
        async with self._readers.connect() as connection:
            payload = (await connection.execute(select(table.c.payload).where(table.c.site == site))).scalar()
        return None if payload is None else pb.Inventory.FromString(payload)

    async def events(self, site: str, limit: int = 50) -> list[pb.SiteEvent]:
        """Newest events of a site, newest last."""
        table = schema.site_events
        query = select(table.c.payload).where(table.c.site == site)
        query = query.order_by(table.c.occurred_at_unix_ms.desc(), table.c.seq.desc()).limit(limit)
        async with self._readers.connect() as connection:
            payloads = (await connection.execute(query)).scalars().all()
        return [pb.SiteEvent.FromString(p) for p in reversed(payloads)]

    async def _known(self, key: Key) -> None:
        if key not in self._cursors:
            stored = await self.acked_through(key[0], key[1])
            # A commit may have passed us while we read; what it left in the cache is newer.
            self._cursors.setdefault(key, stored.get(key[2], LaneCursor()))

    def _open_batch(self) -> _Batch:
        if self._batch is None:
            self._batch = _Batch()
            self._batch.done = asyncio.ensure_future(self._writer.submit(self._write, on_commit=self._written))
            self._batch.done.add_done_callback(partial(self._ended, self._batch))
        return self._batch

    def _ended(self, batch: _Batch, done: asyncio.Future[_Written]) -> None:
        """A group whose transaction never began was not taken by `_write`: nobody may join what has failed already."""
        if self._batch is batch:
            self._batch = None
        if not done.cancelled():
            done.exception()  # every appender sees it; without this a group whose appenders all left would warn

    def _add(self, batch: _Batch, key: Key, record: Arrival) -> None:
        message = record.message
        identity = {"site": key[0], "boot_id": key[1], "lane": key[2], "seq": record.seq}
        if isinstance(message, pb.SiteEvent):
            row = {"occurred_at_unix_ms": message.occurred_at_unix_ms, "kind": message.kind[:64]}
            batch.rows[schema.site_events].append(identity | row | {"payload": message.SerializeToString()})
            if message.kind in LOCAL_ACTIONS:
                batch.rows[schema.audit].append(_audit_row(key, record.seq, message))
        elif isinstance(message, pb.SiteRollup):
            row = {
                "observed_at_unix_ms": message.observed_at_unix_ms,
                "metered_power_w": message.metered_power_w if message.HasField("metered_power_w") else None,
                "plan_epoch": message.plan_epoch,
                "plan_version": message.plan_version,
            }
            batch.rows[schema.rollups].append(identity | row | {"payload": message.SerializeToString()})
            self.energy.note(batch.energy, key[0], message)
        elif isinstance(message, pb.Inventory):
            batch.inventories[key[0]] = {
                "site": key[0],
                "inventory_hash": message.inventory_hash,
                "taken_at_unix_ms": self._clock.now().unix_ms,
                "payload": message.SerializeToString(),
            }

    async def _write(self, connection: AsyncConnection) -> _Written:
        batch, self._batch = self._batch, None
        assert batch is not None
        cursors: dict[Key, LaneCursor] = {}
        fresh = repeated = lost = 0
        for key, first_seq in batch.let_go.items():
            cursors[key], gone = self._cursors[key].let_go_below(first_seq)
            lost += gone
        for key, seqs in batch.seqs.items():
            cursor = cursors.get(key, self._cursors[key])
            new = sum(not cursor.holds(seq) for seq in set(seqs))
            fresh, repeated = fresh + new, repeated + len(seqs) - new
            cursors[key] = cursor.after(seqs, may_let_go=key[2] == session.LANE_DEVICES)
        for table, rows in batch.rows.items():
            await connection.execute(insert(table).on_conflict_do_nothing(), rows)
        if batch.inventories:
            await _upsert(connection, schema.inventories, ("site",), list(batch.inventories.values()))
        await self.energy.write(connection, batch.energy)
        now_ms = self._clock.now().unix_ms
        rows = [
            {
                "site": site,
                "boot_id": boot_id,
                "lane": lane,
                "through_seq": cursor.through_seq,
                "also_seqs": json.dumps(cursor.also_seqs),
                "updated_at_unix_ms": now_ms,
            }
            for (site, boot_id, lane), cursor in cursors.items()
        ]
        if rows:
            await _upsert(connection, schema.lane_cursors, ("site", "boot_id", "lane"), rows)
        return cursors, fresh, repeated, lost, batch.energy

    def _written(self, result: _Written) -> None:
        cursors, fresh, repeated, lost, energy = result
        self.energy.written(energy)
        self._cursors.update(cursors)
        self.records_committed += fresh
        self.records_repeated += repeated
        self.records_lost += lost


def _audit_row(key: Key, seq: int, event: pb.SiteEvent) -> dict[str, Any]:
    """What somebody ordered at a site, as an audit record of the moment it was ordered; the same record, once."""
    site, boot_id, lane = key
    identity = hashlib.sha256(f"{site}\0{boot_id.hex()}\0{lane}\0{seq}".encode()).hexdigest()[:16]
    figures = {name: value for name, value in event.figures.items() if math.isfinite(value)}
    return {
        "audit_id": f"audit-{max(0, event.occurred_at_unix_ms):013d}-{identity}"[:64],
        "at_unix_ms": event.occurred_at_unix_ms,
        "actor": f"{event.actor[:64] or 'agent'}@{site}",
        "role": "site",
        "origin": site,
        "action": LOCAL_ACTIONS[event.kind],
        "reason": event.message[:1000],
        "idempotency_key": None,
        "request": json.dumps({"site": site, "order_id": event.order_id[:128], **figures}),
        "response": "{}",
    }


async def _upsert(connection: AsyncConnection, table: Table, key: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    statement = insert(table)
    others = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in key}
    await connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=others), rows)
