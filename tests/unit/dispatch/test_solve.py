"""Dispatch as a whole: what it does to a fleet under prices, ceilings, demand and bad input."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest

from controller.dispatch.block import violation
from controller.dispatch.grid import fixed_import_w
from controller.dispatch.inputs import PriceStep, Window
from controller.dispatch.model import lay_out, numbers_of
from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner
from gridpivot.errors import Infeasible
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit

ASLEEP, LOW, NORMAL, TURBO = range(4)


def only(decision):
    (decided,) = decision.sites
    return decided


def test_cheap_power_runs_every_machine_past_normal(make):
    decided = only(Planner().solve(make.fleet(make.site(price=20.0))))
    assert decided.classes[0].machines[TURBO] == pytest.approx(1000)
    assert decided.binding == ()


def test_spike_price_puts_mining_to_sleep_and_leaves_ai_running(make):
    site = make.site(price=4852.83, pools=[make.pool("inference", AiPriority.GUARANTEED)])
    decided = only(Planner().solve(make.fleet(site)))
    assert decided.classes[0].machines[ASLEEP] == pytest.approx(1000)
    assert decided.pools[0].expected_w == pytest.approx(1.1e6)
    assert decided.pools[0].max_w == pytest.approx(1.1e6)


def test_spike_of_one_period_below_the_cost_of_waking_moves_nothing(make):
    calm = make.fleet(make.site(price=60.0, classes=[make.machines(make.s19)]))
    planner = Planner()
    settled = make.follow(calm, planner.solve(calm))
    # 5 minutes at a dollar over what the best segment earns save less than a wake-up of four minutes loses.
    best = 2000 / ((0.6 * 3250 - 30) / (0.72 * 95)) / 1.05
    blip = (PriceStep(0.0, best + 1.0), PriceStep(300.0, 60.0))
    moved = replace(settled, sites=(replace(settled.sites[0], prices=blip),))
    assert only(planner.solve(moved)).classes[0].machines[ASLEEP] == pytest.approx(0)


def test_negative_price_runs_everything_that_can_run(make):
    decided = only(Planner().solve(make.fleet(make.site(price=-30.0, ceiling_w=50e6))))
    assert decided.classes[0].machines[TURBO] == pytest.approx(1000)


def test_cheapest_class_sleeps_when_ai_needs_its_room(make):
    classes = [make.machines(make.s21, 1000), make.machines(make.s19, 1000)]
    quiet = make.site(classes=classes, ceiling_w=6e6, pools=[make.pool(demand_w=0.475e6)])
    busy = replace(quiet, pools=(make.pool(demand_w=1.1e6),))
    before = only(Planner().solve(make.fleet(quiet)))
    after = only(Planner().solve(make.fleet(busy)))
    assert after.pools[0].expected_w - before.pools[0].expected_w == pytest.approx(0.625e6)
    assert make.import_w(busy, after) == pytest.approx(6e6)
    loss = [a.machines[ASLEEP] - b.machines[ASLEEP] for a, b in zip(after.classes, before.classes, strict=True)]
    assert loss[0] == pytest.approx(0) and loss[1] > 100


def test_ceiling_that_binds_is_named_with_what_it_costs(make):
    decided = only(Planner().solve(make.fleet(make.site(ceiling_w=2e6, price=40.0))))
    (binding,) = decided.binding
    assert (binding.name, binding.limit) == ("site ceiling", 2e6)
    # The marginal machine goes from sleep to low: 2000 $ / 14.375 J/TH at the meter, less power.
    assert binding.shadow_price_usd_per_mwh == pytest.approx(2000 / 14.375 / 1.05 - 40.0, abs=0.3)


def test_event_window_in_force_lowers_the_plan_and_is_named(make):
    site = make.site(windows=[Window("dr-7", 1.5e6, -10.0, 3600.0)])
    decided = only(Planner().solve(make.fleet(site)))
    assert decided.ceiling_w == 1.5e6
    assert make.import_w(site, decided) <= 1.5e6 + 1e-3
    assert decided.binding[0].name == "event dr-7"


def test_event_within_the_first_period_is_planned_before_it_starts(make):
    site = make.site(windows=[Window("dr-8", 1.5e6, 120.0, None)])
    decided = only(Planner().solve(make.fleet(site)))
    assert make.import_w(site, decided) <= 1.5e6 + 1e-3
    assert decided.ceiling_w == 20e6


def test_event_far_ahead_does_not_touch_the_present(make):
    far = make.site(windows=[Window("dr-9", 0.5e6, 7200.0, 10_800.0)])
    assert only(Planner().solve(make.fleet(far))).classes == only(Planner().solve(make.fleet(make.site()))).classes


def test_ceiling_below_what_cannot_be_shed_is_planned_as_near_as_can_be(make):
    site = make.site(ceiling_w=0.2e6, classes=[make.machines(silent=100, silent_power_w=350e3)])
    decided = only(Planner().solve(make.fleet(site)))
    assert decided.classes[0].machines[ASLEEP] == pytest.approx(1000)
    assert decided.expected_power_w > 0.2e6


def test_guaranteed_ai_is_served_before_standard_under_a_tight_ceiling(make):
    pools = [make.pool("spot", AiPriority.SPOT, income=9.0), make.pool("inference", AiPriority.GUARANTEED, income=0.1)]
    site = make.site(ceiling_w=1.8e6, classes=[], pools=pools)
    spot, inference = only(Planner().solve(make.fleet(site))).pools
    assert inference.expected_w == pytest.approx(1.1e6)
    assert spot.expected_w == pytest.approx((1.8e6 - 50e3) / 1.05 - 1.1e6)


def test_ai_worth_less_than_power_is_not_authorised(make):
    site = make.site(price=3000.0, pools=[make.pool(income=0.5)])
    pool = only(Planner().solve(make.fleet(site))).pools[0]
    assert pool.max_w == pytest.approx(pool.expected_w) == pytest.approx(475e3)


def test_ai_without_demand_keeps_the_right_to_take_its_full_power(make):
    site = make.site(pools=[make.pool(demand_w=475e3)], ceiling_w=3e6)
    pool = only(Planner().solve(make.fleet(site))).pools[0]
    assert pool.expected_w == pytest.approx(475e3) and pool.max_w == pytest.approx(1.1e6)


def test_fallback_of_all_pools_with_mining_and_overhead_stays_under_the_ceiling(make):
    pools = [make.pool("a", AiPriority.GUARANTEED), make.pool("b"), make.pool("c", AiPriority.SPOT)]
    for ceiling_w in (1e6, 3e6, 6e6, 20e6):
        site = make.site(ceiling_w=ceiling_w, pools=pools)
        decided = only(Planner().solve(make.fleet(site)))
        settled = make.follow(make.fleet(site), Planner().solve(make.fleet(site))).sites[0]
        decided = only(Planner().solve(make.fleet(settled)))
        held = replace(decided, pools=tuple(replace(p, expected_w=p.fallback_w) for p in decided.pools))
        mining_only = make.import_w(site, replace(held, pools=()))
        assert make.import_w(site, held) <= max(ceiling_w, mining_only) + 1e-3
        if ceiling_w == 20e6:
            assert [p.fallback_w for p in decided.pools] == pytest.approx([1.1e6] * 3)


def test_ramp_holds_import_back_and_is_named(make):
    site = make.site(
        price=20.0,
        classes=[make.machines(asleep=1000)],
        pick_up_ramp_w_per_min=100e3,
        metered_power_w=81.5e3,
        ceiling_w=20e6,
    )
    decided = only(Planner().solve(make.fleet(site)))
    assert make.import_w(site, decided) == pytest.approx(81.5e3 + 5 * 100e3, abs=1.0)
    assert decided.binding[0].name == "pick-up ramp"
    assert decided.binding[0].limit == 100e3


def test_lowered_ceiling_breaks_a_drop_ramp_rather_than_itself(make):
    site = make.site(drop_ramp_w_per_min=10e3, metered_power_w=4e6, ceiling_w=1e6)
    assert make.import_w(site, only(Planner().solve(make.fleet(site)))) <= 1e6 + 1e-3


def test_fleet_floor_keeps_machines_awake_at_a_loss_where_it_is_cheapest(make):
    dear, cheap = make.site("dear", price=400.0), make.site("cheap", price=200.0)
    floor = make.fleet(dear, cheap, fleet_floor_hs=0.1e18)
    decision = Planner().solve(floor)
    asleep = [d.classes[0].machines[ASLEEP] for d in decision.sites]
    assert asleep[0] == pytest.approx(1000) and asleep[1] < 600
    assert any(b.name == "fleet hashrate floor" for b in decision.sites[1].binding)


def test_waking_machines_do_not_count_towards_the_floor_yet(make):
    def state(waking):
        half = make.machines(waking=waking, waking_remaining_s=200.0, asleep=0)
        return make.fleet(make.site(price=400.0, classes=[half]), fleet_floor_hs=0.07e18)

    hashing = only(Planner().solve(state(0.0))).classes[0].machines
    with_waking = only(Planner().solve(state(500.0))).classes[0].machines
    assert with_waking[ASLEEP] == pytest.approx(hashing[ASLEEP], abs=1e-3)  # the 500 that hash carry the floor alone
    assert 1000 - with_waking[ASLEEP] <= 500 + 1e-3


def test_nothing_changed_means_nothing_moves(make):
    classes = [make.machines(make.s21, 1000), make.machines(make.s19, 700)]
    state = make.fleet(
        make.site("a", classes=classes, ceiling_w=4e6, pools=[make.pool(demand_w=0.9e6)]),
        make.site("b", classes=classes, price=55.0),
    )
    planner = Planner()
    first = planner.solve(state)
    second = planner.solve(make.follow(state, first))
    cold = Planner().solve(make.follow(state, first))
    for one, two, three in zip(first.sites, second.sites, cold.sites, strict=True):
        for a, b, c in zip(one.classes, two.classes, three.classes, strict=True):
            assert b.machines == pytest.approx(a.machines, abs=1e-3)
            assert c.machines == pytest.approx(a.machines, abs=1e-3)
    assert second.warm and not first.warm


def test_event_at_one_site_moves_no_other_site(make):
    sites = [
        make.site(f"s{i}", price=45.0 + i, ceiling_w=4e6, pools=[make.pool(demand_w=0.8e6)],
                  classes=[make.machines(make.s21, 900), make.machines(make.s19, 900)])
        for i in range(6)
    ]  # fmt: skip
    planner = Planner()
    state = make.fleet(*sites)
    settled = make.follow(state, planner.solve(state))
    before = planner.solve(settled)
    hit = replace(settled.sites[2], windows=(Window("dr", 1.5e6, 0.0, 1800.0),))
    after = planner.solve(replace(settled, sites=(*settled.sites[:2], hit, *settled.sites[3:])))
    for i in range(6):
        same = all(
            b.machines == pytest.approx(a.machines, abs=1e-3)
            for a, b in zip(before.sites[i].classes, after.sites[i].classes, strict=True)
        )
        assert same == (i != 2)


def test_compressed_time_shortens_periods_not_money(make):
    slow = make.fleet(make.site(classes=[make.machines(replace(make.s21, wake_s=0.0))]))
    fast = replace(slow, speed=60.0)
    assert Planner().solve(fast).objective_usd == pytest.approx(Planner().solve(slow).objective_usd)


def test_objective_is_income_less_power_by_hand(make):
    # 1,000 S21 in turbo (234 TH/s, 4,375 W) at 48 $/PH/day earn 468 $/h; power is (4.375 MW x 1.05 + 0.05) x 10 $.
    state = make.fleet(make.site(price=10.0))
    settled = make.follow(state, Planner().solve(state))
    planner = Planner(period_s=(3600.0,))
    assert -planner.solve(settled).objective_usd == pytest.approx(468.0 - (4.375 * 1.05 + 0.05) * 10.0)


def test_changed_overhead_or_site_list_is_a_new_model(make):
    planner = Planner()
    one = make.fleet(make.site("a"))
    planner.solve(one)
    drifted = make.fleet(make.site("a", overhead_ratio=0.08, ceiling_w=2e6))
    assert make.import_w(drifted.sites[0], only(planner.solve(drifted))) == pytest.approx(2e6)
    two = planner.solve(make.fleet(make.site("a"), make.site("b", pools=[make.pool()])))
    assert [d.site for d in two.sites] == ["a", "b"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_number_that_is_not_finite_publishes_nothing_and_leaves_the_planner_usable(make, bad):
    planner = Planner()
    good = make.fleet(make.site())
    planner.solve(good)
    with pytest.raises(Infeasible, match="alpha"):
        planner.solve(make.fleet(make.site(price=bad)))
    assert planner.solve(good).sites[0].classes[0].machines[TURBO] > 0


def test_empty_fleet_and_empty_sites_have_decisions(make):
    assert Planner().solve(make.fleet()).sites == ()
    assert only(Planner().solve(make.fleet(make.site(classes=[])))).classes == ()


def test_planner_moves_between_threads(make):
    planner, answers = Planner(), []
    for price in (30.0, 900.0):
        state = make.fleet(make.site(price=price))
        thread = threading.Thread(target=lambda state=state: answers.append(planner.solve(state)))
        thread.start()
        thread.join()
    assert [only(a).classes[0].machines[ASLEEP] for a in answers] == pytest.approx([0, 1000])


def test_stopped_solver_publishes_nothing_and_the_next_one_starts_clean(make):
    planner, state = Planner(time_limit_s=0.0), make.fleet(make.site(ceiling_w=2e6))
    with pytest.raises(Infeasible, match=r"Time limit.*alpha; nothing is published"):
        planner.solve(state)
    planner.time_limit_s = 60.0
    assert make.import_w(state.sites[0], only(planner.solve(state))) == pytest.approx(2e6)


def test_gain_too_small_to_matter_stirs_nothing(make):
    # Normal to turbo: 875 W for 34 TH/s at 48 $/PH/day.
    turbo_usd_per_mwh = 2000 / (875 / 34) / 1.05
    state = make.fleet(make.site(price=40.0))
    planner = Planner()
    settled = make.follow(state, planner.solve(state))
    assert settled.sites[0].classes[0].commanded[TURBO] == pytest.approx(1000)
    for above, turbo in ((0.1, 1000), (2.0, 0)):
        dearer = replace(settled.sites[0], prices=(PriceStep(0.0, turbo_usd_per_mwh + above),))
        decided = only(planner.solve(replace(settled, sites=(dearer,))))
        assert decided.classes[0].machines[TURBO] == pytest.approx(turbo)


def test_drop_ramp_starts_from_what_the_meter_shows(make):
    site = make.site(price=900.0, drop_ramp_w_per_min=100e3, metered_power_w=3.7e6)
    decided = only(Planner().solve(make.fleet(site)))
    assert make.import_w(site, decided) == pytest.approx(3.7e6 - 5 * 100e3, abs=1.0)
    assert decided.binding[0].name == "drop ramp"


def test_event_far_ahead_does_not_lend_its_name_to_the_ceiling_that_binds(make):
    site = make.site(ceiling_w=2e6, windows=[Window("far", 1e6, 7200.0, None)])
    assert [b.name for b in only(Planner().solve(make.fleet(site))).binding] == ["site ceiling"]


def test_fallback_leaves_room_for_mining_that_has_not_gone_to_sleep_yet(make):
    pools = [make.pool("inference", AiPriority.GUARANTEED)]
    site = make.site(price=900.0, ceiling_w=4e6, pools=pools)
    decided = only(Planner().solve(make.fleet(site)))
    assert decided.classes[0].machines[ASLEEP] == pytest.approx(1000)
    # 3.5 MW still hash until the order is obeyed: (4 - 0.05) MW over the worst overhead, less 3.5 MW.
    assert decided.pools[0].fallback_w == pytest.approx(3.95e6 / (1 + 0.05 * 1.1) - 3.5e6)


def test_answer_that_breaks_a_constraint_is_seen(make):
    state = make.fleet(make.site(ceiling_w=2e6))
    layout = lay_out(state, (300.0,), floor=False)
    now = numbers_of(layout, state, Parameters())
    x = np.zeros(layout.matrix.columns)
    x[layout.grid.import_] = 2.0
    x[layout.grid.over] = 0.5
    assert violation(now, x, layout.matrix.activity(x)) == pytest.approx(2.5 - fixed_import_w(state.sites[0]) / 1e6)
    x[0] = math.nan
    assert math.isnan(violation(now, x, layout.matrix.activity(x)))
