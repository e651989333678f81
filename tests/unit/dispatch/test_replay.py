"""A recorded state and start lead to the same decision again, bit for bit, in another planner."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace

import pytest

from controller.dispatch.inputs import PriceStep, Start, Window
from controller.dispatch.solve import Planner, components
from controller.dispatch.terms import Backlog, RateStep
from gridpivot.errors import Infeasible
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit


def steps(rng):
    return tuple(PriceStep(h * 3600.0, rng.uniform(-20, 180)) for h in range(48))


def fleet_of(make, rng, **more):
    sites = []
    for name in "abcd":
        pools = [make.pool("inference", AiPriority.GUARANTEED, 400), make.pool(gpus=800)]
        classes = [make.machines(asleep=rng.randrange(900)), make.machines(make.s19, 800)]
        sites.append(make.site(name, ceiling_w=5e6, prices=steps(rng), classes=classes, pools=pools))
    return make.fleet(*sites, **more)


@pytest.mark.parametrize("more", [{}, {"fleet_floor_hs": 5e16}, {"fleet_floor_hs": 1.0e18}])
def test_replay_gives_the_same_bits_after_any_history(make, more):
    rng = random.Random(3)
    planner, state = Planner(), fleet_of(make, rng, **more)
    for turn in range(4):
        decision = planner.solve(state)
        assert decision.start is not None and decision.warm == (turn > 0)
        start = Start(**{**asdict(decision.start), "options": decision.start.options})
        again = Planner().replay(state, start)
        assert json.dumps(asdict(replace(again, start=None, solve_s=0.0))) == json.dumps(
            asdict(replace(decision, start=None, solve_s=0.0))
        )
        windows = (Window("dr", 2e6, 600.0 * turn, 7200.0),)
        moved = [replace(s, prices=steps(rng), windows=windows if s.name == "b" else ()) for s in state.sites]
        state = make.follow(replace(state, sites=tuple(moved)), decision)


def test_record_of_another_state_is_refused(make):
    decision = Planner().solve(make.fleet(make.site("a"), make.site("b")))
    with pytest.raises(Infeasible, match="2 bases for 1 models"):
        Planner().replay(make.fleet(make.site("a")), decision.start)
    warm = Planner()
    warm.solve(make.fleet(make.site("a")))
    start = warm.solve(make.fleet(make.site("a"))).start
    with pytest.raises(Infeasible, match="another size"):
        Planner().replay(make.fleet(make.site("a", pools=[make.pool()])), start)


def test_event_at_one_site_moves_no_site_that_shares_no_constraint(make):
    rng = random.Random(5)
    planner, state = Planner(), fleet_of(make, rng)
    state = make.follow(state, planner.solve(state))
    before = planner.solve(state)
    called = replace(state.sites[1], windows=(Window("dr", 1e6, 0.0, 3600.0),))
    after = planner.solve(replace(state, sites=(state.sites[0], called, *state.sites[2:])))
    for site, was in enumerate(before.sites):
        moved = max(
            abs(a - b)
            for c, d in zip(was.classes, after.sites[site].classes, strict=True)
            for a, b in zip(c.machines, d.machines, strict=True)
        )
        assert (moved > 100) == (site == 1)
        assert site == 1 or after.sites[site] == was


def test_regional_backlog_makes_its_sites_one_part(make):
    backlog = Backlog("batch", "north", 500.0, (RateStep(0.0, 10.0),), 86_400.0, 86_400.0, 1.5)
    working = replace(make.pool(), backlog="batch")
    fleet = make.fleet(
        make.site("a", pools=[working]), make.site("b"), make.site("c", pools=[working]), backlogs=(backlog,)
    )
    parts = components(fleet)
    assert list(parts) == [("a", "c"), ("b",)]
    assert [len(p.backlogs) for p in parts.values()] == [1, 0]
