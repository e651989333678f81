"""Settle setpoints against what really happened: the same rules for every policy and for perfect foresight. Pure.

Rules: a woken machine draws power and earns nothing for its wake time, at its base mode's rate, and wears; AI draws
at most its demand and earns by its throughput curve; power costs the real-time price of its interval, a contract's
block is paid whether taken or not, the highest interval of each billing month bears the demand charge. What must not
be (guaranteed AI unserved, a ceiling or feeder passed, sold capacity missing) costs the same penalties that dispatch
reckons with. Together they are the dispatch model's own objective, so perfect foresight earns at least as much as
any policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.dispatch.parameters import Parameters
from controller.settlement.account import Account
from controller.settlement.plant import Floats, Plant, PlantPool, throughput
from controller.settlement.scenario import Scenario, SiteScenario
from gridpivot.vocabulary import AiPriority

TOLERANCE_W = 2.0  # above a ceiling this is the solver's tolerance (1e-6 MW), not power


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """What a policy asked of one site through a window: machines (interval, class, 4) and watts (interval, pool)."""

    machines: Floats
    pool_w: Floats
    start_machines: Floats  # (class, 4) before the first interval


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """A site's account and its course through the window, (interval,) each."""

    account: Account
    margin_usd: Floats  # the demand charge falls into the interval that set a month's peak
    mining_w: Floats  # at the meter, overhead included, as `ai_w`
    ai_w: Floats
    import_w: Floats


def settle(scenario: Scenario, site: SiteScenario, course: Course, policy: str, parameters: Parameters) -> Settled:
    """Account for one site under one policy; `course` covers the whole window."""
    plant, hours = site.plant, scenario.hours
    price, loading = scenario.price(site), 1.0 + plant.overhead_ratio
    usd_per_hs_h = scenario.hashprice * (1.0 - plant.pool_fee_ratio) / 24.0 / 1e15
    awake = course.machines[:, :, 1:].sum(axis=2)
    before = np.concatenate((course.start_machines[None, :, 1:].sum(axis=2), awake[:-1]))
    wakes = np.maximum(0.0, awake - before)
    hashing = (course.machines * np.nan_to_num(plant.mode_hs)).sum(axis=(1, 2))
    lost_hs_h = (wakes * plant.base_hs * plant.wake_s / 3600.0).sum(axis=1)
    mining_usd = usd_per_hs_h * (hashing * hours - lost_hs_h)
    wear_usd = -parameters.wear_usd_per_wake * wakes.sum(axis=1)

    drawn = drawn_w(plant, course.pool_w, site.demand_w.T)
    ai_usd = np.zeros(scenario.intervals)
    unserved_w = np.zeros(scenario.intervals)
    for k, pool in enumerate(plant.pools):
        ai_usd += pool_usd_per_hour(pool, drawn[:, k], site.demand_w[k]) * hours
        if pool.pool.priority is AiPriority.GUARANTEED:
            asked = np.clip(site.demand_w[k], pool.pool.baseline_w, pool.pool.max_w)
            unserved_w += np.maximum(0.0, asked - drawn[:, k])

    import_w = plant.import_w(course.machines, drawn)
    over_w = np.maximum(0.0, import_w - site.ceiling_w - TOLERANCE_W)
    feeder_w = _feeders_over_w(plant, course.machines, drawn)
    sold_w, sold_usd = _sold_short(site, course.machines, drawn)
    unserved_w = np.where(unserved_w > TOLERANCE_W, unserved_w, 0.0)
    penalty_usd = -sold_usd * hours - hours / 1e6 * (
        parameters.guaranteed_penalty_usd_per_mwh * unserved_w
        + parameters.ceiling_penalty_usd_per_mwh * (over_w + feeder_w)
    )
    rates = np.array([rule.availability_usd_per_mwh for rule in plant.sold])
    availability_usd = rates @ site.sold_w / 1e6 * hours
    power_usd = -_power_usd_per_hour(plant, import_w, price) * hours
    charge_usd = -_demand_charge_usd(site, import_w)
    margin = mining_usd + wear_usd + ai_usd + penalty_usd + availability_usd + power_usd + charge_usd

    def mwh(watts: Floats) -> float:
        return float(watts.sum()) * hours / 1e6

    account = Account(
        policy=policy,
        site=plant.name,
        mining_usd=float(mining_usd.sum()),
        ai_usd=float(ai_usd.sum()),
        power_usd=float(power_usd.sum()),
        demand_charge_usd=float(charge_usd.sum()),
        wear_usd=float(wear_usd.sum()),
        availability_usd=float(availability_usd.sum()),
        penalty_usd=float(penalty_usd.sum()),
        energy_mwh=mwh(import_w),
        mining_mwh=mwh(plant.mining_w(course.machines).sum(axis=1) * loading),
        ai_mwh=mwh(drawn.sum(axis=1) * loading),
        wakes=float(wakes.sum()),
        guaranteed_unserved_mwh=mwh(unserved_w),
        dr_shortfall_mwh=mwh(np.where(site.called, over_w, 0.0)),
        ceiling_excess_mwh=mwh(np.where(site.called, 0.0, over_w)),
        feeder_excess_mwh=mwh(feeder_w),
        sold_shortfall_mwh=mwh(sold_w),
    )
    mining_w = plant.mining_w(course.machines).sum(axis=1) * loading
    return Settled(account, margin, mining_w, drawn.sum(axis=1) * loading, import_w)


def drawn_w(plant: Plant, limit_w: Floats, demand_w: Floats) -> Floats:
    """What pools really draw (..., pool) [W]: their demand, held to a limit, between their baseline and their top."""
    top = np.array([p.pool.max_w for p in plant.pools])
    return np.clip(np.minimum(limit_w, demand_w), plant.baseline_w, top)


def pool_usd_per_hour(pool: PlantPool, drawn_w: Floats, asked_w: Floats) -> Floats:
    """Income of a pool [USD/h] -> (n,); one that is paid even when idle refunds what was asked for and refused."""
    full = pool.usd_per_gpu_hour * pool.pool.gpu_count
    done = throughput(pool.pool, drawn_w)
    if not pool.idle_paid:
        return full * done
    return full * (1.0 - (throughput(pool.pool, np.minimum(asked_w, pool.pool.max_w)) - done))


def _power_usd_per_hour(plant: Plant, import_w: Floats, price: Floats) -> Floats:
    """What import costs [USD/h]; of a contract's block the rest is sold back at the price less the fee, or lost."""
    usd = import_w / 1e6 * price
    if plant.contract is None:
        return usd
    terms = plant.contract
    block = terms.block_w / 1e6
    untaken = np.maximum(0.0, block - import_w / 1e6)
    lost = terms.sell_fee_usd_per_mwh if terms.sell_back else np.maximum(0.0, price)
    return np.asarray(usd + block * (terms.usd_per_mwh - price) + untaken * lost)


def _demand_charge_usd(site: SiteScenario, import_w: Floats) -> Floats:
    """Charge on each billing month's highest interval, in the interval that set it -> (interval,)."""
    usd = np.zeros(len(import_w))
    rate = site.plant.demand_charge_usd_per_kw
    if rate is not None:
        for month in np.unique(site.month):
            inside = np.flatnonzero(site.month == month)
            peak = inside[int(np.argmax(import_w[inside]))]
            usd[peak] = rate * import_w[peak] / 1e3
    return usd


def _feeders_over_w(plant: Plant, machines: Floats, drawn: Floats) -> Floats:
    over = np.zeros(len(machines))
    mining = plant.mining_w(machines)
    for feeder in plant.feeders:
        classes = [k for k, c in enumerate(plant.classes) if c.feeder == feeder.name]
        pools = [k for k, p in enumerate(plant.pools) if p.feeder == feeder.name]
        flow = (1.0 + plant.overhead_ratio) * (mining[:, classes].sum(axis=1) + drawn[:, pools].sum(axis=1))
        over += np.maximum(0.0, flow - feeder.limit_w - TOLERANCE_W)
    return over


def _sold_short(site: SiteScenario, machines: Floats, drawn: Floats) -> tuple[Floats, Floats]:
    """Sold capacity that was not there [W], and its penalty [USD/h] -> (interval,) both.

    As dispatch counts it: for each notice, load that sheds within it against everything sold up to that notice.
    """
    plant = site.plant
    short, usd = np.zeros(len(machines)), np.zeros(len(machines))
    asleep = plant.machines * np.nan_to_num(plant.mode_w)[:, 0]
    for notice_s in sorted({rule.notice_s for rule in plant.sold}):
        rules = [k for k, rule in enumerate(plant.sold) if rule.notice_s <= notice_s]
        classes = [k for k, c in enumerate(plant.classes) if c.miner_class.shed_s <= notice_s]
        pools = [
            k
            for k, p in enumerate(plant.pools)
            if p.pool.priority is not AiPriority.GUARANTEED and p.shed_s is not None and p.shed_s <= notice_s
        ]
        running = (plant.mining_w(machines) - asleep)[:, classes].sum(axis=1)
        running += (drawn - plant.baseline_w)[:, pools].sum(axis=1)
        asked = site.sold_w[rules].sum(axis=0)
        missing = np.maximum(0.0, asked - (1.0 + plant.overhead_ratio) * running - TOLERANCE_W)
        usd += missing / 1e6 * max(plant.sold[k].penalty_usd_per_mwh for k in rules)
        short = np.maximum(short, missing)
    return short, usd
