"""What is read after the story: memory and CPU of processes, an agent's own counters, what the database holds."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from gridpivot.link.lanes import LANES
from gridpivot.v1 import session_pb2 as wire
from sim.children import Child


@dataclass(frozen=True, slots=True)
class Use:
    """Memory [MiB] and CPU [s] of a process."""

    rss_mb: float
    cpu_s: float


def use_of(child: Child | None) -> Use:
    """Of a child and what it started; zeros when it is gone."""
    if child is None or child.process is None:
        return Use(0.0, 0.0)
    try:
        process = psutil.Process(child.process.pid)
        family = [process, *process.children(recursive=True)]
        times = [p.cpu_times() for p in family]
        return Use(sum(p.memory_info().rss for p in family) / 2**20, sum(t.user + t.system for t in times))
    except psutil.NoSuchProcess:
        return Use(0.0, 0.0)


async def agent_counters(url: str) -> dict[str, int]:
    """Unlabelled counters from an agent's /metrics."""

    def fetch() -> str:
        with urllib.request.urlopen(url, timeout=5.0) as answer:  # noqa: S310 - our own loopback URL
            return str(answer.read().decode())

    text = await asyncio.to_thread(fetch)
    pairs = (line.split(" ") for line in text.splitlines() if line.startswith("gridpivot_commands"))
    return {pair[0]: int(float(pair[1])) for pair in pairs if len(pair) == 2}


def spool_figures(spool: Path) -> dict[str, Any]:
    """Identity and last sequence numbers of a stopped agent's spool, as a finding for `count_lost`."""
    with sqlite3.connect(f"file:{spool}?mode=ro", uri=True) as connection:
        (boot_id,) = connection.execute("SELECT boot_id FROM spool").fetchone()
        last = dict(connection.execute("SELECT lane, last_seq FROM lane").fetchall())
        waiting = dict(connection.execute("SELECT lane, count(*) FROM record GROUP BY lane").fetchall())
    # What still waits in the spool is late, not lost.
    return {"boot_id": bytes(boot_id).hex(), "last_seq": {str(k): v - waiting.get(k, 0) for k, v in last.items()}}


def count_lost(database: Path, findings: Sequence[Mapping[str, Any]]) -> int:
    """Records of the lanes that are never dropped (events) or only thinned on purpose (site) that never arrived.

    Read from the controller's own lane cursors: highest sequence number given out against what is committed.
    """
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT site, boot_id, lane, through_seq, also_seqs FROM lane_cursors").fetchall()
    cursors = {(site, bytes(boot).hex(), lane): (through, json.loads(also)) for site, boot, lane, through, also in rows}
    lost = 0
    for finding in findings:
        for lane in LANES:
            last = finding.get("last_seq", {}).get(str(int(lane)), 0)
            if lane == wire.LANE_DEVICES or not last:
                continue
            through, also = cursors.get((finding["site"], finding["boot_id"], int(lane)), (0, []))
            lost += max(0, last - through - len(also))
    return lost
