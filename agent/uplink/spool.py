"""The spool: what this site has to say and has not been acknowledged, on disk, in order.

stdlib sqlite3 (WAL, synchronous=FULL) in one thread of its own; appends are committed in groups. A record may be sent
only once it is durable here, so that a sequence number is never given out twice with different content. Full or
failing disk: records stay in memory until it takes them, `degraded` says so, nothing raises into the governor. A
directory that cannot be opened at all: a spool in memory with an identity of its own, until the next start.
"""

from __future__ import annotations

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

from agent.uplink.spool_file import open_file
from agent.uplink.thinning import IN_MEMORY, ON_DISK, Held, after_gaps, let_go
from gridpivot.errors import SpoolError
from gridpivot.link.lanes import LANES, Lane, Pending
from gridpivot.v1 import session_pb2 as wire

GROUP_COMMIT_S = 0.1
CACHE_BYTES = 2 * 1024 * 1024
LOOK_MS = 60_000  # how often size and age are looked at; the count is at every commit
RETRY_S = 1.0  # how soon a refusing disk is tried again when nothing new comes


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
        self._database, self.opened = open_file(path)
        self.degraded = self.opened.refused
        self._last_seq = dict(self.opened.last_seq)
        self._held: dict[Lane, dict[int, Held]] = {lane: {} for lane in LANES}
        self._looked_unix_ms = 0
        for record in self.opened.pending:
            at_ms = self.opened.spooled_at_unix_ms[record.lane, record.seq]
            self._held.setdefault(record.lane, {})[record.seq] = Held(record.size, at_ms)
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
                "SELECT kind, spooled_at_unix_ms, payload, thinned FROM record WHERE lane = ? AND seq = ?",
                (item.lane, item.seq),
            ).fetchone()
        except sqlite3.Error as error:
            item.answer.set_exception(SpoolError(f"{self._path}: cannot be read: {error}; check the disk"))
            return
        item.answer.set_result(
            None
            if row is None
            else wire.LaneRecord(
                seq=item.seq, kind=row[0], spooled_at_unix_ms=row[1], payload=row[2], thinned=bool(row[3])
            )
        )

    def _commit(self, appends: list[_Append], deletes: list[_Delete]) -> tuple[list[_Append], list[_Delete]]:
        """One transaction; returns what could not be written and stays in memory."""
        if not appends and not deletes:
            return appends, deletes
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(
                    "INSERT OR REPLACE INTO record (lane, seq, kind, spooled_at_unix_ms, payload) VALUES (?, ?, ?, ?, ?)",
                    [(a.lane, a.seq, a.kind, a.spooled_at_unix_ms, a.payload) for a in appends],
                )
                for lane in {a.lane for a in appends}:
                    last = max(a.seq for a in appends if a.lane == lane)
                    self._database.execute("INSERT OR REPLACE INTO lane VALUES (?, ?)", (lane, last))
                for delete in deletes:
                    self._remove(delete.lane, delete.seqs)
        except sqlite3.Error as error:
            self.degraded = f"{self._path}: {error}"
            return self._thin(appends), deletes
        self.degraded = self.opened.refused
        for append in appends:
            self._held[append.lane][append.seq] = Held(len(append.payload) + 32, append.spooled_at_unix_ms)
        for delete in deletes:
            for seq in delete.seqs:
                self._held[delete.lane].pop(seq, None)
        if appends:
            self._durable([Pending(a.lane, a.seq, len(a.payload) + 32) for a in appends])
            self._trim(appends[-1].spooled_at_unix_ms)
        return [], []

    def _remove(self, lane: Lane, seqs: Sequence[int]) -> None:
        self._database.executemany("DELETE FROM record WHERE lane = ? AND seq = ?", [(lane, seq) for seq in seqs])

    def _trim(self, now_unix_ms: int) -> None:
        """Let go on purpose, so that the file does not grow for ever; what follows a gap says so."""
        look = abs(now_unix_ms - self._looked_unix_ms) > LOOK_MS
        for lane, bound in ON_DISK.items():
            held = self._held[lane]
            if not look and len(held) <= bound.records:
                continue
            seqs = let_go(lane, held, bound, now_unix_ms)
            if not seqs:
                continue
            marked = [(lane, seq) for seq in after_gaps(seqs, held)]
            try:
                with self._database:
                    self._database.execute("BEGIN IMMEDIATE")
                    self._remove(lane, seqs)
                    self._database.executemany("UPDATE record SET thinned = 1 WHERE lane = ? AND seq = ?", marked)
            except sqlite3.Error as error:
                self.degraded = f"{self._path}: {error}"
                return
            for seq in seqs:
                del held[seq]
            self._drop(lane, seqs)
        if look:
            self._looked_unix_ms = now_unix_ms

    def _thin(self, held: list[_Append]) -> list[_Append]:
        """The same for memory, while the disk refuses; events always stay."""
        for lane, bound in IN_MEMORY.items():
            mine = {a.seq: Held(len(a.payload) + 32, a.spooled_at_unix_ms) for a in held if a.lane == lane}
            gone = set(let_go(lane, mine, bound, max((h.spooled_at_unix_ms for h in mine.values()), default=0)))
            if gone:
                held = [a for a in held if a.lane != lane or a.seq not in gone]
                self._drop(lane, sorted(gone))
        return held

    def _drop(self, lane: Lane, seqs: Sequence[int]) -> None:
        if not seqs:
            return
        self.dropped_total[lane] += len(seqs)
        self._dropped(lane, seqs)


def _linger(work: queue.SimpleQueue[_Work], batch: list[_Work]) -> None:
    """Collect more work for one commit, until a reader or the end asks, or the time is up."""
    ends_s = time.monotonic() + GROUP_COMMIT_S
    while batch[-1] is not None and not isinstance(batch[-1], _Fetch):
        try:
            batch.append(work.get(timeout=max(0.0, ends_s - time.monotonic())))
        except queue.Empty:
            return
