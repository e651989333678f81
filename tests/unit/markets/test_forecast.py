"""Forecasts: nothing from the future, what is published when, how a price fades, and that the fit is the one in use."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.markets.blend import (
    BY_HOUR,
    WITH_DAY_AHEAD,
    Blend,
    Past,
    blended,
    errors,
    fit,
    look_back,
    seasonal_mean,
)
from controller.markets.feed import FileFeed
from controller.markets.forecast import Published, forecast
from controller.markets.series import PriceSeries
from controller.markets.zones import zone

pytestmark = pytest.mark.unit

NOON = datetime.fromisoformat("2024-08-20T12:00:00-05:00").timestamp()


def feed(start_s, prices, width_s=3600.0):
    starts = start_s + width_s * np.arange(len(prices))
    return FileFeed(PriceSeries("p", starts, np.array(prices, dtype=float), width_s))


def at(steps, starts_in_s):
    return [s.usd_per_mwh for s in steps if s.starts_in_s <= starts_in_s][-1]


@pytest.mark.parametrize(("clock", "hours"), [("13:29", 10.5 + 1 / 60), ("13:30", 34.5), ("00:00", 24.0)])
def test_tomorrows_prices_are_known_once_they_are_published(clock, hours):
    published = Published(feed(NOON, [1.0]), 36_000.0, 13.5, zone("America/Chicago"))
    now = datetime.fromisoformat(f"2024-08-20T{clock}:00-05:00").timestamp()
    assert (published.until(now) - now) / 3600 == pytest.approx(hours)


def test_day_that_clocks_change_is_published_to_its_own_end():
    published = Published(feed(NOON, [1.0]), 36_000.0, 13.5, zone("America/Chicago"))
    now = datetime.fromisoformat("2024-11-03T00:00:00-05:00").timestamp()
    assert (published.until(now) - now) / 3600 == 25.0


def test_without_a_publishing_hour_a_fixed_reach_ahead_is_known():
    published = Published(feed(NOON, list(range(48))), 36_000.0)
    assert published.usd_per_mwh(NOON + 9 * 3600.0, NOON) == 9.0
    assert published.usd_per_mwh(NOON + 10 * 3600.0, NOON) is None


def test_price_of_the_present_interval_is_taken_as_it_is_and_the_previous_ones_fades():
    usual = np.full(24, 40.0)
    known = forecast(400.0, NOON, usual, None, 1.0, since_unix_s=NOON - 600.0)
    assert known[0].usd_per_mwh == 400.0
    late = forecast(400.0, NOON, usual, None, 1.0, since_unix_s=NOON - 900.0 - 600.0)
    assert 300.0 < late[0].usd_per_mwh < 400.0
    assert all(old.usd_per_mwh <= new.usd_per_mwh for old, new in zip(late, known, strict=True))


def test_without_a_real_time_price_the_forecast_is_what_is_usual():
    steps = forecast(None, NOON, np.arange(24.0), Published(feed(NOON, [90.0] * 3), 7200.0), 1.0)
    assert at(steps, 0.0) == 90.0 and at(steps, 3600.0) == 90.0
    assert at(steps, 3 * 3600.0) == (NOON // 3600 + 3) % 24
    assert forecast(None, NOON, None, None, 1.0) == ()


def test_hour_of_week_means_are_read_by_the_hour_of_the_week():
    steps = forecast(None, NOON, np.arange(168.0), None, 1.0)
    assert at(steps, 30 * 3600.0) == (NOON // 3600 + 30) % 168


def test_price_that_nothing_else_is_known_of_stays():
    assert {s.usd_per_mwh for s in forecast(77.0, NOON, None, None, 1.0)} == {77.0}


@given(st.floats(-250, 9000), st.floats(-250, 9000), st.floats(0, 200_000), st.sampled_from([WITH_DAY_AHEAD, BY_HOUR]))
def test_forecast_lies_between_the_newest_price_and_the_usual_one(newest, usual, ahead_s, blend):
    made = blend.price(newest, usual, ahead_s)
    assert min(newest, usual) - 1e-6 <= made <= max(newest, usual) + 1e-6
    assert abs(blend.price(newest, usual, 1e6) - usual) <= 25.0 + 1e-6
    assert blend.prices(np.array([newest]), np.array([usual]), ahead_s)[0] == pytest.approx(made)


def test_seasonal_mean_knows_only_what_had_begun():
    starts = np.arange(0, 20 * 86_400.0, 900.0)
    target = np.array([10 * 86_400.0 + 5 * 3600.0])
    known = target - 23.5 * 3600.0
    prices = np.where(starts <= known[0], 30.0, 1e6)
    assert seasonal_mean(starts, prices, target, known, 24, 14).tolist() == [30.0]
    assert np.isnan(seasonal_mean(starts, prices, np.array([3600.0]), np.array([0.0]), 24, 14))[0]


def test_look_back_gives_what_came_and_nothing_where_nothing_stands():
    starts = np.array([0.0, 900.0, 1800.0, 3600.0])
    past = look_back(starts, np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 2]), (900.0, 1800.0), lambda a, k: a * 0)
    assert past.newest.tolist() == [1.0, 3.0]
    assert past.came[0].tolist() == [2.0, 3.0] and np.isnan(past.came[1][0]) and past.came[1][1] == 4.0


def test_fit_finds_the_blend_that_made_the_past():
    rng = np.random.default_rng(1)
    true, ahead = Blend(3600.0, 2.0, 0.4), (900.0, 1800.0, 3600.0, 7200.0, 86_400.0)
    newest, usual = rng.normal(40, 30, 3000), rng.normal(35, 10, (3000, 5))
    came = blended(true, Past(ahead, newest, usual, usual)) + rng.normal(0, 1, (3000, 5))
    assert fit(Past(ahead, newest, usual, came)) == true
    assert errors(np.array([1.0, np.nan]), np.array([3.0, 1.0])).mae == 2.0
