"""The store as the rest of the controller sees it: opens, migrates, writes through one writer, closes clean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from controller.store.engine import migrate, reader_engine, writer_engine
from controller.store.identities import Identities
from controller.store.lanes import LaneStore
from controller.store.ledger import Ledger
from controller.store.peaks import Peaks
from controller.store.retention import Retention, purge
from controller.store.settlements import Settlements
from controller.store.writer import Writer
from gridpivot.clock import Clock, Instant
from gridpivot.errors import GridpivotError

GROUP_S = 0.15


class Store:
    """`lanes` holds what sites sent, `ledger` what the controller decided. Use `open`; then `close`."""

    def __init__(self, path: Path, clock: Clock, group_s: float = GROUP_S) -> None:
        self.path = path
        self._writing, self._reading = writer_engine(path), reader_engine(path)
        self.writer = Writer(self._writing, group_s)
        self.lanes = LaneStore(self.writer, self._reading, clock)
        self.ledger = Ledger(self.writer, self._reading, clock)
        self.peaks = Peaks(self.writer, self._reading)
        self.settlements = Settlements(self.writer, self._reading)
        self.identities = Identities(self.writer, self._reading)
        # The link's servicer speaks to the store in these three words.
        self.append = self.lanes.append
        self.let_go = self.lanes.let_go
        self.acked_through = self.lanes.acked_through
        self.purged: dict[str, int] = {}

    @classmethod
    async def open(cls, path: Path, clock: Clock, group_s: float = GROUP_S) -> Store:
        """Open (or create) the database and bring it to the newest revision; raises GridpivotError when it cannot."""
        store = cls(path, clock, group_s)
        try:
            await migrate(store._writing)
        except (SQLAlchemyError, OSError) as error:
            await store._dispose()
            cause = getattr(error, "orig", None) or error
            raise GridpivotError(
                f"{path}: store cannot be opened: {cause}; check the directory and its owner"
            ) from error
        store.writer.start()
        await store.lanes.energy.load()
        return store

    async def close(self) -> None:
        """Commit what waits and let go of the file."""
        try:
            await self.writer.close()
        finally:
            await self._dispose()

    async def purge(self, retention: Retention, now: Instant) -> Mapping[str, int]:
        """Delete what is past its age; counts add up in `purged`."""
        counts = await purge(self.writer, retention, now)
        for table, count in counts.items():
            self.purged[table] = self.purged.get(table, 0) + count
        return counts

    async def _dispose(self) -> None:
        await self._writing.dispose()
        await self._reading.dispose()
