"""Files of prices: shapes that load, shapes that are refused with their line, and no look into the future."""

from __future__ import annotations

import gzip
from datetime import datetime

import pytest

from controller.markets.feed import FileFeed, LiveFeed
from controller.markets.hashprice import DailyHashprice
from controller.markets.series import read_prices
from gridpivot.errors import SettingsError

pytestmark = pytest.mark.unit

HEAD = "interval_start_utc,price_usd_per_mwh\n"


def unix(text):
    return datetime.fromisoformat(text).timestamp()


def read(path):
    return FileFeed(read_prices(path))


@pytest.fixture
def write(tmp_path):
    def writing(text, name="prices.csv"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return writing


def test_plain_and_packed_files_read_the_same(write):
    text = HEAD + "2024-08-20T23:30Z,121.13\n2024-08-20 23:45:00+00:00,190.43\n"
    for name in ("p.csv", "p.csv.gz"):
        feed = read(write(text, name))
        assert feed.quote(unix("2024-08-20T23:44:59Z")).usd_per_mwh == 121.13
        assert feed.quote(unix("2024-08-20T23:45:00Z")).usd_per_mwh == 190.43
        assert feed.quote(unix("2024-08-20T23:29:59Z")) is None


def test_price_that_cannot_be_is_skipped_and_the_last_good_one_stays(write):
    feed = read(
        write(HEAD + "2024-01-01T00:00Z,30\n2024-01-01T00:15Z,nan\n2024-01-01T00:30Z,1e6\n2024-01-01T00:45Z,\n")
    )
    quote = feed.quote(unix("2024-01-01T00:50Z"))
    assert (quote.usd_per_mwh, quote.since_unix_s) == (30.0, unix("2024-01-01T00:00Z"))
    assert feed.refused == 3


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("2024-11-03T01:15:00,20\n", ":2: .*no zone"),
        ("2024-11-03T06:15Z,20\n2024-11-03T06:15Z,31\n", ":3: .*twice"),
        ("2024-11-03T06:15Z,20\n2024-11-03T06:00Z,31\n", ":3: .*ascend"),
        ("2024-11-03T06:15Z,20\nyesterday,20\n", ":3: .*not a time"),
        ("2024-11-03T06:15Z\n", ":2: .*too few columns"),
        ("", "no usable price"),
    ],
)
def test_file_that_cannot_be_used_is_refused_with_its_line(write, rows, said):
    with pytest.raises(SettingsError, match=said):
        read(write(HEAD + rows))


def test_same_interval_twice_at_one_price_is_one_interval(write):
    feed = read(write(HEAD + "2024-11-03T06:15Z,20\n2024-11-03T06:15Z,20\n"))
    assert len(feed.usd_per_mwh) == 1


def test_other_columns_missing_file_and_broken_gzip_are_refused(write, tmp_path):
    with pytest.raises(SettingsError, match=r":1: no column looks like a time.*expected|interval_start_utc"):
        read(write("hour,price\nfirst,34.97\n"))
    with pytest.raises(SettingsError, match="cannot be read"):
        read(tmp_path / "none.csv")
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(gzip.compress(HEAD.encode())[:-9])
    with pytest.raises(SettingsError, match="cannot be read"):
        read(broken)


def test_hour_of_day_means_know_only_what_has_been_seen(write):
    rows = "".join(f"2024-01-0{day}T{hour:02d}:00Z,{100 * day + hour}\n" for day in (1, 2, 3) for hour in range(24))
    feed = read(write(HEAD + rows))
    assert feed.usual(unix("2023-12-31T23:00Z")) is None
    usual = feed.usual(unix("2024-01-02T05:30Z"))
    assert usual[5] == pytest.approx((105 + 205) / 2) and usual[6] == 106


def test_live_prices_arrive_in_any_order_and_a_later_word_replaces_the_earlier():
    now = unix("2024-08-20T23:50Z")
    live = LiveFeed("spot")
    assert live.quote(now) is None and live.usual(now) is None
    assert live.take([(now - 300, 190.0), (now - 1200, 120.0), (now + 600, 300.0)], now) == ()
    assert live.quote(now).usd_per_mwh == 190.0
    live.take([(now - 300, 191.0)], now)
    assert live.quote(now).usd_per_mwh == 191.0 and live.quote(now + 900).usd_per_mwh == 300.0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((0.0, float("nan")), "not a number"),
        ((0.0, 1e6), "check its unit"),
        ((0.0, 0.19), "USD/kWh"),
        ((5 * 86_400.0, 50.0), "check its time"),
        ((-300 * 86_400.0, 50.0), "check its time"),
    ],
)
def test_live_price_that_cannot_be_is_refused_and_the_good_ones_stay(row, said):
    now = unix("2024-08-20T23:50Z")
    live = LiveFeed("spot")
    live.take([(now - 300, 190.0)], now)
    (told,) = live.take([(now + row[0], row[1])], now)
    assert told.startswith("spot: ") and said in told and live.refused == 1
    assert live.quote(now).usd_per_mwh == 190.0


def test_fees_of_a_block_raise_the_hashprice(write):
    path = write("date,price_usd,difficulty,subsidy_btc\n2024-08-20,59012.79,86871474313762,3.125\n")
    day = unix("2024-08-22T00:00Z")
    assert DailyHashprice(path, 0.125).at(day)[0] == pytest.approx(DailyHashprice(path).at(day)[0] * 3.25 / 3.125)
    head = "date,price_usd,difficulty,subsidy_btc,fees_btc_per_block\n"
    by_day = write(head + "2024-08-20,59012.79,86871474313762,3.125,0.125\n")
    assert DailyHashprice(by_day, 9.0).at(day)[0] == pytest.approx(42.704 * 3.25 / 3.125, abs=1e-3)


def test_hashprice_of_a_day_is_known_when_the_day_is_over(write):
    daily = DailyHashprice(write("date,hashprice_usd_ph_day\n2024-08-19,43.5\n2024-08-20,42.7\n"))
    assert daily.at(unix("2024-08-19T23:59Z")) is None
    assert daily.at(unix("2024-08-20T23:30Z"))[0] == 43.5
    assert daily.at(unix("2024-08-21T00:00Z"))[0] == 42.7


def test_hashprice_follows_from_price_and_difficulty_by_hand(write):
    daily = DailyHashprice(write("date,price_usd,difficulty,subsidy_btc\n2024-08-20,59012.79,86871474313762,3.125\n"))
    # 1e15 x 86400 / (8.687e13 x 2^32) = 2.3156e-4 blocks a day, each 3.125 BTC
    assert daily.at(unix("2024-08-22T00:00Z"))[0] == pytest.approx(42.704, abs=1e-3)
