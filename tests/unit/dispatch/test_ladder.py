"""Below the solver: last plan re-clipped, merit order, hold. A plan for every site, never a higher ceiling."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from controller.dispatch.horizon import ceiling_now
from controller.dispatch.inputs import Window
from controller.dispatch.ladder import by_merit, clipped, complete, held, split
from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner
from gridpivot.vocabulary import AiPriority, Rung
from tests.unit.dispatch.fleets import random_fleet

pytestmark = pytest.mark.unit

P = Parameters()


def rungs(fleet, last):
    for site in fleet.sites:
        before = next(d for d in last.sites if d.site == site.name)
        yield site, clipped(site, before, fleet, P)
        yield site, by_merit(site, fleet, P)
        yield site, held(site, fleet, P)


@pytest.mark.parametrize("seed", range(60))
def test_every_rung_keeps_what_must_hold_on_random_fleets(make, seed):
    rng = random.Random(seed)
    fleet = random_fleet(make, rng)
    last = Planner(P, period_s=(300.0, 3600.0)).solve(fleet)
    lowered = tuple(
        replace(s, ceiling_w=s.ceiling_w * rng.random(), windows=(Window("now", rng.uniform(0, 5e6), -1.0, None),))
        for s in fleet.sites
    )
    lost = tuple(
        replace(s, classes=tuple(replace(c, available=int(c.available * rng.random())) for c in s.classes))
        for s in lowered
    )
    for site, decided in rungs(replace(fleet, sites=lost), last):
        assert decided.ceiling_w == ceiling_now(site)[0]
        mining = sum(sum(c.machines[1:]) for c in decided.classes)
        soft = [
            p.expected_w - s.pool.baseline_w
            for p, s in zip(decided.pools, site.pools, strict=True)
            if s.pool.priority is not AiPriority.GUARANTEED
        ]
        hard = [
            p.expected_w - s.pool.baseline_w
            for p, s in zip(decided.pools, site.pools, strict=True)
            if s.pool.priority is AiPriority.GUARANTEED
        ]
        if mining + sum(soft) + sum(hard) > 1e-3:
            assert decided.expected_power_w <= decided.ceiling_w + 10.0
        for state, chosen in zip(site.classes, decided.classes, strict=True):
            assert min(chosen.machines) >= 0
            assert sum(chosen.machines) == pytest.approx(state.available, abs=1e-3)
        for chosen, state in zip(decided.pools, site.pools, strict=True):
            assert state.pool.baseline_w <= chosen.expected_w <= max(chosen.max_w, state.pool.baseline_w) + 1e-6


def test_guaranteed_ai_is_not_shed_while_mining_can_be(make):
    site = make.site(
        ceiling_w=9e6, pools=[make.pool("inference", AiPriority.GUARANTEED), make.pool("spot", AiPriority.SPOT)]
    )
    last = Planner(P).solve(make.fleet(site))
    low = replace(site, windows=(Window("dr", 2.0e6, 0.0, None),))
    decided = clipped(low, last.sites[0], make.fleet(low), P)
    assert decided.classes[0].machines[0] == pytest.approx(1000)
    assert decided.pools[0].expected_w == pytest.approx(site.pools[0].pool.max_w)
    assert decided.pools[1].expected_w < site.pools[1].pool.max_w
    assert decided.expected_power_w == pytest.approx(2.0e6)


def test_merit_order_is_the_optimum_where_wake_ups_cost_nothing_and_time_has_one_period(make):
    for price in (-10.0, 35.0, 70.0, 140.0, 900.0):
        state = replace(make.machines(), miner_class=replace(make.s21, wake_s=0.0))
        older = replace(make.machines(make.s19, 500), miner_class=replace(make.s19, wake_s=0.0))
        site = make.site(price=price, ceiling_w=3.3e6, classes=[state, older], pools=[make.pool(gpus=600, income=0.2)])
        fleet = make.fleet(site)
        free = Parameters(wear_usd_per_wake=0.0, move_usd_per_mw=0.0)
        solved = Planner(free, period_s=(300.0,)).solve(fleet).sites[0]
        merit = by_merit(site, fleet, free)
        assert merit.expected_power_w == pytest.approx(solved.expected_power_w, rel=1e-6)
        for ours, theirs in zip(merit.classes, solved.classes, strict=True):
            assert ours.machines == pytest.approx(theirs.machines, abs=1e-2)


def test_site_with_an_old_report_is_held_alone_and_its_hashrate_counts_towards_the_floor(make):
    fleet = make.fleet(make.site("a"), replace(make.site("b"), stale=True), fleet_floor_hs=3e17)
    fresh, stale = split(fleet)
    assert ([s.name for s in fresh.sites], list(stale)) == (["a"], ["b"])
    assert fresh.fleet_floor_hs == pytest.approx(3e17 - 1000 * 200e12)
    decided = complete(Planner(P).solve(fresh), "", None, fleet, P)
    assert [d.site for d in decided.sites] == ["a", "b"]
    assert [d.rung for d in decided.sites] == [Rung.PLAN, Rung.HOLD]
    assert decided.rung is Rung.PLAN
    assert "too old" in decided.sites[1].rung_reason


def test_best_rung_there_is_takes_the_place_of_a_solution(make):
    fleet = make.fleet(make.site("a"), make.site("b", prices=[]), make.site("c"))
    last = Planner(P).solve(replace(fleet, sites=fleet.sites[2:]))
    decided = complete(None, "the solver gave no answer in 30 s", last, fleet, P)
    assert [d.rung for d in decided.sites] == [Rung.MERIT_ORDER, Rung.HOLD, Rung.CLIPPED_PLAN]
    assert decided.rung is Rung.HOLD  # the fleet stands where its worst site does
    assert {d.rung_reason for d in decided.sites} == {"the solver gave no answer in 30 s"}


def test_old_plan_gives_way_to_the_merit_order_where_a_price_is_known(make):
    fleet = make.fleet(make.site("a"), make.site("b"))
    last = Planner(P).solve(fleet)
    unpriced = replace(fleet, sites=(fleet.sites[0], replace(fleet.sites[1], prices=())))
    decided = complete(None, "x", last, unpriced, P, recent=False)
    assert [d.rung for d in decided.sites] == [Rung.MERIT_ORDER, Rung.CLIPPED_PLAN]


def test_plan_of_other_equipment_is_not_clipped_but_replaced(make):
    last = Planner(P).solve(make.fleet(make.site("a")))
    changed = make.fleet(make.site("a", classes=[make.machines(make.s19)]))
    assert complete(None, "x", last, changed, P).sites[0].rung is Rung.MERIT_ORDER


def test_number_that_cannot_be_takes_its_own_site_off_the_solver_and_no_other(make):
    bad = make.site("b", price=float("nan"))
    fleet = make.fleet(make.site("a"), bad)
    fresh, left_out = split(fleet)
    assert [s.name for s in fresh.sites] == ["a"]
    assert "b: price_usd_per_mwh is nan" in left_out["b"]
    last = Planner(P).solve(make.fleet(make.site("a"), make.site("b")))
    lowered = replace(bad, windows=(Window("dr", 1e6, 0.0, None),))
    decided = complete(Planner(P).solve(fresh), "", last, replace(fleet, sites=(fleet.sites[0], lowered)), P)
    assert [d.rung for d in decided.sites] == [Rung.PLAN, Rung.CLIPPED_PLAN]
    assert decided.sites[1].expected_power_w == pytest.approx(1e6)
    broken = replace(bad, ceiling_w=float("nan"))
    kept = complete(None, "x", last, replace(fleet, sites=(fleet.sites[0], broken)), P)
    assert [d.site for d in kept.sites] == ["a"]


def test_no_rung_asks_a_class_for_more_than_its_circuits_allow(make):
    site = make.site(price=10.0, classes=[replace(make.machines(), achievable_w=1.2e6)])
    for decided in (by_merit(site, make.fleet(site), P), held(site, make.fleet(site), P)):
        assert make.import_w(site, decided) <= 50e3 + 1.05 * 1.2e6 + 1.0
