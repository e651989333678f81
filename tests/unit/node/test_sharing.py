"""A pool's watts over GPUs of many hosts: the same answer as the slow one, and never both the old and the new limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gpu.accounting import Settable, distribute
from agent.nodes.sharing import capped_w, level_limits_w, released_w, steady_w

pytestmark = pytest.mark.unit

watts = st.floats(0.0, 1000.0, allow_nan=False)
ranges = st.lists(st.tuples(st.floats(50.0, 300.0), st.floats(300.0, 1000.0)), min_size=1, max_size=24)


@given(ranges, st.floats(-1000.0, 30_000.0))
def test_columns_share_as_the_slow_way_does(spans: list[tuple[float, float]], budget_w: float) -> None:
    low, high = np.array([s[0] for s in spans]), np.array([s[1] for s in spans])
    slow = distribute([Settable(str(n), *span) for n, span in enumerate(spans)], budget_w)
    assert level_limits_w(low, high, budget_w).tolist() == [slow[str(n)] for n in range(len(spans))]


@given(ranges, st.floats(0.0, 30_000.0))
def test_limits_stay_in_their_ranges_and_in_the_budget(spans: list[tuple[float, float]], budget_w: float) -> None:
    low, high = np.array([s[0] for s in spans]), np.array([s[1] for s in spans])
    limits = level_limits_w(low, high, budget_w)
    assert ((limits >= low) & (limits <= high)).all()
    assert limits.sum() <= max(budget_w, low.sum()) + 1e-6


@given(st.lists(st.tuples(watts, watts), min_size=1, max_size=24), st.floats(0.0, 20_000.0))
def test_what_may_be_in_force_never_passes_the_budget_because_something_rose(
    pairs: list[tuple[float, float]], budget_w: float
) -> None:
    target, in_force = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    asked = released_w(target, in_force, budget_w)
    assert np.maximum(asked, in_force).sum() <= max(budget_w, in_force.sum()) + 1e-6
    assert (asked <= np.maximum(target, in_force) + 1e-9).all()
    assert (asked[target <= in_force] == target[target <= in_force]).all(), "what falls is asked at once"


def test_rises_wait_for_what_has_not_fallen_yet() -> None:
    target, in_force = np.array([500.0, 500.0]), np.array([300.0, 700.0])
    assert released_w(target, in_force, 1000.0).tolist() == [300.0, 500.0]
    assert released_w(target, np.array([300.0, 500.0]), 1000.0).tolist() == [500.0, 500.0]


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=50))
def test_steady_watts_never_pass_what_is_wanted(wanted: list[float]) -> None:
    used = None
    for wall_w in wanted:
        used = steady_w(used, wall_w, 1000.0)
        assert wall_w - 1500.0 - 1e-6 <= used <= wall_w


def test_small_moves_do_not_reach_the_hosts() -> None:
    used = steady_w(None, 100_000.0, 1000.0)
    assert {steady_w(used, wall_w, 1000.0) for wall_w in (99_600.0, 100_400.0, 100_900.0)} == {used}


@given(
    st.lists(st.tuples(watts, watts, watts), min_size=1, max_size=6),
    st.lists(st.none() | st.floats(-500.0, 3000.0), min_size=6, max_size=6),
)
def test_caps_of_nodes_only_lower(rows: list[tuple[float, float, float]], caps: list[float | None]) -> None:
    given_w = np.array(rows)
    given_w[given_w > 900.0] = np.nan
    least_w = np.full(given_w.shape, 100.0)
    caps_w = np.array([np.nan if c is None else c for c in caps[: len(rows)]])
    lowered = capped_w(given_w, least_w, caps_w)
    assert (np.isnan(lowered) == np.isnan(given_w)).all()
    assert not (lowered > given_w).any()
    assert not (lowered < np.minimum(least_w, given_w)).any()
    floor_w = np.nansum(np.minimum(least_w, given_w), axis=1)
    assert not (np.nansum(lowered, axis=1) > np.fmax(caps_w, floor_w) + 1e-6)[~np.isnan(caps_w)].any()
    assert np.array_equal(lowered[np.isnan(caps_w)], given_w[np.isnan(caps_w)], equal_nan=True)
