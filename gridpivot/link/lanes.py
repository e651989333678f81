"""The agent's end of the lanes as a pure state machine: what to send next, what may be forgotten.

`Outbox` knows sequence numbers and sizes, never payloads; no clock, no socket, no database.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TypeAlias

from gridpivot.v1 import session_pb2 as wire

Lane: TypeAlias = "wire.Lane.ValueType"
LANES: tuple[Lane, ...] = (wire.LANE_EVENTS, wire.LANE_SITE, wire.LANE_DEVICES)
NEWEST_FIRST: frozenset[Lane] = frozenset({wire.LANE_DEVICES})


@dataclass(frozen=True, slots=True)
class Pending:
    """A spooled record that is not yet acknowledged; `size` in bytes. `backlog`: it was spooled before this session."""

    lane: Lane
    seq: int
    size: int
    backlog: bool = False


@dataclass(slots=True)
class _LaneQueue:
    """Unacknowledged records of one lane, seq -> bytes. `live` were spooled in this session, `backlog` before it.

    Both ascend: forty thousand records of backlog are looked at from their ends only.
    """

    live: OrderedDict[int, int] = field(default_factory=OrderedDict)
    backlog: OrderedDict[int, int] = field(default_factory=OrderedDict)
    in_flight: dict[int, int] = field(default_factory=dict)
    size: int = 0  # bytes of all three

    def add(self, seq: int, size: int) -> None:
        self.remove(seq)
        late = bool(self.live) and seq < next(reversed(self.live))
        self.live[seq] = size
        self.size += size
        if late:
            self.live = OrderedDict(sorted(self.live.items()))

    def remove(self, seq: int) -> int | None:
        """Drop one record wherever it stands; its bytes if it was in flight, None if it was nowhere."""
        for queue in (self.live, self.backlog):
            size = queue.pop(seq, None)
            if size is not None:
                self.size -= size
                return 0
        size = self.in_flight.pop(seq, None)
        self.size -= size or 0
        return size

    def through(self, seq: int) -> list[int]:
        """Numbers up to and including `seq`."""
        done = [s for s in self.in_flight if s <= seq]
        for queue in (self.backlog, self.live):
            done += takewhile(lambda s: s <= seq, queue)
        return done

    def restart(self) -> None:
        """Everything waits again, as backlog."""
        if self.live or self.in_flight:
            self.backlog = OrderedDict(sorted({**self.backlog, **self.live, **self.in_flight}.items()))
            self.live.clear()
            self.in_flight.clear()


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
        return len(queue.live) + len(queue.backlog) + len(queue.in_flight)

    def waiting_bytes(self, lane: Lane) -> int:
        """Bytes of a lane that are not acknowledged."""
        return self._lanes[lane].size

    def lowest(self, lane: Lane) -> int | None:
        """Lowest sequence number that is not acknowledged; None when there is none."""
        queue = self._lanes[lane]
        ends = [next(iter(waiting)) for waiting in (queue.backlog, queue.live) if waiting]
        return min((*ends, *queue.in_flight), default=None)

    def add(self, record: Pending) -> None:
        """A record is durable in the spool and may be sent."""
        self._in_flight_bytes -= self._lanes[record.lane].in_flight.get(record.seq, 0)
        self._lanes[record.lane].add(record.seq, record.size)

    def forget(self, lane: Lane, seqs: Iterable[int]) -> None:
        """Records were dropped on purpose from the spool."""
        for seq in seqs:
            self._in_flight_bytes -= self._lanes[lane].remove(seq) or 0

    def restart(self) -> None:
        """A new session begins: everything in flight waits again, and what waits is backlog."""
        self._in_flight_bytes = 0
        for queue in self._lanes.values():
            queue.restart()

    def take(self, *, backlog: bool = True, above: Lane | None = None) -> Pending | None:
        """The next record to send, marked as in flight; None when the window is full or nothing waits.

        One record larger than the whole window goes out alone, so that nothing waits for ever. Without `backlog` old
        roll-ups and tables stay where they are; `above` leaves out what would not go before a record of that lane.
        """
        choice = self._choose(backlog, above)
        if choice is None:
            return None
        lane, seq, waiting = choice
        size = waiting[seq]
        if self._in_flight_bytes and self._in_flight_bytes + size > self.window_bytes:
            return None
        del waiting[seq]
        self._lanes[lane].in_flight[seq] = size
        self._in_flight_bytes += size
        return Pending(lane, seq, size, waiting is self._lanes[lane].backlog)

    def _choose(self, backlog: bool, above: Lane | None) -> tuple[Lane, int, OrderedDict[int, int]] | None:
        events, site, devices = (self._lanes[lane] for lane in LANES)
        order: tuple[tuple[Lane, OrderedDict[int, int]], ...] = (
            (wire.LANE_EVENTS, events.backlog),
            (wire.LANE_EVENTS, events.live),
            (wire.LANE_SITE, site.live),
            (wire.LANE_DEVICES, devices.live),
            (wire.LANE_SITE, site.backlog),
            (wire.LANE_DEVICES, devices.backlog),
        )
        if above is not None:
            order = order[: next(i for i, (lane, _) in enumerate(order) if lane == above)]
        for lane, waiting in order if backlog else order[:4]:
            if waiting:
                return lane, next(reversed(waiting) if lane in NEWEST_FIRST else iter(waiting)), waiting
        return None

    def acked(self, ack: wire.LaneAck) -> list[int]:
        """Take an acknowledgement; returns the sequence numbers that the spool may delete now."""
        queue = self._lanes.get(ack.lane)
        if queue is None:
            return []
        done = queue.through(ack.through_seq)
        self.forget(ack.lane, done)
        for seq in ack.also_seqs:
            freed = queue.remove(seq)
            if freed is not None:
                self._in_flight_bytes -= freed
                done.append(seq)
        return done
