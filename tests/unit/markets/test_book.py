"""The book: price, age and source by region, set and refused prices, compressed time, forecasts."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from controller.markets.book import MarketBook
from controller.markets.settings import MarketSettings, RegionPrice
from gridpivot.clock import Instant
from gridpivot.errors import BadPrice, SettingsError
from gridpivot.vocabulary import AiPriority, PriceRung

pytestmark = pytest.mark.unit

START = Instant(1000.0, 1_700_000_000.0)


def after(seconds):
    return Instant(START.monotonic_s + seconds, START.unix_s + seconds)


def csv_file(tmp_path, prices, start="2024-08-20T23:", step=15):
    rows = "".join(f"{start}{i * step:02d}Z,{p}\n" for i, p in enumerate(prices))
    path = tmp_path / "rt.csv"
    path.write_text("interval_start_utc,price_usd_per_mwh\n" + rows)
    return path


def test_fixed_prices_by_region_with_a_default():
    settings = MarketSettings(default=RegionPrice(usd_per_mwh=45), regions={"gulf": RegionPrice(usd_per_mwh=28)})
    book = MarketBook(settings, ["gulf", "andes"], START)
    assert book.usd_per_mwh("gulf", START)[0] == 28 and book.usd_per_mwh("andes", START)[0] == 45
    assert book.source("gulf", START) == "fixed"
    with pytest.raises(KeyError):
        book.usd_per_mwh("atlantis", START)


def test_refused_price_leaves_the_last_good_one_with_its_age():
    book = MarketBook(MarketSettings(), ["ercot"], START)
    book.set_price("ercot", 812.5, after(10))
    for nonsense in (float("nan"), 1e6):
        with pytest.raises(BadPrice):
            book.set_price("ercot", nonsense, after(40))
    assert book.usd_per_mwh("ercot", after(70)) == (812.5, 60.0)
    assert book.source("ercot", after(70)) == "set"
    assert book.refusals() == {"ercot": 2}


def test_released_price_gives_way_to_the_feed():
    book = MarketBook(MarketSettings(), ["ercot"], START)
    book.set_price("ercot", 812.5, START)
    book.release_price("ercot")
    assert book.usd_per_mwh("ercot", START)[0] == 45.0


def test_file_runs_at_the_given_speed_from_the_given_start(tmp_path):
    settings = MarketSettings(regions={"ercot": RegionPrice(csv=csv_file(tmp_path, [10, 20, 30, 40]))})
    start = 1_724_195_700.0  # 2024-08-20T23:15Z
    book = MarketBook(settings, ["ercot"], START, start_unix_s=start, speed=60.0)
    assert book.usd_per_mwh("ercot", START) == (20.0, 0.0)
    price, age_s = book.usd_per_mwh("ercot", after(14))
    assert price == 20.0 and age_s == pytest.approx(14.0)
    assert book.usd_per_mwh("ercot", after(15))[0] == 30.0
    price, age_s = book.usd_per_mwh("ercot", after(60))
    assert price == 40.0 and age_s == pytest.approx(30.0)  # the file is over: the last price ages
    price, age_s = book.usd_per_mwh("ercot", after(630))
    assert price == 25.0 and age_s == pytest.approx(600.0)  # ten hours on, what is usual stands in and the age tells


def test_stale_price_steps_down_rung_by_rung(tmp_path):
    ahead = tmp_path / "da.csv"
    ahead.write_text(
        "interval_start_utc,price_usd_per_mwh\n"
        + "".join(f"2024-08-{21 + h // 24}T{h % 24:02d}:00Z,{500 + h}\n" for h in range(10))
    )
    source = RegionPrice(csv=csv_file(tmp_path, [10, 20, 30, 40]), day_ahead_csv=ahead, usd_per_mwh=33.0)
    book = MarketBook(MarketSettings(regions={"r": source}), ["r"], START, start_unix_s=1_724_196_600.0)  # 23:30Z
    hours = {0.0: (30.0, "fresh"), 1.0: (40.0, "last_good"), 2.6: (502.0, "day_ahead"), 30.0: (25.0, "seasonal")}
    for hour, (price, rung) in hours.items():
        now = after(hour * 3600)
        assert (book.usd_per_mwh("r", now)[0], book.price_rung("r", now)) == (price, rung)
        assert book.steps("r", now)[0].usd_per_mwh == pytest.approx(price, abs=0.0 if rung == "fresh" else 480.0)
    now = after(20 * 86_400)
    assert (book.usd_per_mwh("r", now)[0], book.price_rung("r", now)) == (33.0, PriceRung.ASSUMED)
    book.set_price("r", 60.0, now)
    assert book.price_rung("r", now) is PriceRung.FRESH


def test_price_of_the_previous_interval_alone_is_forecast_to_the_present(tmp_path):
    settings = MarketSettings(regions={"r": RegionPrice(csv=csv_file(tmp_path, [10, 10, 10, 400]))})
    book = MarketBook(settings, ["r"], START, start_unix_s=1_724_199_000.0)  # 00:10Z, 10 min past the last interval
    assert book.usd_per_mwh("r", START)[0] == 400.0
    assert 107.5 < book.steps("r", START)[0].usd_per_mwh < 400.0


def test_tariff_of_the_region_or_of_the_site_turns_the_market_into_what_the_meter_pays():
    tariffs = {
        "ppa": {"per_mwh": 38.0},
        "wires": {"adder_per_mwh": 6.0, "risk": [{"per_mwh": 900.0, "from_hour": 16, "until_hour": 18}]},
    }
    regions = {"r": {"usd_per_mwh": 25.0, "tariff": "wires"}, "s": {"usd_per_mwh": 25.0}}
    book = MarketBook(MarketSettings.model_validate({"tariffs": tariffs, "regions": regions}), ["r", "s"], START)
    prices = [book.steps(*at)[0].usd_per_mwh for at in (("r", START), ("r", START, "ppa"), ("s", START))]
    assert prices == [31.0, 38.0, 25.0]
    assert book.usd_per_mwh("r", START)[0] == 25.0  # the market's own
    assert max(s.usd_per_mwh for s in book.risk_steps("r", START)) == 900.0
    assert book.risk_steps("s", START) == () and book.tariff("s") is None
    assert book.steps("r", START) is book.steps("r", START)
    assert book.risk_steps("r", START) is book.risk_steps("r", START)
    with pytest.raises(KeyError):
        book.steps("r", START, "none")


def test_region_that_names_no_tariff_of_the_settings_is_refused():
    with pytest.raises(ValidationError, match="names tariff 'wires'; tariffs are: ppa"):
        MarketSettings.model_validate(
            {"tariffs": {"ppa": {"per_mwh": 38.0}}, "regions": {"r": {"usd_per_mwh": 1, "tariff": "wires"}}}
        )


def test_what_was_repaired_in_files_is_told_once_with_its_line(tmp_path):
    path = csv_file(tmp_path, [10, "", 30])
    book = MarketBook(MarketSettings(default=RegionPrice(csv=path)), ["a", "b"], START)
    assert [line.removeprefix(str(path)).split(";")[0] for line in book.repairs()] == [
        ":3: no number as price in 1 rows",
        ":2: no interval from 2024-08-20T23:15Z to 2024-08-20T23:30Z",
    ]
    assert MarketBook(MarketSettings(), ["a"], START).repairs() == ()


def test_replaced_file_is_read_again_and_a_bad_one_changes_nothing(tmp_path):
    path = csv_file(tmp_path, [10, 20, 30, 40])
    book = MarketBook(MarketSettings(default=RegionPrice(csv=path)), ["r"], START, start_unix_s=1_724_195_700.0)
    assert book.reload() == () and book.usd_per_mwh("r", START)[0] == 20.0
    path.write_text("interval_start_utc,price_usd_per_mwh\nnow,77\n")
    os.utime(path, (1.0, 1.0))
    assert book.reload() == ("r",) and "no column looks like a time" in book.reload_error
    assert book.usd_per_mwh("r", START)[0] == 20.0 and book.refusals() == {"r": 1}
    csv_file(tmp_path, [10, 77, 30, 40])
    assert book.reload() == ("r",) and book.reload_error is None
    assert book.usd_per_mwh("r", START)[0] == 77.0 == book.steps("r", START)[0].usd_per_mwh


def test_before_the_first_interval_nothing_is_known_unless_a_fixed_price_is_given(tmp_path):
    path = csv_file(tmp_path, [10])
    settings = MarketSettings(
        regions={"bare": RegionPrice(csv=path), "backed": RegionPrice(csv=path, usd_per_mwh=33.0)}
    )
    book = MarketBook(settings, ["bare", "backed"], START, start_unix_s=1_724_000_000.0)
    assert book.usd_per_mwh("bare", START) == (None, None)
    assert book.steps("bare", START) == () and book.source("bare", START) == "none"
    assert book.usd_per_mwh("backed", START)[0] == 33.0


def test_forecast_starts_at_the_present_and_never_knows_the_next_interval(tmp_path):
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    calm.mkdir(), wild.mkdir()
    steps = []
    for folder, coming in ((calm, 20), (wild, 5000)):
        settings = MarketSettings(regions={"r": RegionPrice(csv=csv_file(folder, [10, 20, coming, coming]))})
        book = MarketBook(settings, ["r"], START, start_unix_s=1_724_195_700.0)
        steps.append(book.steps("r", START))
    assert steps[0] == steps[1]
    assert steps[0][0].starts_in_s == 0.0 and steps[0][0].usd_per_mwh == 20.0
    starts = [s.starts_in_s for s in steps[0]]
    assert starts == sorted(starts) and starts[-1] >= 46 * 3600


def test_spike_fades_into_what_is_usual():
    book = MarketBook(MarketSettings(), ["r"], START)
    book.set_price("r", 4045.0, START)
    steps = book.steps("r", START)
    assert steps[0].usd_per_mwh == 4045.0
    an_hour_on = next(s for s in steps if s.starts_in_s >= 3600)
    assert 45 + 4000 * 0.25 < an_hour_on.usd_per_mwh < 45 + 4000 * 0.45
    assert 45.0 <= steps[-1].usd_per_mwh <= 45.0 + 25.0  # a trace of it stays, however high it was


def test_forecast_is_counted_in_real_seconds_under_compressed_time():
    fast = MarketBook(MarketSettings(), ["r"], START, speed=60.0)
    assert fast.steps("r", START)[-1].starts_in_s < 48 * 60


def test_day_ahead_prices_are_used_only_as_far_as_they_are_published(tmp_path):
    ahead = tmp_path / "da.csv"
    rows = "".join(f"2024-08-{20 + h // 24}T{h % 24:02d}:00Z,{500 + h}\n" for h in range(48))
    ahead.write_text("interval_start_utc,price_usd_per_mwh\n" + rows)
    region = RegionPrice(usd_per_mwh=45.0, day_ahead_csv=ahead, day_ahead_known_h=10)
    book = MarketBook(
        MarketSettings(regions={"r": region}), ["r"], START, start_unix_s=1_724_112_000.0
    )  # 2024-08-20T00:00Z
    steps = {round(s.starts_in_s / 3600, 2): s.usd_per_mwh for s in book.steps("r", START)}
    assert steps[8.0] == pytest.approx(508.0, abs=10.0)  # a trace of the present price stays
    assert steps[12.0] == pytest.approx(45.0, abs=0.1)


def test_one_region_gives_all_its_sites_one_object():
    book = MarketBook(MarketSettings(), ["r"], START)
    assert book.steps("r", START) is book.steps("r", START)


def test_ai_income_by_pool_then_priority_then_default():
    settings = MarketSettings(ai_usd_per_gpu_hour={AiPriority.SPOT: 0.8}, ai_pool_usd_per_gpu_hour={"h200": 3.1})
    book = MarketBook(settings, ["r"], START)
    assert book.ai_usd_per_gpu_hour("h200", AiPriority.SPOT) == 3.1
    assert book.ai_usd_per_gpu_hour("other", AiPriority.SPOT) == 0.8
    assert book.ai_usd_per_gpu_hour("other", AiPriority.GUARANTEED) == 2.5


def test_hashprice_from_settings_or_set_and_nonsense_refused():
    book = MarketBook(MarketSettings(hashprice_usd_per_ph_day=52.0), ["r"], START)
    assert book.hashprice(START) == (52.0, 0.0)
    book.set_hashprice(48.0, after(5))
    with pytest.raises(BadPrice):
        book.set_hashprice(0.048, after(6))
    assert book.hashprice(after(8)) == (48.0, 3.0)


def test_nonsense_in_the_settings_is_refused():
    for price in (1e6, 0.045):
        with pytest.raises(SettingsError):
            MarketBook(MarketSettings(default=RegionPrice(usd_per_mwh=price)), ["r"], START)
    with pytest.raises(SettingsError, match="speed"):
        MarketBook(MarketSettings(), ["r"], START, speed=0.0)
