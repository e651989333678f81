"""What dispatch knows and what it answers: plain values, no sockets, no clock, no database.

The controller's service fills `FleetState` from live tables, markets and events; `Decision` goes back. Everything a
decision depends on is in here, so that a decision can be replayed from its record.
"""

from __future__ import annotations

from dataclasses import dataclass

from gridpivot.curves import AiPool, MinerClass


@dataclass(frozen=True, slots=True)
class ClassState:
    """Machines of one class at a site. Counts may be fractions of none: they come from whole machines."""

    miner_class: MinerClass
    available: int  # machines that obey: not locked, faulty or silent
    silent: int  # machines charged at assumed power, which no plan may move
    silent_power_w: float
    commanded: tuple[float, float, float, float]  # machines by commanded mode: sleep, low, normal, turbo
    waking: float  # machines on their way up, part of commanded normal
    waking_remaining_s: float  # until the last of them hashes


@dataclass(frozen=True, slots=True)
class PoolState:
    """One AI pool at a site. Watts at the wall; None is unknown."""

    pool: AiPool
    power_w: float | None
    limit_w: float
    demand_w: float | None
    income_usd_per_gpu_hour: float  # at full throughput
    idle_paid: bool = False  # paid even when idle


@dataclass(frozen=True, slots=True)
class Window:
    """A ceiling for a time, counted from now [s]; `ends_in_s` None = until released."""

    event_id: str
    ceiling_w: float
    starts_in_s: float
    ends_in_s: float | None


@dataclass(frozen=True, slots=True)
class PriceStep:
    """Power price from `starts_in_s` [s from now] until the next step [USD/MWh]."""

    starts_in_s: float
    usd_per_mwh: float


@dataclass(frozen=True, slots=True)
class SiteState:
    """One site as dispatch sees it."""

    name: str
    region: str
    ceiling_w: float  # contractual, or lower by override
    windows: tuple[Window, ...]
    classes: tuple[ClassState, ...]
    pools: tuple[PoolState, ...]
    overhead_ratio: float  # overhead per watt of mining and AI
    fixed_w: float  # import that no plan moves: unattributed, network, lights
    prices: tuple[PriceStep, ...]  # ascending; the first starts at or before now
    pool_fee_ratio: float
    drop_ramp_w_per_min: float  # 0 = none
    pick_up_ramp_w_per_min: float  # 0 = none
    connected: bool
    metered_power_w: float | None


@dataclass(frozen=True, slots=True)
class FleetState:
    """All sites at one moment."""

    sites: tuple[SiteState, ...]
    hashprice_usd_per_ph_day: float
    fleet_floor_hs: float = 0.0  # least hashrate of the fleet [H/s]
    speed: float = 1.0  # compressed time in demos: periods are this much shorter in real seconds


@dataclass(frozen=True, slots=True)
class ClassDecision:
    """Machines of a class by mode in the first period, and what their power earns."""

    name: str
    machines: tuple[float, float, float, float]  # sleep, low, normal, turbo
    value_usd_per_mwh: float  # in normal mode, at the meter


@dataclass(frozen=True, slots=True)
class PoolDecision:
    """Wall power of a pool in the first period."""

    name: str
    max_w: float  # most that economics allows: full demand unless AI earns less than power costs
    expected_w: float
    fallback_w: float
    value_usd_per_mwh: float


@dataclass(frozen=True, slots=True)
class Binding:
    """A constraint without slack and what one more MWh of it would be worth."""

    name: str
    limit: float
    shadow_price_usd_per_mwh: float


@dataclass(frozen=True, slots=True)
class SiteDecision:
    """What a site is asked to do now, and why."""

    site: str
    ceiling_w: float
    expected_power_w: float
    classes: tuple[ClassDecision, ...]
    pools: tuple[PoolDecision, ...]
    binding: tuple[Binding, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """One solution over the fleet."""

    sites: tuple[SiteDecision, ...]
    objective_usd: float  # over the horizon
    solve_s: float
    warm: bool
    primal_infeasibility: float
    solver: str  # name and version
