"""Calling capacity that was sold: the ceiling it means, how long it lasts, and that the same MW is not asked twice."""

from __future__ import annotations

import pytest

from controller.connection import ConnectionSettings
from controller.dispatch.terms import SoldCapacity
from controller.events.calls import Called, ceiling_w, least_end_ms, sold_of, standing_ready
from controller.events.windows import Order, Orders, grid_event
from gridpivot.clock import Instant
from gridpivot.errors import Refused

pytestmark = pytest.mark.unit

SITE = ConnectionSettings.model_validate(
    {
        "contract": {"block_mw": 18, "usd_per_mwh": 40},
        "sold": [
            {"product": "ECRS", "mw": 5, "notice_s": 600, "min_run_h": 1},
            {"product": "ERS", "mw": 2, "notice_s": 1800, "baseline": "contract", "rest_h": 10},
        ],
    }
)
SOLD = SoldCapacity("ECRS", 5e6, 600.0, 0.0, 20_000.0)


def test_call_asks_for_the_sold_megawatts_under_the_baseline():
    assert ceiling_w("a", SITE, "ECRS", 17e6) == 12e6
    assert ceiling_w("a", SITE, "ERS", 17e6) == 16e6
    assert ceiling_w("a", SITE, "ECRS", 3e6) == 0.0


@pytest.mark.parametrize(
    ("product", "standing_w", "said"), [("Spin", 1e6, "its products are: ECRS, ERS"), ("ECRS", None, "no baseline")]
)
def test_call_without_terms_or_baseline_is_refused(product, standing_w, said):
    with pytest.raises(Refused, match=said):
        ceiling_w("a", SITE, product, standing_w)


def test_call_lasts_at_least_the_shortest_run():
    sold = sold_of("a", SITE, "ECRS")
    assert least_end_ms(sold, 1_000, 60_000) == 3_601_000
    assert least_end_ms(sold, 1_000, 7_200_000) == 7_200_000
    assert least_end_ms(sold, 1_000, None) is None


@pytest.mark.parametrize(
    ("call", "rest_s", "pieces"),
    [
        (Called("ECRS", 1_000.0, 4_000.0), 0.0, [(0.0, 1_000.0), (4_000.0, 20_000.0)]),
        (Called("ECRS", -500.0, 4_000.0), 3_000.0, [(7_000.0, 20_000.0)]),
        (Called("ECRS", -9_000.0, -2_000.0), 3_000.0, [(1_000.0, 20_000.0)]),
        (Called("ECRS", -9_000.0, -6_000.0), 3_000.0, [(0.0, 20_000.0)]),
        (Called("ECRS", -500.0, None), 0.0, []),
        (Called("ERS", -500.0, None), 0.0, [(0.0, 20_000.0)]),
    ],
)
def test_called_capacity_need_not_stand_ready_until_it_has_rested(call, rest_s, pieces):
    found = standing_ready((SOLD,), {"ECRS": rest_s}, (call,))
    assert [(s.starts_in_s, s.ends_in_s) for s in found] == pieces


def test_call_keeps_its_ceilings_by_site_through_the_store():
    now = Instant(5.0, 1_700_000_000.0)
    order = grid_event(
        "e", ("a", "b"), ceiling_w=None, ceiling_ratio=None, starts_at_unix_ms=None,
        ends_at_unix_ms=now.unix_ms + 60_000, reason="ercot", now=now, product="ECRS", ceilings_w={"a": 4e6, "b": 9e6},
    )  # fmt: skip
    orders = Orders().adding(Order.from_json(order.to_json()))
    assert [w.ceiling_w for s in "ab" for w in orders.windows(s, 7e6, now)] == [4e6, 7e6]
    assert orders.calls("a", now) == (Called("ECRS", 0.0, 60.0),)
    with pytest.raises(Refused, match="exactly one"):
        grid_event(
            "e", ("a",), ceiling_w=1e6, ceiling_ratio=None, starts_at_unix_ms=None, ends_at_unix_ms=None, reason="x",
            now=now, ceilings_w={"a": 1.0},
        )  # fmt: skip
