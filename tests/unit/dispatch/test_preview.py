"""Previews: an event over a copy of today's state, and what an hour more notice would be worth."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest

from controller.dispatch.inputs import PriceStep, Window
from controller.dispatch.preview import ahead, notice_usd, preview
from controller.dispatch.solve import Planner
from controller.dispatch.terms import DemandCharge, SoldCapacity
from gridpivot.errors import Refused
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit


def called(ceiling_w=1e6, starts_in_s=0.0, ends_in_s=3600.0):
    return Window("preview", ceiling_w, starts_in_s, ends_in_s)


def test_event_now_puts_machines_to_sleep_and_costs_what_they_would_have_earned(make):
    fleet = make.fleet(make.site("a", ceiling_w=9e6, price=20.0), make.site("b", price=20.0))
    before = deepcopy(fleet)
    told = preview(Planner(), fleet, {"a": called()})
    assert fleet == before
    (site,) = told.sites
    assert (site.site, site.ceiling_w) == ("a", 1e6)
    assert site.before_w[0] > 3e6 and site.after_w[0] <= 1e6 + 1.0
    (machines,) = site.classes
    assert machines.before == (0.0, 0.0, 0.0, 1000.0)
    assert machines.after[0] > 100
    # One hour at most of everything that a 1,000-machine site earns, and not nothing.
    earned = make.fleet(make.site("a", ceiling_w=9e6, price=20.0))
    alone = Planner().solve(earned).objective_usd
    assert 0.0 < told.cost_usd < -alone


def test_event_to_come_shows_machines_as_it_begins_and_not_as_they_stand_now(make):
    fleet = make.fleet(make.site("a", ceiling_w=9e6, price=20.0))
    told = preview(Planner(), fleet, {"a": called(0.5e6, 7200.0, 10_800.0)})
    (site,) = told.sites
    assert site.after_w[0] <= 0.5e6 + 1.0
    assert site.classes[0].before == (0.0, 0.0, 0.0, 1000.0)
    loads_w = sum(n * w for n, w in zip(site.classes[0].after, (30.0, 2100.0, 3500.0, 4375.0), strict=True))
    assert 50e3 + 1.05 * loads_w <= 0.5e6 + 1.0


def test_guaranteed_ai_stays_and_mining_gives_way(make):
    pools = [make.pool("inference", AiPriority.GUARANTEED, 400)]
    told = preview(Planner(), make.fleet(make.site("a", price=20.0, pools=pools)), {"a": called(1e6)})
    (site,) = told.sites
    assert site.pools[0].after_w == pytest.approx(site.pools[0].before_w, abs=1.0)
    assert site.after_w[1] < 0.5 * site.before_w[1]


def test_ceiling_that_never_binds_costs_nothing(make):
    told = preview(Planner(), make.fleet(make.site("a", ceiling_w=9e6)), {"a": called(8e6)})
    assert told.cost_usd == pytest.approx(0.0, abs=1e-6)
    assert told.notice_usd == pytest.approx(0.0, abs=1e-6)


def test_site_that_cannot_be_planned_is_named_and_one_that_can_is_still_previewed(make):
    old = replace(make.site("b"), stale=True)
    told = preview(Planner(), make.fleet(make.site("a"), old), {n: called() for n in ("a", "b", "c")})
    assert [s.site for s in told.sites] == ["a"]
    assert told.left_out == ("c: has not reported yet", "b: its newest report is too old to plan on")
    with pytest.raises(Refused, match="nothing to preview: c: has not reported yet"):
        preview(Planner(), make.fleet(make.site("a")), {"c": called()})


def test_event_beyond_the_horizon_is_refused(make):
    with pytest.raises(Refused, match="beyond the 48 h"):
        preview(Planner(), make.fleet(make.site("a")), {"a": called(1e6, 50 * 3600.0, None)})


def test_notice_is_the_difference_of_two_optima_and_nothing_without_a_coming_event(make):
    prices = [PriceStep(h * 3600.0, 20.0 if h < 3 else 300.0) for h in range(48)]
    window = Window("dr", 1e6, 7200.0, 10_800.0)
    site = make.site("a", ceiling_w=4e6, prices=prices, windows=[window])
    ((event, usd),) = notice_usd(Planner(), make.fleet(site), "a")
    later = replace(site, windows=(replace(window, starts_in_s=10_800.0, ends_in_s=14_400.0),))
    expected = Planner().solve(make.fleet(site)).objective_usd - Planner().solve(make.fleet(later)).objective_usd
    assert event == "dr"
    assert usd == pytest.approx(expected, abs=1e-6)
    assert usd > 10.0  # an hour later nobody mines anyway, since power is dear
    running = replace(site, windows=(Window("dr", 1e6, -60.0, 3600.0),))
    assert notice_usd(Planner(), make.fleet(running), "a") == ()


def test_state_ahead_has_its_steps_moved_and_the_passed_ones_gone(make):
    site = make.site(
        "a",
        prices=[PriceStep(-100.0, 10.0), PriceStep(500.0, 20.0), PriceStep(1500.0, 30.0)],
        windows=[Window("over", 1e6, 0.0, 900.0), Window("kept", 1e6, 1200.0, None)],
        sold=(SoldCapacity("ecrs", 1e6, 600.0, 0.0, 4000.0), SoldCapacity("ers", 1e6, 600.0, 0.0, 800.0)),
        demand_charge=DemandCharge(5.0, 1e6, 600.0),
    )
    (moved,) = ahead(make.fleet(site), 1000.0).sites
    assert moved.prices == (PriceStep(-500.0, 20.0), PriceStep(500.0, 30.0))
    assert [(w.event_id, w.starts_in_s, w.ends_in_s) for w in moved.windows] == [("kept", 200.0, None)]
    assert [(s.product, s.ends_in_s) for s in moved.sold] == [("ecrs", 3000.0)]
    assert moved.demand_charge.remaining_s == 0.0
