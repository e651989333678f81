"""What holds for every fleet: the ceiling, feasibility, and agreement with the merit order where it is exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.dispatch.grid import fixed_import_w
from controller.dispatch.inputs import ClassState, FleetState, PoolState, PriceStep, SiteState, Window
from controller.dispatch.ladder import complete
from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner
from gridpivot.curves import gpu_pool, miner_class
from gridpivot.segments import class_segments, merit_order, pool_segments
from gridpivot.vocabulary import AiPriority, Mode

pytestmark = pytest.mark.unit

MODES = ((Mode.SLEEP, Mode.NORMAL), (Mode.SLEEP, Mode.LOW, Mode.NORMAL), tuple(Mode)[1:])
watts = st.floats(0, 3e7)


@st.composite
def class_states(draw, name):
    made = miner_class(
        name, "virtual", draw(st.sampled_from(["Antminer S19", "Antminer S21", "Whatsminer M60"])),
        shed_s=3, wake_s=draw(st.floats(0, 900)), modes=draw(st.sampled_from(MODES)),
    )  # fmt: skip
    available = draw(st.integers(0, 4000))
    shares = draw(st.lists(st.floats(0, 1), min_size=4, max_size=4))
    total = max(1e-9, sum(shares))
    sleep, low, normal, turbo = (available * s / total for s in shares)
    silent = draw(st.integers(0, 200))
    waking = draw(st.floats(0, 1)) * normal
    return ClassState(
        made, available, silent, silent * 3500.0, (sleep, low, normal, turbo), waking, draw(st.floats(0, 600))
    )


@st.composite
def pool_states(draw, name):
    made = gpu_pool(name, draw(st.sampled_from(list(AiPriority))), draw(st.integers(1, 4000)))
    demand = draw(st.none() | st.floats(0, made.max_w * 1.2))
    return PoolState(made, draw(st.none() | watts), made.max_w, demand, draw(st.floats(0, 5)))


@st.composite
def sites(draw, name):
    windows = [
        Window(f"e{i}", draw(watts), start, draw(st.none() | st.floats(0, 9000).map(lambda w, s=start: s + w)))
        for i, start in enumerate(draw(st.lists(st.floats(-600, 9000), max_size=2)))
    ]
    starts = sorted(draw(st.lists(st.floats(1, 170_000), max_size=4, unique=True)))
    prices = [PriceStep(t, draw(st.floats(-250, 9000))) for t in (0.0, *starts)]
    return SiteState(
        name, "r", draw(watts), tuple(windows),
        tuple(draw(class_states(f"c{i}")) for i in range(draw(st.integers(0, 2)))),
        tuple(draw(pool_states(f"p{i}")) for i in range(draw(st.integers(0, 2)))),
        draw(st.floats(0, 0.4)), draw(st.floats(0, 1e6)), tuple(prices), draw(st.floats(0, 0.1)),
        draw(st.sampled_from([0.0, 5e4, 1e6])), draw(st.sampled_from([0.0, 5e4, 1e6])), True, draw(st.none() | watts),
    )  # fmt: skip


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.lists(sites("x"), min_size=1, max_size=2), st.sampled_from([0.0, 1e17]), st.sampled_from([1.0, 60.0]))
def test_every_state_has_a_plan_that_keeps_ceilings_and_counts(drawn, floor_hs, speed):
    named = tuple(replace(s, name=f"s{i}") for i, s in enumerate(drawn))
    fleet = FleetState(named, 48.0, floor_hs, speed)
    decision = Planner().solve(fleet)
    assert decision.primal_infeasibility <= 1e-6
    for site, decided in zip(named, decision.sites, strict=True):
        unsheddable_w = fixed_import_w(site)
        assert decided.ceiling_w <= site.ceiling_w
        assert decided.expected_power_w <= max(decided.ceiling_w, unsheddable_w) + 2.0
        loads = 0.0
        for state, chosen in zip(site.classes, decided.classes, strict=True):
            assert min(chosen.machines) >= 0
            assert sum(chosen.machines) == pytest.approx(state.available, abs=1e-4)
            modes = state.miner_class.modes
            loads += state.silent_power_w
            for count, mode in zip(chosen.machines, list(Mode)[1:], strict=True):
                assert count == 0 or mode in modes
                loads += count * modes[mode].power_w if count else 0.0
        for pool_state, pool in zip(site.pools, decided.pools, strict=True):
            loads += pool.expected_w
            assert pool.expected_w <= pool.max_w + 1.0 <= pool_state.pool.max_w + 2.0
            assert 0 <= pool.fallback_w <= pool_state.pool.max_w
        assert_fallback_fits(site, decided)
        import_w = site.fixed_w + (1 + site.overhead_ratio) * loads
        assert import_w == pytest.approx(decided.expected_power_w, rel=1e-6, abs=5.0)


def assert_fallback_fits(site, decided):
    """Fallback limits, mining as last commanded (or as planned, class by class the higher), the rest of the site and the
    worst overhead stay under the ceiling in force; where mining alone is too much AI falls back to nothing."""
    mining_w = 0.0
    for state, chosen in zip(site.classes, decided.classes, strict=True):
        modes = state.miner_class.modes
        watts = [modes[m].power_w if m in modes else 0.0 for m in list(Mode)[1:]]
        obeyed = [n * w for n, w in zip(state.commanded, watts, strict=True) if w]
        planned_w = sum(n * w for n, w in zip(chosen.machines, watts, strict=True))
        commanded_w = min(sum(obeyed), state.available * max(watts))
        if all(m in modes for m, n in zip(list(Mode)[1:], state.commanded, strict=True) if n):
            planned_w = max(planned_w, commanded_w)
        mining_w += planned_w + state.silent_power_w
    ai_w = sum(p.fallback_w for p in decided.pools)
    worst_w = site.fixed_w + (1 + 1.1 * site.overhead_ratio) * (mining_w + ai_w)
    assert ai_w == 0.0 or worst_w <= decided.ceiling_w * (1 + 1e-6) + 5.0


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.lists(sites("x"), min_size=1, max_size=2))
def test_plan_from_the_ladder_falls_back_inside_the_ceiling_too(drawn):
    named = tuple(replace(s, name=f"s{i}") for i, s in enumerate(drawn))
    fleet = FleetState(named, 48.0, 0.0, 1.0)
    for site, decided in zip(named, complete(None, "no solver", None, fleet, Parameters()).sites, strict=True):
        assert_fallback_fits(site, decided)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(sites("x"), st.integers(0, 1))
def test_one_period_without_wake_cost_is_the_merit_order(drawn, _):
    classes = tuple(
        replace(c, miner_class=replace(c.miner_class, wake_s=0.0), waking=0.0, waking_remaining_s=0.0)
        for c in drawn.classes
    )
    price = drawn.prices[0].usd_per_mwh
    site = replace(
        drawn, windows=(), classes=classes, prices=drawn.prices[:1], drop_ramp_w_per_min=0.0, pick_up_ramp_w_per_min=0.0
    )
    parameters = Parameters(wear_usd_per_wake=0.0, move_usd_per_mw=0.0)
    planner = Planner(parameters, period_s=(3600.0,))
    decided = planner.solve(FleetState((site,), 48.0))
    segments = [
        s
        for c in classes
        for s in class_segments(c.miner_class, c.available, 48.0, site.pool_fee_ratio, site.overhead_ratio)
    ]
    for p in site.pools:
        segments += pool_segments(p.pool, p.income_usd_per_gpu_hour, p.demand_w, site.overhead_ratio)
    order = merit_order(segments, site.ceiling_w, fixed_import_w(site), site.overhead_ratio, price)
    loading = 1.0 + site.overhead_ratio
    income = sum(s.value_usd_per_mwh * w * loading / 1e6 for s, w in zip(segments, order.watts, strict=True))
    in_ceiling_w = min(order.import_w, site.ceiling_w)
    cost = price * in_ceiling_w / 1e6 - income
    cost += parameters.ceiling_penalty_usd_per_mwh * (order.import_w - in_ceiling_w) / 1e6
    cost += parameters.guaranteed_penalty_usd_per_mwh * order.guaranteed_short_w / 1e6
    assert decided.objective_usd == pytest.approx(cost, rel=1e-6, abs=1e-3)
