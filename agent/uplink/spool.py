"""The spool: what this site has to say and has not been acknowledged, on disk, in order.

stdlib sqlite3 (WAL, synchronous=FULL) in one thread of its own; appends are committed in groups. A record may be sent
only once it is durable here, so that a sequence number is never given out twice with different content. Full or
failing disk: records stay in memory, `degraded` says so, nothing raises into the governor.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

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
CACHE_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What the spool held when it was opened: identity, last sequence numbers, unacknowledged records."""

    boot_id: bytes
    last_seq: dict[Lane, int]
    pending: tuple[Pending, ...]
    set_aside: Path | None  # a corrupted file that was moved away


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
        self._work: queue.SimpleQueue[_Append | _Delete | _Fetch | None] = queue.SimpleQueue()
        self._cache: OrderedDict[tuple[int, int], wire.LaneRecord] = OrderedDict()
        self._cache_bytes = 0
        self.degraded: str | None = None
        self.dropped_total: dict[Lane, int] = dict.fromkeys(LANES, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database, self.opened = _open(path)
        self._last_seq = dict(self.opened.last_seq)
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
        """A record for sending, from memory or from disk; None when it has been dropped meanwhile."""
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
        running = True
        while running:
            batch: list[_Append | _Delete | _Fetch | None] = [self._work.get()]
            if not isinstance(batch[0], _Fetch):
                _linger(self._work, batch)
            deletes: list[_Delete] = []
            for item in batch:
                match item:
                    case None:
                        running = False
                    case _Append():
                        held.append(item)
                    case _Delete():
                        deletes.append(item)
                    case _Fetch():
                        self._answer(item, held)
            held = self._commit(held, deletes)
        self._database.close()

    def _answer(self, item: _Fetch, held: Sequence[_Append]) -> None:
        try:
            row = self._database.execute(
                "SELECT kind, spooled_at_unix_ms, payload FROM record WHERE lane = ? AND seq = ?", (item.lane, item.seq)
            ).fetchone()
        except sqlite3.Error:
            row = next(
                ((a.kind, a.spooled_at_unix_ms, a.payload) for a in held if (a.lane, a.seq) == (item.lane, item.seq)),
                None,
            )
        item.answer.set_result(
            None
            if row is None
            else wire.LaneRecord(seq=item.seq, kind=row[0], spooled_at_unix_ms=row[1], payload=row[2])
        )

    def _commit(self, appends: list[_Append], deletes: Sequence[_Delete]) -> list[_Append]:
        """One transaction; returns the appends that could not be written and stay in memory."""
        if not appends and not deletes:
            return appends
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(
                    "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?)",
                    [(a.lane, a.seq, a.kind, a.spooled_at_unix_ms, a.payload) for a in appends],
                )
                for lane in {a.lane for a in appends}:
                    newest = max(a.seq for a in appends if a.lane == lane)
                    self._database.execute("INSERT OR REPLACE INTO lane VALUES (?, ?)", (lane, newest))
                for delete in deletes:
                    self._database.executemany(
                        "DELETE FROM record WHERE lane = ? AND seq = ?", [(delete.lane, seq) for seq in delete.seqs]
                    )
                dropped = [(lane, self._trim(lane, most)) for lane, most in MOST_RECORDS.items()]
        except sqlite3.Error as error:
            self.degraded = f"{self._path}: {error}"
            return appends[-10_000:]
        self.degraded = None
        if appends:
            self._durable([Pending(a.lane, a.seq, len(a.payload) + 32) for a in appends])
        for lane, seqs in dropped:
            if seqs:
                self.dropped_total[lane] += len(seqs)
                self._dropped(lane, seqs)
        return []

    def _trim(self, lane: Lane, most: int) -> list[int]:
        """Sequence numbers let go on purpose: devices the oldest; site every second one of the older half."""
        (count,) = self._database.execute("SELECT count(*) FROM record WHERE lane = ?", (lane,)).fetchone()
        if count <= most:
            return []
        rows = self._database.execute("SELECT seq FROM record WHERE lane = ? ORDER BY seq LIMIT ?", (lane, count // 2))
        seqs = [int(seq) for (seq,) in rows]
        gone = seqs[: count - most] if lane == wire.LANE_DEVICES else seqs[::2]
        self._database.executemany("DELETE FROM record WHERE lane = ? AND seq = ?", [(lane, seq) for seq in gone])
        return gone


def _linger(
    work: queue.SimpleQueue[_Append | _Delete | _Fetch | None], batch: list[_Append | _Delete | _Fetch | None]
) -> None:
    """Collect more work for one commit, until a reader or the end asks, or the time is up."""
    while batch[-1] is not None and not isinstance(batch[-1], _Fetch):
        try:
            batch.append(work.get(timeout=GROUP_COMMIT_S))
        except queue.Empty:
            return


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.executescript(_SCHEMA)
    return database


def _open(path: Path) -> tuple[sqlite3.Connection, SpoolState]:
    """The database and what it holds; a file that is not a database is set aside, never deleted."""
    set_aside: Path | None = None
    try:
        database = _connect(path)
        database.execute("PRAGMA quick_check").fetchone()
    except sqlite3.DatabaseError:
        set_aside = path.with_suffix(f".corrupt-{os.getpid()}-{path.stat().st_mtime_ns}")
        path.rename(set_aside)
        for extra in ("-wal", "-shm"):
            path.with_name(path.name + extra).unlink(missing_ok=True)
        database = _connect(path)
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
    return database, SpoolState(boot_id, last_seq, pending, set_aside)
