"""Prices of North American system operators through gridstatus, an optional extra that is imported only when used.

gridstatus names one method per operator and market; which one, and its column, stands in `METHODS` (version 0.37).
Blocking and slow: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.markets.settings import IsoFeedSettings
from gridpivot.errors import FeedFailed

LOOK_BACK = timedelta(hours=2)  # real-time prices come late; an hour of them is never missing two polls running
# (operator, market) -> method, further arguments, price column
METHODS: Mapping[tuple[str, str], tuple[str, Mapping[str, str], str]] = {
    ("ercot", "real_time_15_min"): ("get_spp", {"market": "REAL_TIME_15_MIN"}, "SPP"),
    ("ercot", "day_ahead_hourly"): ("get_spp", {"market": "DAY_AHEAD_HOURLY"}, "SPP"),
    ("caiso", "real_time_5_min"): ("get_lmp_real_time_5_min", {}, "LMP"),
    ("caiso", "real_time_15_min"): ("get_lmp_real_time_15_min", {}, "LMP"),
    ("caiso", "day_ahead_hourly"): ("get_lmp_day_ahead_hourly", {}, "LMP"),
    ("isone", "real_time_5_min"): ("get_lmp_real_time_5_min", {}, "LMP"),
    ("isone", "day_ahead_hourly"): ("get_lmp_day_ahead_hourly", {}, "LMP"),
    ("miso", "real_time_5_min"): ("get_lmp_real_time_5_min", {}, "LMP"),
    ("miso", "day_ahead_hourly"): ("get_lmp_day_ahead_hourly", {}, "LMP"),
    ("nyiso", "real_time_5_min"): ("get_lmp_real_time_5_min", {}, "LMP"),
    ("nyiso", "real_time_15_min"): ("get_lmp_real_time_15_min", {}, "LMP"),
    ("nyiso", "day_ahead_hourly"): ("get_lmp_day_ahead_hourly", {}, "LMP"),
    ("spp", "real_time_5_min"): ("get_lmp_real_time_5_min_by_location", {}, "LMP"),
    ("spp", "day_ahead_hourly"): ("get_lmp_day_ahead_hourly", {}, "LMP"),
}


def fetch(settings: IsoFeedSettings, now_unix_s: float) -> list[tuple[float, float]]:
    """(interval start [Unix s], USD/MWh) of the last two hours, or of today and tomorrow; raises FeedFailed."""
    method, further, column = METHODS.get((settings.iso, settings.market), ("", {}, ""))
    if not method:
        known = ", ".join(market for iso, market in METHODS if iso == settings.iso)
        raise FeedFailed(f"{settings.iso}: has no market {settings.market}; it has {known}")
    try:
        import gridstatus
    except ImportError:
        raise FeedFailed(
            f"{settings.iso}: needs gridstatus, which is not installed; pip install 'gridpivot[iso]'"
        ) from None
    operator = gridstatus.get_iso(settings.iso)()
    now = datetime.fromtimestamp(now_unix_s, UTC)
    asked: list[dict[str, Any]] = [{"date": now - LOOK_BACK, "end": now}]
    if settings.market == "day_ahead_hourly":
        asked = [{"date": now}, {"date": now + timedelta(days=1)}]
    rows: list[tuple[float, float]] = []
    trouble: Exception | None = None
    for span in asked:
        try:
            frame = getattr(operator, method)(**span, **further)
            rows += rows_of(frame.to_dict("records"), settings.location, column)
        except Exception as error:  # it reads a dozen web sites, and raises whatever they make it raise
            trouble = error
    if not rows:
        why = str(trouble).splitlines()[0] if trouble is not None and str(trouble) else "no rows for that location"
        raise FeedFailed(f"{settings.iso} {settings.location}: {why}; check the location's name and the network")
    return rows


def rows_of(records: Iterable[Mapping[str, Any]], location: str, column: str) -> list[tuple[float, float]]:
    """(Unix s, USD/MWh) of one location out of gridstatus's table, its rows as mappings."""
    wanted = (r for r in records if r.get("Location") == location)
    return [(r["Interval Start"].timestamp(), float(r[column])) for r in wanted if r[column] == r[column]]
