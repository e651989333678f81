"""The spool: what this site has to say and has not been acknowledged, on disk, in order.

stdlib sqlite3 (WAL, synchronous=FULL) in one thread of its own; appends are committed in groups. A record may be sent
only once it is durable here, so that a sequence number is never given out twice with different content. Full or
failing disk: records stay in memory until it takes them, `degraded` says so, nothing raises into the governor. A
directory that cannot be opened at all: a spool in memory with an identity of its own, until the next start.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from gridpivot.errors import SpoolError
from gridpivot.link.lanes import LANES, Lane, Pending
from gridpivot.v1 import session_pb2 as wire

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
  lane INTEGER NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL,
  spooled_at_unix_ms INTEGER NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (lane, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lane (lane INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS spool (boot_id BLOB NOT NULL);
"""
GROUP_COMMIT_S = 0.1
# Records kept per lane; above it devices lose the oldest, site roll-ups are thinned, events are never dropped.
MOST_RECORDS: dict[Lane, int] = {wire.LANE_SITE: 50_000, wire.LANE_DEVICES: 60}
# The same while the disk refuses and everything is in memory.
MOST_HELD: dict[Lane, int] = {wire.LANE_SITE: 5_000, wire.LANE_DEVICES: 20}
CACHE_BYTES = 2 * 1024 * 1024
RETRY_S = 1.0  # how soon a refusing disk is tried again when nothing new comes
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What the spool held when it was opened: identity, last sequence numbers, unacknowledged records."""

    boot_id: bytes
    last_seq: dict[Lane, int]
    pending: tuple[Pending, ...]
    set_aside: Path | None  # a corrupted file that was moved away
    refused: str | None  # why there is no file: everything is in memory


@dataclass(frozen=True, slots=True)
class _Append:
    lane: Lane
    seq: int
    kind: int
    spooled_at_unix_ms: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Delete:
    lane: Lane
    seqs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Fetch:
    lane: Lane
    seq: int
    answer: Future[wire.LaneRecord | None]


_Work: TypeAlias = _Append | _Delete | _Fetch | None


class Spool:
    """One site's spool. All methods are for the event loop's thread and never wait for the disk."""

    def __init__(
        self,
        path: Path,
        durable: Callable[[Sequence[Pending]], None],
        dropped: Callable[[Lane, Sequence[int]], None],
    ) -> None:
        """Open or create. `durable` and `dropped` are called from the spool's thread after each commit."""
        self._path = path
        self._durable, self._dropped = durable, dropped
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._cache: OrderedDict[tuple[int, int], wire.LaneRecord] = OrderedDict()
        self._cache_bytes = 0
        self.dropped_total: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._database, self.opened = _open(path)
        self.degraded = self.opened.refused
        self._last_seq = dict(self.opened.last_seq)
        self._count = dict.fromkeys(LANES, 0)
        for record in self.opened.pending:
            self._count[record.lane] = self._count.get(record.lane, 0) + 1
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    @property
    def last_seq(self) -> dict[Lane, int]:
        """Highest sequence number given out per lane."""
        return dict(self._last_seq)

    def append(self, lane: Lane, kind: int, payload: bytes, now_unix_ms: int) -> int:
        """Take a record; returns its sequence number. `durable` reports it once it is on disk."""
        seq = self._last_seq[lane] + 1
        self._last_seq[lane] = seq
        record = wire.LaneRecord(
            seq=seq, spooled_at_unix_ms=now_unix_ms, kind=wire.RecordKind.ValueType(kind), payload=payload
        )
        self._remember(lane, record)
        self._work.put(_Append(lane, seq, kind, now_unix_ms, payload))
        return seq

    def delete(self, lane: Lane, seqs: Sequence[int]) -> None:
        """Acknowledged by the controller: may go."""
        for seq in seqs:
            gone = self._cache.pop((lane, seq), None)
            if gone is not None:
                self._cache_bytes -= len(gone.payload)
        if seqs:
            self._work.put(_Delete(lane, tuple(seqs)))

    def fetch(self, record: Pending) -> Future[wire.LaneRecord | None]:
        """A record for sending, from memory or from disk; None when it has been dropped meanwhile.

        The future raises SpoolError when the disk cannot be read: the record is still there.
        """
        answer: Future[wire.LaneRecord | None] = Future()
        kept = self._cache.get((record.lane, record.seq))
        if kept is not None:
            answer.set_result(kept)
        else:
            self._work.put(_Fetch(record.lane, record.seq, answer))
        return answer

    def close(self) -> None:
        """Commit what is queued and stop the thread; waits at most 5 s."""
        self._work.put(None)
        self._thread.join(timeout=5.0)

    def _remember(self, lane: Lane, record: wire.LaneRecord) -> None:
        self._cache[(lane, record.seq)] = record
        self._cache_bytes += len(record.payload)
        while self._cache_bytes > CACHE_BYTES and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cache_bytes -= len(oldest.payload)

    # ---- the spool's own thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        held: list[_Append] = []
        gone: list[_Delete] = []
        running = True
        while running:
            for item in self._collect(retry=bool(held or gone)):
                match item:
                    case None:
                        running = False
                    case _Append():
                        held.append(item)
                    case _Delete():
                        gone.append(item)
                    case _Fetch():
                        self._answer(item)
            held, gone = self._commit(held, gone)
        self._database.close()

    def _collect(self, *, retry: bool) -> list[_Work]:
        try:
            batch = [self._work.get(timeout=RETRY_S if retry else None)]
        except queue.Empty:
            return []
        _linger(self._work, batch)
        return batch

    def _answer(self, item: _Fetch) -> None:
        if not item.answer.set_running_or_notify_cancel():
            return  # the session that asked has ended
        try:
            row = self._database.execute(
                "SELECT kind, spooled_at_unix_ms, payload FROM record WHERE lane = ? AND seq = ?", (item.lane, item.seq)
            ).fetchone()
        except sqlite3.Error as error:
            item.answer.set_exception(SpoolError(f"{self._path}: cannot be read: {error}; check the disk"))
            return
        item.answer.set_result(
            None
            if row is None
            else wire.LaneRecord(seq=item.seq, kind=row[0], spooled_at_unix_ms=row[1], payload=row[2])
        )

    def _commit(self, appends: list[_Append], deletes: list[_Delete]) -> tuple[list[_Append], list[_Delete]]:
        """One transaction; returns what could not be written and stays in memory."""
        if not appends and not deletes:
            return appends, deletes
        count = dict(self._count)
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(
                    "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?)",
                    [(a.lane, a.seq, a.kind, a.spooled_at_unix_ms, a.payload) for a in appends],
                )
                for lane in {a.lane for a in appends}:
                    seqs = [a.seq for a in appends if a.lane == lane]
                    count[lane] += len(seqs)
                    self._database.execute("INSERT OR REPLACE INTO lane VALUES (?, ?)", (lane, max(seqs)))
                for delete in deletes:
                    count[delete.lane] -= self._remove(delete.lane, delete.seqs)
                dropped = [(lane, self._trim(lane, count[lane], most)) for lane, most in MOST_RECORDS.items()]
        except sqlite3.Error as error:
            self.degraded = f"{self._path}: {error}"
            return self._thin(appends), deletes
        self.degraded = self.opened.refused
        self._count = count
        if appends:
            self._durable([Pending(a.lane, a.seq, len(a.payload) + 32) for a in appends])
        for lane, seqs in dropped:
            self._count[lane] -= len(seqs)
            self._drop(lane, seqs)
        return [], []

    def _remove(self, lane: Lane, seqs: Sequence[int]) -> int:
        statement = "DELETE FROM record WHERE lane = ? AND seq = ?"
        return self._database.executemany(statement, [(lane, seq) for seq in seqs]).rowcount

    def _trim(self, lane: Lane, count: int, most: int) -> list[int]:
        """Sequence numbers let go on purpose, so that the file does not grow for ever."""
        if count <= most:
            return []
        rows = self._database.execute("SELECT seq FROM record WHERE lane = ? ORDER BY seq", (lane,))
        seqs = _let_go(lane, [int(seq) for (seq,) in rows], most)
        self._remove(lane, seqs)
        return seqs

    def _thin(self, held: list[_Append]) -> list[_Append]:
        """The same for memory, while the disk refuses; events always stay."""
        for lane, most in MOST_HELD.items():
            seqs = [a.seq for a in held if a.lane == lane]
            gone = set(_let_go(lane, seqs, most)) if len(seqs) > most else set()
            if gone:
                held = [a for a in held if a.lane != lane or a.seq not in gone]
                self._drop(lane, sorted(gone))
        return held

    def _drop(self, lane: Lane, seqs: Sequence[int]) -> None:
        if seqs:
            self.dropped_total[lane] += len(seqs)
            self._dropped(lane, seqs)


def _let_go(lane: Lane, seqs: list[int], most: int) -> list[int]:
    """What to drop of more than `most` ascending numbers: devices the oldest; site every second of the older half."""
    return seqs[: len(seqs) - most] if lane == wire.LANE_DEVICES else seqs[: len(seqs) // 2 : 2]


def _linger(work: queue.SimpleQueue[_Work], batch: list[_Work]) -> None:
    """Collect more work for one commit, until a reader or the end asks, or the time is up."""
    ends_s = time.monotonic() + GROUP_COMMIT_S
    while batch[-1] is not None and not isinstance(batch[-1], _Fetch):
        try:
            batch.append(work.get(timeout=max(0.0, ends_s - time.monotonic())))
        except queue.Empty:
            return


def _connect(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(_SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _open(path: Path) -> tuple[sqlite3.Connection, SpoolState]:
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
        pending = tuple(
            Pending(lane, seq, size + 32)
            for lane, seq, size in database.execute("SELECT lane, seq, length(payload) FROM record ORDER BY lane, seq")
        )
    except sqlite3.Error:
        database.close()
        raise
    return database, SpoolState(boot_id, last_seq, pending, set_aside, refused)
