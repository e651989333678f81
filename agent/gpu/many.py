"""Several sources of AI pools behind one face, in the order in which the inventory has them."""

from __future__ import annotations

from collections.abc import Sequence

from agent.backends import ClockLocks, ClockState, Fallbacks, PoolReading, Pools
from agent.gpu.reading import GpuReading
from gridpivot.clock import Instant


class ManyPools:
    """`parts` with how many pools each has; those that hold fallbacks get their share of them."""

    def __init__(self, parts: Sequence[tuple[Pools, int]], holders: Sequence[Fallbacks | None]) -> None:
        self._parts, self._holders = tuple(parts), tuple(holders)

    def read(self, now: Instant) -> Sequence[PoolReading]:
        """All of them."""
        return [reading for part, _ in self._parts for reading in part.read(now)]

    def set_limit(self, pool: int, limit_w: float, now: Instant) -> None:
        """To the source that has this pool."""
        part, index = self._part(pool)
        part.set_limit(index, limit_w, now)

    def _part(self, pool: int) -> tuple[Pools, int]:
        """The source that has this pool, and its place there."""
        for part, count in self._parts:
            if pool < count:
                return part, pool
            pool -= count
        raise IndexError(pool)

    def lock_clocks(self, pool: int, mhz: int | None, now: Instant) -> None:
        """To the source that has this pool, if it can."""
        part, index = self._part(pool)
        if isinstance(part, ClockLocks):
            part.lock_clocks(index, mhz, now)

    def clocks(self, pool: int) -> ClockState:
        """Of the source that has this pool."""
        part, index = self._part(pool)
        return (
            part.clocks(index)
            if isinstance(part, ClockLocks)
            else ClockState(refused="unsupported", detail="clocks cannot be locked here")
        )

    def hold(self, fallback_w: Sequence[float], now: Instant) -> None:
        """Each holder gets the fallbacks of its own pools."""
        first = 0
        for (_, count), holder in zip(self._parts, self._holders, strict=True):
            if holder is not None:
                holder.hold(fallback_w[first : first + count], now)
            first += count

    @property
    def readings(self) -> list[GpuReading]:
        """Every GPU of every source that tells GPUs."""
        return [reading for part, _ in self._parts for reading in getattr(part, "readings", [])]

    @property
    def node_pools(self) -> object | None:
        """The source that has nodes, if any."""
        return next(
            (found for part, _ in self._parts if (found := getattr(part, "node_pools", None)) is not None), None
        )

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Of the source that counts."""
        return next((c for part, _ in self._parts if (c := getattr(part, "counters", None)) is not None), {})
