"""Policies: none sees the future, none earns more than perfect foresight, each does what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.dispatch.parameters import Parameters
from controller.markets.feed import FileFeed
from controller.settlement.account import regret_ratio, total
from controller.settlement.foresight import foresee
from controller.settlement.plant import Demand, EventRule
from controller.settlement.rehearse import foreseen, rehearse, settled
from controller.settlement.rolling import Rolling, periods
from controller.settlement.rules import MeritOrderRule, Static, Threshold
from controller.settlement.seen import look
from controller.settlement.settle import settle
from gridpivot.vocabulary import AiPriority, Mode, Rung

pytestmark = pytest.mark.unit

P = Parameters()
BEGINS = st.sampled_from([1_717_372_800.0, 1_719_810_000.0 - 43_200.0])  # a Monday; half a day before a month's end
MAKERS = {
    "static": Static,
    "threshold": Threshold,
    "threshold-current": lambda: Threshold("threshold-current", True),
    "merit-order": MeritOrderRule,
    "merit-order-current": lambda: MeritOrderRule("merit-order-current", True),
    "lp": lambda: Rolling("lp", 900.0, P),
    "lp-current": lambda: Rolling("lp-current", 900.0, P, knows_current=True),
    "clipped": lambda: Rolling("clipped", 900.0, P, every_s=21_600.0),
    "hold": lambda: Rolling("hold", 900.0, P, every_s=86_400.0, between=Rung.HOLD),
}


def blanked(scenario, at, knows_current):
    """The same scenario with everything that is not yet known at interval `at` put out of reach."""
    known = at + 1 if knows_current else max(1, at)
    now = scenario.starts_unix_s[at]
    newest = scenario.starts_unix_s[known - 1]
    markets = {}
    for region, market in scenario.markets.items():
        prices = market.usd_per_mwh.copy()
        prices[known:] = np.nan
        series = market.series.usd_per_mwh.copy()
        series[market.series.starts_unix_s > newest] = np.nan
        published = market.published
        if published is not None:
            feed = published.feed
            quotes = feed.usd_per_mwh.copy()
            quotes[feed.starts_unix_s >= published.until(now)] = np.nan
            hidden = replace(market.series, starts_unix_s=feed.starts_unix_s, usd_per_mwh=quotes)
            published = replace(published, feed=FileFeed(hidden))
        markets[region] = replace(
            market, usd_per_mwh=prices, series=replace(market.series, usd_per_mwh=series), published=published
        )
    sites = []
    for site in scenario.sites:
        demand, ceiling = site.demand_w.copy(), site.ceiling_w.copy()
        demand[:, at + 1 :] = np.nan
        ceiling[at + 1 :] = np.nan
        calls = tuple(c for c in site.calls if c.known_unix_s <= now or c.first <= at)
        sites.append(replace(site, demand_w=demand, ceiling_w=ceiling, calls=calls))
    hashprice = scenario.hashprice.copy()
    hashprice[at + 1 :] = np.nan
    return replace(scenario, markets=markets, sites=tuple(sites), hashprice=hashprice)


@pytest.mark.parametrize("name", MAKERS)
def test_blanking_the_future_changes_no_decision(world, name) -> None:
    scenario = world.scenario([world.coupled()], world.prices(7, 96 * 4), world.prices(8, 24 * 4), lead=96 * 3)
    open_eyes, blind = MAKERS[name](), MAKERS[name]()
    standing = (scenario.sites[0].plant.all_in(Mode.NORMAL),)
    for at in range(0, 96, 5):
        hidden = blanked(scenario, at, blind.knows_current)
        seen = look(scenario, at, standing, (0.0,), open_eyes.knows_current)
        unseen = look(hidden, at, standing, (0.0,), blind.knows_current)
        (ours,), (theirs,) = open_eyes.decide(seen), blind.decide(unseen)
        assert np.array_equal(ours.machines, theirs.machines)
        assert np.array_equal(ours.pool_w, theirs.pool_w)
        standing = (ours.machines,)


def test_blanking_what_is_known_does_change_a_decision(world) -> None:
    # The guard of the test above: it would pass for policies that look at nothing.
    scenario = world.scenario([world.coupled()], [*[40.0] * 50, 900.0, *[40.0] * 45])
    standing = (scenario.sites[0].plant.all_in(Mode.NORMAL),)
    calm = look(scenario, 50, standing, (0.0,), False)
    spike = look(scenario, 50, standing, (0.0,), True)
    for rule in (Threshold(), MeritOrderRule(), Rolling("lp", 900.0, P)):
        (before,), (after,) = rule.decide(calm), rule.decide(spike)
        assert not np.array_equal(before.machines, after.machines)


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000), obliged=st.booleans(), hashprice=st.floats(30, 120), begins=BEGINS)
def test_perfect_foresight_earns_at_least_as_much_as_any_policy(world, seed, obliged, hashprice, begins) -> None:
    plant = world.obliged() if obliged else world.coupled()
    scenario = world.scenario([plant], world.prices(seed, 60), hashprice=hashprice, begins=begins)
    best = total(s.account for s in foreseen(scenario, P)).margin_usd
    for make in MAKERS.values():
        policy = make()
        earned = total(s.account for s in settled(scenario, policy, P)).margin_usd
        assert earned <= best + max(1.0, abs(best)) * 1e-6, policy.name


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), obliged=st.booleans(), begins=BEGINS)
def test_settling_foresights_plan_gives_back_the_models_own_objective(world, seed, obliged, begins) -> None:
    plant = world.obliged() if obliged else world.coupled()
    scenario = world.scenario([plant], world.prices(seed, 96), begins=begins)
    site = scenario.sites[0]
    course, reckoned_usd = foresee(scenario, site, site.plant.all_in(Mode.NORMAL), P)
    assert settle(scenario, site, course, "foresight", P).account.margin_usd == pytest.approx(reckoned_usd, rel=1e-6)


def test_foresight_values_mining_at_each_days_hashprice(world) -> None:
    figures = {world.monday: 40.0, world.monday + 86_400.0: 80.0}
    scenario = world.scenario([world.plant()], [60.0] * 192, hashprice=figures)
    site = scenario.sites[0]
    course, reckoned_usd = foresee(scenario, site, site.plant.all_in(Mode.NORMAL), P)
    settled_usd = settle(scenario, site, course, "foresight", P).account.margin_usd
    assert settled_usd == pytest.approx(reckoned_usd, rel=1e-6)
    running = course.machines[:, 0, 1:].sum(axis=1)
    assert running[:90].max() < 1e-3 + running[100:].min()


def test_foresight_pays_a_demand_charge_for_each_billing_month(world) -> None:
    july = 1_719_810_000.0  # 2024-07-01, midnight in Texas
    plant = world.plant(demand_charge_usd_per_kw=0.05)
    prices = [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 400.0, 400.0, 400.0, 400.0]
    scenario = world.scenario([plant], prices, begins=july - 8 * 900.0)
    site = scenario.sites[0]
    course, reckoned_usd = foresee(scenario, site, plant.all_in(Mode.NORMAL), P)
    account = settle(scenario, site, course, "foresight", P).account
    assert account.margin_usd == pytest.approx(reckoned_usd, rel=1e-6)
    # Power is worth its price in June alone; in July only what cannot be shed sets a peak.
    june_kw = plant.import_w(course.machines[0], np.zeros(0)) / 1e3
    july_kw = plant.import_w(plant.all_in(Mode.SLEEP), np.zeros(0)) / 1e3
    assert june_kw > 2 * july_kw
    assert account.demand_charge_usd == pytest.approx(-0.05 * (june_kw + july_kw), rel=1e-3)


def test_static_runs_through_any_price_and_keeps_its_split(world) -> None:
    plant = world.coupled(events=(), feeders=())
    scenario = world.scenario([plant], world.prices(3, 48))
    (course,) = rehearse(scenario, Static())
    assert (course.machines == course.machines[0]).all()
    tops = sum(p.pool.max_w for p in plant.pools)
    assert plant.import_w(course.machines[0], np.array([tops])) <= plant.ceiling_w + 1


def test_threshold_sleeps_classes_that_power_costs_more_than_they_earn(world) -> None:
    classes = [world.mine("old", "Antminer S19"), world.mine("new", "Antminer S21 Pro")]
    # At 60 USD/PH/day an S19 (34.2 J/TH) earns 69 USD/MWh at the meter, an S21 Pro (15 J/TH) 157.
    scenario = world.scenario([world.plant(classes=classes)], [40.0, 100.0, 200.0, 40.0])
    (course,) = rehearse(scenario, Threshold("threshold-current", True))
    assert course.machines[:, 0, 2].tolist() == [1000, 0, 0, 1000]
    assert course.machines[:, 1, 2].tolist() == [1000, 1000, 0, 1000]


def test_policies_of_the_previous_interval_react_one_interval_late(world) -> None:
    scenario = world.scenario([world.plant()], [40.0, 900.0, 40.0, 40.0])
    (late,) = rehearse(scenario, Threshold())
    (current,) = rehearse(scenario, Threshold("threshold-current", True))
    assert late.machines[:, 0, 0].tolist() == [0, 0, 1000, 0]
    assert current.machines[:, 0, 0].tolist() == [0, 1000, 0, 0]


@pytest.mark.parametrize("name", MAKERS)
def test_calls_and_guaranteed_ai_are_kept_by_every_policy(world, name) -> None:
    scenario = world.scenario([world.coupled()], world.prices(11, 192))
    account = total(s.account for s in settled(scenario, MAKERS[name](), P))
    assert account.dr_shortfall_mwh == 0
    assert account.ceiling_excess_mwh == 0
    assert account.guaranteed_unserved_mwh == pytest.approx(0, abs=1e-6)


def test_clipped_plan_comes_back_after_a_call_and_a_held_one_does_not(world) -> None:
    call = EventRule("call", 1.5e6, 0.0, (world.monday + 4 * 900, world.monday + 8 * 900))
    scenario = world.scenario([world.plant(events=(call,))], [10.0] * 16)
    (clipped,) = rehearse(scenario, MAKERS["clipped"]())
    (hold,) = rehearse(scenario, MAKERS["hold"]())
    asleep = clipped.machines[:, 0, 0]
    assert asleep[3] == 0 and asleep[5] > 0 and asleep[10] == 0
    assert hold.machines[10, 0, 0] == hold.machines[5, 0, 0] > 0


def test_spot_ai_gives_way_to_power_that_costs_more_than_it_earns(world) -> None:
    pools = [world.pool("spot", AiPriority.SPOT, usd=0.09, demand=Demand(1e6))]
    scenario = world.scenario([world.plant(pools=pools)], [20.0, 900.0])
    for make in (MAKERS["threshold-current"], MAKERS["merit-order-current"], MAKERS["lp-current"]):
        (course,) = rehearse(scenario, make())
        assert course.pool_w[0, 0] == pytest.approx(1e6)
        assert course.pool_w[1, 0] == pytest.approx(pools[0].pool.baseline_w)


def test_plans_periods_begin_where_intervals_begin() -> None:
    for width in (300.0, 900.0, 1800.0, 3600.0):
        edges = np.cumsum(periods(width))
        assert (edges % width == 0).all()
        assert edges[-1] == pytest.approx(36 * 3600)


def test_regret_is_unknown_where_the_best_earns_nothing() -> None:
    assert regret_ratio(0.0, -5.0) is None
    assert regret_ratio(100.0, 99.0) == pytest.approx(0.01)
