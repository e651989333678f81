"""Billing peaks made durable: a controller that starts again must not think a month's peak is still to be paid."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controller.store import schema
from controller.store.writer import Writer
from gridpivot.clock import Instant


@dataclass(frozen=True, slots=True)
class PeakRow:
    """A site's highest demand [W] of the billing period that began then [Unix s]."""

    site: str
    period_start_unix_s: float
    peak_w: float


class Peaks:
    """Writes through the one writer, reads on connections of its own."""

    def __init__(self, writer: Writer, readers: AsyncEngine) -> None:
        self._writer, self._readers = writer, readers

    async def newest(self) -> dict[str, PeakRow]:
        """The newest billing period of every site."""
        table = schema.billing_peaks
        last = select(table.c.site, func.max(table.c.period_start_unix_ms).label("start")).group_by(table.c.site)
        newest = last.subquery()
        query = select(table).join(
            newest, (table.c.site == newest.c.site) & (table.c.period_start_unix_ms == newest.c.start)
        )
        async with self._readers.connect() as connection:
            rows = (await connection.execute(query)).all()
        return {row.site: PeakRow(row.site, row.period_start_unix_ms / 1000, row.peak_w) for row in rows}

    async def record(self, peak: PeakRow, now: Instant) -> None:
        """A peak, unless a higher one stands for the same period already."""
        row = {
            "site": peak.site,
            "period_start_unix_ms": round(peak.period_start_unix_s * 1000),
            "peak_w": peak.peak_w,
            "updated_at_unix_ms": now.unix_ms,
        }

        async def change(connection: AsyncConnection) -> None:
            table = schema.billing_peaks
            statement = upsert(table).values(row)
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["site", "period_start_unix_ms"],
                    set_={"peak_w": statement.excluded.peak_w, "updated_at_unix_ms": now.unix_ms},
                    where=statement.excluded.peak_w > table.c.peak_w,
                )
            )

        await self._writer.submit(change)
