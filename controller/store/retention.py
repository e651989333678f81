"""What is old goes, in small bites, and is counted. Audit, decisions' plans in force and open orders stay longest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, Table, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from controller.store import schema
from controller.store.writer import Writer
from gridpivot.clock import Instant

DAY_S = 86_400.0
BITE = 2_000  # rows deleted per statement: a purge must not hold up a commit for long


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each kind of record is kept [s]."""

    rollups_s: float = 7 * DAY_S
    site_events_s: float = 90 * DAY_S
    decisions_s: float = 30 * DAY_S
    plans_s: float = 30 * DAY_S
    audit_s: float = 730 * DAY_S

    def by_table(self) -> tuple[tuple[Table, Column[int], float], ...]:
        """Table, its time column, and the age that ends its rows."""
        return (
            (schema.rollups, schema.rollups.c.observed_at_unix_ms, self.rollups_s),
            (schema.site_events, schema.site_events.c.occurred_at_unix_ms, self.site_events_s),
            (schema.decisions, schema.decisions.c.decided_at_unix_ms, self.decisions_s),
            (schema.plan_statuses, schema.plan_statuses.c.heard_at_unix_ms, self.plans_s),
            (schema.lane_cursors, schema.lane_cursors.c.updated_at_unix_ms, self.site_events_s),
            (schema.audit, schema.audit.c.at_unix_ms, self.audit_s),
        )


async def purge(writer: Writer, retention: Retention, now: Instant) -> Mapping[str, int]:
    """Delete what is older than its age; rows deleted by table. A site's newest plan is never deleted."""
    counts: dict[str, int] = {}
    for table, at, age_s in retention.by_table():
        counts[table.name] = await _purge(writer, table, at < now.unix_ms - round(age_s * 1000))
    plans, newer = schema.plans, schema.plans.alias("newer")
    superseded = (
        select(newer.c.site)
        .where(
            newer.c.site == plans.c.site,
            (newer.c.epoch > plans.c.epoch) | ((newer.c.epoch == plans.c.epoch) & (newer.c.version > plans.c.version)),
        )
        .exists()
    )
    old = plans.c.issued_at_unix_ms < now.unix_ms - round(retention.plans_s * 1000)
    counts[plans.name] = await _purge(writer, plans, old & superseded)
    return counts


async def _purge(writer: Writer, table: Table, condition: ColumnElement[bool]) -> int:
    key = list(table.primary_key.columns)

    old = select(*key).where(condition).limit(BITE).correlate(None)

    async def bite(connection: AsyncConnection) -> int:
        return int((await connection.execute(delete(table).where(tuple_(*key).in_(old)))).rowcount)

    total = 0
    while (deleted := await writer.submit(bite)) > 0:
        total += deleted
        if deleted < BITE:
            break
    return total
