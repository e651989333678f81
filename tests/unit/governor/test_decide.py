"""The governor's behaviour: room before power, no breach, no oscillation, honesty about silence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.governor.state import Orders
from gridpivot.curves import gpu_pool
from gridpivot.vocabulary import AiPriority, MeterTrust, Mode, Rung, Stage
from sim.virtual import MeterFault
from tests.unit.governor.conftest import Rig

pytestmark = pytest.mark.unit


def test_ai_step_is_served_by_shedding_first_then_raising_limits(rig: Rig) -> None:
    rig.run(30)
    before_w = rig.world.pools[0].limit_w
    at_s = rig.now_s
    rig.demand(0.95)
    rig.run(15)
    sheds = [t for t, a in rig.actions if t > at_s for c in a.modes if c.why == "room_for_ai"]
    raises = [t for t, a in rig.actions if t > at_s for c in a.limits if c.limit_w > before_w]
    assert sheds and raises
    assert min(sheds) < min(raises)
    assert rig.world.true_ai_w >= 0.95 * rig.world.pools[0].demand_w


def test_limits_are_not_raised_before_the_meter_shows_the_room(make_rig: type[Rig]) -> None:
    rig = make_rig()
    rig.run(30)
    rig.deaf = True
    limit_w = rig.world.pools[0].limit_w
    rig.demand(0.95)
    rig.run(20)
    headroom_w = rig.ceiling_w - rig.world.true_power_w
    assert rig.world.pools[0].limit_w <= limit_w + max(0.0, headroom_w) + 0.004 * rig.ceiling_w


def test_power_comes_back_to_mining_when_ai_demand_falls(rig: Rig) -> None:
    rig.run(30)
    rig.demand(0.95)
    rig.run(30)
    asleep = int((rig.state.desired == Mode.SLEEP.code).sum())
    low = int((rig.state.desired == Mode.LOW.code).sum())
    rig.demand(0.5)
    rig.run(150)
    assert int((rig.state.desired == Mode.SLEEP.code).sum()) < asleep or low
    assert rig.excess_ratio() <= 0.02


@settings(max_examples=60)
@given(
    delay_s=st.floats(0.0, 5.0),
    bias=st.floats(0.8, 1.2),
    dead_time=st.floats(0.5, 2.0),
    demand=st.floats(0.6, 1.0),
    seed=st.integers(0, 1000),
)
def test_one_ai_step_never_breaches_and_turns_at_most_once(
    delay_s: float, bias: float, dead_time: float, demand: float, seed: int
) -> None:
    rig = Rig(devices=300, meter_delay_s=delay_s, bias=bias, dead_time_factor=dead_time, seed=seed)
    rig.run(40)
    at_s = rig.now_s
    rig.demand(demand)
    rig.run(75)
    assert rig.excess_ratio(at_s) <= 0.02
    assert rig.longest_excess_s(at_s) <= 5.0
    assert rig.reversals(at_s) <= 1


@settings(max_examples=40)
@given(
    delay_s=st.floats(0.0, 5.0),
    bias=st.floats(0.8, 1.2),
    steps=st.lists(st.tuples(st.floats(0.45, 1.0), st.integers(3, 25)), min_size=2, max_size=5),
    seed=st.integers(0, 1000),
)
def test_any_sequence_of_ai_steps_stays_inside_the_ceiling(
    delay_s: float, bias: float, steps: list[tuple[float, int]], seed: int
) -> None:
    rig = Rig(devices=300, meter_delay_s=delay_s, bias=bias, seed=seed)
    rig.run(30)
    at_s = rig.now_s
    for demand, hold_s in steps:
        rig.demand(demand)
        rig.run(hold_s)
    rig.run(20)
    assert rig.excess_ratio(at_s) <= 0.02
    assert rig.longest_excess_s(at_s) <= 5.0


@settings(max_examples=40)
@given(ratio=st.floats(0.5, 0.95), delay_s=st.floats(0.0, 5.0), bias=st.floats(0.85, 1.15), seed=st.integers(0, 99))
def test_lowered_ceiling_is_reached_within_shed_time_and_held(
    ratio: float, delay_s: float, bias: float, seed: int
) -> None:
    fast = (Rig().classes[0], Rig().classes[1])
    rig = Rig(devices=300, classes=fast, meter_delay_s=delay_s, bias=bias, seed=seed)
    rig.run(30)
    lowered_w = ratio * rig.ceiling_w
    rig.orders = Orders(lowered_w, Rung.CLIPPED_PLAN, None, [None])
    at_s = rig.now_s
    rig.run(60)
    inside = [t for t, w in rig.power_w if t > at_s and w <= lowered_w]
    floor_w = rig.world.truth.fixed_w + 0.53 * rig.world.pools[0].max_w * 1.1
    if lowered_w > floor_w:
        assert inside and inside[0] - at_s <= 20.0
        assert all(w <= 1.002 * lowered_w for t, w in rig.power_w if t > at_s + 30.0)


def test_silent_miners_are_never_counted_as_shed(make_rig: type[Rig]) -> None:
    rig = make_rig(silent_ratio=0.3)
    rig.run(30)
    silent = np.flatnonzero(rig.world.physics.silent)
    charged_w = float(rig.state.believed_w[silent].sum())
    assert charged_w >= 0.9 * len(silent) * 3000.0
    rig.orders = Orders(0.6 * rig.ceiling_w, Rung.CLIPPED_PLAN, None, [None])
    rig.run(40)
    assert float(rig.state.believed_w[silent].sum()) >= charged_w
    assert not (
        rig.state.shed_since_w > 0 and (rig.state.pending[silent] == 0).all() and rig.state.confirmed_total == 0
    )
    confirmed_rows = (rig.state.pending == 0) & (rig.state.desired == Mode.SLEEP.code) & (rig.state.retries == 0)
    assert not (confirmed_rows & rig.world.physics.silent & (rig.state.moved_w > 0)).any()


def test_commands_that_get_lost_are_reported_short_and_sent_again(make_rig: type[Rig]) -> None:
    rig = make_rig()
    rig.run(30)
    rig.deaf = True
    rig.orders = Orders(0.9 * rig.ceiling_w, Rung.CLIPPED_PLAN, None, [None])
    rig.run(40)
    assert rig.state.short_total > 0
    assert rig.state.confirmed_total == 0
    rig.deaf = False
    rig.run(120)
    assert rig.world.true_power_w <= 0.9 * rig.ceiling_w


def test_miner_that_comes_back_during_a_curtailment_is_shed_again(rig: Rig) -> None:
    rig.run(30)
    rig.orders = Orders(0.8 * rig.ceiling_w, Rung.CLIPPED_PLAN, None, [None])
    rig.run(40)
    back = np.flatnonzero(rig.state.desired == Mode.SLEEP.code)[:20]
    rig.world.physics.command(back, Mode.NORMAL, rig.now_s)  # a watchdog, not the governor
    rig.run(60)
    assert (rig.world.physics.mode[back] == Mode.SLEEP.code).all()


@pytest.mark.parametrize("stage", [Stage.OBSERVE, Stage.SHADOW])
def test_observe_and_shadow_send_no_command(make_rig: type[Rig], stage: Stage) -> None:
    rig = make_rig(stage=stage)
    rig.demand(1.0)
    rig.orders = Orders(0.5 * rig.ceiling_w, Rung.PLAN, None, [None])
    rig.run(60)
    assert rig.world.commands_heard == 0
    assert all(not a.modes and not a.limits for _, a in rig.actions)


def test_shed_only_stage_never_wakes_and_never_raises(make_rig: type[Rig]) -> None:
    rig = make_rig(stage=Stage.SHED_ONLY, ceiling_ratio=1.2)
    limit_w = rig.world.pools[0].limit_w
    rig.demand(1.0)
    rig.run(90)
    assert all(c.mode in (Mode.SLEEP, Mode.LOW) for _, a in rig.actions for c in a.modes)
    assert rig.world.pools[0].limit_w <= limit_w


def test_dead_meter_is_a_fault_raises_nothing_and_keeps_the_ceiling(rig: Rig) -> None:
    rig.run(40)
    rig.world.meter_fault = MeterFault.DEAD
    rig.demand(1.0)
    at_s = rig.now_s
    rig.run(60)
    assert rig.actions[-1][1].picture.meter_trust is MeterTrust.STALE
    faulted = [a for t, a in rig.actions if t > at_s and a.picture.meter_trust is MeterTrust.STALE]
    assert not [c for a in faulted for c in a.limits if c.why == "demand_rose"]
    assert not [c for a in faulted for c in a.modes if c.mode is Mode.NORMAL]
    assert rig.excess_ratio(at_s) <= 0.02
    rig.world.meter_fault = MeterFault.NONE
    rig.run(40)
    assert rig.actions[-1][1].picture.meter_trust is MeterTrust.TRUSTED


def test_meter_that_stays_frozen_across_a_proven_step_is_not_believed(rig: Rig) -> None:
    rig.run(40)
    rig.world.meter_fault = MeterFault.FROZEN
    rig.orders = Orders(0.9 * rig.ceiling_w, Rung.CLIPPED_PLAN, None, [None])
    rig.run(40)
    assert rig.actions[-1][1].picture.meter_trust is MeterTrust.FROZEN


def test_reversed_meter_is_not_believed(rig: Rig) -> None:
    rig.run(30)
    rig.world.meter_fault = MeterFault.REVERSED
    rig.run(5)
    assert rig.actions[-1][1].picture.meter_trust is MeterTrust.REVERSED


def test_without_a_meter_nothing_is_guessed_away_at_the_start(rig: Rig) -> None:
    rig.world.meter_fault = MeterFault.DEAD
    rig.run(8)
    assert all(not a.modes for _, a in rig.actions)


def test_guaranteed_ai_is_not_capped_while_mining_can_still_be_shed(make_rig: type[Rig]) -> None:
    rig = make_rig()
    rig.run(30)
    rig.orders = Orders(0.7 * rig.ceiling_w, Rung.CLIPPED_PLAN, None, [None])
    rig.run(60)
    assert not [c for _, a in rig.actions for c in a.limits if c.why == "breach"]


def test_caps_come_when_mining_cannot_cover_the_breach(make_rig: type[Rig]) -> None:
    pools = (gpu_pool("inference", AiPriority.GUARANTEED, 1500), gpu_pool("batch", AiPriority.SPOT, 1500))
    rig = make_rig(devices=120, pools=pools, ai_ratio=0.9)
    rig.run(30)
    rig.orders = Orders(0.72 * rig.world.true_power_w, Rung.CLIPPED_PLAN, None, [None, None])
    rig.run(60)
    cut = {c.pool for _, a in rig.actions for c in a.limits if c.why == "breach"}
    assert 1 in cut
    assert rig.world.pools[1].limit_w <= 1.01 * pools[1].min_w
    assert rig.world.pools[0].limit_w > rig.world.pools[1].limit_w


def test_spot_ai_follows_the_plans_cap_and_guaranteed_does_not(make_rig: type[Rig]) -> None:
    pools = (gpu_pool("inference", AiPriority.GUARANTEED, 200), gpu_pool("batch", AiPriority.SPOT, 200))
    rig = make_rig(pools=pools)
    rig.run(30)
    low_w = [0.3 * p.max_w for p in pools]
    rig.orders = Orders(rig.ceiling_w, Rung.PLAN, None, low_w)
    rig.run(20)
    assert rig.world.pools[0].limit_w > low_w[0] * 1.5
    assert rig.world.pools[1].limit_w <= pools[1].min_w * 1.02


def test_room_given_to_ai_is_not_given_to_mining_at_the_same_tick(make_rig: type[Rig]) -> None:
    rig = make_rig(asleep_ratio=0.3)
    rig.run(12)
    rig.ceiling_w *= 1.05
    rig.orders = Orders(rig.policy.ceiling_w * 1.03, Rung.PLAN, None, [None])
    rig.demand(1.0)
    rig.run(60)
    for _, actions in rig.actions:
        up_w = sum(c.expected_w for c in actions.modes if c.mode in (Mode.NORMAL, Mode.TURBO))
        raised = [c for c in actions.limits if c.why == "demand_rose"]
        if up_w and raised:
            assert up_w <= actions.picture.room_w


def test_a_breach_and_an_ai_step_together_are_shed_for_once(make_rig: type[Rig]) -> None:
    rig = make_rig(meter_delay_s=5.0)
    rig.run(40)
    rig.demand(0.95)
    rig.run(9)
    lowered_w = 0.85 * rig.ceiling_w
    rig.orders = Orders(lowered_w, Rung.CLIPPED_PLAN, None, [None])
    rig.run(40)
    assert rig.world.true_power_w <= lowered_w
    # Once for the breach and once for AI, each a little more than asked: not the breach all over again for AI.
    assert rig.world.true_power_w >= 0.88 * lowered_w
