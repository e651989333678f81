"""What dispatch knows and what it answers: plain values, no sockets, no clock, no database.

The controller's service fills `FleetState` from live tables, markets and events; `Decision` goes back. Everything a
decision depends on is in here, so that a decision can be replayed from its record.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.dispatch.terms import (
    Backlog,
    Contract,
    DemandCharge,
    FeederState,
    Queue,
    RampStep,
    SoldCapacity,
    SupplyState,
    WattStep,
)
from gridpivot.curves import AiPool, MinerClass
from gridpivot.vocabulary import Rung


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
    feeder: str = ""  # name of the site's feeder that carries it; "" = none modelled
    achievable_w: float | None = None  # most that containers and PDUs allow [W at the devices]; None = no limit told


@dataclass(frozen=True, slots=True)
class PoolState:
    """One AI pool at a site. Watts at the wall; None is unknown."""

    pool: AiPool
    power_w: float | None
    limit_w: float
    demand_w: float | None
    income_usd_per_gpu_hour: float  # at full throughput
    idle_paid: bool = False  # paid even when idle; power that is refused is still a refund
    feeder: str = ""
    demand: tuple[WattStep, ...] = ()  # demand ahead; empty = `demand_w` throughout
    shed_s: float | None = None  # least time in which it can be shed; None = never counted as sheddable
    backlog: str = ""  # name of the regional backlog it works on; then its demand is what waits there
    queue: Queue | None = None  # as its workload manager tells it; None = not told, or not wholly


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
    feeders: tuple[FeederState, ...] = ()
    drop_ramp: tuple[RampStep, ...] = ()  # ascending in `from_w`; over `drop_ramp_w_per_min` where given
    pick_up_ramp: tuple[RampStep, ...] = ()
    contract: Contract | None = None
    demand_charge: DemandCharge | None = None
    risk: tuple[PriceStep, ...] = ()  # coincident-peak risk as a price [USD/MWh], on top of `prices`
    supplies: tuple[SupplyState, ...] = ()
    export_limit_w: float = 0.0
    export_fee_usd_per_mwh: float = 0.0  # export earns the price less this
    sold: tuple[SoldCapacity, ...] = ()
    ai_reserve_w: float = 0.0  # sheddable load already promised to swings of AI [W at the meter]
    stale: bool = False  # its newest report is too old to plan on


@dataclass(frozen=True, slots=True)
class FleetState:
    """All sites at one moment."""

    sites: tuple[SiteState, ...]
    hashprice_usd_per_ph_day: float
    fleet_floor_hs: float = 0.0  # least hashrate of the fleet [H/s]
    speed: float = 1.0  # compressed time in demos: periods are this much shorter in real seconds
    backlogs: tuple[Backlog, ...] = ()


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
    admits: bool | None = None  # whether new work may start; None = the site decides


@dataclass(frozen=True, slots=True)
class Binding:
    """A constraint without slack and what one more MWh of it would be worth."""

    name: str
    limit: float
    shadow_price_usd_per_mwh: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """One period of a site's plan ahead: what is expected, allowed, and what one more MWh under each limit is worth.

    `shadow` holds (constraint, USD/MWh) of every constraint that binds in the period, dearest first; the constraint
    is named as in `Binding`.
    """

    starts_in_s: float
    width_s: float
    price_usd_per_mwh: float
    ceiling_w: float
    import_w: float
    mining_w: float
    ai_w: float
    shadow: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Worth:
    """What changes at a site would be worth over the horizon [USD], from its dual prices."""

    interconnect_usd_per_mw: float = 0.0  # one more MW of grid connection, all horizon long
    feeder_usd_per_mw: tuple[tuple[str, float], ...] = ()  # the same by feeder
    promised_gpu_usd: tuple[tuple[str, float], ...] = ()  # by guaranteed pool: one promised GPU less
    sold_usd_per_mw: tuple[tuple[str, float], ...] = ()  # by product: one MW sold less


@dataclass(frozen=True, slots=True)
class SiteDecision:
    """What a site is asked to do now, and why."""

    site: str
    ceiling_w: float
    expected_power_w: float
    classes: tuple[ClassDecision, ...]
    pools: tuple[PoolDecision, ...]
    binding: tuple[Binding, ...]
    outlook: tuple[Outlook, ...] = ()
    worth: Worth = Worth()
    rung: Rung = Rung.PLAN  # below PLAN: what the ladder put in the place of a solution, and why
    rung_reason: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """What the solver started from: with the same state it gives the same decision, bit for bit.

    `bases` holds one basis per model that was solved, in order: status codes of columns then rows, a byte each;
    empty = cold. `coupled` tells whether all sites stood in one model.
    """

    solver: str  # name and version
    options: tuple[tuple[str, str], ...]
    bases: tuple[bytes, ...]
    coupled: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer over the fleet."""

    sites: tuple[SiteDecision, ...]
    objective_usd: float  # over the horizon; 0 on rungs that solve nothing
    solve_s: float
    warm: bool
    primal_infeasibility: float
    solver: str  # name and version
    start: Start | None = None
    rung: Rung = Rung.PLAN  # PLAN = solved, but for sites that say otherwise; below it what the ladder put in its place
    rung_reason: str = ""
