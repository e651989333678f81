"""Prices and ceilings averaged into periods, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from controller.dispatch.horizon import average_price, ceiling_now, ceilings
from controller.dispatch.inputs import PriceStep, Window

pytestmark = pytest.mark.unit

EDGES = np.array([0.0, 300.0, 600.0, 4200.0])
NOMINAL = np.diff(EDGES)


def test_prices_are_averaged_by_time():
    steps = (PriceStep(-50.0, 10.0), PriceStep(100.0, 40.0), PriceStep(600.0, 100.0))
    assert average_price(steps, EDGES, 0.0) == pytest.approx([30.0, 40.0, 100.0])


def test_no_prices_means_the_assumed_one_and_a_late_first_step_reaches_back():
    assert average_price((), EDGES, 50.0) == pytest.approx([50.0] * 3)
    assert average_price((PriceStep(200.0, 7.0),), EDGES, 50.0) == pytest.approx([7.0] * 3)


def test_near_periods_take_the_lowest_ceiling_and_far_ones_the_mean(make):
    site = make.site(ceiling_w=10e6, windows=[Window("a", 4e6, 200.0, 2400.0), Window("b", 6e6, 0.0, None)])
    # Hour from 600 s: 4 MW for 1,800 s, then 6 MW for 1,800 s.
    assert ceilings(site, EDGES, NOMINAL) == pytest.approx([4e6, 4e6, 5e6])


def test_ended_window_and_window_above_the_ceiling_change_nothing(make):
    site = make.site(ceiling_w=10e6, windows=[Window("old", 1e6, -900.0, 0.0), Window("high", 12e6, -1.0, None)])
    assert ceilings(site, EDGES, NOMINAL) == pytest.approx([10e6] * 3)
    assert ceiling_now(site) == (10e6, "site ceiling")
