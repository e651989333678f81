"""ERCOT's scarcity evening of 20 August 2024, from the shared traces, through book and dispatch."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

from controller.dispatch.inputs import ClassState, FleetState, SiteState
from controller.dispatch.solve import Planner
from controller.markets.blend import BY_HOUR, WITH_DAY_AHEAD
from controller.markets.book import MarketBook
from controller.markets.feed import FileFeed
from controller.markets.moments import utc_seconds
from controller.markets.series import read_prices
from controller.markets.settings import MarketSettings, RegionPrice
from gridpivot.clock import Instant
from gridpivot.curves import miner_class

pytestmark = pytest.mark.unit

START = Instant(0.0, 1_800_000_000.0)


SHARED = Path(os.environ.get("GRIDPIVOT_SHARED", Path(__file__).parents[3].parent / "shared"))
GRID = SHARED / "data" / "grid"
if not GRID.is_dir():
    missing = f"NOT TESTED: no real price traces at {GRID}; set GRIDPIVOT_SHARED"
    if os.environ.get("CI") == "true":
        raise FileNotFoundError(missing)
    pytest.skip(missing, allow_module_level=True)


@pytest.fixture(scope="module")
def book():
    region = RegionPrice(
        csv=GRID / "ercot_hubavg_2024_rt15.csv.gz", day_ahead_csv=GRID / "ercot_hubavg_2024_da60.csv.gz"
    )
    settings = MarketSettings(default=region, hashprice_csv=GRID / "btc_network_daily.csv")
    start = utc_seconds("2024-08-20T23:30Z", "test")
    return MarketBook(settings, ["ercot"], START, start_unix_s=start, speed=60.0)


def after(data_minutes):
    return Instant(data_minutes, START.unix_s + data_minutes)  # speed 60: a data minute is a second


def test_year_of_quarter_hours_loads_whole():
    feed = FileFeed(read_prices(GRID / "ercot_hubavg_2024_rt15.csv.gz"))
    assert len(feed.usd_per_mwh) == 35_136 and feed.refused == 0
    assert feed.usd_per_mwh.min() < 0 and feed.usd_per_mwh.max() > 4_900
    assert set(feed.starts_unix_s[1:] - feed.starts_unix_s[:-1]) == {900.0}  # clocks changed twice, UTC did not


@pytest.mark.parametrize(
    ("file", "options", "intervals", "told"),
    [
        ("ercot_hubavg_2024_da60.csv.gz", {}, 8_784, 0),
        ("epf_de_hourly.csv.gz", {"time_zone": "UTC"}, 52_416, 0),
        # Spring's missing hour was filled in by whoever made this file, autumn's second pass left out.
        (
            "ercot_hbsouth_2024_2025_da_rt15.csv.gz",
            {"price_column": "HB_SOUTH_RTM", "time_zone": "America/Chicago"},
            28_796,
            3,
        ),
    ],
)
def test_every_shared_series_loads_whole_and_in_order(file, options, intervals, told):
    series = read_prices(GRID / file, **options)
    assert len(series.usd_per_mwh) == intervals and len(series.repaired) == told
    assert (series.starts_unix_s[1:] > series.starts_unix_s[:-1]).all()


def test_scarcity_evening_has_its_prices(book):
    assert book.usd_per_mwh("ercot", after(0))[0] == 121.13
    assert book.usd_per_mwh("ercot", after(45))[0] == 2387.01
    assert book.usd_per_mwh("ercot", after(60))[0] == 4852.83


def test_hashprice_of_that_evening_is_the_day_befores(book):
    assert 35 < book.hashprice(after(0))[0] < 50
    assert book.hashprice(after(0)) != book.hashprice(after(31))


def test_mining_sleeps_through_the_spike_and_wakes_after_it(book):
    s21 = miner_class("s21", "virtual", "Antminer S21", shed_s=3, wake_s=2)
    planner, commanded, asleep = Planner(), (0.0, 0.0, 1000.0, 0.0), {}
    for minute in (0, 60, 180):
        now = after(minute)
        site = SiteState(
            "permian", "ercot", 20e6, (), (ClassState(s21, 1000, 0, 0.0, commanded, 0.0, 0.0),), (), 0.05, 0.0,
            book.steps("ercot", now), 0.01, 0.0, 0.0, True, None,
        )  # fmt: skip
        (decided,) = planner.solve(FleetState((site,), book.hashprice(now)[0], speed=60.0)).sites
        commanded = decided.classes[0].machines
        asleep[minute] = commanded[0]
    assert asleep[60] == pytest.approx(1000)
    assert asleep[180] == pytest.approx(0)


def test_blends_in_use_are_the_ones_that_the_first_half_of_2024_gives():
    bench = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "bench_forecast.py"))
    fitted = bench["fitted"](*bench["hub"]())
    assert fitted == {"hour of day": BY_HOUR, "day-ahead": WITH_DAY_AHEAD}
