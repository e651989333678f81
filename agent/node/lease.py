"""What a node holds its GPUs to: the site's limits while the lease lives, after it the fallbacks. Pure.

The lease runs from moments of this node's own clock that came back from the site's agent, never from when something
arrived: what lay in a buffer renews nothing. After it a GPU goes to its fallback or stays lower, never up, never to the
board's default; and without a fallback it stays where it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.gpu.reading import GpuReading
from gridpivot.errors import BadReport
from gridpivot.v1 import node_pb2 as pb

MOST_LEASE_S = 120.0
MOST_MHZ = 10_000


@dataclass(slots=True)
class NodeLease:
    """Limits and fallbacks by UUID [W]. `ends_s` is monotonic; -inf = there is none."""

    fallback_w: dict[str, float] = field(default_factory=dict)
    limit_w: dict[str, float] = field(default_factory=dict)
    clock_mhz: dict[str, int] = field(default_factory=dict)  # locks, 0 = let go; they outlive the lease
    lease_s: float = 0.0
    ends_s: float = float("-inf")
    sequence: int = 0  # of this session

    def begin(self, lease_s: float) -> None:
        """A session begins: numbers start anew; what is held stays held for what is left of its lease."""
        self.sequence = 0
        self.lease_s = min(max(0.0, lease_s), MOST_LEASE_S)

    def live(self, now_s: float) -> bool:
        """Whether the site's limits hold."""
        return now_s < self.ends_s

    def renew(self, echo_s: float, now_s: float) -> None:
        """One of this node's own moments came back [monotonic s]; one that lies in the future is no moment of ours."""
        if echo_s <= now_s:
            self.ends_s = max(self.ends_s, echo_s + self.lease_s)

    def take(self, limits: pb.NodeLimits, uuids: Sequence[str], ranges: Mapping[str, tuple[float, float]]) -> bool:
        """Replace limits and fallbacks; True when they are others. Raises BadReport, and then nothing has changed.

        `ranges`: what each board takes [W].
        """
        limit_w: dict[str, float] = {}
        fallback_w: dict[str, float] = {}
        clock_mhz: dict[str, int] = {}
        seen: set[int] = set()
        for gpu in limits.gpus:
            if gpu.row >= len(uuids) or gpu.row in seen:
                raise BadReport(f"limits: row {gpu.row} of {len(uuids)} GPUs, or twice")
            seen.add(gpu.row)
            uuid = uuids[gpu.row]
            least_w, most_w = ranges.get(uuid, (0.0, 0.0))
            if gpu.HasField("clock_max_mhz"):
                if gpu.clock_max_mhz > MOST_MHZ:
                    raise BadReport(f"{uuid}: clock_max_mhz of {gpu.clock_max_mhz} MHz")
                clock_mhz[uuid] = gpu.clock_max_mhz
            for name, into in (("limit_w", limit_w), ("fallback_w", fallback_w)):
                if not (gpu.HasField("limit_w") if name == "limit_w" else gpu.HasField("fallback_w")):
                    continue
                watts = gpu.limit_w if name == "limit_w" else gpu.fallback_w
                if not math.isfinite(watts) or not least_w - 0.5 <= watts <= most_w + 0.5 or most_w <= 0.0:
                    raise BadReport(f"{uuid}: {name} of {watts:g} W is outside {least_w:g} to {most_w:g} W")
                into[uuid] = min(max(watts, least_w), most_w)
        changed = (limit_w, fallback_w) != (self.limit_w, self.fallback_w) or bool(
            clock_mhz.items() - self.clock_mhz.items()
        )
        # A fallback is forgotten only for another: a node must know where to go when its site is gone.
        self.limit_w, self.fallback_w = limit_w, {**self.fallback_w, **fallback_w}
        self.clock_mhz |= clock_mhz
        self.sequence = limits.sequence
        return changed

    def due(self, readings: Mapping[str, GpuReading], now_s: float) -> dict[str, float]:
        """Limits to enforce now [W by UUID]."""
        if self.live(now_s):
            return dict(self.limit_w)
        limits: dict[str, float] = {}
        for uuid, fallback_w in self.fallback_w.items():
            reading = readings.get(uuid)
            stands_w = None
            if reading is not None and not reading.lost:
                requested_w, enforced_w = reading.limit_requested_w, reading.limit_enforced_w
                stands_w = requested_w if requested_w is not None else enforced_w
            known = [watts for watts in (stands_w, self.limit_w.get(uuid)) if watts is not None]
            if known:  # where nothing is known of what stands, setting the fallback might raise it
                limits[uuid] = min(fallback_w, *known)
        return limits
