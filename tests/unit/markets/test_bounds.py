"""What is refused as a price, and what is real however strange."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controller.markets.bounds import PriceUnit, check_hashprice, check_price, check_unit
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


WEEK_S = 7 * 86_400.0
# Quantiles of ERCOT's hub in 2024 (sizes), repeated over a week of quarter hours.
USUAL = np.tile([7.09, 13.31, 19.65, 26.26, 63.62, -141.65], 96)


@pytest.mark.parametrize(
    ("factor", "likely"),
    [
        (0.001, PriceUnit.USD_PER_KWH),
        (0.1, PriceUnit.CENTS_PER_KWH),
        (100.0, PriceUnit.CENTS_PER_MWH),
    ],
)
def test_series_in_another_unit_is_refused_with_its_name_and_taken_once_the_unit_is_said(factor, likely):
    with pytest.raises(BadPrice, match=f'give price_unit = "{likely}"'):
        check_unit(USUAL * factor, WEEK_S, "price", None)
    assert check_unit(USUAL * factor, WEEK_S, "price", likely) * factor == pytest.approx(1.0)


def test_real_weeks_are_not_taken_for_another_unit():
    assert check_unit(USUAL, WEEK_S, "price", None) == 1.0
    scarcity = np.full(4 * 96, 9000.0)  # ERCOT, 15 to 19 February 2021
    assert check_unit(scarcity, 4 * 86_400.0, "price", None) == 1.0
    assert check_unit(np.array([0.0, 0.5, 25.0] * 40), 86_400.0, "price", None) == 1.0


@pytest.mark.parametrize(
    ("column", "likely"),
    [("price_ct_per_kwh", "cents_per_kwh"), ("EUR/kWh", "usd_per_kwh"), ("c/MWh", "cents_per_mwh")],
)
def test_unit_in_the_column_name_is_heard(column, likely):
    with pytest.raises(BadPrice, match=likely):
        check_unit(np.array([30.0]), 0.0, column, None)


@pytest.mark.parametrize("hashprice", [math.nan, 0.0, -3.0, 0.05, 1e6])
def test_hashprice_per_terahash_or_worse_is_refused(hashprice):
    with pytest.raises(BadPrice, match="PH/s"):
        check_hashprice(hashprice, "settings")
