"""A host that is to be switched on: the governor makes the room that it wants by the same rules as for any other power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.backends import PoolReading
from agent.governor.state import Orders
from gridpivot.clock import Instant
from gridpivot.curves import gpu_pool
from gridpivot.vocabulary import AiPriority
from tests.unit.governor.conftest import Rig

pytestmark = pytest.mark.unit


def wants(rig: Rig, ratio: float) -> float:
    """From now on a host wants room for a share of the pool's most; how much that is [W]."""
    comes_w = ratio * rig.world.pools[0].max_w
    read = rig.world.read

    def with_room(now: Instant) -> Sequence[PoolReading]:
        return [replace(reading, comes_w=comes_w) for reading in read(now)]

    rig.world.read = with_room  # type: ignore[method-assign]
    return comes_w


def given_w(rig: Rig) -> float:
    """What the pool may draw and does not [W]."""
    return rig.world.pools[0].limit_w - rig.world.pools[0].power_w


def test_room_is_made_by_mining_and_the_ceiling_holds(rig: Rig) -> None:
    rig.run(30)
    at_s = rig.now_s
    assert given_w(rig) < wants(rig, 0.3)
    rig.run(40)
    assert given_w(rig) >= 0.3 * rig.world.pools[0].max_w
    sheds = [t for t, a in rig.actions if t > at_s for c in a.modes if c.why == "room_for_ai"]
    raises = [t for t, a in rig.actions if t > at_s for c in a.limits if c.why == "demand_rose"]
    assert sheds and raises and min(sheds) < max(raises)
    assert rig.excess_ratio(at_s) <= 0.0


def test_no_room_is_made_while_nothing_may_be_raised(rig: Rig) -> None:
    rig.run(30)
    rig.orders = replace(rig.orders, may_raise=False)
    before_w = rig.world.pools[0].limit_w
    wants(rig, 0.3)
    rig.run(30)
    assert rig.world.pools[0].limit_w <= before_w


def test_no_room_is_made_past_what_the_plan_lets_a_pool_have() -> None:
    rig = Rig(pools=(gpu_pool("training", AiPriority.STANDARD, 300),))
    rig.run(30)
    cap_w = 0.6 * rig.world.pools[0].max_w
    rig.orders = Orders(rig.ceiling_w, rig.orders.rung, None, [cap_w])
    wants(rig, 0.3)
    rig.run(40)
    assert rig.world.pools[0].limit_w <= 1.02 * cap_w


def test_a_host_that_waits_in_vain_is_no_shortage_and_costs_nobody_anything() -> None:
    rig = Rig(devices=4, pools=(gpu_pool("training", AiPriority.STANDARD, 300),), ai_ratio=0.9)
    rig.run(60)
    at_s, before_w = rig.now_s, rig.world.pools[0].limit_w
    wants(rig, 0.09)
    rig.run(60)
    assert all(actions.picture.shed_short_w == 0.0 for actions in rig.since(at_s))
    assert rig.world.pools[0].limit_w >= before_w - 1.0
    assert rig.excess_ratio(at_s) <= 0.0
