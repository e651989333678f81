"""The fleet as dispatch sees it: live tables, prices and orders in, `FleetState` out. A pure function of values.

What a site has not told is filled in on the careful side: silent machines are charged at normal power, a site without
a roll-up has nothing to plan, and no fresh figure raises a ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

from controller.connection import BacklogSettings, ConnectionSettings, PoolTerms, backlogs_now
from controller.dispatch.inputs import ClassState, FleetState, PoolState, PriceStep, SiteState
from controller.dispatch.terms import Backlog, DemandCharge, Queue, WattStep
from controller.events.calls import standing_ready
from controller.events.windows import Orders
from controller.fleet.backlogs import aged, demanded, has_own, own_backlog, own_name, waiting_gpu_h
from controller.fleet.curves import learned
from controller.fleet.tables import SiteLive
from controller.markets.ai_backlog import Piece
from controller.markets.ai_queue import queue_of
from controller.markets.book import MarketBook
from gridpivot.clock import Instant
from gridpivot.curves import AiPool, MinerClass
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import AiPriority, DeviceState, LinkState, Mode

OVERHEAD_RATIO_MAX = 0.5  # more than half again for cooling is a broken meter, not a site
WAKING = DeviceState.WAKING.code


@dataclass(frozen=True, slots=True)
class SiteTerms:
    """What the settings say of a site: its ceiling [W], ramps [W/min, 0 = none], overhead until it is measured."""

    name: str
    ceiling_w: float
    drop_ramp_w_per_min: float = 0.0
    pick_up_ramp_w_per_min: float = 0.0
    overhead_ratio: float = 0.05
    pools: Mapping[str, PoolTerms] = field(default_factory=dict)
    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    tariff: str | None = None  # name of a tariff; None = the region's


class Memory(Protocol):
    """What is remembered of a site between its reports."""

    def demand_charge(self, site: str, region: str, now: Instant) -> DemandCharge | None:
        """The charge on a new peak of the billing month; None where there is none."""
        ...

    def demand_ahead(
        self, site: str, pool: AiPool, present_w: float | None, queue: Queue | None, now: Instant
    ) -> tuple[WattStep, ...]:
        """What a pool will probably want [W]; () while nothing is known of it."""
        ...

    def waited(self, site: str, pool: str) -> tuple[Piece, ...] | None:
        """Deferrable work of a pool by when it came; None = never told."""
        ...


def own_ceiling_w(terms: SiteTerms, rollup: pb.SiteRollup | None) -> float:
    """Lower of the ceilings in the controller's and the site's own settings [W]."""
    if rollup is None or rollup.site_ceiling_w <= 0:
        return terms.ceiling_w
    return min(terms.ceiling_w, rollup.site_ceiling_w)


def local_ceiling_w(rollup: pb.SiteRollup | None) -> float:
    """Lowest ceiling that somebody at the site has ordered by hand [W]; infinite without one."""
    if rollup is None or not rollup.HasField("local_ceiling_w") or not rollup.local_ceiling_w >= 0.0:
        return math.inf
    return rollup.local_ceiling_w


def fleet_state(
    sites: Sequence[tuple[SiteTerms, SiteLive]],
    book: MarketBook,
    orders: Orders,
    now: Instant,
    *,
    fleet_floor_hs: float = 0.0,
    speed: float = 1.0,
    backlogs: Sequence[BacklogSettings] = (),
    fresh_s: float = math.inf,
    memory: Memory | None = None,
) -> FleetState:
    """All sites that have ever reported an inventory and a roll-up, in the order given.

    A site whose newest roll-up is older than `fresh_s` is marked stale: it is held, not planned.
    """
    hashprice, _ = book.hashprice(now)
    waiting = waiting_gpu_h((terms.pools, live.rollup) for terms, live in sites)
    at_unix_s = book.data_unix_s(now)
    known = tuple(
        aged(b, _pieces(b.name, sites, memory), at_unix_s, speed) for b in backlogs_now(backlogs, waiting, speed)
    )
    states = tuple(
        replace(
            _site(terms, live, book, orders, now, speed, {b.name for b in known}, memory),
            stale=(live.rollup_age_s(now) or 0.0) > fresh_s,
        )
        for terms, live in sites
        if live.inventory_hash and live.rollup is not None
    )
    rollups = {live.name: live.rollup for _, live in sites if live.rollup is not None}
    own = _own_backlogs(states, rollups, at_unix_s, speed, memory)
    return FleetState(states, hashprice, fleet_floor_hs, speed, (*known, *own))


def _pieces(
    backlog: str, sites: Sequence[tuple[SiteTerms, SiteLive]], memory: Memory | None
) -> list[tuple[Piece, ...] | None]:
    """Work of the pools that tell what waits for a backlog of the settings, by when it came."""
    if memory is None:
        return []
    return [
        memory.waited(live.name, pool.name)
        for terms, live in sites
        for pool in (live.rollup.pools if live.rollup is not None else ())
        if (own := terms.pools.get(pool.name)) is not None and own.backlog == backlog and pool.HasField("backlog_gpu_h")
    ]


def _own_backlogs(
    sites: Sequence[SiteState],
    rollups: Mapping[str, pb.SiteRollup],
    at_unix_s: float,
    speed: float,
    memory: Memory | None,
) -> list[Backlog]:
    found = []
    for site in sites:
        defer_s = {p.name: p.defer_within_s for p in rollups[site.name].pools}
        for p in site.pools:
            if p.backlog == own_name(site.name, p.pool.name):
                pieces = memory.waited(site.name, p.pool.name) if memory is not None else None
                backlog = own_backlog(site.name, site.region, p, defer_s[p.pool.name], pieces, at_unix_s, speed)
                found.append(backlog)
    return found


def _site(
    terms: SiteTerms,
    live: SiteLive,
    book: MarketBook,
    orders: Orders,
    now: Instant,
    speed: float,
    backlogs: Collection[str],
    memory: Memory | None,
) -> SiteState:
    rollup = live.rollup
    assert rollup is not None
    own_w = own_ceiling_w(terms, rollup)
    classes = {c.name: c for c in rollup.classes}
    pools = {p.name: p for p in rollup.pools}
    prices: tuple[PriceStep, ...] = book.steps(live.region, now, terms.tariff)
    states = tuple(_pool(p, pools.get(p.name), terms, book, backlogs) for p in live.pools)
    charge = None
    if memory is not None:
        states = tuple(
            replace(p, demand=memory.demand_ahead(live.name, p.pool, p.demand_w, demanded(p), now)) for p in states
        )
        charge = memory.demand_charge(live.name, live.region, now)
    own = terms.connection.state(book.data_unix_s(now), speed)
    rest_s = {sold.product: sold.rest_h * 3600.0 / speed for sold in terms.connection.sold}
    own["sold"] = standing_ready(own["sold"], rest_s, orders.calls(live.name, now))
    return SiteState(
        name=live.name,
        region=live.region,
        ceiling_w=min(orders.overridden_ceiling_w(live.name, own_w, now), local_ceiling_w(rollup)),
        windows=orders.windows(live.name, own_w, now),
        classes=tuple(
            replace(class_state(c, classes.get(c.name)), feeder=terms.connection.feeder_of("classes", c.name))
            for c in live.classes
        ),
        pools=states,
        overhead_ratio=overhead_ratio(rollup, terms.overhead_ratio),
        fixed_w=max(0.0, rollup.unattributed_power_w),
        prices=prices,
        pool_fee_ratio=book.pool_fee_ratio,
        drop_ramp_w_per_min=terms.drop_ramp_w_per_min,
        pick_up_ramp_w_per_min=terms.pick_up_ramp_w_per_min,
        connected=live.link is LinkState.CONNECTED,
        metered_power_w=rollup.metered_power_w if rollup.HasField("metered_power_w") else None,
        demand_charge=charge,
        risk=book.risk_steps(live.region, now, terms.tariff),
        **own,
    )


def class_state(miner_class: MinerClass, rollup: pb.ClassRollup | None) -> ClassState:
    """Machines of a class; commanded modes are scaled to the machines that obey, unsaid ones count as normal."""
    if rollup is None:
        return ClassState(miner_class, 0, 0, 0.0, (0.0, 0.0, 0.0, 0.0), 0.0, 0.0)
    counts = [float(n) for n in rollup.mode_counts[:4]] + [0.0] * (4 - len(rollup.mode_counts[:4]))
    total, available = sum(counts), float(rollup.available)
    if total > available > 0:
        counts = [n * available / total for n in counts]
    elif total > available:
        counts = [0.0] * 4
    else:
        counts[2] += available - total
    waking = min(float(rollup.state_counts[WAKING]) if len(rollup.state_counts) > WAKING else 0.0, counts[2])
    return ClassState(
        miner_class=miner_class,
        available=rollup.available,
        silent=rollup.silent,
        silent_power_w=rollup.silent_power_w
        if rollup.HasField("silent_power_w")
        else rollup.silent * miner_class.modes[Mode.NORMAL].power_w,
        commanded=(counts[0], counts[1], counts[2], counts[3]),
        waking=waking,
        waking_remaining_s=miner_class.wake_s if waking else 0.0,
        achievable_w=rollup.achievable_power_w if rollup.HasField("achievable_power_w") else None,
    )


def overhead_ratio(rollup: pb.SiteRollup, otherwise: float) -> float:
    """Overhead per watt of mining and AI as the site reports it, within reason; `otherwise` while it says nothing."""
    it_load_w = rollup.mining_power_w + rollup.ai_power_w
    if not rollup.HasField("overhead_power_w") or it_load_w <= 0.01 * max(rollup.site_ceiling_w, 1.0):
        return otherwise
    # Two digits: overhead drifts with every reading, and a new ratio is a new matrix for the solver.
    return round(min(OVERHEAD_RATIO_MAX, max(0.0, rollup.overhead_power_w / it_load_w)), 2)


def _pool(
    pool: AiPool, rollup: pb.PoolRollup | None, terms: SiteTerms, book: MarketBook, backlogs: Collection[str]
) -> PoolState:
    own = terms.pools.get(pool.name, PoolTerms())
    income = own.usd_per_gpu_hour
    if income is None:
        income = book.ai_usd_per_gpu_hour(pool.name, pool.priority)
    state = PoolState(
        pool=learned(pool, rollup),
        power_w=rollup.power_w if rollup is not None and rollup.HasField("power_w") else None,
        limit_w=rollup.limit_w if rollup is not None else pool.baseline_w,
        demand_w=rollup.demand_w if rollup is not None and rollup.HasField("demand_w") else None,
        income_usd_per_gpu_hour=income,
        idle_paid=own.idle_paid,
        feeder=terms.connection.feeder_of("pools", pool.name),
        shed_s=own.shed_s,
        backlog=own.backlog
        if own.backlog is not None and own.backlog in backlogs and pool.priority is AiPriority.STANDARD
        else "",
        queue=queue_of(rollup) if rollup is not None else None,
    )
    return replace(state, backlog=own_name(terms.name, pool.name)) if has_own(state, rollup, own) else state


def margin_usd_per_h(site: SiteState, rollup: pb.SiteRollup, hashprice_usd_per_ph_day: float) -> float | None:
    """Mining and AI income less power, now [USD/h]; None while the price or the power is unknown."""
    if not site.prices or not rollup.HasField("hashrate_hs"):
        return None
    power_w = rollup.metered_power_w if rollup.HasField("metered_power_w") else rollup.assumed_power_w
    mining = rollup.hashrate_hs / 1e15 * hashprice_usd_per_ph_day / 24 * (1 - site.pool_fee_ratio)
    ai = sum(p.pool.gpu_count * p.income_usd_per_gpu_hour * _throughput(p) for p in site.pools)
    return mining + ai - power_w / 1e6 * site.prices[0].usd_per_mwh


def _throughput(pool: PoolState) -> float:
    """Throughput of a pool at its present power (ratio): along its curve, nothing at idle."""
    power_w = pool.power_w
    if power_w is None or power_w <= pool.pool.baseline_w:
        return 1.0 if pool.idle_paid else 0.0
    points = ((pool.pool.baseline_w, 0.0), *pool.pool.curve)
    for (w0, r0), (w1, r1) in pairwise(points):
        if power_w <= w1:
            return r0 + (r1 - r0) * (power_w - w0) / (w1 - w0) if w1 > w0 else r1
    return points[-1][1]
