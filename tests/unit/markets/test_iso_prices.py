"""System operators' prices: what is read out of gridstatus's table, and what is said where it is missing or fails."""

from __future__ import annotations

import importlib.util
import math
import sys
from datetime import datetime
from types import SimpleNamespace

import pytest

from controller.markets.iso_prices import METHODS, fetch, rows_of
from controller.markets.settings import IsoFeedSettings
from gridpivot.errors import FeedFailed

pytestmark = pytest.mark.unit

NOW = datetime.fromisoformat("2024-08-20T23:50:00+00:00").timestamp()
HUB = IsoFeedSettings(iso="ercot", location="HB_HUBAVG")


def record(at, price, location="HB_HUBAVG"):
    return {"Interval Start": datetime.fromisoformat(at), "Location": location, "SPP": price}


def test_one_locations_prices_are_read_with_their_offsets():
    records = [
        record("2024-08-20T18:30:00-05:00", 121.13),
        record("2024-08-20T18:45:00-05:00", math.nan),
        record("2024-08-20T18:30:00-05:00", 99.0, "HB_WEST"),
    ]
    assert rows_of(records, "HB_HUBAVG", "SPP") == [(NOW - 1200.0, 121.13)]


def test_without_gridstatus_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gridstatus", None)
    with pytest.raises(FeedFailed, match=r"pip install 'gridpivot\[iso\]'"):
        fetch(HUB, NOW)


def test_market_that_an_operator_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(FeedFailed, match=r"isone: has no market real_time_15_min; it has real_time_5_min, day_ahead"):
        fetch(IsoFeedSettings(iso="isone", location=".H.INTERNAL_HUB"), NOW)


def test_whatever_the_package_raises_becomes_one_line(monkeypatch):
    def get_spp(**asked):
        raise RuntimeError("site changed\nTraceback and more")

    operator = SimpleNamespace(get_spp=get_spp)
    monkeypatch.setitem(sys.modules, "gridstatus", SimpleNamespace(get_iso=lambda name: lambda: operator))
    with pytest.raises(FeedFailed, match=r"^ercot HB_HUBAVG: site changed; check .*$"):
        fetch(HUB, NOW)


def test_day_ahead_prices_of_today_stay_while_tomorrows_are_not_out(monkeypatch):
    def get_spp(date, market):
        assert market == "DAY_AHEAD_HOURLY"
        if date.timestamp() > NOW:
            raise LookupError("no documents found")
        return SimpleNamespace(to_dict=lambda shape: [record("2024-08-20T18:00:00-05:00", 88.0)])

    operator = SimpleNamespace(get_spp=get_spp)
    monkeypatch.setitem(sys.modules, "gridstatus", SimpleNamespace(get_iso=lambda name: lambda: operator))
    settings = IsoFeedSettings(iso="ercot", location="HB_HUBAVG", market="day_ahead_hourly")
    assert fetch(settings, NOW) == [(NOW - 3000.0, 88.0)]


@pytest.mark.skipif(importlib.util.find_spec("gridstatus") is None, reason="NOT TESTED: gridstatus is not installed")
def test_every_method_in_use_exists_in_the_package_that_is_installed():
    import gridstatus

    for (iso, _), (method, _, _) in METHODS.items():
        assert callable(getattr(gridstatus.get_iso(iso), method)), (iso, method)
