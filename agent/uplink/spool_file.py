"""The spool's file: its tables, how it is opened, and what is done with one that is damaged."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from gridpivot.link.lanes import LANES, Lane, Pending

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
  lane INTEGER NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL,
  spooled_at_unix_ms INTEGER NOT NULL, payload BLOB NOT NULL, thinned INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (lane, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lane (lane INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS spool (boot_id BLOB NOT NULL);
"""
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What the spool held when it was opened: identity, last sequence numbers, unacknowledged records."""

    boot_id: bytes
    last_seq: dict[Lane, int]
    pending: tuple[Pending, ...]
    set_aside: Path | None  # a corrupted file that was moved away
    refused: str | None  # why there is no file: everything is in memory
    spooled_at_unix_ms: dict[tuple[Lane, int], int]  # of the unacknowledged records


def _connect(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(_SCHEMA)
        if "thinned" not in [row[1] for row in database.execute("PRAGMA table_info(record)")]:
            database.execute("ALTER TABLE record ADD COLUMN thinned INTEGER NOT NULL DEFAULT 0")  # a file from before
    except sqlite3.Error:
        database.close()
        raise
    return database


def open_file(path: Path) -> tuple[sqlite3.Connection, SpoolState]:
    """The database and what it holds. A file that is not a database is set aside, never deleted.

    Only damage is: a full or read-only disk would otherwise cost the records that it still holds.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _read(_connect(path))
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _CORRUPT:
                raise
            aside = _set_aside(path)
            return _read(_connect(path), set_aside=aside)
    except (OSError, sqlite3.Error) as error:
        return _read(_connect(":memory:"), refused=f"{path}: cannot be opened: {error}; records are in memory only")


def _set_aside(path: Path) -> Path:
    aside = path.with_suffix(f".corrupt-{os.getpid()}-{path.stat().st_mtime_ns}")
    for extra in ("-wal", "-shm", ""):
        part = path.with_name(path.name + extra)
        if part.exists():
            part.rename(aside.with_name(aside.name + extra))
    return aside


def _read(
    database: sqlite3.Connection, set_aside: Path | None = None, refused: str | None = None
) -> tuple[sqlite3.Connection, SpoolState]:
    try:
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        row = database.execute("SELECT boot_id FROM spool").fetchone()
        boot_id = os.urandom(16) if row is None else bytes(row[0])
        if row is None:
            database.execute("INSERT INTO spool VALUES (?)", (boot_id,))
        last_seq: dict[Lane, int] = dict.fromkeys(LANES, 0)
        last_seq.update(dict(database.execute("SELECT lane, last_seq FROM lane").fetchall()))
        rows = database.execute(
            "SELECT lane, seq, length(payload), spooled_at_unix_ms FROM record ORDER BY lane, seq"
        ).fetchall()
        pending = tuple(Pending(lane, seq, size + 32) for lane, seq, size, _ in rows)
        spooled_at = {(lane, seq): at_ms for lane, seq, _, at_ms in rows}
    except sqlite3.Error:
        database.close()
        raise
    return database, SpoolState(boot_id, last_seq, pending, set_aside, refused, spooled_at)
