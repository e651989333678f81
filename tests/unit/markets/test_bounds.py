"""What is refused as a price, and what is real however strange."""

from __future__ import annotations

import math

import pytest

from controller.markets.bounds import check_hashprice, check_price, check_series
from gridpivot.errors import BadPrice

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("price", [-251.0, 0.0, 9000.0, 4852.83, 0.01])
def test_strange_but_real_prices_pass(price):
    assert check_price(price, "ercot", 45.0) == price


@pytest.mark.parametrize("price", [math.nan, math.inf, -math.inf, 1e6, -5e4])
def test_what_cannot_be_a_price_is_refused_with_the_region(price):
    with pytest.raises(BadPrice, match=r"ercot.*last good price stays"):
        check_price(price, "ercot", 45.0)


def test_price_in_dollars_per_kwh_is_refused_as_a_unit_slip():
    with pytest.raises(BadPrice, match="USD/kWh"):
        check_price(0.046, "ercot", 45.0)
    assert check_price(0.046, "ercot", None) == 0.046


def test_series_in_dollars_per_kwh_is_refused_and_a_day_of_low_prices_is_not():
    with pytest.raises(BadPrice, match="USD/kWh"):
        check_series([0.02, 0.05, 0.3] * 40, "file")
    check_series([0.0, 0.5, 25.0] * 40, "file")


@pytest.mark.parametrize("hashprice", [math.nan, 0.0, -3.0, 0.05, 1e6])
def test_hashprice_per_terahash_or_worse_is_refused(hashprice):
    with pytest.raises(BadPrice, match="PH/s"):
        check_hashprice(hashprice, "settings")
