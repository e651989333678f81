"""Price files of every dialect: what reads, what is repaired and told, what is refused with its line and remedy."""

from __future__ import annotations

import gzip
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.markets.bounds import PriceUnit
from controller.markets.series import Gap, find_gaps, read_prices, usual_width_s
from gridpivot.errors import SettingsError

pytestmark = pytest.mark.unit

HEAD = "interval_start_utc,price_usd_per_mwh\n"


def unix(text):
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture
def write(tmp_path):
    def writing(text, name="prices.csv", encoding="utf-8"):
        raw = text.encode(encoding)
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return path

    return writing


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("interval_start_utc,price_usd_per_mwh\n2024-08-20T23:30Z,1121.5\n2024-08-20T23:45Z,-9.25\n", "utf-8-sig"),
        ("time;price\n20.08.2024 23:30 UTC;1.121,50\n20.08.2024 23:45 UTC;-9,25\n", "utf-8"),
        ("sep=;\ntime;price\n2024-08-20 23:30:00+00:00;1121,5\n2024-08-20 23:45:00+00:00;-9,25\n", "utf-8"),
        ("Timestamp\tLMP\n2024-08-20T23:30:00Z\t1121.5\n2024-08-20T23:45:00Z\t-9.25\n", "utf-16"),
        ('time,price,zone\n2024-08-20T18:30-05:00,"1,121.50",a\n2024-08-20T18:45-05:00,-9.25,a\n', "utf-8"),
    ],
)
def test_dialects_of_csv_read_the_same(write, text, encoding):
    series = read_prices(write(text, encoding=encoding))
    assert series.starts_unix_s.tolist() == [unix("2024-08-20T23:30Z"), unix("2024-08-20T23:45Z")]
    assert series.usd_per_mwh.tolist() == [1121.5, -9.25]
    assert series.width_s == 900.0 and series.gaps == () and series.repaired == ()


@pytest.mark.parametrize(
    "column",
    [
        ["8/20/2024 11:30 PM", "8/20/2024 11:45 PM"],
        ["20/08/2024 23:30", "20/08/2024 23:45"],
        ["2024/8/20 23:30", "2024/8/20 23:45"],
    ],
)
def test_spellings_of_local_times_read_the_same(write, column):
    text = "time,price\n" + "".join(f"{cell},{at}\n" for at, cell in enumerate(column))
    series = read_prices(write(text), time_zone="Asia/Dubai")
    assert series.starts_unix_s[0] == unix("2024-08-20T23:30+04:00")


def test_seconds_and_milliseconds_since_1970_are_taken_when_the_column_is_named(write):
    for unit in (1, 1000):
        text = f"t,price\n{1_724_196_600 * unit},20\n{1_724_197_500 * unit},21\n"
        series = read_prices(write(text), time_column="t")
        assert series.starts_unix_s.tolist() == [1_724_196_600.0, 1_724_197_500.0]


def test_day_or_month_first_is_refused_when_nothing_tells(write):
    with pytest.raises(SettingsError, match=r":2: .*day or month first; write years first"):
        read_prices(write("time,price\n3/4/2024 01:00,20\n3/4/2024 02:00,20\n"), time_zone="UTC")


def test_rows_newest_first_are_turned_and_told_with_the_doubled_hour_in_order(write):
    clock = ["00:45", "01:00", "01:15", "01:30", "01:45", "01:00", "01:15", "01:30", "01:45", "02:00"]
    rows = [f"2024-11-03 {at},{20 + n}" for n, at in enumerate(clock)]
    upright = read_prices(write("time,price\n" + "\n".join(rows)), time_zone="America/Chicago")
    turned = read_prices(write("time,price\n" + "\n".join(reversed(rows))), time_zone="America/Chicago")
    assert turned.starts_unix_s.tolist() == upright.starts_unix_s.tolist() and turned.gaps == ()
    assert turned.usd_per_mwh.tolist() == upright.usd_per_mwh.tolist()
    assert turned.repaired[0].endswith(":1: rows stand newest first; read from the last one up")


def test_times_no_market_can_have_are_refused(write):
    for year in ("0001", "9999"):
        with pytest.raises(SettingsError, match=rf":2: '{year}-01-01 00:00' is not a time"):
            read_prices(write(f"time,price\n{year}-01-01 00:00,20\n"), time_zone="Europe/Berlin")


@pytest.mark.parametrize("width", [300, 900, 3600])
def test_usual_interval_is_found(write, width):
    rows = "".join(f"{datetime.fromtimestamp(at * width, UTC).isoformat()},{at}\n" for at in range(50))
    assert read_prices(write(HEAD + rows)).width_s == width


def test_column_of_interval_ends_is_moved_to_starts_and_told(write):
    series = read_prices(write("interval_end_utc,price\n2024-01-01T01:00Z,20\n2024-01-01T02:00Z,21\n"))
    assert series.starts_unix_s[0] == unix("2024-01-01T00:00Z")
    assert "ends of intervals" in series.repaired[0]


def test_hour_24_is_the_next_midnight(write):
    text = "hour_ending,price\n2024-01-01 23:00,20\n2024-01-01 24:00,21\n2024-01-02 01:00,22\n"
    series = read_prices(write(text), time_zone="UTC")
    assert series.starts_unix_s[1] == unix("2024-01-01T23:00Z")


def test_starts_are_preferred_to_ends_and_ambiguous_columns_are_refused_with_the_option_to_give(write):
    text = "interval_start,interval_end,SPP\n2024-01-01T00:00Z,2024-01-01T01:00Z,20\n"
    assert read_prices(write(text)).starts_unix_s[0] == unix("2024-01-01T00:00Z")
    two = write("time,DAM,RTM\n2024-01-01T00:00Z,20,21\n")
    with pytest.raises(SettingsError, match=r":1: more than one column .* time, DAM, RTM; give price_column"):
        read_prices(two)
    assert read_prices(two, price_column="RTM").usd_per_mwh.tolist() == [21.0]
    with pytest.raises(SettingsError, match="no column 'rtm'; price_column can be one of: time, DAM, RTM"):
        read_prices(two, price_column="rtm")
    with pytest.raises(SettingsError, match=r"more than one column could be the time.*give time_column"):
        read_prices(write("begin,start,price\n2024-01-01T00:00Z,2024-01-01T00:00Z,20\n"))


def test_missing_prices_are_gaps_and_told_run_by_run(write):
    rows = [f"2024-01-01T00:{m:02d}Z,{p}" for m, p in ((0, 20), (15, ""), (30, "NaN"), (45, 23))]
    series = read_prices(write(HEAD + "\n".join([*rows, "2024-01-01T01:00Z,24"]) + "\n"))
    assert series.usd_per_mwh.tolist() == [20.0, 23.0, 24.0] and series.skipped == 2
    assert series.gaps == (Gap(unix("2024-01-01T00:15Z"), unix("2024-01-01T00:45Z")),)
    assert [r.split("prices.csv")[1] for r in series.repaired] == [
        ":3-4: no number as price in 2 rows; left as a gap",
        ":2: no interval from 2024-01-01T00:15Z to 2024-01-01T00:45Z",
    ]


def test_missing_intervals_are_gaps(write):
    text = HEAD + "".join(f"2024-01-01T{h:02d}:00Z,20\n" for h in (0, 1, 2, 5, 6))
    series = read_prices(write(text))
    assert series.gaps == (Gap(unix("2024-01-01T03:00Z"), unix("2024-01-01T05:00Z")),)
    assert series.repaired[0].endswith(":4: no interval from 2024-01-01T03:00Z to 2024-01-01T05:00Z")


def test_market_that_goes_from_hours_to_quarter_hours_has_no_gaps():
    starts = np.concatenate((np.arange(48) * 3600.0, 48 * 3600.0 + np.arange(400) * 900.0))
    assert find_gaps(starts, usual_width_s(starts)) == ()


def test_repeated_interval_is_counted_once_at_one_price_and_refused_at_two(write):
    series = read_prices(write(HEAD + "2024-01-01T00:00Z,20\n2024-01-01T00:00Z,20\n2024-01-01T01:00Z,21\n"))
    assert series.usd_per_mwh.tolist() == [20.0, 21.0]
    assert "repeats line 2 at the same price" in series.repaired[0] and ":3:" in series.repaired[0]
    with pytest.raises(SettingsError, match=r":3: .*stands twice with two prices \(20 in line 2, 31 here\); keep one"):
        read_prices(write(HEAD + "2024-01-01T00:00Z,20\n2024-01-01T00:00Z,31\n"))


def test_price_that_cannot_be_is_left_out_and_told(write):
    text = HEAD + "2024-01-01T00:00Z,20\n2024-01-01T01:00Z,1e6\n2024-01-01T02:00Z,20\n2024-01-01T03:00Z,19\n"
    series = read_prices(write(text))
    assert series.skipped == 1 and ":3: price 1e+06 USD/MWh is outside" in series.repaired[0]


@pytest.mark.parametrize(("factor", "unit"), [(0.001, "usd_per_kwh"), (0.1, "cents_per_kwh"), (100, "cents_per_mwh")])
def test_series_in_another_unit_is_refused_until_the_unit_is_said(write, factor, unit):
    prices = [20 + 10 * np.sin(h / 4) + (60 if h % 24 == 18 else 0) for h in range(24 * 14)]
    start = datetime(2024, 1, 1, tzinfo=UTC)
    path = write(
        HEAD + "".join(f"{(start + timedelta(hours=h)).isoformat()},{p * factor}\n" for h, p in enumerate(prices))
    )
    with pytest.raises(SettingsError, match=rf"prices.csv:1: .*price_unit = \"{unit}\""):
        read_prices(path)
    assert np.allclose(read_prices(path, price_unit=PriceUnit(unit)).usd_per_mwh, prices)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1: the file is empty"),
        (HEAD, ":1: holds no usable price"),
        (HEAD + "2024-01-01T00:00Z\n", ":2: too few columns"),
        (HEAD + "2024-01-01T00:00Z,20\n2024-01-01 01:00,20\n", ":3: times with and without offset are mixed"),
        (HEAD + "2024-01-01T00:00Z,20\nsoon,20\n", ":3: 'soon' is not a time"),
        ("time,time,price\n", ":1: column 'time' stands twice"),
        ("time,price\n2024-01-01T00:00Z,cheap\n", ":2: column 'price' holds no usable price in 1 of 1 rows"),
        (HEAD + "2024-01-01T01:00Z,20\n2024-01-01T00:00Z,21\n", ":3: intervals must ascend"),
        (HEAD + "2024-01-01T01:00Z,20\n\N{SUPERSCRIPT TWO},21\n", ":3: '\N{SUPERSCRIPT TWO}' is not a time"),
    ],
)
def test_file_that_cannot_be_used_is_refused_with_its_line(write, text, said):
    with pytest.raises(SettingsError) as refused:
        read_prices(write(text))
    assert said in str(refused.value) and "\n" not in str(refused.value)


@given(st.integers(10, 80), st.integers(0, 255))
def test_damaged_gzip_is_refused_or_reads_whole(tmp_path_factory, at, byte):
    raw = bytearray(gzip.compress((HEAD + "2024-01-01T00:00Z,20\n2024-01-01T01:00Z,21\n").encode()))
    raw[at % len(raw)] = byte
    path = tmp_path_factory.mktemp("any") / "prices.csv.gz"
    path.write_bytes(raw)
    try:
        assert read_prices(path).usd_per_mwh.tolist() == [20.0, 21.0]
    except SettingsError as refused:
        assert "\n" not in str(refused)


@given(st.text(max_size=60), st.text(max_size=30))
def test_no_cell_does_anything_but_read_or_be_refused(tmp_path_factory, time, price):
    path = tmp_path_factory.mktemp("any") / "prices.csv"
    cells = ",".join('"' + cell.replace('"', '""') + '"' for cell in (time, price))
    path.write_text(f"time,price\n2024-01-01 00:00,20\n{cells}\n", encoding="utf-8", errors="replace")
    try:
        read_prices(path, time_zone="America/Chicago")
    except SettingsError as refused:
        assert str(path) in str(refused)


@given(st.binary(max_size=200))
def test_no_file_does_anything_but_read_or_be_refused_in_one_line(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("any") / "prices.csv"
    path.write_bytes(b"time,price\n2024-01-01T00:00Z,20\n" + raw)
    try:
        series = read_prices(path)
    except SettingsError as refused:
        assert "\n" not in str(refused) and str(path) in str(refused)
    else:
        assert np.all(np.diff(series.starts_unix_s) > 0) and np.all(np.isfinite(series.usd_per_mwh))


def test_parquet_reads_like_csv(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    aware = [datetime(2024, 1, 1, h, tzinfo=UTC) for h in range(3)]
    path = tmp_path / "prices.parquet"
    parquet.write_table(pa.table({"interval_start": aware, "price": [20.0, None, 22.0]}), path)
    series = read_prices(path)
    assert series.starts_unix_s.tolist() == [unix("2024-01-01T00:00Z"), unix("2024-01-01T02:00Z")]
    assert ":2: no number" in series.repaired[0]
    naive = [moment.replace(tzinfo=None) for moment in aware]
    parquet.write_table(pa.table({"interval_start": naive, "price": [20.0, 21.0, 22.0]}), path)
    with pytest.raises(SettingsError, match="has no zone"):
        read_prices(path)
    assert read_prices(path, time_zone="Asia/Dubai").starts_unix_s[0] == unix("2024-01-01T00:00+04:00")
    path.write_bytes(b"PAR1 no")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_prices(path)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SettingsError, match=r"pip install 'gridpivot\[parquet\]'"):
        read_prices(tmp_path / "prices.parquet")
