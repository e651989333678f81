"""Connections to SQLite: one that writes, a few that read, and the migrations that run before either is used.

WAL with synchronous=FULL, so that an acknowledgement survives a power cut. The writer begins IMMEDIATE: a deferred
transaction that turns to writing fails at once with "database is locked", whatever the busy timeout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_MS = 10_000


def writer_engine(path: Path) -> AsyncEngine:
    """One connection; every transaction holds the write lock from its first statement."""
    return _engine(path, "BEGIN IMMEDIATE", pool_size=1, pragmas=("synchronous=FULL", "journal_mode=WAL"))


def reader_engine(path: Path) -> AsyncEngine:
    """Connections that can only read."""
    return _engine(path, "BEGIN", pool_size=3, pragmas=("query_only=ON",))


def _engine(path: Path, begin: str, pool_size: int, pragmas: tuple[str, ...]) -> AsyncEngine:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=pool_size, max_overflow=0, pool_timeout=30)

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions of its own; `begin` below does.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={BUSY_MS}", "foreign_keys=ON", *pragmas):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


async def migrate(engine: AsyncEngine) -> None:
    """Bring the database to the newest revision. Runs at every start; does nothing when there is nothing to do."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
