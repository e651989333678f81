"""Price forecasts against what came: persistence, seasonal-naive, day-ahead, the blend, and one library.

Fits on January to June 2024 of ERCOT's hub, reports on July to December and on HB_SOUTH, January to March 2025. The
library is statsmodels' AutoReg with day-ahead prices beside it (`pip install -e '.[bench]'`; without it its
row is null). Real prices come from GRIDPIVOT_SHARED (default ../shared). Prints each table, then one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from controller.markets.blend import Blend, Floats, Past, blended, errors, fit, look_back, seasonal_mean
from controller.markets.feed import FileFeed
from controller.markets.forecast import Published
from controller.markets.moments import utc_seconds
from controller.markets.series import PriceSeries, read_prices
from controller.markets.zones import zone

GRID = Path(os.environ.get("GRIDPIVOT_SHARED", Path(__file__).parents[2].parent / "shared")) / "data" / "grid"
AHEAD_S = (900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
SHOWN = ("15 min", "1 h", "4 h", "24 h")
FIT_S = (900.0, 1800.0, 3600.0, 7200.0, 4 * 3600.0, 24 * 3600.0)  # the curve between the reported horizons too
STRIDE = 7  # quarters between moments: every time of day comes up
LAGS = [1, 2, 3, 4, 96]
Anchor = Callable[[Floats, Floats], Floats]


def published(series: PriceSeries) -> Published:
    """ERCOT's day-ahead prices: out at 13:30 for the day after, by its own clock."""
    return Published(FileFeed(series), 36_000.0, 13.5, zone("America/Chicago"))


def anchors(rt: PriceSeries, day_ahead: Published) -> dict[str, Anchor]:
    """What is usual, in three ways; `day-ahead` falls back on the hour of the day where nothing is published."""

    def by_hour(period_h: int, days: int) -> Anchor:
        return lambda at, known: seasonal_mean(rt.starts_unix_s, rt.usd_per_mwh, at, known, period_h, days)

    hour_of_day = by_hour(24, 14)

    def from_day_ahead(at: Floats, known: Floats) -> Floats:
        read = [day_ahead.usd_per_mwh(a, k) for a, k in zip(at.tolist(), known.tolist(), strict=True)]
        prices = np.array([np.nan if price is None else price for price in read])
        return np.where(np.isnan(prices), hour_of_day(at, known), prices)

    return {"hour of day": hour_of_day, "hour of week": by_hour(168, 28), "day-ahead": from_day_ahead}


def moments(rt: PriceSeries, begin: str, end: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Indices of every seventh interval between two times."""
    low, high = np.searchsorted(rt.starts_unix_s, (utc_seconds(begin, "bench"), utc_seconds(end, "bench")))
    return np.arange(int(low), int(high), STRIDE)


def coefficients(rt: PriceSeries, day_ahead: PriceSeries, end: str) -> list[float] | None:
    """AutoReg's constant, lags and day-ahead coefficient, from what came before `end`; None without statsmodels."""
    try:
        from statsmodels.tsa.ar_model import AutoReg
    except ImportError:
        return None
    hourly = np.searchsorted(day_ahead.starts_unix_s, rt.starts_unix_s, side="right") - 1
    until = int(np.searchsorted(rt.starts_unix_s, utc_seconds(end, "bench")))
    beside = day_ahead.usd_per_mwh[hourly[:until], None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = AutoReg(rt.usd_per_mwh[:until], lags=LAGS, exog=beside).fit()
    return [float(value) for value in fitted.params]


def recursion(rt: PriceSeries, found: list[float] | None, origins: Any, known: Anchor) -> Floats | None:
    """AutoReg's forecasts (n, h), all moments at once: one by one its `predict` takes an hour for the same figures."""
    if found is None:
        return None
    constant, *of_lags, of_beside = found
    at = rt.starts_unix_s[origins]
    made = np.empty((len(origins), int(AHEAD_S[-1] // 900) + 1))
    for ahead in range(1, made.shape[1]):
        value = constant + of_beside * known(at + ahead * 900.0, at)
        for lag, weight in zip(LAGS, of_lags, strict=True):
            value = value + weight * (made[:, ahead - lag] if ahead > lag else rt.usd_per_mwh[origins + ahead - lag])
        made[:, ahead] = value
    return made[:, [int(ahead // 900) for ahead in AHEAD_S]]


def report(title: str, rows: dict[str, Floats | None], came: Floats) -> dict[str, Any]:
    """Print one table of MAE / RMSE; returns it."""
    print(f"\n{title} (MAE / RMSE, USD/MWh)\n{'':22}" + "".join(f"{name:>16}" for name in SHOWN))
    table: dict[str, Any] = {}
    for name, made in rows.items():
        if made is None:
            table[name] = None
            continue
        found = [errors(made[:, at], came[:, at]) for at in range(len(AHEAD_S))]
        print(f"{name:22}" + "".join(f"{f'{e.mae:.2f} / {e.rmse:.1f}':>16}" for e in found))
        table[name] = {
            shown: {key: round(value, 3) for key, value in asdict(e).items()}
            for shown, e in zip(SHOWN, found, strict=True)
        }
    return table


def rows_of(pasts: dict[str, Past], blends: dict[str, Any], from_library: Floats | None) -> dict[str, Floats | None]:
    """Forecasts (n, h) by name."""
    first = pasts["day-ahead"]
    rows: dict[str, Floats | None] = {"persistence": np.repeat(first.newest[:, None], len(AHEAD_S), axis=1)}
    rows |= {f"seasonal, {n}" if n.startswith("hour") else n: past.usual for n, past in pasts.items()}
    rows["blend, no day-ahead"] = blended(blends["hour of day"], pasts["hour of day"])
    rows["blend"] = blended(blends["day-ahead"], first)
    rows["statsmodels AutoReg"] = from_library
    return rows


def hub() -> tuple[PriceSeries, PriceSeries]:
    """Real-time and day-ahead prices of HB_HUBAVG, 2024."""
    return read_prices(GRID / "ercot_hubavg_2024_rt15.csv.gz"), read_prices(GRID / "ercot_hubavg_2024_da60.csv.gz")


def fitted(rt: PriceSeries, day_ahead: PriceSeries) -> dict[str, Blend]:
    """The blends of January to June 2024, by what is usual."""
    known, early = anchors(rt, published(day_ahead)), moments(rt, "2024-01-30T00:00Z", "2024-06-29T00:00Z")
    return {
        name: fit(look_back(rt.starts_unix_s, rt.usd_per_mwh, early, FIT_S, known[name]))
        for name in ("hour of day", "day-ahead")
    }


def main() -> None:
    """Fit, report, compare."""
    if not GRID.is_dir():
        sys.exit(f"NOT MEASURED: no real price traces at {GRID}; set GRIDPIVOT_SHARED")
    began = time.perf_counter()
    rt_2024, da_2024 = hub()
    south_file, clock = GRID / "ercot_hbsouth_2024_2025_da_rt15.csv.gz", "America/Chicago"
    south = read_prices(south_file, price_column="HB_SOUTH_RTM", time_zone=clock)
    south_da = read_prices(south_file, price_column="HB_SOUTH_DAM", time_zone=clock)
    blends = fitted(rt_2024, da_2024)
    found = coefficients(rt_2024, da_2024, "2024-06-30T00:00Z")
    results: dict[str, Any] = {"fitted": {name: asdict(blend) for name, blend in blends.items()}}
    print("fitted on HB_HUBAVG, January to June 2024:", results["fitted"])
    for key, rt, da, begin, end in (
        ("hub_2024_h2", rt_2024, da_2024, "2024-07-01T00:00Z", "2024-12-30T00:00Z"),
        ("south_2025_q1", south, south_da, "2025-01-01T00:00Z", "2025-03-26T00:00Z"),
    ):
        origins, usual = moments(rt, begin, end), anchors(rt, published(da))
        by = {n: look_back(rt.starts_unix_s, rt.usd_per_mwh, origins, AHEAD_S, a) for n, a in usual.items()}
        made = recursion(rt, found, origins, usual["day-ahead"])
        results[key] = report(f"{key}: {len(origins)} moments", rows_of(by, blends, made), by["day-ahead"].came)
    print(json.dumps({"bench": "forecast", **results, "wall_s": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
