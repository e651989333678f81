"""Yesterday settled against what other rules would have earned: from decision records to accounts. Pure.

Prices, hashprice, ceilings, machines and AI demand are those of the records, in quarter hours; each quarter takes the
newest record at its beginning. The plans' own course is settled by the same rules as the threshold rule, the merit
order and perfect foresight, all from the machines as they stood when the day began. The demand charge is left out: a
day cannot say what it owes of a month.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from controller.dispatch.horizon import ceiling_now
from controller.dispatch.inputs import FleetState, SiteDecision, SiteState
from controller.dispatch.parameters import Parameters
from controller.markets.series import PriceSeries
from controller.settlement.account import Account
from controller.settlement.foresight import foresee
from controller.settlement.plant import Demand, Floats, Plant, PlantClass, PlantPool, SoldRule
from controller.settlement.rehearse import rehearse
from controller.settlement.rules import MeritOrderRule, Threshold
from controller.settlement.scenario import Call, Market, Scenario, SiteScenario
from controller.settlement.settle import Course, settle
from gridpivot.vocabulary import COMMANDABLE_MODES

QUARTER_S = 900.0
DAY_S = 86_400.0
LIVE = "live"
UTC = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Taken:
    """One decision of the day: when [Unix s], on what, and what each site was asked (sites by name)."""

    at_unix_s: float
    fleet: FleetState
    sites: dict[str, SiteDecision]


def settle_day(taken: Sequence[Taken], day_unix_s: float, parameters: Parameters) -> list[Account]:
    """Accounts of every site that was planned all day: live, threshold, merit-order, foresight.

    `taken` ascend in time and begin at or before the day; a site that was missing from any quarter, or whose classes
    or pools changed, is left out. Blocks for about 0.1 s per site.
    """
    quarters: Floats = np.asarray(day_unix_s + QUARTER_S * np.arange(round(DAY_S / QUARTER_S)), dtype=np.float64)
    at = np.searchsorted([t.at_unix_s for t in taken], quarters, side="right") - 1
    if not len(taken) or at.min() < 0:
        return []
    chosen = [taken[k] for k in at]
    accounts: list[Account] = []
    for name in [s.name for s in chosen[0].fleet.sites]:
        states = [_site_of(t.fleet, name) for t in chosen]
        decisions = [t.sites.get(name) for t in chosen]
        whole = [s for s in states if s is not None and s.prices]
        planned = [d for d in decisions if d is not None]
        if len(whole) == len(planned) == len(quarters) and _same_equipment(whole, planned):
            hashprice = np.array([t.fleet.hashprice_usd_per_ph_day for t in chosen], dtype=np.float64)
            accounts += _settle_site(whole, planned, quarters, hashprice, parameters)
    return accounts


def _settle_site(
    states: Sequence[SiteState],
    planned: Sequence[SiteDecision],
    quarters: Floats,
    hashprice: Floats,
    parameters: Parameters,
) -> list[Account]:
    scenario = scenario_of(states, quarters, hashprice)
    site = scenario.sites[0]
    count = len(site.plant.classes)
    start = np.array([_scaled(c.commanded, site.plant.machines[k]) for k, c in enumerate(states[0].classes)])
    start = start.reshape(count, len(COMMANDABLE_MODES))
    machines = np.array(
        [[_scaled(c.machines, site.plant.machines[k]) for k, c in enumerate(d.classes)] for d in planned]
    ).reshape(len(planned), count, len(COMMANDABLE_MODES))
    pools = np.array([[p.max_w for p in d.pools] for d in planned]).reshape(len(planned), len(site.plant.pools))
    courses = {LIVE: Course(machines, pools, start)}
    for rule in (Threshold(), MeritOrderRule()):
        (courses[rule.name],) = rehearse(scenario, rule, start=(start,))
    courses["foresight"] = foresee(scenario, site, start, parameters)[0]
    return [settle(scenario, site, course, name, parameters).account for name, course in courses.items()]


def scenario_of(states: Sequence[SiteState], quarters: Floats, hashprice: Floats) -> Scenario:
    """One site's day as the records tell it; every rule has the day's mean of machines to work with."""
    first = states[0]
    available = np.array([[c.available for c in s.classes] for s in states]).reshape(len(states), -1)
    plant = Plant(
        name=first.name,
        region=first.region,
        time_zone=UTC,
        ceiling_w=max(s.ceiling_w for s in states),
        overhead_ratio=float(np.mean([s.overhead_ratio for s in states])),
        fixed_w=float(np.mean([s.fixed_w for s in states])) + _silent_w(states),
        pool_fee_ratio=first.pool_fee_ratio,
        classes=tuple(
            PlantClass(c.miner_class, round(float(n)), c.feeder)
            for c, n in zip(first.classes, available.mean(axis=0), strict=True)
        ),
        pools=tuple(
            PlantPool(p.pool, p.income_usd_per_gpu_hour, Demand(0.0), p.idle_paid, p.feeder, p.shed_s)
            for p in first.pools
        ),
        feeders=first.feeders,
        contract=first.contract,
        sold=tuple(
            SoldRule(s.product, s.power_w, s.notice_s, s.availability_usd_per_mwh, s.penalty_usd_per_mwh)
            for s in first.sold
        ),
    )
    ceiling = np.array([ceiling_now(s)[0] for s in states])
    price = np.array([s.prices[0].usd_per_mwh + (s.risk[0].usd_per_mwh if s.risk else 0.0) for s in states])
    demand = np.array([[p.pool.max_w if p.demand_w is None else p.demand_w for p in s.pools] for s in states])
    demand = demand.reshape(len(states), len(first.pools)).T
    lowered = ceiling < plant.ceiling_w - 1.0
    edges = np.flatnonzero(np.diff(np.concatenate(([False], lowered, [False])).astype(int)))
    calls = tuple(
        Call("event", int(a), int(b), float(ceiling[a:b].min()), float(quarters[a]))
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    )
    sold = np.array([[_open_w(s, rule.product) for s in states] for rule in plant.sold]).reshape(-1, len(states))
    series = PriceSeries(first.name, quarters, price, QUARTER_S, (), ())
    site = SiteScenario(
        plant, ceiling, calls, lowered, demand, np.zeros((len(first.pools), 0)), sold, np.zeros(len(states))
    )
    return Scenario(quarters, QUARTER_S, {"": Market(series, price, None)}, hashprice, (site,))


def _open_w(site: SiteState, product: str) -> float:
    return sum(s.power_w for s in site.sold if s.product == product and s.starts_in_s <= 0)


def _silent_w(states: Sequence[SiteState]) -> float:
    """Mean power of silent machines at the meter [W]: charged to every rule alike."""
    return float(np.mean([(1.0 + s.overhead_ratio) * sum(c.silent_power_w for c in s.classes) for s in states]))


def _scaled(machines: Sequence[float], total: float) -> list[float]:
    """Counts by mode for a class of `total` machines, in the same shares; a class of none sleeps."""
    have = sum(machines)
    return [n * total / have for n in machines] if have > 0 else [total, 0.0, 0.0, 0.0]


def _site_of(fleet: FleetState, name: str) -> SiteState | None:
    return next((s for s in fleet.sites if s.name == name), None)


def _same_equipment(states: Sequence[SiteState], planned: Sequence[SiteDecision]) -> bool:
    def names(site: SiteState) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(c.miner_class.name for c in site.classes), tuple(p.pool.name for p in site.pools)

    def asked(site: SiteDecision) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(c.name for c in site.classes), tuple(p.name for p in site.pools)

    return {names(s) for s in states} | {asked(d) for d in planned} == {names(states[0])}


def fleet_totals(accounts: Sequence[Account]) -> dict[str, float]:
    """Margin of the fleet by policy [USD], over the sites that were settled."""
    found: dict[str, float] = {}
    for account in accounts:
        found[account.policy] = found.get(account.policy, 0.0) + account.margin_usd
    return found
