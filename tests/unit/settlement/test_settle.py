"""Settlement by hand: each line of the account against figures small enough to reckon on paper."""

from __future__ import annotations

import numpy as np
import pytest

from controller.dispatch.parameters import Parameters
from controller.dispatch.terms import Contract, FeederState
from controller.settlement.plant import Demand, EventRule, SoldRule
from controller.settlement.settle import Course, settle
from gridpivot.vocabulary import AiPriority, Mode

pytestmark = pytest.mark.unit

P = Parameters()


def course(plant, rows, pool_w=(), start=Mode.NORMAL):
    """All machines of every class in the given mode, interval by interval."""
    machines = np.array([plant.all_in(mode) for mode in rows])
    pools = np.tile(np.asarray(pool_w, dtype=float), (len(rows), 1))
    return Course(machines, pools, plant.all_in(start))


def account(world, plant, rows, prices, pool_w=(), start=Mode.NORMAL, **terms):
    scenario = world.scenario([plant], prices, **terms)
    return settle(scenario, scenario.sites[0], course(plant, rows, pool_w, start), "test", P)


def test_mining_earns_its_hashes_and_pays_the_real_time_price(world) -> None:
    # 1000 machines of 140 TH/s = 140 PH/s for a quarter hour; 3.01 MW with 5 % overhead and 0.1 MW of the rest.
    done = account(world, world.plant(), [Mode.NORMAL], [40.0]).account
    assert done.mining_usd == pytest.approx(140.0 * 60.0 * 0.99 / 24 * 0.25)
    assert done.energy_mwh == pytest.approx((3.01 * 1.05 + 0.1) * 0.25)
    assert done.power_usd == pytest.approx(-40.0 * done.energy_mwh)
    assert done.margin_usd == pytest.approx(done.mining_usd + done.power_usd)


def test_woken_machine_draws_power_and_earns_nothing_for_its_wake_time(world) -> None:
    plant = world.plant(classes=[world.mine(wake_s=300.0)])
    woken = account(world, plant, [Mode.NORMAL], [40.0], start=Mode.SLEEP).account
    awake = account(world, plant, [Mode.NORMAL], [40.0]).account
    assert woken.mining_usd == pytest.approx(awake.mining_usd * (1 - 300 / 900))
    assert woken.energy_mwh == awake.energy_mwh
    assert (woken.wakes, woken.wear_usd) == (1000, pytest.approx(-10.0))
    assert (awake.wakes, awake.wear_usd) == (0, 0)


def test_changing_modes_while_awake_is_no_wake(world) -> None:
    done = account(world, world.plant(), [Mode.LOW, Mode.TURBO, Mode.SLEEP, Mode.LOW], [40.0] * 4).account
    assert done.wakes == 1000


def test_ai_draws_no_more_than_its_demand_and_earns_by_its_throughput(world) -> None:
    pool = world.pool(usd=2.0, demand=Demand(0.825e6))  # 1000 GPUs, 1.1 MW at full power: three quarters
    plant = world.plant(classes=(), pools=[pool])
    done = account(world, plant, [Mode.SLEEP], [40.0], [1.1e6]).account
    assert done.ai_mwh == pytest.approx(0.825 * 1.05 * 0.25)
    assert done.ai_usd == pytest.approx(2.0 * 1000 * 0.90 * 0.25)
    assert done.guaranteed_unserved_mwh == 0


def test_guaranteed_ai_that_is_refused_is_counted_and_charged(world) -> None:
    plant = world.plant(classes=(), pools=[world.pool(demand=Demand(1.0e6))])
    done = account(world, plant, [Mode.SLEEP], [40.0], [0.8e6]).account
    assert done.guaranteed_unserved_mwh == pytest.approx(0.2 * 0.25)
    assert done.penalty_usd == pytest.approx(-0.2 * 0.25 * P.guaranteed_penalty_usd_per_mwh)


def test_spot_ai_that_is_refused_is_no_shortfall(world) -> None:
    plant = world.plant(classes=(), pools=[world.pool(priority=AiPriority.SPOT)])
    done = account(world, plant, [Mode.SLEEP], [40.0], [0.0]).account
    assert (done.guaranteed_unserved_mwh, done.penalty_usd, done.ai_usd) == (0, 0, 0)


def test_pool_paid_when_idle_refunds_only_what_was_asked_for_and_refused(world) -> None:
    pool = world.pool(priority=AiPriority.STANDARD, usd=2.0, demand=Demand(0.825e6), idle_paid=True)
    plant = world.plant(classes=(), pools=[pool])
    served = account(world, plant, [Mode.SLEEP], [40.0], [1.1e6]).account
    refused = account(world, plant, [Mode.SLEEP], [40.0], [0.0]).account
    assert served.ai_usd == pytest.approx(2.0 * 1000 * 0.25)
    assert refused.ai_usd == pytest.approx(2.0 * 1000 * 0.10 * 0.25)


def test_import_above_a_call_is_a_shortfall_and_above_the_own_ceiling_an_excess(world) -> None:
    call = EventRule("call", 2e6, 0.0, (world.monday + 900, world.monday + 1800))
    plant = world.plant(ceiling_mw=3.0, events=(call,))
    done = account(world, plant, [Mode.NORMAL] * 2, [40.0] * 2).account
    load = 3.01 * 1.05 + 0.1
    assert done.ceiling_excess_mwh == pytest.approx((load - 3.0) * 0.25, abs=1e-6)
    assert done.dr_shortfall_mwh == pytest.approx((load - 2.0) * 0.25, abs=1e-6)
    assert done.penalty_usd == pytest.approx(
        -P.ceiling_penalty_usd_per_mwh * (done.ceiling_excess_mwh + done.dr_shortfall_mwh)
    )


def test_feeder_carries_its_loads_with_their_overhead(world) -> None:
    plant = world.plant(classes=[world.mine(feeder="east")], feeders=(FeederState("east", 3e6),))
    done = account(world, plant, [Mode.NORMAL], [40.0]).account
    assert done.feeder_excess_mwh == pytest.approx((3.01 * 1.05 - 3.0) * 0.25, abs=1e-6)


@pytest.mark.parametrize(
    ("price", "sell_back", "cost"),
    [(40.0, True, 35.0 * 5 - 38.0 * 4.9), (40.0, False, 35.0 * 5), (-10.0, False, 35.0 * 5 + 10.0 * 4.9)],
)
def test_block_is_paid_and_what_is_not_taken_sold_back_or_lost(world, price, sell_back, cost) -> None:
    # 0.1 MW drawn of 5 MW: 4.9 MW go back at the price less 2 USD/MWh, or are lost; nobody pays to be rid of them.
    plant = world.plant(classes=(), contract=Contract(5e6, 35.0, sell_back, 2.0))
    done = account(world, plant, [Mode.SLEEP], [price]).account
    assert done.power_usd == pytest.approx(-cost * 0.25)


def test_demand_charge_falls_on_each_months_highest_interval(world) -> None:
    plant = world.plant(demand_charge_usd_per_kw=10.0)
    july = 1_719_810_000.0  # 2024-07-01T05:00Z, midnight in Texas
    rows = [Mode.LOW, Mode.NORMAL, Mode.LOW, Mode.SLEEP]
    scenario = world.scenario([plant], [40.0] * 4, begins=july - 1800.0)
    done = settle(scenario, scenario.sites[0], course(plant, rows), "test", P)
    june_kw, july_kw = 3010 * 1.05 + 100, 0.6 * 3010 * 1.05 + 100
    assert done.account.demand_charge_usd == pytest.approx(-10.0 * (june_kw + july_kw))


def test_sold_capacity_counts_what_sheds_in_time_and_pays_for_standing_ready(world) -> None:
    sold = SoldRule("ecrs", 4e6, 600.0, 8.0, 5_000.0)
    fast, slow = world.mine("fast", shed_s=30.0), world.mine("slow", shed_s=900.0)
    plant = world.plant(classes=[fast, slow], sold=(sold,))
    done = account(world, plant, [Mode.NORMAL], [40.0]).account
    short = 4.0 - (3010 - 30) * 1e-3 * 1.05
    assert done.availability_usd == pytest.approx(4.0 * 8.0 * 0.25)
    assert done.sold_shortfall_mwh == pytest.approx(short * 0.25, abs=1e-6)
    assert done.penalty_usd == pytest.approx(-5_000.0 * done.sold_shortfall_mwh)


def test_margins_of_the_intervals_add_up_to_the_account(world) -> None:
    plant = world.obliged()
    scenario = world.scenario([plant], world.prices(5, 96))
    rows = [Mode.NORMAL, Mode.SLEEP, Mode.LOW, Mode.TURBO] * 24
    done = settle(scenario, scenario.sites[0], course(plant, rows, [1e6, 0.5e6, 0.6e6]), "test", P)
    assert done.margin_usd.sum() == pytest.approx(done.account.margin_usd)


def test_hashprice_of_each_interval_counts(world) -> None:
    plant = world.plant()
    figures = {world.monday: 50.0, world.monday + 900.0: 100.0}
    low_first = account(world, plant, [Mode.NORMAL, Mode.SLEEP], [0.0, 0.0], hashprice=figures).account
    low_last = account(world, plant, [Mode.SLEEP, Mode.NORMAL], [0.0, 0.0], hashprice=figures).account
    wake = 1 - 240 / 900
    assert low_last.mining_usd == pytest.approx(low_first.mining_usd * 2 * wake)
