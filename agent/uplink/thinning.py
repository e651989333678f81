"""What a spool lets go of, and when: by count, by bytes, by age. Pure.

Events are never dropped. Device tables lose the oldest: the newest says it all. Roll-ups are thinned, every second of
the older half, since their counters are cumulative and what is left still shows the course; past their age they go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gridpivot.link.lanes import Lane
from gridpivot.v1 import session_pb2 as wire


@dataclass(frozen=True, slots=True)
class Bound:
    """Most that one lane keeps."""

    records: int
    size_bytes: int
    age_s: float


# 50,000 roll-ups at two seconds are 28 hours whole, and weeks thinned.
ON_DISK: dict[Lane, Bound] = {
    wire.LANE_SITE: Bound(50_000, 256 * 2**20, 30 * 86_400.0),
    wire.LANE_DEVICES: Bound(60, 64 * 2**20, 86_400.0),
}
# The same while the disk refuses and everything is in memory.
IN_MEMORY: dict[Lane, Bound] = {
    wire.LANE_SITE: Bound(5_000, 16 * 2**20, 30 * 86_400.0),
    wire.LANE_DEVICES: Bound(20, 16 * 2**20, 86_400.0),
}


@dataclass(frozen=True, slots=True)
class Held:
    """A record that is kept: its size [bytes] and when it was spooled."""

    size: int
    spooled_at_unix_ms: int


def let_go(lane: Lane, held: Mapping[int, Held], bound: Bound, now_unix_ms: int) -> list[int]:
    """Sequence numbers to let go of; `held` ascends. A clock that stepped back lets nothing go by age."""
    oldest_ms = now_unix_ms - bound.age_s * 1000.0
    gone = [seq for seq, record in held.items() if record.spooled_at_unix_ms < oldest_ms]
    kept = [seq for seq in held if seq not in set(gone)] if gone else list(held)
    size = sum(held[seq].size for seq in kept)
    while kept and (len(kept) > bound.records or size > bound.size_bytes):
        if lane == wire.LANE_DEVICES:
            more = kept[:1]
        else:
            more = kept[: max(1, len(kept) // 2) : 2]
        gone += more
        size -= sum(held[seq].size for seq in more)
        dropped = set(more)
        kept = [seq for seq in kept if seq not in dropped]
    return sorted(gone)


def after_gaps(gone: list[int], held: Mapping[int, Held]) -> list[int]:
    """Records that follow something let go: these say so (`LaneRecord.thinned`)."""
    dropped = set(gone)
    followers = []
    for seq in gone:
        follower = seq + 1
        if follower not in dropped and follower in held:
            followers.append(follower)
    return followers
