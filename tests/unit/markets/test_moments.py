"""Local clocks on the days when they change, in both directions, and zones that stopped or never did."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.markets.moments import unix_seconds
from controller.markets.zones import zone
from gridpivot.errors import SettingsError

pytestmark = pytest.mark.unit

# zone, day, hours of that day
AUTUMN = [
    ("America/Chicago", "2024-11-03", 25),
    ("Europe/Berlin", "2024-10-27", 25),
    ("America/Asuncion", "2024-03-23", 25),
]
SPRING = [
    ("America/Chicago", "2025-03-09", 23),
    ("Europe/Berlin", "2024-03-31", 23),
    ("America/Asuncion", "2024-10-06", 23),
]
STEADY = [
    ("America/Asuncion", "2025-03-22", 24),  # would have had 25 hours before the clocks were left alone
    ("America/Asuncion", "2025-10-05", 24),
    ("Asia/Dubai", "2024-10-27", 24),
    ("Asia/Dubai", "2024-03-31", 24),
]


def where(first, last=None):
    return f"file:{first + 2}"


def clock_of_day(name, day, step_s=900):
    """The day's true UTC starts and what a local clock shows at each."""
    local = zone(name)
    begin = datetime.fromisoformat(day).replace(tzinfo=local)
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=local)
    unix_s = np.arange(begin.timestamp(), end.timestamp(), step_s)
    return unix_s, [datetime.fromtimestamp(s, local).strftime("%Y-%m-%d %H:%M:%S") for s in unix_s]


@pytest.mark.parametrize(("name", "day", "hours"), AUTUMN + SPRING + STEADY)
@pytest.mark.parametrize("step_s", [300, 900, 3600])
def test_local_clock_of_a_whole_day_gives_its_true_hours(name, day, hours, step_s):
    unix_s, shown = clock_of_day(name, day, step_s)
    assert len(unix_s) * step_s == hours * 3600
    read = unix_seconds(shown, where, zone(name))
    assert read.unix_s.tolist() == unix_s.tolist() and read.told == ()


@pytest.mark.parametrize(("name", "day", "_"), AUTUMN)
def test_doubled_hour_that_stands_once_is_its_first_pass_and_told(name, day, _):
    unix_s, shown = clock_of_day(name, day)
    once = list(dict.fromkeys(shown))
    read = unix_seconds(once, where, zone(name))
    assert len(once) == len(shown) - 4
    lost = np.setdiff1d(unix_s, read.unix_s)
    assert len(lost) == 4 and np.all(np.diff(lost) == 900.0)
    assert "stands once; taken as its first pass" in read.told[0]


@pytest.mark.parametrize(("name", "day", "_"), AUTUMN)
def test_doubled_hour_that_stands_interleaved_is_put_in_order_and_told(name, day, _):
    unix_s, shown = clock_of_day(name, day)
    read = unix_seconds(sorted(shown), where, zone(name))
    assert sorted(read.unix_s) == unix_s.tolist() and read.interleaved
    assert "interleaved" in read.told[-1]


@pytest.mark.parametrize(("name", "day", "_"), SPRING)
def test_rows_in_the_hour_that_spring_skips_are_left_out_and_told(name, day, _):
    unix_s, shown = clock_of_day(name, day)
    begin = datetime.fromisoformat(day)
    clock = [(begin + timedelta(minutes=15 * at)).strftime("%Y-%m-%d %H:%M:%S") for at in range(96)]
    read = unix_seconds(clock, where, zone(name))
    assert np.isnan(read.unix_s).sum() == 4 and len(set(clock) - set(shown)) == 4
    assert read.unix_s[~np.isnan(read.unix_s)].tolist() == unix_s.tolist()
    assert "does not exist in" in read.told[0] and "4 rows left out" in read.told[0]


@pytest.mark.parametrize(
    ("day", "wrong"), [("2024-11-03", "-05:00"), ("2024-11-03", "-06:00"), ("2025-03-09", "-06:00")]
)
def test_wrong_offsets_around_a_change_are_refused_and_repaired_once_the_zone_is_known(day, wrong):
    unix_s, shown = clock_of_day("America/Chicago", day)
    three = next(at for at, clock in enumerate(shown) if clock[11:] >= "03:00")
    right = [datetime.fromtimestamp(s, zone("America/Chicago")).isoformat() for s in unix_s]
    text = [s[:-6] + wrong if three - 12 <= at < three + 4 else s for at, s in enumerate(right)]
    with pytest.raises(SettingsError, match=r"time runs back .*give time_zone"):
        unix_seconds(text, where, None)
    read = unix_seconds(text, where, zone("America/Chicago"))
    assert read.unix_s.tolist() == unix_s.tolist()
    assert "offsets contradict the clock of America/Chicago" in read.told[0]


def test_right_offsets_need_no_zone():
    unix_s, _ = clock_of_day("Europe/Berlin", "2024-10-27")
    text = [datetime.fromtimestamp(s, zone("Europe/Berlin")).isoformat() for s in unix_s]
    assert unix_seconds(text, where, None).unix_s.tolist() == unix_s.tolist()


@given(
    st.sampled_from(["America/Chicago", "Europe/Berlin", "America/Asuncion", "Asia/Dubai", "Australia/Lord_Howe"]),
    st.integers(1_577_836_800 // 3600, 1_767_225_600 // 3600),  # 2020 to 2025
    st.integers(1, 400),
)
def test_local_clock_read_in_order_is_the_time_it_was_made_from(name, begin_h, count):
    local = zone(name)
    unix_s = begin_h * 3600.0 + 1800.0 * np.arange(count)
    shown = [datetime.fromtimestamp(s, local).strftime("%Y-%m-%d %H:%M") for s in unix_s]
    read = unix_seconds(shown, where, local)
    # A file that begins or ends inside the doubled hour shows one pass of it, and which one no clock can tell.
    whole = [s for s, clock in zip(unix_s, shown, strict=True) if datetime.fromtimestamp(s, local).fold == 0]
    assert set(whole) <= set(read.unix_s)
    if not read.told:
        assert read.unix_s.tolist() == unix_s.tolist()


def test_zone_tables_are_the_pinned_ones_and_other_names_are_refused():
    assert datetime.fromisoformat("2025-07-01").replace(tzinfo=zone("America/Asuncion")).utcoffset() == timedelta(
        hours=-3
    )
    for name in ("", "Mars/Olympus", "../../etc/passwd", "America", "/etc/localtime"):
        with pytest.raises(SettingsError, match="not a time zone"):
            zone(name)
