"""A pool's own backlog: deferrable work waits for cheap power and its deadline, the rest of the pool does not notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.dispatch.inputs import PriceStep
from controller.dispatch.solve import Planner
from controller.dispatch.terms import Backlog, Queue, WattStep, WorkDue
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit

HOUR_S = 3600.0
CHEAP_LATER = (PriceStep(0.0, 900.0), PriceStep(4 * HOUR_S, 20.0))
INCOME = 2.0  # USD per GPU-hour: about 2,000 USD/MWh at the meter


def working(make, *, demand_w, waits_gpu_h, due_h, prices=CHEAP_LATER, **site):
    """One site with nothing but a pool of 1,000 GPUs, half of it at work, and deferrable work beside it."""
    pool = make.pool("batch", AiPriority.STANDARD, 1000, demand_w=demand_w, income=INCOME)
    steps = (WattStep(0.0, demand_w), WattStep(30 * 60.0, demand_w))
    queue = Queue(500.0, waits_gpu_h, waits_gpu_h, 500.0)
    pool = replace(pool, demand=steps, backlog="alpha/batch", queue=queue)
    due = (WorkDue(due_h * HOUR_S, waits_gpu_h),)
    backlog = Backlog("alpha/batch", "alpha", waits_gpu_h, (), 24 * HOUR_S, 12 * HOUR_S, INCOME, 12 * INCOME, due, True)
    return make.fleet(make.site(pools=[pool], prices=prices, **site), backlogs=(backlog,))


def planned(fleet):
    (site,) = Planner().solve(fleet).sites
    return site


HALF_W, MOST_W = 600e3, 825e3  # a corner of the curve each: 0.65 and 0.90 of the throughput, the rest is dear


def work_gpu_h(site):
    """What of the plan ahead is over the pool's own demand [GPU-h], between the two corners."""
    over_wh = sum((one.ai_w - HALF_W) * one.width_s / HOUR_S for one in site.outlook)
    return over_wh * 1000 * (0.9 - 0.9 * HALF_W / MOST_W) / (MOST_W - HALF_W)


def test_deferrable_work_waits_for_cheap_power_while_the_rest_runs(make):
    site = planned(working(make, demand_w=HALF_W, waits_gpu_h=1000.0, due_h=24.0))
    assert site.pools[0].expected_w == pytest.approx(HALF_W, rel=1e-6)
    assert site.pools[0].max_w == pytest.approx(HALF_W, rel=1e-6)  # or the waiting work would start
    assert {round(one.ai_w) for one in site.outlook if one.starts_in_s < 4 * HOUR_S} == {round(HALF_W)}
    assert max(one.ai_w for one in site.outlook) == pytest.approx(MOST_W)


def test_running_work_may_swing_once_the_door_is_known_to_be_closed(make):
    fleet = working(make, demand_w=HALF_W, waits_gpu_h=1000.0, due_h=24.0)
    (pool,) = fleet.sites[0].pools
    shut = replace(pool, queue=replace(pool.queue, admitting=False))
    site = planned(replace(fleet, sites=(replace(fleet.sites[0], pools=(shut,)),)))
    assert site.pools[0].expected_w == pytest.approx(HALF_W, rel=1e-6)
    assert site.pools[0].max_w == pytest.approx(1.05 * HALF_W, rel=1e-6)
    tight = replace(fleet.sites[0], pools=(shut,), classes=(), fixed_w=0.0, ceiling_w=1.05 * 550e3)
    site = planned(replace(fleet, sites=(tight,)))
    assert site.pools[0].max_w == site.pools[0].expected_w == pytest.approx(550e3)  # what runs is to give way itself


def test_a_near_deadline_drives_it_on_while_power_is_dear(make):
    site = planned(working(make, demand_w=HALF_W, waits_gpu_h=480.0, due_h=2.0))
    assert site.pools[0].expected_w == pytest.approx(MOST_W)


def test_work_is_not_counted_twice(make):
    site = planned(working(make, demand_w=HALF_W, waits_gpu_h=300.0, due_h=24.0))
    assert work_gpu_h(site) == pytest.approx(300.0, rel=1e-6)


def test_without_deferrable_work_the_pool_may_rise_by_itself(make):
    site = planned(working(make, demand_w=HALF_W, waits_gpu_h=0.0, due_h=24.0, prices=(PriceStep(0.0, 40.0),)))
    assert site.pools[0].expected_w == pytest.approx(HALF_W, rel=1e-6)
    assert site.pools[0].max_w == pytest.approx(1.1e6, rel=1e-3)


def test_demand_is_not_put_off_for_a_dear_quarter_of_an_hour_but_lost_at_a_price_above_its_worth(make):
    spike = (PriceStep(0.0, 900.0), PriceStep(900.0, 10.0))
    site = planned(working(make, demand_w=HALF_W, waits_gpu_h=0.0, due_h=24.0, prices=spike))
    assert site.pools[0].expected_w == pytest.approx(HALF_W, rel=1e-6)
    scarce = (PriceStep(0.0, 20_000.0), PriceStep(900.0, 10.0))
    site = planned(working(make, demand_w=HALF_W, waits_gpu_h=0.0, due_h=24.0, prices=scarce))
    assert site.pools[0].expected_w == pytest.approx(475e3)
    assert work_gpu_h(site) < 0.0  # what was not served is not made up for
