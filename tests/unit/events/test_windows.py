"""An order may only lower a ceiling; it starts by the earlier clock and ends by the later one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.events.windows import Order, OrderKind, Orders, grid_event, override
from gridpivot.clock import Instant
from gridpivot.errors import Refused

pytestmark = pytest.mark.unit

T0 = 1_700_000_000.0
OWN_W = 20e6


def at(seconds: float, utc_step_s: float = 0.0) -> Instant:
    return Instant(1000.0 + seconds, T0 + seconds + utc_step_s)


def event(starts_in_s: float, ends_in_s: float | None, **ceiling: float | None) -> Order:
    chosen = {"ceiling_w": None, "ceiling_ratio": 0.5} | ceiling
    return grid_event(
        "e1",
        ("falcon-1",),
        starts_at_unix_ms=at(starts_in_s).unix_ms,
        ends_at_unix_ms=None if ends_in_s is None else at(ends_in_s).unix_ms,
        reason="ercot",
        now=at(0),
        **chosen,
    )


def test_event_holds_between_its_start_and_its_end() -> None:
    orders = Orders().adding(event(60, 120))
    ceilings = [orders.effective_ceiling_w("falcon-1", OWN_W, at(s)) for s in (0, 59, 60, 119, 120, 500)]
    assert ceilings == [OWN_W, OWN_W, OWN_W / 2, OWN_W / 2, OWN_W, OWN_W]
    assert orders.effective_ceiling_w("oryx-1", OWN_W, at(90)) == OWN_W


def test_wall_clock_set_back_neither_delays_the_start_nor_hastens_the_end() -> None:
    orders = Orders().adding(event(60, 120))
    assert orders.effective_ceiling_w("falcon-1", OWN_W, at(60, utc_step_s=-3600)) == OWN_W / 2
    assert orders.effective_ceiling_w("falcon-1", OWN_W, at(150, utc_step_s=-3600)) == OWN_W / 2


def test_wall_clock_set_forward_starts_early_and_does_not_end_early() -> None:
    orders = Orders().adding(event(60, 120))
    assert orders.effective_ceiling_w("falcon-1", OWN_W, at(10, utc_step_s=55)) == OWN_W / 2
    assert orders.effective_ceiling_w("falcon-1", OWN_W, at(90, utc_step_s=3600)) == OWN_W / 2
    assert orders.effective_ceiling_w("falcon-1", OWN_W, at(121, utc_step_s=3600)) == OWN_W


def test_event_without_an_end_holds_until_released() -> None:
    orders = Orders().adding(event(0, None))
    assert orders.effective_ceiling_w("falcon-1", OWN_W, at(1e7)) == OWN_W / 2
    released = orders.releasing(["e1"], at(1e7))
    assert released.effective_ceiling_w("falcon-1", OWN_W, at(1e7)) == OWN_W
    assert orders.effective_ceiling_w("falcon-1", OWN_W, at(1e7)) == OWN_W / 2


def test_windows_are_for_events_and_overrides_lower_the_ceiling_itself() -> None:
    orders = Orders().adding(event(60, 120)).adding(override("o1", "falcon-1", OWN_W, 15e6, 600, "fan", at(0)))
    (window,) = orders.windows("falcon-1", OWN_W, at(30))
    assert (window.event_id, window.ceiling_w) == ("e1", OWN_W / 2)
    assert (window.starts_in_s, window.ends_in_s) == pytest.approx((30, 90), abs=0.01)
    assert orders.overridden_ceiling_w("falcon-1", OWN_W, at(30)) == 15e6
    assert orders.overridden_ceiling_w("falcon-1", OWN_W, at(601)) == OWN_W
    assert orders.effective_ceiling_w("falcon-1", OWN_W, at(90)) == OWN_W / 2


def test_order_survives_the_store_without_this_process_monotonic_clock() -> None:
    before = event(60, 120)
    after = Order.from_json(before.to_json())
    assert after.accepted_monotonic_s is None
    assert after.kind is OrderKind.EVENT
    assert (after.starts_in_s(at(0)), after.ends_in_s(at(0))) == pytest.approx((60, 120), abs=0.01)


def test_ended_orders_are_forgotten_after_a_day_and_not_before() -> None:
    orders = Orders().adding(event(60, 120))
    assert orders.forgetting_ended(at(3600)).by_id
    assert not orders.forgetting_ended(at(120 + 86_401)).by_id


@given(
    st.lists(st.tuples(st.floats(0, 40e6), st.floats(-500, 500), st.floats(1, 500)), max_size=8),
    st.floats(0, 1200),
    st.floats(0, 40e6),
)
def test_no_set_of_orders_ever_raises_a_ceiling(
    given_orders: list[tuple[float, float, float]], seconds: float, own_w: float
) -> None:
    orders = Orders()
    for number, (ceiling_w, start, length) in enumerate(given_orders):
        one = event(start, max(start, 0) + length, ceiling_w=ceiling_w, ceiling_ratio=None)
        orders = Orders({**orders.by_id, str(number): one})
    assert orders.effective_ceiling_w("falcon-1", own_w, at(seconds)) <= own_w
    assert all(w.ceiling_w <= own_w for w in orders.windows("falcon-1", own_w, at(seconds)))


@pytest.mark.parametrize(
    "senseless",
    [
        lambda: event(60, 30),
        lambda: event(-60, -30),
        lambda: event(0, 60, ceiling_w=1e6),
        lambda: event(0, 60, ceiling_ratio=None),
        lambda: event(0, 60, ceiling_ratio=1.5),
        lambda: event(0, 60, ceiling_ratio=None, ceiling_w=float("nan")),
        lambda: override("o", "falcon-1", OWN_W, 21e6, None, "x", at(0)),
        lambda: override("o", "falcon-1", OWN_W, -1.0, None, "x", at(0)),
        lambda: override("o", "falcon-1", OWN_W, 1e6, 0.0, "x", at(0)),
        lambda: override("o", "falcon-1", OWN_W, 1e6, 60.0, "  ", at(0)),
    ],
)
def test_senseless_order_is_refused(senseless) -> None:
    with pytest.raises(Refused):
        senseless()
