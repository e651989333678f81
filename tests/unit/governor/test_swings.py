"""The reserve above a pool's demand comes from its swings: up and back within seconds. Steps that stay are not swings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.governor.swings import ENOUGH, LEAST_RATIO, MOST_RATIO, Swings

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


@given(st.lists(st.floats(0.0, MAX_W), min_size=1, max_size=40))
def test_reserve_stays_in_its_bounds(demand_w: list[float]) -> None:
    assert LEAST_RATIO * MAX_W <= after(demand_w) <= MOST_RATIO * MAX_W
