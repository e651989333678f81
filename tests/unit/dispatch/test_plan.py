"""Plans: what travels to a site, and when a new one is worth sending."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.dispatch.inputs import Window
from controller.dispatch.plan import Terms, build_plan, materially_different
from controller.dispatch.solve import Planner
from gridpivot.clock import Instant
from gridpivot.curves import PoolNode
from gridpivot.plan import check
from gridpivot.v1 import plan_pb2 as pb
from gridpivot.vocabulary import AiPriority, Posture

pytestmark = pytest.mark.unit

NOW = Instant(100.0, 1_724_196_600.0)
TERMS = Terms(3, 17, 20_000, Posture.GUARANTEED_ONLY, {"dr-1": "ERCOT 4CP"})


@pytest.fixture(scope="module")
def planned(make):
    site = make.site(
        pools=[make.pool("inference", AiPriority.GUARANTEED)],
        windows=[Window("dr-2", 2e6, 1800.0, None), Window("dr-1", 3e6, -60.0, 900.0)],
        drop_ramp_w_per_min=1e6,
    )
    decision = Planner().solve(make.fleet(site)).sites[0]
    return site, decision, build_plan(decision, site, TERMS, NOW, "First plan.")


def changed(plan, **fields):
    other = pb.Plan()
    other.CopyFrom(plan)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def test_plan_is_one_that_an_agent_accepts(planned):
    _, _, plan = planned
    check(plan, "alpha", (3, 16), {"s21"}, {"inference"})
    assert (plan.epoch, plan.version, plan.valid_for_ms) == (3, 17, 20_000)
    assert plan.fallback.posture == "guaranteed_only"


def test_windows_become_absolute_and_keep_their_reasons(planned):
    _, _, plan = planned
    first, second = plan.events
    assert (first.event_id, first.reason) == ("dr-1", "ERCOT 4CP")
    assert first.starts_at_unix_ms == NOW.unix_ms - 60_000 and first.ends_at_unix_ms == NOW.unix_ms + 900_000
    assert second.event_id == "dr-2" and not second.HasField("ends_at_unix_ms")


def test_fallback_ceiling_is_the_one_in_force(planned):
    _, _, plan = planned
    assert plan.ceiling_w == plan.fallback.ceiling_w == 3e6


def test_machines_of_a_plan_add_up_to_those_available(planned):
    _, _, plan = planned
    (target,) = plan.classes
    total = target.sleep_machines + target.low_machines + target.normal_machines + target.turbo_machines
    assert total == pytest.approx(1000)


def test_same_plan_a_moment_later_is_not_worth_sending(planned):
    site, decision, plan = planned
    later = Instant(100.4, NOW.unix_s + 0.4)
    again = build_plan(decision, site, replace(TERMS, version=18), later, "300 s have passed.")
    assert materially_different(plan, again) is None


def test_first_plan_and_new_planner_are_sent(planned):
    _, _, plan = planned
    assert materially_different(None, plan) == "first plan"
    assert materially_different(plan, changed(plan, epoch=4)) == "new planner"


def test_lower_ceiling_is_sent_however_small(planned):
    _, _, plan = planned
    assert materially_different(plan, changed(plan, ceiling_w=plan.ceiling_w - 10)) == "ceiling"


def test_few_machines_do_not_stir_a_site_and_many_do(planned):
    _, _, plan = planned
    for moved, verdict in ((1.0, None), (50.0, "machines of s21")):
        other = changed(plan)
        other.classes[0].sleep_machines += moved
        other.classes[0].normal_machines -= moved
        assert materially_different(plan, other) == verdict


def test_moved_ended_or_new_window_is_sent(planned):
    _, _, plan = planned
    ended, moved, new = changed(plan), changed(plan), changed(plan)
    del ended.events[0]
    moved.events[0].ends_at_unix_ms += 60_000
    new.events.add(event_id="dr-3", ceiling_w=1e6, starts_at_unix_ms=0)
    assert {materially_different(plan, p) for p in (ended, moved, new)} == {"events"}


def test_ai_power_is_sent_past_the_threshold(planned):
    _, _, plan = planned
    other = changed(plan)
    other.pools[0].fallback_w -= 500e3
    assert materially_different(plan, other) == "AI pool inference"


@pytest.fixture(scope="module")
def hosted(make):
    """A pool on two hosts of unlike size."""
    pool = make.pool("training", AiPriority.STANDARD, 100)
    nodes = (PoolNode("gpu-1", 80, 48e3, 88e3), PoolNode("gpu-2", 20, 12e3, 22e3))
    return make.site(pools=[replace(pool, pool=replace(pool.pool, nodes=nodes))])


def test_plan_tells_every_node_its_fallback_and_they_add_up_to_the_pools(make, hosted):
    decision = Planner().solve(make.fleet(hosted)).sites[0]
    middle = replace(decision, pools=(replace(decision.pools[0], fallback_w=85e3, admits=False),))
    (target,) = build_plan(middle, hosted, TERMS, NOW, "").pools
    assert [(n.name, n.fallback_w) for n in target.nodes] == [("gpu-1", 68e3), ("gpu-2", 17e3)]
    assert target.HasField("admits") and not target.admits
    below = replace(decision, pools=(replace(decision.pools[0], fallback_w=1e3),))
    (target,) = build_plan(below, hosted, TERMS, NOW, "").pools
    assert [n.fallback_w for n in target.nodes] == [48e3, 12e3]  # boards go no lower
    assert not target.HasField("admits")  # nothing is known of its queue


def test_a_door_and_a_new_node_are_worth_a_plan(make, hosted):
    decision = Planner().solve(make.fleet(hosted)).sites[0]
    old = build_plan(decision, hosted, TERMS, NOW, "")
    shut = replace(decision, pools=(replace(decision.pools[0], admits=False),))
    assert materially_different(old, build_plan(shut, hosted, TERMS, NOW, "")) == "admission of training"
    other = pb.Plan()
    other.CopyFrom(old)
    other.pools[0].nodes.add(name="gpu-3", fallback_w=1e3)
    assert materially_different(old, other) == "nodes of training"
