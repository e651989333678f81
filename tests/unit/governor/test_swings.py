"""The reserve above a pool's demand comes from its swings: up and back within seconds. Steps that stay are not swings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.governor.swings import ENOUGH, LEAST_RATIO, MOST_RATIO, Swings
from agent.gpu.accounting import is_held
from agent.gpu.reading import GpuReading
from gridpivot.curves import gpu_pool
from gridpivot.vocabulary import AiPriority

pytestmark = pytest.mark.unit

MAX_W = 1e6


def after(demand_w: list[float]) -> float:
    """Reserve after an hour of demand, repeated [W]."""
    swings = Swings()
    for second in range(2 * ENOUGH):
        swings.take(demand_w[second % len(demand_w)], float(second))
    return swings.reserve_w(MAX_W, 0.03)


def test_assumption_holds_until_enough_was_seen() -> None:
    swings = Swings()
    for second in range(60):
        swings.take(5e5, float(second))
    assert swings.reserve_w(MAX_W, 0.03) == 0.03 * MAX_W


def test_steady_pool_needs_the_least_reserve() -> None:
    assert after([5e5]) == LEAST_RATIO * MAX_W


def test_peak_of_five_seconds_is_reserved_for() -> None:
    assert after([5e5] * 55 + [5.6e5] * 5) == pytest.approx(6e4, rel=0.01)


def test_step_that_stays_is_not_reserved_for() -> None:
    assert after([4e5] * 300 + [8e5] * 300) == LEAST_RATIO * MAX_W


def test_least_reserve_keeps_boards_from_counting_as_held_back() -> None:
    pool = gpu_pool("inference", AiPriority.GUARANTEED, 8)
    for board_w in (300.0, 500.0, 660.0):
        limit_w = board_w + LEAST_RATIO * pool.max_w / pool.gpu_count
        reading = GpuReading("GPU-a", power_w=board_w, limit_enforced_w=limit_w, throttled_by_power=False)
        assert not is_held(reading, limit_w)


@given(st.lists(st.floats(0.0, MAX_W), min_size=1, max_size=40))
def test_reserve_stays_in_its_bounds(demand_w: list[float]) -> None:
    assert LEAST_RATIO * MAX_W <= after(demand_w) <= MOST_RATIO * MAX_W
