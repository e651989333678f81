"""Fallback limits: what AI may draw without a governor, beside the mining that nobody will shed then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.governor.fallback import SlowRise, fallbacks_w
from agent.governor.state import Picture, Policy
from gridpivot.curves import gpu_pool
from gridpivot.vocabulary import AiPriority, MeterTrust

pytestmark = pytest.mark.unit

SPOT = gpu_pool("spot", AiPriority.SPOT, 1000)
SURE = gpu_pool("inference", AiPriority.GUARANTEED, 1000)
POLICY = Policy(ceiling_w=10e6, protection_w=10.8e6)


def picture(mining_w: float, ai_w: float, assumed_w: float, wakes_w: float = 0.0) -> Picture:
    return Picture(MeterTrust.TRUSTED, assumed_w, assumed_w, mining_w, ai_w, ai_w, 0.0, 0.0, 0.0, 0.0, 0.0, wakes_w, 0)


def test_without_a_plan_every_pool_falls_back_to_its_lowest() -> None:
    assert fallbacks_w([SPOT, SURE], [None, None], picture(0, 0, 0), POLICY, 10e6) == [SPOT.min_w, SURE.min_w]


def test_plan_that_fits_is_taken_as_it_is_inside_what_boards_can_do() -> None:
    planned = [0.9e6, 2 * SURE.max_w]
    assert fallbacks_w([SPOT, SURE], planned, picture(1e6, 1e6, 2.2e6), POLICY, 10e6) == [0.9e6, SURE.max_w]


def test_guaranteed_pool_gets_the_room_first() -> None:
    planned = [SPOT.max_w, SURE.max_w]
    spot_w, sure_w = fallbacks_w([SPOT, SURE], planned, picture(8e6, 1e6, 9.6e6), POLICY, 10e6)
    assert spot_w == SPOT.min_w and SURE.min_w < sure_w < SURE.max_w


@given(
    st.lists(st.none() | st.floats(0.0, 2e6), min_size=2, max_size=2),
    st.floats(0.0, 12e6),
    st.floats(0.0, 2.2e6),
    st.floats(0.0, 1e6),
    st.floats(0.0, 1e6),
    st.floats(1e6, 10e6),
)
def test_fallbacks_and_mining_and_the_worst_overhead_stay_under_the_ceiling(
    planned: list[float | None], mining_w: float, ai_w: float, fixed_w: float, wakes_w: float, ceiling_w: float
) -> None:
    """Unless the lowest limits of the boards are too much already."""
    worst = 1.0 + POLICY.overhead_ratio
    assumed_w = worst * (mining_w + ai_w) + fixed_w
    given_w = fallbacks_w([SPOT, SURE], planned, picture(mining_w, ai_w, assumed_w, wakes_w), POLICY, ceiling_w)
    import_w = worst * (sum(given_w) + mining_w + wakes_w) + fixed_w
    lowest = given_w == [SPOT.min_w, SURE.min_w]
    assert lowest or import_w <= ceiling_w + 1.0
    for pool, plan_w, watts in zip((SPOT, SURE), planned, given_w, strict=True):
        assert pool.min_w <= watts <= max(pool.min_w, pool.max_w if plan_w is None else min(plan_w, pool.max_w))


def test_fallback_falls_at_once_and_rises_to_the_least_of_the_last_minute() -> None:
    rise = SlowRise()
    assert [rise.take(w, float(t)) for t, w in enumerate([100.0, 90.0, 99.0, 95.0])] == [100.0, 90.0, 90.0, 90.0]
    assert rise.take(98.0, 61.0) == 95.0
    assert rise.take(10.0, 62.0) == 10.0
