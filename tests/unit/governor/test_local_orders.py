"""Orders by hand: lowest of all limits, never overridden from afar, held when in doubt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.governor.local_orders import MOST_ORDERS, LocalOrders
from agent.governor.state import Orders
from gridpivot.clock import Instant
from gridpivot.errors import Refused
from gridpivot.vocabulary import Rung

pytestmark = pytest.mark.unit
T0 = Instant(1_000.0, 1_760_000_000.0)


def later(seconds: float, step_s: float = 0.0) -> Instant:
    return Instant(T0.monotonic_s + seconds, T0.unix_s + seconds + step_s)


def from_afar(ceiling_w: float, *, may_raise: bool = True) -> Orders:
    return Orders(ceiling_w, Rung.PLAN, None, [], may_raise=may_raise)


def test_plan_that_would_raise_power_changes_nothing_under_a_local_order() -> None:
    local = LocalOrders()
    local.give("a", "shed", 3e6, None, "ann", "", T0)
    assert local.limit(from_afar(5e6)).ceiling_w == 3e6
    assert local.limit(from_afar(5e6)).rung is Rung.CLIPPED_PLAN
    assert local.limit(from_afar(2e6)).ceiling_w == 2e6  # what is lower from afar still counts
    assert local.limit(from_afar(2e6)).rung is Rung.PLAN
    assert local.limit(from_afar(5e6)).may_raise
    local.give("b", "hold", 4e6, None, "ann", "", T0)
    assert not local.limit(from_afar(2e6)).may_raise
    local.release("b")
    assert local.limit(from_afar(2e6)).may_raise


def test_order_with_an_end_ends_when_both_clocks_agree() -> None:
    local = LocalOrders()
    local.give("a", "shed", 3e6, 1_800.0, "ann", "", T0)
    assert not local.ended(later(1_799))
    assert not local.ended(later(100, step_s=10**9))  # somebody set the clock
    assert not local.ended(later(1_900, step_s=-3_600))
    assert [order.order_id for order in local.ended(later(1_801))] == ["a"]
    assert local.ceiling_w is None


def test_order_survives_a_restart_and_on_a_clock_that_was_never_set_waits_for_a_release() -> None:
    local = LocalOrders()
    local.give("a", "shed", 3e6, 1_800.0, "ann", "hot", T0)
    local.give("b", "hold", 4e6, None, "bob", "", T0)
    kept = local.to_json()
    again = LocalOrders()
    booted = Instant(5.0, T0.unix_s + 600.0)
    again.restore(kept, T0.unix_s, booted)
    assert (again.ceiling_w, again.holds) == (3e6, True)
    assert not again.ended(Instant(5.0 + 1_199, booted.unix_s + 1_199))
    assert [o.order_id for o in again.ended(Instant(5.0 + 1_201, booted.unix_s + 1_201))] == ["a"]
    lost = LocalOrders()
    lost.restore(kept, T0.unix_s, Instant(5.0, 1_000.0))
    assert not lost.ended(Instant(10**9, 10**10))
    assert [o.order_id for o in lost.release(None)] == ["a", "b"]


@pytest.mark.parametrize(
    ("ceiling_w", "for_s"), [(-1.0, None), (float("nan"), None), (float("inf"), None), (1e6, 0.0), (1e6, 1e9)]
)
def test_nonsense_is_refused_and_changes_nothing(ceiling_w: float, for_s: float | None) -> None:
    local = LocalOrders()
    with pytest.raises(Refused):
        local.give("a", "shed", ceiling_w, for_s, "ann", "", T0)
    assert not local.orders
    with pytest.raises(Refused):
        local.release("a")


def test_orders_are_bounded() -> None:
    local = LocalOrders()
    for number in range(MOST_ORDERS):
        local.give(str(number), "shed", 1e6, None, "ann", "", T0)
    with pytest.raises(Refused):
        local.give("one more", "shed", 1.0, None, "ann", "", T0)
    assert local.ceiling_w == 1e6


@given(
    afar=st.floats(0, 1e8),
    given_w=st.lists(st.floats(0, 1e8), max_size=6),
    released=st.lists(st.integers(0, 5), max_size=6),
)
def test_effective_ceiling_is_the_lowest_in_force_and_a_release_never_goes_above_the_next(
    afar: float, given_w: list[float], released: list[int]
) -> None:
    local = LocalOrders()
    for number, watts in enumerate(given_w):
        local.give(str(number), "shed", watts, None, "ann", "", T0)
    standing = dict(enumerate(given_w))
    for number in released:
        if standing.pop(number, None) is not None:
            local.release(str(number))
        assert local.limit(from_afar(afar)).ceiling_w == min([afar, *standing.values()])
