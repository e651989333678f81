"""What pools are asked for: the plan's most, and what mining cannot cover, spot first, guaranteed only to its lowest limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ai.targets import Shortage, capped, targets
from agent.backends import PoolReading
from agent.governor.state import Orders
from gridpivot.curves import gpu_pool
from gridpivot.vocabulary import AiPriority, Rung

pytestmark = pytest.mark.unit

POOLS = (
    gpu_pool("inference", AiPriority.GUARANTEED, 100),
    gpu_pool("training", AiPriority.STANDARD, 100),
    gpu_pool("scavenge", AiPriority.SPOT, 100),
)


def orders(*most_w: float | None) -> Orders:
    return Orders(1e7, Rung.PLAN, None, list(most_w))


def readings(*power_w: float | None) -> list[PoolReading]:
    return [PoolReading(w, 110_000.0, w, 100, 0.0) for w in power_w]


def test_plan_is_the_target_but_never_of_guaranteed_work() -> None:
    found = targets(POOLS, readings(9e4, 9e4, 9e4), orders(5e4, 6e4, None), 0.0)
    assert [t.target_w for t in found] == [None, 6e4, None]
    assert not any(t.forced for t in found)


def test_what_mining_cannot_cover_is_asked_of_spot_first() -> None:
    found = targets(POOLS, readings(9e4, 9e4, 9e4), orders(None, None, None), 3e4)
    assert [t.target_w for t in found] == [None, None, 6e4] and found[2].forced


def test_guaranteed_work_comes_last_and_only_down_to_its_lowest_limits() -> None:
    found = targets(POOLS, readings(9e4, 9e4, 9e4), orders(None, None, None), 1e6)
    assert [t.target_w for t in found] == [POOLS[0].min_w, POOLS[1].baseline_w, POOLS[2].baseline_w]


def test_guaranteed_work_whose_clocks_can_be_locked_is_asked_for_more_than_its_limits_can_give() -> None:
    found = targets(POOLS, readings(9e4, 9e4, 9e4), orders(None, None, None), 1e6, ["inference"])
    assert found[0].target_w == POOLS[0].baseline_w < POOLS[0].min_w and found[0].forced
    assert targets(POOLS, readings(9e4, 9e4, 9e4), orders(None, None, None), 0.0, ["inference"])[0].target_w is None


def test_pool_of_unknown_power_is_asked_for_nothing() -> None:
    found = targets(POOLS, readings(9e4, 9e4, None), orders(None, None, None), 1e4)
    assert [t.target_w for t in found] == [None, 8e4, None]


@given(st.lists(st.floats(0.0, 1.1e5), min_size=3, max_size=3), st.floats(0.0, 1e6))
def test_no_more_is_asked_than_is_missing(power_w: list[float], short_w: float) -> None:
    found = targets(POOLS, readings(*power_w), orders(None, None, None), short_w)
    given_w = sum(max(0.0, p - t.target_w) for p, t in zip(power_w, found, strict=True) if t.target_w is not None)
    assert given_w <= short_w + 1e-6


def test_cap_only_lowers() -> None:
    wish = orders(5e4, None, 7e4)
    assert capped(wish, POOLS, {}) is wish
    assert list(capped(wish, POOLS, {"training": 6e4, "scavenge": 8e4}).pool_max_w) == [5e4, 6e4, 7e4]


def test_one_bad_tick_is_no_shortage_and_five_seconds_are() -> None:
    shortage = Shortage()
    told = [shortage.take(w, float(s)) for s, w in enumerate([0.0, 5e4, 0.0, 4e4, 3e4, 5e4, 6e4, 7e4, 8e4, 9e4])]
    assert told[:8] == [0.0] * 8 and told[8] == 3e4
    assert shortage.take(0.0, 10.0) == 0.0


def test_shortage_at_the_very_start_is_waited_for_too() -> None:
    shortage = Shortage()
    assert shortage.take(9e4, 100.0) == 0.0 and shortage.take(9e4, 104.0) == 0.0 and shortage.take(9e4, 105.0) == 9e4
