"""AI pools with a meter on their own circuit: what the meter shows counts, not what boards and an assumed host share add up to.

NVML misses CPUs, NICs and fans, 30-45 % of a server; a meter sees them, but later than the boards' own sensors. So while a pool
stands still its power is the meter's, and the difference to the model is learned; while it moves, the boards tell and the
difference is added. Limits and demand move by the difference too. Without a believed meter the model counts, and says so.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from agent.backends import ClockLocks, ClockState, Meter, PoolReading, Pools
from agent.gpu.reading import GpuReading
from gridpivot.clock import Instant

log = structlog.get_logger("agent.gpu.meter")
FRESH_S = 5.0
STILL_S, STILL_RATIO = 6.0, 0.03  # boards that moved less than this for so long stand still: the meter has caught up
LEARN_S = 20.0  # time constant of the difference
LEAST_RATIO, MOST_RATIO = 0.6, 1.6  # of the model: outside it is another circuit, or a CT ratio that is wrong


@dataclass(slots=True)
class _Beside:
    """One pool's model beside its meter."""

    more_w: float | None = None  # meter less model, learned while the pool stood still
    at_s: float = 0.0
    trouble: str = ""
    modelled: deque[tuple[float, float]] = field(default_factory=deque)

    def still(self, watts: float, now_s: float) -> bool:
        """Whether boards have stood still; remembers this reading."""
        self.modelled.append((now_s, watts))
        while self.modelled[0][0] < now_s - STILL_S:
            self.modelled.popleft()
        seen = [w for _, w in self.modelled]
        whole = now_s - self.modelled[0][0] >= STILL_S - 1.5
        return whole and max(seen) - min(seen) <= STILL_RATIO * max(seen)

    def learn(self, more_w: float, now_s: float) -> None:
        """One look at the difference."""
        keep = 0.0 if self.more_w is None else math.exp(-max(0.0, now_s - self.at_s) / LEARN_S)
        self.more_w = more_w + keep * ((self.more_w or 0.0) - more_w)
        self.at_s = now_s


class MeteredPools:
    """`pools` with a meter for some of them, by their place."""

    def __init__(self, pools: Pools, meters: Mapping[int, Meter]) -> None:
        self._pools, self._meters = pools, dict(meters)
        self._beside = {index: _Beside() for index in meters}

    def read(self, now: Instant) -> Sequence[PoolReading]:
        """Newest reading per pool, metered where that can be."""
        return [self._metered(index, reading, now) for index, reading in enumerate(self._pools.read(now))]

    def _metered(self, index: int, reading: PoolReading, now: Instant) -> PoolReading:
        beside = self._beside.get(index)
        if beside is None:
            return reading
        sample = self._meters[index].newest()
        if sample is None or now.monotonic_s - sample.read_at_s > FRESH_S:
            return self._modelled(index, reading, "no fresh sample")
        if reading.power_w is None:
            # Boards that are not read may draw anything: the meter alone knows, and what limits allow stays the bound.
            self._say(index, "")
            return replace(reading, power_w=max(0.0, sample.power_w), read_at_s=sample.read_at_s, metered=True)
        still = beside.still(reading.power_w, now.monotonic_s)
        if still and not LEAST_RATIO * reading.power_w <= sample.power_w <= MOST_RATIO * reading.power_w:
            told = f"{sample.power_w:.0f} W where boards and hosts make {reading.power_w:.0f} W; check circuit and CT"
            return self._modelled(index, reading, told)
        if still:
            beside.learn(sample.power_w - reading.power_w, now.monotonic_s)
        if beside.more_w is None:
            return reading
        self._say(index, "")
        more_w = beside.more_w
        return replace(
            reading,
            power_w=sample.power_w if still else max(0.0, reading.power_w + more_w),
            limit_w=reading.limit_w + more_w,
            demand_w=None if reading.demand_w is None else max(0.0, reading.demand_w + more_w),
            metered=True,
        )

    def _modelled(self, index: int, reading: PoolReading, trouble: str) -> PoolReading:
        """The model counts again, and what was learned of a meter that is not believed is forgotten."""
        self._beside[index].more_w = None
        self._say(index, trouble)
        return reading

    def _say(self, index: int, trouble: str) -> None:
        beside = self._beside[index]
        if bool(trouble) != bool(beside.trouble):
            (log.warning if trouble else log.info)("pool meter", pool=index, detail=trouble or "is believed")
        beside.trouble = trouble

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        """In the boards' own terms: what hosts draw beyond the model is taken off."""
        beside = self._beside.get(pool)
        more_w = 0.0 if beside is None or beside.more_w is None else beside.more_w
        self._pools.set_limit(pool, limit_w - more_w, now)

    def lock_clocks(self, pool: int, mhz: int | None, now: Instant) -> None:
        """The pools behind do it."""
        if isinstance(self._pools, ClockLocks):
            self._pools.lock_clocks(pool, mhz, now)

    def clocks(self, pool: int) -> ClockState:
        """As the pools behind have it."""
        if isinstance(self._pools, ClockLocks):
            return self._pools.clocks(pool)
        return ClockState(refused="unsupported", detail="clocks cannot be locked here")

    @property
    def readings(self) -> list[GpuReading]:
        """Every GPU of the pools behind."""
        return list(getattr(self._pools, "readings", []))

    @property
    def node_pools(self) -> object | None:
        """The pools over hosts among those behind, if any."""
        return getattr(self._pools, "node_pools", None)

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """As the pools behind count."""
        return dict(getattr(self._pools, "counters", {}))
