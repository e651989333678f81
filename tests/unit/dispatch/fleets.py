"""Random small fleets with some of every term that a site may stand under."""

from __future__ import annotations

from dataclasses import replace

from controller.dispatch.inputs import PriceStep, Window
from controller.dispatch.terms import (
    Backlog,
    Contract,
    DemandCharge,
    FeederState,
    RateStep,
    SoldCapacity,
    SupplyState,
    WattStep,
    WorkDue,
)
from gridpivot.vocabulary import AiPriority

PERIODS = (300.0, 300.0, 900.0, 3600.0, 3600.0)
HORIZON_S = sum(PERIODS)


def maybe(rng, chance, make):
    return make() if rng.random() < chance else None


def random_fleet(make, rng):
    """One to three small sites, each with some of every term that a site may stand under."""
    speed = rng.choice((1.0, 1.0, 30.0))
    sites = tuple(random_site(make, rng, f"site-{n}", speed) for n in range(rng.randint(1, 3)))
    backlogs = ()
    if any(p.backlog for s in sites for p in s.pools):
        arrivals = tuple(RateStep(t / speed, rng.uniform(0, 600)) for t in (0.0, rng.uniform(300, HORIZON_S)))
        due, first = rng.uniform(300, HORIZON_S) / speed, rng.uniform(200, HORIZON_S) / speed
        backlogs = (Backlog("batch", "north", rng.uniform(0, 800), arrivals, due, first, rng.uniform(0.2, 2.0), 3.0),)
        if rng.random() < 0.5:  # as pools tell it: ages are known, and the rest of their demand comes with it
            cut, second = rng.random() * backlogs[0].work_gpu_h, rng.uniform(-600, HORIZON_S) / speed
            dues = (WorkDue(first, cut), WorkDue(second, backlogs[0].work_gpu_h - cut))
            backlogs = (replace(backlogs[0], arrivals=(), due=dues, follows_demand=True),)
    floor = rng.choice((0.0, 0.0, rng.uniform(0.05e18, 0.4e18)))
    return make.fleet(*sites, hashprice=rng.uniform(30, 80), speed=speed, fleet_floor_hs=floor, backlogs=backlogs)


def random_site(make, rng, name, speed):
    ceiling = rng.uniform(2e6, 9e6)
    feeders = tuple(FeederState(f, rng.uniform(0.8e6, 5e6)) for f in "xy"[: rng.choice((0, 0, 2))])
    cuts = sorted(rng.uniform(0, HORIZON_S) / speed for _ in range(rng.randint(0, 4)))
    prices = tuple(PriceStep(t, rng.choice((rng.uniform(-60, 150), rng.uniform(100, 900)))) for t in (0.0, *cuts))
    classes = tuple(random_class(make, rng, feeders) for _ in range(rng.randint(1, 2)))
    pools = tuple(random_pool(make, rng, f"pool-{n}", feeders, speed) for n in range(rng.randint(0, 2)))
    start = rng.uniform(-500, HORIZON_S) / speed
    windows = maybe(rng, 0.4, lambda: (Window("e", rng.uniform(0, ceiling), start, start + 2500 / speed),)) or ()
    sold = tuple(
        SoldCapacity(f"p{notice:g}", rng.uniform(0.2e6, 2e6), notice, rng.uniform(-900, 3000) / speed,
                     rng.choice((None, rng.uniform(3000, 9000) / speed)), rng.uniform(0, 9), rng.uniform(20, 6000))
        for notice in rng.sample((2.0, 600.0, 1800.0), rng.choice((0, 0, 1, 2)))
    )  # fmt: skip
    supplies = tuple(
        SupplyState(f"g{n}", (WattStep(0.0, rng.uniform(0, 3e6)), WattStep(1500 / speed, rng.uniform(0, 3e6))),
                    rng.uniform(0, 120), rng.uniform(0, 1e6), rng.random() < 0.8)
        for n in range(rng.choice((0, 0, 1, 2)))
    )  # fmt: skip
    return make.site(
        name, ceiling_w=ceiling, prices=prices, classes=classes, pools=pools, windows=windows, feeders=feeders,
        overhead_ratio=rng.uniform(0, 0.2), pool_fee_ratio=rng.uniform(0, 0.03), sold=sold, supplies=supplies,
        metered_power_w=rng.uniform(0, ceiling), ai_reserve_w=rng.uniform(0, 0.5e6),
        pick_up_ramp_w_per_min=rng.choice((0.0, rng.uniform(20e3, 400e3) * speed)),
        drop_ramp_w_per_min=rng.choice((0.0, rng.uniform(20e3, 400e3) * speed)),
        contract=maybe(rng, 0.3, lambda: Contract(rng.uniform(0.5e6, 6e6), 45.0, rng.random() < 0.6, rng.uniform(0, 9))),
        demand_charge=maybe(rng, 0.3, lambda: DemandCharge(
            rng.uniform(1, 15), rng.uniform(0, ceiling), rng.uniform(400, 4 * HORIZON_S) / speed)),
        risk=maybe(rng, 0.2, lambda: (PriceStep(0.0, 0.0), PriceStep(2000 / speed, 300.0), PriceStep(5000 / speed, 0.0))) or (),
        export_limit_w=rng.choice((0.0, rng.uniform(0, 2e6))), export_fee_usd_per_mwh=rng.uniform(0, 10),
    )  # fmt: skip


def random_class(make, rng, feeders):
    made, many = rng.choice((make.s21, make.s19)), rng.randint(50, 900)
    parts = [rng.random() for _ in range(4)]
    commanded = tuple(many * p / sum(parts) for p in parts)
    waking = rng.choice((0.0, commanded[2] * rng.random()))
    state = make.machines(
        made, many, waking=waking, waking_remaining_s=rng.uniform(0, 300), silent_power_w=rng.uniform(0, 90e3)
    )
    feeder = rng.choice(feeders).name if feeders and rng.random() < 0.8 else ""
    achievable = rng.choice((None, None, rng.uniform(0, 4000) * many))
    return replace(state, commanded=commanded, feeder=feeder, achievable_w=achievable)


def random_pool(make, rng, name, feeders, speed):
    pool = make.pool(name, rng.choice(tuple(AiPriority)), rng.randint(100, 900), income=rng.uniform(0.02, 3.0))
    most = pool.pool.max_w
    backlog = "batch" if pool.pool.priority is AiPriority.STANDARD and rng.random() < 0.5 else ""
    return replace(
        pool, demand_w=rng.choice((None, rng.uniform(0, 1.2 * most))), backlog=backlog,
        demand=rng.choice(((), (WattStep(0.0, rng.uniform(0, most)), WattStep(2000 / speed, rng.uniform(0, most))))),
        idle_paid=rng.random() < 0.3 and not backlog, shed_s=rng.choice((None, 1.0, 900.0)),
        feeder=rng.choice(feeders).name if feeders else "",
    )  # fmt: skip
