"""Demand: which quarter counts, in whose month, from what readings; and that a restart does not forget it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.markets.billing import Billing, EnergyReading, demand_charge, metered, month_of
from controller.markets.tariff import Tariff
from controller.markets.tariff_settings import TariffSettings
from controller.markets.zones import zone
from controller.store.peaks import PeakRow, Peaks
from controller.store.store import Store
from gridpivot.clock import Instant, SystemClock

pytestmark = pytest.mark.unit

NOON = datetime.fromisoformat("2024-08-20T12:00:00-05:00").timestamp()


def tariff(**demand):
    settings = {"time_zone": "America/Chicago", "demand": {"per_kw_month": 9.0, **demand}}
    return Tariff("t", TariffSettings.model_validate(settings))


def read(powers_w, start_s=NOON, step_s=10.0, counter_j=5_000_000_000, terms=None, before=None):
    """Billing after a meter that saw these powers, one per step."""
    terms = terms if terms is not None else tariff()
    billing = metered(before, EnergyReading(start_s, counter_j), terms)
    for at, power_w in enumerate(powers_w, start=1):
        counter_j += round(power_w * step_s)
        billing = metered(billing, EnergyReading(start_s + at * step_s, counter_j), terms)
    return billing


def test_demand_is_the_mean_of_a_clock_quarter_not_its_highest_moment():
    spike = [10e6] * 45 + [20e6] * 45
    assert read(spike).peak_w == pytest.approx(15e6)
    assert read(spike[:-1]).peak_w == 0.0  # the quarter is not over


def test_quarter_that_was_not_seen_to_begin_does_not_count():
    assert read([50e6] * 30 + [10e6] * 90, start_s=NOON + 600).peak_w == pytest.approx(10e6)


def test_edge_between_two_readings_is_cut_in_proportion():
    billing = read([10e6] * 40 + [30e6] * 40, start_s=NOON - 7.0, step_s=30.0)
    # Quarters: the first whole one begins at NOON; 1193 s of 10 MW from there, then 30 MW.
    assert billing.peak_w == pytest.approx(((1193.0 - 900.0) * 10e6 + 607.0 * 30e6) / 900.0)


def test_silence_and_a_changed_meter_do_not_count_as_demand():
    billing = read([10e6] * 100)
    later = EnergyReading(NOON + 3000.0, 5_000_000_000 + 300_000_000_000)
    billing = metered(billing, later, tariff())
    assert billing.peak_w == pytest.approx(10e6)
    for changed_j in (0, 10**15):
        billing = read([10e6] * 100, counter_j=changed_j, start_s=billing.last.at_unix_s + 10.0, before=billing)
        assert billing.peak_w == pytest.approx(10e6)


def test_reading_out_of_order_changes_nothing():
    billing = read([10e6] * 5)
    assert metered(billing, EnergyReading(NOON + 20.0, 9), tariff()) is billing


def test_only_the_on_peak_window_counts_where_the_tariff_has_one():
    terms = tariff(on_peak={"from_hour": 13, "until_hour": 19, "days": ["mon", "tue", "wed", "thu", "fri"]})
    assert read([40e6] * 360 + [12e6] * 90, terms=terms).peak_w == pytest.approx(12e6)


def test_new_month_begins_at_midnight_on_the_tariffs_clock_and_forgets_the_peak():
    midnight = datetime.fromisoformat("2024-09-01T00:00:00-05:00").timestamp()
    old = read([30e6] * 90, start_s=midnight - 900.0)
    assert old.period_start_unix_s == midnight and old.peak_w == 0.0  # its last quarter belonged to August
    fresh = read([8e6] * 90, start_s=midnight, counter_j=old.last.energy_j, before=old)
    assert fresh.peak_w == pytest.approx(8e6)
    before = read([30e6] * 89, start_s=midnight - 1800.0)
    assert before.peak_w == 0.0 and read([30e6] * 90, start_s=midnight - 1800.0).peak_w == pytest.approx(30e6)


@pytest.mark.parametrize(
    ("name", "month", "hours"),
    [
        ("America/Chicago", "2024-11-15", 30 * 24 + 1),
        ("America/Chicago", "2025-03-15", 31 * 24 - 1),
        ("Europe/Berlin", "2024-10-15", 31 * 24 + 1),
        ("America/Asuncion", "2024-10-15", 31 * 24 - 1),
        ("America/Asuncion", "2025-03-15", 31 * 24),
        ("Asia/Dubai", "2024-12-15", 31 * 24),
    ],
)
def test_months_are_as_long_as_their_clocks_make_them(name, month, hours):
    begin, end = month_of(datetime.fromisoformat(month).replace(tzinfo=zone(name)).timestamp(), zone(name))
    assert (end - begin) / 3600 == hours


def test_charge_takes_the_higher_of_the_metered_peak_and_the_one_that_is_paid_anyway():
    start, end = month_of(NOON, zone("America/Chicago"))
    charge = demand_charge(Billing(start, 12e6), tariff(reckoned_peak_mw=10.0), NOON)
    assert (charge.usd_per_kw, charge.peak_w, charge.remaining_s) == (9.0, 12e6, end - NOON)
    assert demand_charge(Billing(start, 12e6), tariff(reckoned_peak_mw=20.0), NOON).peak_w == 20e6
    assert demand_charge(Billing(start - 86_400.0, 12e6), tariff(), NOON).peak_w == 0.0
    assert demand_charge(None, Tariff("t", TariffSettings()), NOON) is None
    assert demand_charge(None, tariff(), NOON, speed=60.0).remaining_s == pytest.approx((end - NOON) / 60)


@given(st.lists(st.floats(0, 50e6), min_size=200, max_size=300), st.floats(0, 899), st.sampled_from([5.0, 7.0, 30.0]))
def test_peak_never_exceeds_what_the_meter_ever_drew(powers_w, offset_s, step_s):
    peak_w = read(powers_w, start_s=NOON + offset_s, step_s=step_s).peak_w
    assert peak_w <= max(powers_w) * (1 + 1e-6) + 1.0


async def test_peaks_survive_a_restart_and_never_fall_within_a_period(tmp_path: Path):
    now = Instant(1.0, NOON)
    store = await Store.open(tmp_path / "store.db", SystemClock(), group_s=0.01)
    peaks = Peaks(store.writer, store._reading)
    for row in (
        PeakRow("a", 1000.0, 9e6),
        PeakRow("a", 2000.0, 5e6),
        PeakRow("a", 2000.0, 4e6),
        PeakRow("b", 1000.0, 1e6),
    ):
        await peaks.record(row, now)
    await store.close()
    store = await Store.open(tmp_path / "store.db", SystemClock(), group_s=0.01)
    newest = await Peaks(store.writer, store._reading).newest()
    await store.close()
    assert newest == {"a": PeakRow("a", 2000.0, 5e6), "b": PeakRow("b", 1000.0, 1e6)}
