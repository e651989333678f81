"""Each day's settlement made durable: what plans earned at a site, and what other rules would have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import func, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from controller.settlement.account import Account
from controller.store import schema
from controller.store.writer import Writer


class Settlements:
    """Writes through the one writer, reads on connections of its own."""

    def __init__(self, writer: Writer, readers: AsyncEngine) -> None:
        self._writer, self._readers = writer, readers

    async def newest(self) -> tuple[float, list[Account]] | None:
        """The newest day that was settled [Unix s at its beginning] and its accounts; None before the first."""
        table = schema.settlements
        async with self._readers.connect() as connection:
            day = (await connection.execute(select(func.max(table.c.day_start_unix_ms)))).scalar()
            if day is None:
                return None
            query = select(table).where(table.c.day_start_unix_ms == day).order_by(table.c.site, table.c.policy)
            rows = (await connection.execute(query)).all()
        return day / 1000, [Account(**json.loads(row.payload)) for row in rows]

    async def record(self, day_unix_s: float, accounts: Sequence[Account]) -> None:
        """A day's accounts; settling a day again replaces what stood there."""
        rows = [
            {
                "day_start_unix_ms": round(day_unix_s * 1000),
                "site": account.site,
                "policy": account.policy,
                "margin_usd": account.margin_usd,
                "payload": json.dumps(asdict(account)),
            }
            for account in accounts
        ]

        async def change(connection: AsyncConnection) -> None:
            for row in rows:
                statement = upsert(schema.settlements).values(row)
                await connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=["day_start_unix_ms", "site", "policy"],
                        set_={"margin_usd": row["margin_usd"], "payload": row["payload"]},
                    )
                )

        if rows:
            await self._writer.submit(change)
