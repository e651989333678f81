"""A second, slow, obviously-right model of dispatch, written machine by mode, must find the same cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import highspy
import numpy as np
import pytest

from controller.dispatch.horizon import average_price, ceilings
from controller.dispatch.inputs import PriceStep, Window
from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit

PERIODS = (300.0, 300.0, 900.0, 3600.0, 3600.0)
AWAKE = ("low", "normal", "turbo")


def oracle_cost(fleet, parameters: Parameters) -> float:
    """Cost over the horizon [USD] in watts, machines and hours, each equation as a person would write it."""
    nominal = np.array(PERIODS)
    edges = np.concatenate(([0.0], np.cumsum(nominal / fleet.speed)))
    hours = nominal / 3600
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    cost, hashes = [], [[] for _ in PERIODS]
    usd_per_hs_hour = fleet.hashprice_usd_per_ph_day / 24 / 1e15

    def variable(upper=highspy.kHighsInf, usd=0.0):
        one = highs.addVariable(0.0, upper)
        cost.append(usd * one)
        return one

    for site in fleet.sites:
        price = average_price(site.prices, edges, 50.0)
        limit = ceilings(site, edges, nominal)
        earns = usd_per_hs_hour * (1 - site.pool_fee_ratio)
        loads = [[0.0 * variable()] for _ in PERIODS]
        for state in site.classes:
            modes, made = state.miner_class.modes, state.miner_class
            rate = earns * modes["normal"].hashrate_hs
            was_awake = sum(state.commanded[1:])
            kept_waking = variable(state.waking, rate * state.waking_remaining_s / 3600 * fleet.speed)
            before = was_awake - state.waking + kept_waking
            for t, h in enumerate(hours):
                count = {m: variable(state.available, -earns * modes[m].hashrate_hs * h) for m in AWAKE}
                asleep = variable(state.available)
                awake = count["low"] + count["normal"] + count["turbo"]
                highs.addConstr(awake + asleep == state.available)
                woken = variable(usd=rate * made.wake_s / 3600 * fleet.speed + parameters.wear_usd_per_wake)
                highs.addConstr(woken >= awake - before)
                before = awake
                lost = min(1.0, made.wake_s / (PERIODS[t] / fleet.speed)) * woken + (kept_waking if t == 0 else 0.0)
                hashes[t] += [count[m] * modes[m].hashrate_hs / 1e15 for m in AWAKE]
                hashes[t].append(-modes["normal"].hashrate_hs / 1e15 * lost)
                loads[t] += [count[m] * modes[m].power_w for m in AWAKE]
                loads[t].append(asleep * modes["sleep"].power_w + state.silent_power_w)
        for state in site.pools:
            top = state.pool.max_w if state.demand_w is None else min(state.pool.max_w, state.demand_w)
            corners = ((state.pool.baseline_w, 0.0), *state.pool.curve)
            for t, h in enumerate(hours):
                draw = [state.pool.baseline_w + 0.0 * variable()]
                for (w0, r0), (w1, r1) in pairwise(corners):
                    per_w = (r1 - r0) * state.income_usd_per_gpu_hour * state.pool.gpu_count / (w1 - w0)
                    draw.append(variable(max(0.0, min(top, w1) - w0), -per_w * h))
                loads[t] += draw
                if state.pool.priority is AiPriority.GUARANTEED:
                    short = variable(usd=parameters.guaranteed_penalty_usd_per_mwh / 1e6 * h)
                    highs.addConstr(short >= max(top, state.pool.baseline_w) - sum(draw))
        previous = site.metered_power_w
        for t, h in enumerate(hours):
            over = variable(usd=parameters.ceiling_penalty_usd_per_mwh / 1e6 * h)
            paid = variable(limit[t], price[t] / 1e6 * h)
            highs.addConstr(paid + over == site.fixed_w + (1 + site.overhead_ratio) * sum(loads[t]))
            if site.pick_up_ramp_w_per_min:
                most = site.pick_up_ramp_w_per_min * PERIODS[t] / 60 / fleet.speed
                steep = variable(usd=parameters.ramp_penalty_usd_per_mwh / 1e6 * h)
                highs.addConstr(paid + over - previous <= most + steep)
            previous = paid + over
    if fleet.fleet_floor_hs:
        for t, h in enumerate(hours):
            short = variable(usd=parameters.floor_penalty_usd_per_ph_h * h)
            highs.addConstr(sum(hashes[t]) + short >= fleet.fleet_floor_hs / 1e15)
    highs.minimize(sum(cost))
    assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return highs.getObjectiveValue()


@pytest.mark.parametrize("floor_hs", [0.0, 0.35e18])
@pytest.mark.parametrize("speed", [1.0, 30.0])
@pytest.mark.parametrize("prices", [(40.0, 400.0, 60.0, 20.0), (95.0, 130.0, -20.0, 105.0), (900.0, 30.0, 30.0, 700.0)])
def test_both_models_find_the_same_cost(make, prices, speed, floor_hs):
    steps = tuple(PriceStep(t / speed, p) for t, p in zip((0.0, 250.0, 1500.0, 5000.0), prices, strict=True))
    mixed = replace(
        make.machines(make.s19, 800, waking=150.0, waking_remaining_s=90.0, silent=9, silent_power_w=31e3),
        commanded=(200.0, 100.0, 400.0, 100.0),
    )
    pools = [make.pool("inference", AiPriority.GUARANTEED, demand_w=1.0e6), make.pool(gpus=500, demand_w=0.4e6)]
    sites = (
        make.site("a", ceiling_w=5e6, prices=steps, classes=[make.machines(asleep=300), mixed], pools=pools,
                  windows=[Window("e", 1.1e6, 700.0 / speed, 4000.0 / speed)], pool_fee_ratio=0.02),
        make.site("b", prices=steps[::-1][:1], classes=[make.machines(make.s21, 600, asleep=600)],
                  metered_power_w=70e3, pick_up_ramp_w_per_min=50e3 * speed),
    )  # fmt: skip
    fleet = make.fleet(*sites, speed=speed, fleet_floor_hs=floor_hs)
    parameters = Parameters(move_usd_per_mw=0.0)
    decision = Planner(parameters, period_s=PERIODS).solve(fleet)
    assert decision.objective_usd == pytest.approx(oracle_cost(fleet, parameters), rel=1e-7, abs=1e-4)
