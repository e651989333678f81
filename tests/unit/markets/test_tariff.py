"""Tariffs: whose clock, which window, whose money; steps that follow the market and those that do not."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controller.dispatch.inputs import PriceStep
from controller.markets.tariff import Tariff
from controller.markets.tariff_settings import TariffSettings

pytestmark = pytest.mark.unit

DAY_S = 86_400.0
SUMMER_EVENINGS = {
    "from_hour": 16,
    "until_hour": 20,
    "days": ["mon", "tue", "wed", "thu", "fri"],
    "months": [6, 7, 8, 9],
}


def unix(text):
    return datetime.fromisoformat(text).timestamp()


def tariff(**settings):
    return Tariff("t", TariffSettings.model_validate(settings))


def price_at(steps, starts_in_s):
    return [s.usd_per_mwh for s in steps if s.starts_in_s <= starts_in_s][-1]


def test_fixed_price_is_one_step_whatever_the_market_does():
    steps = tariff(per_mwh=38.0).steps((PriceStep(0.0, 20.0), PriceStep(3600.0, 900.0)), 0.0, DAY_S)
    assert steps == (PriceStep(0.0, 38.0),)
    assert tariff(per_mwh=38.0).steps((), 0.0, DAY_S) == steps


def test_market_price_takes_multiplier_then_losses_then_adder():
    plain = tariff(market_multiplier=1.1, loss_ratio=0.02, adder_per_mwh=6.5)
    steps = plain.steps((PriceStep(-600.0, 20.0), PriceStep(900.0, -30.0)), 0.0, DAY_S)
    assert [(s.starts_in_s, pytest.approx(s.usd_per_mwh)) for s in steps] == [(0.0, 28.94), (900.0, -27.16)]
    assert plain.usd_per_mwh(20.0, 0.0) == pytest.approx(28.94)


def test_market_tariff_without_a_market_price_has_no_price():
    assert tariff().steps((), 0.0, DAY_S) == () and tariff().usd_per_mwh(None, 0.0) is None


def test_windows_are_read_on_the_tariffs_own_clock():
    t = tariff(time_zone="America/Chicago", per_mwh=40.0, windows=[{"per_mwh": 120.0, **SUMMER_EVENINGS}])
    friday_noon = unix("2024-08-23T12:00:00-05:00")
    steps = t.steps((), friday_noon, 3 * DAY_S)
    assert [(s.starts_in_s / 3600, s.usd_per_mwh) for s in steps] == [(0, 40), (4, 120), (8, 40)]  # then a weekend
    assert t.usd_per_mwh(None, unix("2024-12-20T17:00:00-06:00")) == 40.0


def test_window_over_midnight_is_open_on_both_sides():
    t = tariff(per_mwh=40.0, windows=[{"per_mwh": 20.0, "from_hour": 22, "until_hour": 6}])
    assert [t.usd_per_mwh(None, unix(f"2024-01-01T{h}Z")) for h in ("21:45", "22:00", "05:45", "06:00")] == [
        40,
        20,
        20,
        40,
    ]


@pytest.mark.parametrize(
    ("zone", "midnight", "hours"),
    [
        ("America/Chicago", "2024-11-03T00:00:00-05:00", 18),
        ("America/Chicago", "2025-03-09T00:00:00-06:00", 16),
        ("Europe/Berlin", "2024-10-27T00:00:00+02:00", 18),
        ("Europe/Berlin", "2024-03-31T00:00:00+01:00", 16),
        ("America/Asuncion", "2024-10-06T01:00:00-03:00", 16),
        ("America/Asuncion", "2025-03-22T00:00:00-03:00", 17),
        ("Asia/Dubai", "2024-10-27T00:00:00+04:00", 17),
    ],
)
def test_window_opens_by_the_clock_on_the_days_that_clocks_change(zone, midnight, hours):
    t = tariff(time_zone=zone, per_mwh=40.0, windows=[{"per_mwh": 120.0, "from_hour": 17, "until_hour": 19}])
    steps = t.steps((), unix(midnight), DAY_S)
    assert steps[1].starts_in_s / 3600 == hours and steps[2].starts_in_s - steps[1].starts_in_s == 7200


def test_first_open_window_counts_and_windows_may_stand_over_the_market():
    t = tariff(windows=[{"per_mwh": 90.0, "from_hour": 12, "until_hour": 13}, {"per_mwh": 70.0, "from_hour": 12}])
    steps = t.steps((PriceStep(0.0, 25.0),), unix("2024-01-01T11:00Z"), 14 * 3600.0)
    assert [(s.starts_in_s / 3600, s.usd_per_mwh) for s in steps] == [(0, 25), (1, 90), (2, 70), (13, 25)]


def test_other_money_is_turned_into_usd_and_the_market_is_usd_already():
    euro = {"currency": "EUR", "usd_per_currency": 1.08}
    assert tariff(per_mwh=100.0, adder_per_mwh=10.0, **euro).usd_per_mwh(None, 0.0) == pytest.approx(118.8)
    assert tariff(adder_per_mwh=10.0, **euro).usd_per_mwh(50.0, 0.0) == pytest.approx(60.8)


def test_coincident_peak_risk_is_a_price_of_its_own():
    assert tariff().risk_steps(0.0, DAY_S) == ()
    risk = [{"per_mwh": 2500.0, "from_hour": 16, "until_hour": 18, "months": [6, 7, 8, 9]}]
    t = tariff(time_zone="America/Chicago", risk=risk)
    steps = t.risk_steps(unix("2024-08-20T15:10:00-05:00"), DAY_S)
    assert [(s.starts_in_s, s.usd_per_mwh) for s in steps] == [(0.0, 0.0), (3000.0, 2500.0), (10_200.0, 0.0)]
    assert t.risk_steps(unix("2024-12-20T12:00:00-06:00"), DAY_S) == (PriceStep(0.0, 0.0),)


def test_steps_are_counted_in_real_seconds_under_compressed_time():
    t = tariff(per_mwh=40.0, windows=[{"per_mwh": 90.0, "from_hour": 12}])
    assert t.steps((), unix("2024-01-01T11:00Z"), DAY_S, speed=60.0)[1].starts_in_s == 60.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"time_zone": "Texas"}, "not a time zone"),
        ({"currency": "EUR"}, "give usd_per_currency"),
        ({"usd_per_currency": 1.08}, "name the tariff's currency"),
        ({"per_mwh": 0.045}, "per MWh, not per kWh"),
        ({"per_mwh": 45_000}, "over 20,000 USD/MWh"),
        ({"per_mwh": 45.0, "windows": [{"per_mwh": 0.12}]}, "per MWh, not per kWh"),
        ({"windows": [{"per_mwh": 50, "from_hour": 9.1}]}, "multiple of 0.25"),
        ({"windows": [{"per_mwh": 50, "days": ["monday"]}]}, "'mon', 'tue'"),
    ],
)
def test_tariff_that_cannot_be_is_refused_with_its_remedy(settings, said):
    with pytest.raises(ValidationError, match=said):
        tariff(**settings)


@given(
    st.floats(1.5e9, 1.9e9),
    st.lists(st.tuples(st.floats(0, 90_000), st.floats(-200, 5000)), min_size=1, max_size=6),
    st.sampled_from(["America/Chicago", "Europe/Berlin", "Asia/Kathmandu"]),
)
def test_steps_say_at_every_moment_what_the_tariff_says_there(now_s, market, zone):
    energy = tuple(PriceStep(at, price) for at, price in sorted(dict([(0.0, 30.0), *market]).items()))
    t = tariff(time_zone=zone, adder_per_mwh=4.0, windows=[{"per_mwh": 80.0, "from_hour": 6.25, "until_hour": 21.5}])
    steps = t.steps(energy, now_s, DAY_S)
    assert [s.starts_in_s for s in steps] == sorted({s.starts_in_s for s in steps}) and steps[0].starts_in_s == 0.0
    for ahead in (0.0, 1000.5, 30_000.25, 86_000.125):
        assert price_at(steps, ahead) == t.usd_per_mwh(price_at(energy, ahead), now_s + ahead)
