"""Records that come in parts, put together. Bounded: one unfinished record a lane, and no record over a megabyte size.

On a thin link an agent cuts a device table, so that roll-ups and heartbeats go between its parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gridpivot.errors import BadReport
from gridpivot.link.lanes import Lane
from gridpivot.v1 import session_pb2 as wire

MOST_RECORD_BYTES = 8 * 2**20  # compressed, all parts; as one message it may not be larger either
MOST_PARTS = 65_536


@dataclass(slots=True)
class _Unfinished:
    seq: int
    parts: int
    size: int = 0
    pieces: list[bytes] = field(default_factory=list)


class Assembly:
    """Unfinished records of one session."""

    def __init__(self) -> None:
        self._unfinished: dict[Lane, _Unfinished] = {}

    def add(self, lane: Lane, part: wire.LaneRecord) -> wire.LaneRecord | None:
        """The whole record once its last part is there; raises BadReport for parts that contradict each other."""
        if part.parts <= 1 and part.part == 0:
            return part
        if part.parts > MOST_PARTS or part.part >= part.parts:
            raise BadReport(f"part {part.part} of {part.parts} of record {part.seq}: there is no such part")
        held = self._unfinished.get(lane)
        if part.part == 0:
            held = self._unfinished[lane] = _Unfinished(part.seq, part.parts)
        if held is None or (held.seq, held.parts, len(held.pieces)) != (part.seq, part.parts, part.part):
            raise BadReport(f"part {part.part} of {part.parts} of record {part.seq} does not follow what came before")
        held.pieces.append(part.payload)
        held.size += len(part.payload)
        if held.size > MOST_RECORD_BYTES:
            raise BadReport(f"record {part.seq} is over {MOST_RECORD_BYTES} bytes; it is not taken")
        if len(held.pieces) < held.parts:
            return None
        del self._unfinished[lane]
        return wire.LaneRecord(
            seq=part.seq,
            spooled_at_unix_ms=part.spooled_at_unix_ms,
            kind=part.kind,
            payload=b"".join(held.pieces),
            thinned=part.thinned,
        )
