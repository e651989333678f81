"""Fleets to dispatch over, built from a few figures each."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from controller.dispatch.inputs import ClassState, Decision, FleetState, PoolState, PriceStep, SiteState
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.vocabulary import AiPriority

S21 = miner_class("s21", "virtual", "Antminer S21", shed_s=3, wake_s=120)
S19 = miner_class("s19", "virtual", "Antminer S19", shed_s=3, wake_s=240)


def machines(of=S21, count=1000, *, asleep=0, waking=0.0, waking_remaining_s=0.0, silent=0, silent_power_w=0.0):
    commanded = (float(asleep), 0.0, float(count - asleep), 0.0)
    return ClassState(of, count, silent, silent_power_w, commanded, waking, waking_remaining_s)


def pool(name="training", priority=AiPriority.STANDARD, gpus=1000, *, demand_w=None, income=2.0):
    made = gpu_pool(name, priority, gpus)
    return PoolState(made, None, made.max_w, demand_w, income)


def site(name="alpha", *, ceiling_w=20e6, price=40.0, prices=None, classes=None, pools=(), windows=(), **more):
    return SiteState(
        name,
        more.pop("region", name),
        ceiling_w,
        tuple(windows),
        tuple(classes if classes is not None else (machines(),)),
        tuple(pools),
        more.pop("overhead_ratio", 0.05),
        more.pop("fixed_w", 50e3),
        tuple(prices) if prices is not None else (PriceStep(0.0, price),),
        more.pop("pool_fee_ratio", 0.0),
        more.pop("drop_ramp_w_per_min", 0.0),
        more.pop("pick_up_ramp_w_per_min", 0.0),
        more.pop("connected", True),
        more.pop("metered_power_w", None),
        **more,
    )


def fleet(*sites, hashprice=48.0, **more):
    return FleetState(tuple(sites), hashprice, **more)


def follow(state: FleetState, decision: Decision) -> FleetState:
    """The fleet once every site has done what it was asked."""
    sites = tuple(
        replace(s, classes=tuple(replace(c, commanded=m.machines) for c, m in zip(s.classes, d.classes, strict=True)))
        for s, d in zip(state.sites, decision.sites, strict=True)
    )
    return replace(state, sites=sites)


def import_w(state: SiteState, decided) -> float:
    """Import that a decision leads to, added up machine by machine [W]."""
    loads = 0.0
    for known, chosen in zip(state.classes, decided.classes, strict=True):
        powers = [known.miner_class.modes[m].power_w for m in ("sleep", "low", "normal", "turbo")]
        loads += sum(n * w for n, w in zip(chosen.machines, powers, strict=True)) + known.silent_power_w
    loads += sum(p.expected_w for p in decided.pools)
    return state.fixed_w + (1 + state.overhead_ratio) * loads


@pytest.fixture(scope="session")
def make():
    """The builders above."""
    return SimpleNamespace(
        machines=machines, pool=pool, site=site, fleet=fleet, follow=follow, import_w=import_w, s21=S21, s19=S19
    )
