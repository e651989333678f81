"""A site as its owner would describe it for a settlement: what stands there, what it owes, and what it draws. Pure.

Unlike a live `SiteState` nothing here changes from hour to hour: machines obey, figures are those of the fleet file.
`Setpoints` is what a policy asks of a site for one interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from controller.dispatch.terms import Contract, FeederState
from gridpivot.curves import AiPool, MinerClass
from gridpivot.segments import class_hull, pool_corners
from gridpivot.vocabulary import Mode

Floats = NDArray[np.float64]
MODES = (Mode.SLEEP, Mode.LOW, Mode.NORMAL, Mode.TURBO)  # the order of machine counts everywhere in this room


@dataclass(frozen=True, slots=True)
class Demand:
    """What an AI pool is asked for [W at the wall]: a level, shaped by the local hour, swinging, or a trace.

    `trace` holds (seconds from the first row, W) rows and repeats after `trace_span_s`. `swing_ratio` is the standard
    deviation of a swing around the level, made up from `seed` and slow (it forgets itself within about 3 h).
    """

    level_w: float
    by_hour: tuple[float, ...] = ()
    swing_ratio: float = 0.0
    seed: int = 1
    trace: tuple[tuple[float, float], ...] = ()
    trace_span_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PlantClass:
    """Machines of one class."""

    miner_class: MinerClass
    machines: int
    feeder: str = ""


@dataclass(frozen=True, slots=True)
class PlantPool:
    """One AI pool, its income at full throughput [USD per GPU-hour] and what it is asked for."""

    pool: AiPool
    usd_per_gpu_hour: float
    demand: Demand
    idle_paid: bool = False
    feeder: str = ""
    shed_s: float | None = None


@dataclass(frozen=True, slots=True)
class EventRule:
    """A ceiling from the grid: once, between two moments [Unix s], or on chosen days between two local times.

    Policies hear of each occurrence `notice_s` before it starts.
    """

    event_id: str
    ceiling_w: float
    notice_s: float
    once_unix_s: tuple[float, float] | None = None
    months: tuple[int, ...] = ()
    weekdays: tuple[int, ...] = ()  # Monday is 0
    from_hour: float = 0.0
    until_hour: float = 24.0


@dataclass(frozen=True, slots=True)
class SoldRule:
    """Reduction sold for the same local hours of every day."""

    product: str
    power_w: float
    notice_s: float
    availability_usd_per_mwh: float
    penalty_usd_per_mwh: float
    from_hour: float = 0.0
    until_hour: float = 24.0


@dataclass(frozen=True)
class Plant:
    """One site."""

    name: str
    region: str
    time_zone: ZoneInfo
    ceiling_w: float
    overhead_ratio: float
    fixed_w: float
    pool_fee_ratio: float
    classes: tuple[PlantClass, ...]
    pools: tuple[PlantPool, ...]
    feeders: tuple[FeederState, ...] = ()
    contract: Contract | None = None
    demand_charge_usd_per_kw: float | None = None
    sold: tuple[SoldRule, ...] = ()
    events: tuple[EventRule, ...] = field(default=())

    @cached_property
    def machines(self) -> Floats:
        """Machines by class -> (class,)."""
        return np.array([c.machines for c in self.classes], dtype=np.float64)

    @cached_property
    def mode_w(self) -> Floats:
        """Power of one machine by class and mode [W] -> (class, 4); modes off the hull stand as NaN."""
        return self._by_mode("power_w")

    @cached_property
    def mode_hs(self) -> Floats:
        """Hashrate of one machine by class and mode [H/s] -> (class, 4)."""
        return self._by_mode("hashrate_hs")

    def _by_mode(self, figure: str) -> Floats:
        table = np.full((len(self.classes), len(MODES)), np.nan)
        for row, own in enumerate(self.classes):
            for mode, point in class_hull(own.miner_class):
                table[row, MODES.index(mode)] = getattr(point, figure)
        return table

    @cached_property
    def base_hs(self) -> Floats:
        """Hashrate in the mode that machines wake into: normal, else the lowest of the hull [H/s] -> (class,)."""
        normal = self.mode_hs[:, MODES.index(Mode.NORMAL)]
        lowest = np.array([next((h for h in row[1:] if np.isfinite(h)), 0.0) for row in self.mode_hs])
        return np.where(np.isfinite(normal), normal, lowest)

    @cached_property
    def wake_s(self) -> Floats:
        """Time from asleep to hashing by class [s] -> (class,)."""
        return np.array([c.miner_class.wake_s for c in self.classes], dtype=np.float64)

    @cached_property
    def baseline_w(self) -> Floats:
        """Power of each pool's nodes that no cap lowers [W] -> (pool,)."""
        return np.array([p.pool.baseline_w for p in self.pools], dtype=np.float64)

    def mining_w(self, machines: Floats) -> Floats:
        """Power of machines by class and mode (..., class, 4) -> (..., class) [W at the devices]."""
        return np.asarray((machines * np.nan_to_num(self.mode_w)).sum(axis=-1))

    def import_w(self, machines: Floats, pool_w: Floats) -> Floats:
        """Import at the meter [W] of machines (..., class, 4) and pools (..., pool) -> (...)."""
        loads = self.mining_w(machines).sum(axis=-1) + pool_w.sum(axis=-1)
        return np.asarray(self.fixed_w + (1.0 + self.overhead_ratio) * loads)

    def all_in(self, mode: Mode) -> Floats:
        """All machines in one mode, or in the nearest lower one that their class has -> (class, 4)."""
        counts = np.zeros((len(self.classes), len(MODES)))
        for row, own in enumerate(self.classes):
            at = next(k for k in range(MODES.index(mode), -1, -1) if np.isfinite(self.mode_w[row, k]))
            counts[row, at] = own.machines
        return counts


@dataclass(frozen=True, slots=True, eq=False)
class Setpoints:
    """What a policy asks of one site for one interval: machines (class, 4) by mode, wall watts (pool,)."""

    machines: Floats
    pool_w: Floats


def throughput(pool: AiPool, power_w: Floats) -> Floats:
    """Share of full throughput that a pool reaches at `power_w` (n,): its concave hull, as dispatch values it."""
    corners = np.array(pool_corners(pool))
    return np.asarray(np.interp(power_w, corners[:, 0], corners[:, 1]))
