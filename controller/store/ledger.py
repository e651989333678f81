"""What the controller decided and was told, made durable: epochs, decisions, plans, statuses, orders, audit.

Every plan is written with the decision it came from before it leaves, so that no command is without a record, and a
decision can be replayed from its inputs.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import zstandard
from sqlalchemy import func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controller.store import schema
from controller.store.writer import Writer
from gridpivot.clock import Clock, Instant
from gridpivot.errors import Refused
from gridpivot.v1 import plan_pb2
from gridpivot.v1 import telemetry_pb2 as pb


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who asked for what, and why. `request` and `response` are JSON texts without secrets."""

    actor: str
    action: str
    reason: str
    request: str
    response: str
    idempotency_key: str = ""
    role: str = ""
    origin: str = ""
    audit_id: str = ""  # known once it is recorded
    at_unix_ms: int = 0


@dataclass(frozen=True, slots=True)
class Audited:
    """The record that stands: a new one, or (`repeated`) the one that an earlier request with this key left."""

    audit_id: str
    response: str
    repeated: bool


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One run of dispatch. `inputs` and `outcome` are JSON values as `pack` makes them; `unpack` reads them."""

    decision_id: str
    decided_at: Instant
    trigger: str
    objective_usd: float | None
    inputs: bytes
    outcome: bytes
    start: bytes | None = None  # what the solver started from; None = nothing was solved
    rung: str | None = None  # None = recorded before rungs were


@dataclass(frozen=True, slots=True)
class DecisionLine:
    """One run of dispatch without its state: for a list."""

    decision_id: str
    decided_at_unix_ms: int
    trigger: str
    rung: str | None  # None = recorded before rungs were
    objective_usd: float | None
    plans: int


@dataclass(frozen=True, slots=True)
class OrderRow:
    """A grid event or an override as stored; `payload` is JSON of `events.windows.Order`."""

    order_id: str
    kind: str
    created_at_unix_ms: int
    released_at_unix_ms: int | None
    payload: str


def new_id(prefix: str, now: Instant) -> str:
    """An identity that sorts by time: prefix, milliseconds, 8 random hex digits."""
    return f"{prefix}-{now.unix_ms:013d}-{secrets.token_hex(4)}"


def pack(value: Any) -> bytes:
    """zstd frame of a JSON value, or of dataclasses as one; a decision of forty sites takes about 20 ms."""
    return zstandard.compress(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), 3)


def unpack(blob: bytes) -> Any:
    """JSON value of a zstd frame."""
    return json.loads(zstandard.ZstdDecompressor().decompress(blob))


class Ledger:
    """Writes through the one writer, reads on connections of its own."""

    def __init__(self, writer: Writer, readers: AsyncEngine, clock: Clock) -> None:
        self._writer, self._readers, self._clock = writer, readers, clock

    async def next_epoch(self, above: int = 0) -> int:
        """A planner epoch above every earlier one, and above `above`; durable before it is returned."""

        async def change(connection: AsyncConnection) -> int:
            table = schema.planner
            known = (await connection.execute(select(table.c.epoch))).scalar()
            # Plans outlive a lost planner row (a partial restore); an epoch must not go back even then.
            used = (await connection.execute(select(func.max(schema.plans.c.epoch)))).scalar()
            epoch = max(known or 0, used or 0, above) + 1
            statement = upsert(table).values(planner_id=1, epoch=epoch)
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["planner_id"], set_={"epoch": epoch})
            )
            return epoch

        return await self._writer.submit(change, hurry=True)

    async def record_decision(self, decision: DecisionRecord, plans: Sequence[plan_pb2.SignedPlan]) -> None:
        """A decision and its plans, in one transaction. Raises IntegrityError if a plan's version was used before."""
        row = {
            "decision_id": decision.decision_id,
            "decided_at_unix_ms": decision.decided_at.unix_ms,
            "trigger": decision.trigger,
            "objective_usd": decision.objective_usd,
            "inputs": decision.inputs,
            "outcome": decision.outcome,
            "start": decision.start,
            "rung": decision.rung,
        }
        rows = [_plan_row(signed, decision.decision_id) for signed in plans]

        async def change(connection: AsyncConnection) -> None:
            await connection.execute(insert(schema.decisions), [row])
            if rows:
                await connection.execute(insert(schema.plans), rows)

        await self._writer.submit(change, hurry=True)

    async def decision(self, decision_id: str) -> DecisionRecord | None:
        """One decision with its inputs, as recorded."""
        query = select(schema.decisions).where(schema.decisions.c.decision_id == decision_id)
        async with self._readers.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        return _decision(row)

    async def decision_times(self, since_unix_ms: int, until_unix_ms: int) -> list[tuple[int, str]]:
        """When [ms] and under which identity decisions of [since, until) were taken, oldest first."""
        table = schema.decisions
        query = select(table.c.decided_at_unix_ms, table.c.decision_id).where(
            table.c.decided_at_unix_ms >= since_unix_ms, table.c.decided_at_unix_ms < until_unix_ms
        )
        async with self._readers.connect() as connection:
            rows = (await connection.execute(query.order_by(table.c.decided_at_unix_ms))).all()
        return [(row.decided_at_unix_ms, row.decision_id) for row in rows]

    async def decision_lines(self, limit: int) -> list[DecisionLine]:
        """The newest decisions with the number of plans that each sent out, newest last."""
        table, plans = schema.decisions, schema.plans
        sent = select(func.count()).where(plans.c.decision_id == table.c.decision_id).scalar_subquery()
        columns = (
            table.c.decision_id,
            table.c.decided_at_unix_ms,
            table.c.trigger,
            table.c.rung,
            table.c.objective_usd,
        )
        query = select(*columns, sent.label("plans"))
        query = query.order_by(table.c.decided_at_unix_ms.desc(), table.c.decision_id.desc()).limit(limit)
        async with self._readers.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [DecisionLine(*row) for row in reversed(rows)]

    async def plans_of(self, decision_id: str) -> list[bytes]:
        """The exact bytes of the plans that a decision sent out, by site."""
        table = schema.plans
        query = select(table.c.plan).where(table.c.decision_id == decision_id).order_by(table.c.site)
        async with self._readers.connect() as connection:
            return [row.plan for row in (await connection.execute(query)).all()]

    async def last_plans(self) -> dict[str, plan_pb2.SignedPlan]:
        """Newest plan of every site."""
        table = schema.plans
        rank = func.row_number().over(
            partition_by=table.c.site, order_by=(table.c.epoch.desc(), table.c.version.desc())
        )
        ranked = select(table, rank.label("rank")).subquery()
        async with self._readers.connect() as connection:
            rows = (await connection.execute(select(ranked).where(ranked.c.rank == 1))).all()
        return {
            row.site: plan_pb2.SignedPlan(plan=row.plan, signature=row.signature, key_id=row.key_id) for row in rows
        }

    async def record_status(self, site: str, status: pb.PlanStatus, heard_at: Instant) -> None:
        """What a site said about a plan."""
        row = {
            "site": site,
            "epoch": status.epoch,
            "version": status.version,
            "heard_at_unix_ms": heard_at.unix_ms,
            "status": status.status[:32],
            "payload": status.SerializeToString(),
        }

        async def change(connection: AsyncConnection) -> None:
            await connection.execute(insert(schema.plan_statuses), [row])

        await self._writer.submit(change)

    async def statuses(self, site: str, limit: int = 20) -> list[pb.PlanStatus]:
        """Newest statuses of a site, newest last."""
        table = schema.plan_statuses
        query = select(table.c.payload).where(table.c.site == site).order_by(table.c.status_id.desc()).limit(limit)
        async with self._readers.connect() as connection:
            payloads = (await connection.execute(query)).scalars().all()
        return [pb.PlanStatus.FromString(p) for p in reversed(payloads)]

    async def audited(self, key: str) -> Audited | None:
        """What an earlier request with this idempotency key was answered."""
        if not key:
            return None
        query = select(schema.audit).where(schema.audit.c.idempotency_key == key)
        async with self._readers.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else Audited(row.audit_id, row.response, repeated=True)

    async def record_order(self, entry: AuditEntry, changed: Sequence[OrderRow], now: Instant) -> Audited:
        """An audit record together with the orders it made or released, in one transaction.

        With an idempotency key that was used before, nothing is written and the earlier record is returned; raises
        Refused when that one was for another action.
        """
        audit_id = new_id("audit", now)

        async def change(connection: AsyncConnection) -> Audited:
            table = schema.audit
            if entry.idempotency_key:
                query = select(table).where(table.c.idempotency_key == entry.idempotency_key)
                row = (await connection.execute(query)).one_or_none()
                if row is not None:
                    if row.action != entry.action:
                        raise Refused(
                            f"idempotency key {entry.idempotency_key!r} was used for {row.action}; take another"
                        )
                    return Audited(row.audit_id, row.response, repeated=True)
            await connection.execute(
                insert(table),
                [
                    {
                        "audit_id": audit_id,
                        "at_unix_ms": now.unix_ms,
                        "actor": entry.actor,
                        "action": entry.action,
                        "reason": entry.reason,
                        "idempotency_key": entry.idempotency_key or None,
                        "role": entry.role,
                        "origin": entry.origin[:128],
                        "request": entry.request,
                        "response": entry.response,
                    }
                ],
            )
            for order in changed:
                await _put_order(connection, order)
            return Audited(audit_id, entry.response, repeated=False)

        return await self._writer.submit(change, hurry=True)

    async def open_orders(self, since_unix_ms: int) -> list[OrderRow]:
        """Orders not released, or released since then; oldest first."""
        table = schema.orders
        query = select(table).where(
            (table.c.released_at_unix_ms.is_(None)) | (table.c.released_at_unix_ms >= since_unix_ms)
        )
        async with self._readers.connect() as connection:
            rows = (await connection.execute(query.order_by(table.c.created_at_unix_ms))).all()
        return [OrderRow(*row) for row in rows]

    async def audit_trail(self, limit: int = 100) -> list[AuditEntry]:
        """Newest audit records, newest last."""
        table = schema.audit
        query = select(table).order_by(table.c.at_unix_ms.desc(), table.c.audit_id.desc()).limit(limit)
        async with self._readers.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [
            AuditEntry(
                r.actor,
                r.action,
                r.reason,
                r.request,
                r.response,
                r.idempotency_key or "",
                r.role,
                r.origin,
                r.audit_id,
                r.at_unix_ms,
            )
            for r in reversed(rows)
        ]


def _decision(row: Any) -> DecisionRecord:
    decided_at = Instant(0.0, row.decided_at_unix_ms / 1000)
    figures = row.objective_usd, row.inputs, row.outcome, row.start, row.rung
    return DecisionRecord(row.decision_id, decided_at, row.trigger, *figures)


async def _put_order(connection: AsyncConnection, order: OrderRow) -> None:
    table = schema.orders
    statement = upsert(table).values(
        order_id=order.order_id,
        kind=order.kind,
        created_at_unix_ms=order.created_at_unix_ms,
        released_at_unix_ms=order.released_at_unix_ms,
        payload=order.payload,
    )
    changes = {"released_at_unix_ms": order.released_at_unix_ms, "payload": order.payload}
    await connection.execute(statement.on_conflict_do_update(index_elements=["order_id"], set_=changes))


def _plan_row(signed: plan_pb2.SignedPlan, decision_id: str) -> dict[str, Any]:
    plan = plan_pb2.Plan.FromString(signed.plan)
    return {
        "site": plan.site,
        "epoch": plan.epoch,
        "version": plan.version,
        "issued_at_unix_ms": plan.issued_at_unix_ms,
        "reason": plan.reason,
        "decision_id": decision_id,
        "plan": signed.plan,
        "signature": signed.signature,
        "key_id": signed.key_id,
    }
