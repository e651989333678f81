"""Fleets for the dispatch bench: plain ones with one limit a site, and ones with every term of the model."""

from __future__ import annotations

import random
from dataclasses import replace

from controller.dispatch.inputs import ClassState, Decision, FleetState, PoolState, PriceStep, SiteState
from controller.dispatch.terms import (
    Backlog,
    Contract,
    DemandCharge,
    FeederState,
    RampStep,
    RateStep,
    SoldCapacity,
    SupplyState,
    WattStep,
)
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.vocabulary import AiPriority

MODELS = ("Antminer S19", "Antminer S19j Pro", "Antminer S19 XP", "Whatsminer M60", "Antminer S21")
MACHINES_PER_CLASS = 2250
REGIONS = 8
FEEDERS = ("a", "b", "c", "d")


def prices(rng: random.Random, region: int) -> tuple[PriceStep, ...]:
    """Two days of quarter hours [USD/MWh], night to evening peak, with noise."""
    shape = [22.0 + 4 * region + 30.0 * (17 <= (q // 4) % 24 <= 20) + rng.gauss(0, 8) for q in range(192)]
    return tuple(PriceStep(q * 900.0, p) for q, p in enumerate(shape))


def plain(sites: int, rng: random.Random) -> FleetState:
    """Sites of five classes and two pools, a third of them with a ceiling that binds, quarter-hourly prices."""
    classes = [miner_class(m, "virtual", m, shed_s=3, wake_s=240) for m in MODELS]
    by_region = [prices(rng, region) for region in range(REGIONS)]
    made = []
    for number in range(sites):
        awake = float(MACHINES_PER_CLASS)
        states = tuple(ClassState(c, int(awake), 0, 0.0, (0.0, 0.0, awake, 0.0), 0.0, 0.0) for c in classes)
        guaranteed = gpu_pool("inference", AiPriority.GUARANTEED, 2000)
        standard = gpu_pool("training", AiPriority.STANDARD, 4000)
        pools = (
            PoolState(guaranteed, 1.5e6, 2e6, rng.uniform(1.2e6, 2.2e6), 2.5),
            PoolState(standard, 3e6, 4e6, rng.uniform(2.5e6, 4.4e6), 1.6),
        )
        ceiling = rng.choice((36e6, 45e6, 55e6))
        made.append(
            SiteState(
                f"site-{number:02d}", f"region-{number % REGIONS}", ceiling, (), states, pools, 0.05, 200e3,
                by_region[number % REGIONS], 0.01, 0.0, 0.0, True, 0.8 * ceiling,
            )
        )  # fmt: skip
    return FleetState(tuple(made), 45.0)


def with_all_terms(fleet: FleetState, rng: random.Random) -> FleetState:
    """Every site behind four feeders, under a contract, a demand charge and a ramp curve, with supply, sold capacity
    and an achievable maximum; its deferrable work in a backlog that its region shares; a floor under the fleet.
    """
    sites = tuple(_under_terms(site, rng) for site in fleet.sites)
    backlogs = tuple(
        Backlog(f"batch-{r}", f"region-{r}", 9_000.0, (RateStep(0.0, 9_000.0),), 8 * 3600.0, 4 * 3600.0, 1.6)
        for r in range(min(REGIONS, len(sites)))
    )
    return replace(fleet, sites=sites, backlogs=backlogs, fleet_floor_hs=0.5e18 * len(sites) / 40)


def _under_terms(site: SiteState, rng: random.Random) -> SiteState:
    classes = [replace(c, feeder=FEEDERS[k % 4]) for k, c in enumerate(site.classes)]
    classes[0] = replace(classes[0], achievable_w=6.0e6)
    inference, training = site.pools
    demand = tuple(WattStep(h * 3600.0, rng.uniform(1.2e6, 2.2e6)) for h in range(48))
    pools = (
        replace(inference, feeder="d", demand=demand),
        replace(training, feeder="a", backlog=f"batch-{int(site.name.split('-')[1]) % REGIONS}", shed_s=60.0),
    )
    return replace(
        site,
        classes=tuple(classes),
        pools=pools,
        feeders=tuple(FeederState(f, 0.33 * site.ceiling_w) for f in FEEDERS),
        drop_ramp=(RampStep(0.0, 1.0e6), RampStep(20e6, 2.0e6)),
        pick_up_ramp=(RampStep(0.0, 1.0e6), RampStep(30e6, 0.5e6)),
        contract=Contract(0.5 * site.ceiling_w, 42.0, True, 2.0),
        demand_charge=DemandCharge(8.0, 0.9 * site.ceiling_w, 12 * 86_400.0),
        risk=(PriceStep(0.0, 0.0), PriceStep(16 * 3600.0, 150.0), PriceStep(18 * 3600.0, 0.0)),
        supplies=(
            SupplyState("solar", (WattStep(0.0, 1e6), WattStep(7 * 3600.0, 4e6), WattStep(19 * 3600.0, 0.0)), 5.0),
        ),
        export_limit_w=2e6,
        sold=(
            SoldCapacity("ECRS", 0.10 * site.ceiling_w, 600.0, 3600.0, 6 * 3600.0, 12.0),
            SoldCapacity("Non-Spin", 0.10 * site.ceiling_w, 1800.0, 0.0, None, 5.0),
        ),
        ai_reserve_w=0.4e6,
    )


def follow(state: FleetState, decision: Decision) -> FleetState:
    """The fleet as the decision commands it."""
    sites = tuple(
        replace(
            site,
            classes=tuple(replace(c, commanded=d.machines) for c, d in zip(site.classes, chosen.classes, strict=True)),
        )
        for site, chosen in zip(state.sites, decision.sites, strict=True)
    )
    return replace(state, sites=sites)
