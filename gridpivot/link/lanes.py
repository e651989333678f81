"""The agent's end of the lanes as a pure state machine: what to send next, what may be forgotten.

`Outbox` knows sequence numbers and sizes, never payloads; no clock, no socket, no database.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from gridpivot.v1 import session_pb2 as wire

Lane: TypeAlias = "wire.Lane.ValueType"
LANES: tuple[Lane, ...] = (wire.LANE_EVENTS, wire.LANE_SITE, wire.LANE_DEVICES)
NEWEST_FIRST: frozenset[Lane] = frozenset({wire.LANE_DEVICES})


@dataclass(frozen=True, slots=True)
class Pending:
    """A spooled record that is not yet acknowledged; `size` in bytes."""

    lane: Lane
    seq: int
    size: int


@dataclass(slots=True)
class _LaneQueue:
    """Unacknowledged records of one lane. `live` were spooled in this session, `backlog` before it."""

    waiting: OrderedDict[int, int] = field(default_factory=OrderedDict)  # seq -> bytes, ascending
    in_flight: dict[int, int] = field(default_factory=dict)
    live_from: int = 1


class Outbox:
    """What to send next under a window of unacknowledged bytes.

    Order: events oldest first; live site roll-ups; newest device table; then the backlog of site and devices.
    A backlog record goes out only when nothing live waits.
    """

    def __init__(self, window_bytes: int) -> None:
        self.window_bytes = window_bytes
        self._lanes: dict[Lane, _LaneQueue] = {lane: _LaneQueue() for lane in LANES}
        self._in_flight_bytes = 0

    @property
    def in_flight_bytes(self) -> int:
        """Bytes sent and not acknowledged."""
        return self._in_flight_bytes

    def waiting(self, lane: Lane) -> int:
        """Records of a lane that are not acknowledged, sent or not (count)."""
        queue = self._lanes[lane]
        return len(queue.waiting) + len(queue.in_flight)

    def waiting_bytes(self, lane: Lane) -> int:
        """Bytes of a lane that are not acknowledged."""
        queue = self._lanes[lane]
        return sum(queue.waiting.values()) + sum(queue.in_flight.values())

    def lowest(self, lane: Lane) -> int | None:
        """Lowest sequence number that is not acknowledged; None when there is none."""
        queue = self._lanes[lane]
        return min((*queue.waiting, *queue.in_flight), default=None)

    def add(self, record: Pending) -> None:
        """A record is durable in the spool and may be sent."""
        self._lanes[record.lane].waiting[record.seq] = record.size

    def forget(self, lane: Lane, seqs: Iterable[int]) -> None:
        """Records were dropped on purpose from the spool."""
        queue = self._lanes[lane]
        for seq in seqs:
            queue.waiting.pop(seq, None)
            self._in_flight_bytes -= queue.in_flight.pop(seq, 0)

    def restart(self) -> None:
        """A new session begins: everything in flight waits again, and what waits is backlog."""
        self._in_flight_bytes = 0
        for queue in self._lanes.values():
            queue.waiting.update(queue.in_flight)
            queue.in_flight.clear()
            queue.waiting = OrderedDict(sorted(queue.waiting.items()))
            queue.live_from = max(queue.waiting, default=queue.live_from - 1) + 1

    def take(self) -> Pending | None:
        """The next record to send, marked as in flight; None when the window is full or nothing waits.

        One record larger than the whole window goes out alone, so that nothing waits for ever.
        """
        choice = self._choose()
        if choice is None:
            return None
        lane, seq = choice
        size = self._lanes[lane].waiting[seq]
        if self._in_flight_bytes and self._in_flight_bytes + size > self.window_bytes:
            return None
        del self._lanes[lane].waiting[seq]
        self._lanes[lane].in_flight[seq] = size
        self._in_flight_bytes += size
        return Pending(lane, seq, size)

    def _choose(self) -> tuple[Lane, int] | None:
        events = self._lanes[wire.LANE_EVENTS].waiting
        if events:
            return wire.LANE_EVENTS, next(iter(events))
        site, devices = self._lanes[wire.LANE_SITE], self._lanes[wire.LANE_DEVICES]
        if site.waiting and next(reversed(site.waiting)) >= site.live_from:
            live = next(seq for seq in site.waiting if seq >= site.live_from)
            return wire.LANE_SITE, live
        if devices.waiting and next(reversed(devices.waiting)) >= devices.live_from:
            return wire.LANE_DEVICES, next(reversed(devices.waiting))
        if site.waiting:
            return wire.LANE_SITE, next(iter(site.waiting))
        if devices.waiting:
            return wire.LANE_DEVICES, next(reversed(devices.waiting))
        return None

    def acked(self, ack: wire.LaneAck) -> list[int]:
        """Take an acknowledgement; returns the sequence numbers that the spool may delete now."""
        if ack.lane not in self._lanes:
            return []
        queue = self._lanes[ack.lane]
        also = set(ack.also_seqs)
        done = [s for s in (*queue.waiting, *queue.in_flight) if s <= ack.through_seq or s in also]
        self.forget(ack.lane, done)
        return done
