"""Windows of the past: calls on local clocks, gaps, hashprice, demand that agrees wherever a window begins."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.settlement.demand import demand_ahead_w, demand_w, local_hours
from controller.settlement.plant import Demand, EventRule
from controller.settlement.scenario import lay_out_scenario, sold_from, windows_of
from controller.settlement.seen import look
from gridpivot.errors import SettingsError
from gridpivot.vocabulary import Mode

pytestmark = pytest.mark.unit

DAILY = EventRule("evening", 2e6, 7200.0, None, tuple(range(1, 13)), tuple(range(7)), 17.0, 19.0)
CHANGE = 1_710_050_400.0 - 10 * 3600.0  # 2024-03-09T20:00Z; clocks in Texas went forward at 08:00Z the next day


def test_evening_call_follows_the_local_clock_over_a_change(world) -> None:
    scenario = world.scenario([world.plant(events=(DAILY,))], [40.0] * 192, begins=CHANGE)
    begins = [scenario.starts_unix_s[c.first] for c in scenario.sites[0].calls]
    assert (begins[0] - CHANGE) / 3600 == 3.0  # 17:00 at UTC-6 is 23:00Z
    assert (begins[1] - begins[0]) / 3600 == 23.0


def test_call_on_weekdays_of_some_months_stays_there(world) -> None:
    rule = replace(DAILY, months=(6,), weekdays=(0, 1, 2, 3, 4))
    scenario = world.scenario([world.plant(events=(rule,))], [40.0] * 96 * 7)
    assert len(scenario.sites[0].calls) == 5
    july = world.scenario([world.plant(events=(rule,))], [40.0] * 96 * 7, begins=world.monday + 35 * 86_400)
    assert july.sites[0].calls == ()


def test_dated_call_holds_in_every_interval_that_it_touches(world) -> None:
    rule = EventRule("call", 2e6, 0.0, (world.monday + 1000.0, world.monday + 1900.0))
    site = world.scenario([world.plant(events=(rule,))], [40.0] * 5).sites[0]
    assert (site.ceiling_w / 1e6).tolist() == [10, 2, 2, 10, 10]
    assert site.called.tolist() == [False, True, True, False, False]


def test_call_is_heard_of_when_its_notice_begins(world) -> None:
    rule = EventRule("call", 2e6, 1800.0, (world.monday + 3600.0, world.monday + 7200.0))
    scenario = world.scenario([world.plant(events=(rule,))], [40.0] * 12)
    standing = (scenario.sites[0].plant.all_in(Mode.NORMAL),)
    heard = [look(scenario, at, standing, (0.0,), False).sites[0].windows for at in range(12)]
    assert [len(w) for w in heard] == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert (heard[2][0].starts_in_s, heard[2][0].ends_in_s) == (1800.0, 5400.0)
    assert windows_of(scenario.sites[0].calls, 5, 900.0)[0].starts_in_s == -900.0


def test_short_gap_takes_the_price_before_it_and_says_so(world) -> None:
    series = world.series([40.0, 50.0, 60.0, 70.0])
    keep = np.array([0, 1, 3])
    gappy = replace(series, starts_unix_s=series.starts_unix_s[keep], usd_per_mwh=series.usd_per_mwh[keep])
    scenario = lay_out_scenario((world.plant(),), {"": gappy}, {}, 60.0, world.monday, world.monday + 3600)
    assert scenario.markets[""].usd_per_mwh.tolist() == [40, 50, 50, 70]
    assert scenario.notes == ("test: 1 intervals without a price took the last one before them",)


def test_window_past_the_files_end_is_refused_with_what_the_file_holds(world) -> None:
    series = world.series([40.0] * 4)
    with pytest.raises(SettingsError, match=r"no price for 2024-06-03T01:00:00Z.* it holds .*T00:00:00Z to .*T01:00"):
        lay_out_scenario((world.plant(),), {"": series}, {}, 60.0, world.monday, world.monday + 86_400)


def test_region_without_prices_is_refused_with_the_option_that_gives_them(world) -> None:
    plant = replace(world.plant(), region="miso")
    with pytest.raises(SettingsError, match=r"site 'mesa': no prices for region 'miso'; give --prices miso=FILE"):
        lay_out_scenario((plant,), {"ercot": world.series([40.0])}, {}, 60.0, world.monday, world.monday + 900)


def test_hashprice_before_its_first_figure_is_refused(world) -> None:
    with pytest.raises(SettingsError, match="no hashprice before 2024-06-04T00:00:00Z"):
        world.scenario([world.plant()], [40.0] * 4, hashprice={world.monday + 86_400.0: 50.0})


def test_hours_sold_are_handed_on_as_runs_and_a_product_never_vanishes(world) -> None:
    site = world.scenario([world.obliged()], [40.0] * 96).sites[0]
    runs = [(run.starts_in_s / 3600, run.ends_in_s / 3600) for run in sold_from(site, 0, 96, 900.0)]
    assert runs == [(0.0, 1.0), (11.0, 24.0)]  # 06:00 to 20:00 in Texas is 11:00Z to 01:00Z
    (none,) = sold_from(site, 8, 16, 900.0)
    assert none.ends_in_s is not None and none.ends_in_s < 0


@given(offset=st.integers(0, 3000), length=st.integers(1, 200), seed=st.integers(1, 99))
def test_windows_that_overlap_agree_on_demand(offset, length, seed) -> None:
    demand = Demand(1e6, tuple(0.5 + h / 24 for h in range(24)), 0.2, seed)
    starts = 1_704_067_200.0 + 900.0 * np.arange(3300)
    zone = ZoneInfo("Europe/Berlin")
    whole = demand_w(demand, starts, 900.0, zone)
    assert np.array_equal(
        demand_w(demand, starts[offset : offset + length], 900.0, zone), whole[offset : offset + length]
    )


def test_swing_has_the_deviation_that_was_asked_for() -> None:
    starts = 1_704_067_200.0 + 900.0 * np.arange(35_000)
    watts = demand_w(Demand(1e6, swing_ratio=0.1, seed=5), starts, 900.0, ZoneInfo("UTC"))
    assert watts.mean() == pytest.approx(1e6, rel=0.02)
    assert watts.std() == pytest.approx(1e5, rel=0.1)


def test_trace_repeats_after_its_span() -> None:
    demand = Demand(2.0, trace=((0.0, 1.0), (900.0, 3.0)), trace_span_s=1800.0)
    starts = 1_577_836_800.0 + 900.0 * np.arange(5)
    assert demand_w(demand, starts, 900.0, ZoneInfo("UTC")).tolist() == [1, 3, 1, 3, 1]


def test_local_hours_jump_with_the_clock() -> None:
    hours = local_hours(1_710_054_000.0 + 1800.0 * np.arange(6), ZoneInfo("America/Chicago"))
    assert hours.tolist() == [1.0, 1.5, 3.0, 3.5, 4.0, 4.5]


def test_demand_ahead_is_yesterdays_to_which_today_fades() -> None:
    day = np.concatenate((np.full(48, 1e6), np.full(48, 2e6)))
    ahead = demand_ahead_w(np.tile(day, 7), 1.2e6, 900.0, 96)
    assert ahead[0] == pytest.approx(1.2e6)
    assert ahead[40] == pytest.approx(1e6, rel=0.01)
    assert ahead[80] == pytest.approx(2e6, rel=0.01)


def test_demand_without_a_past_persists() -> None:
    assert demand_ahead_w(np.zeros(0), 7.0, 900.0, 3).tolist() == [7, 7, 7]
