"""One region's price at a moment: which source gives it, how old it is, and on which rung it stands. Pure.

The ladder: the newest real-time price while it is fresh, then while it is not too old, then the day-ahead price, then
the hour-of-day mean of what was seen, then what the settings assume.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.markets.feed import FixedFeed, Floats, PriceFeed, Quote
from controller.markets.forecast import Published
from gridpivot.vocabulary import PriceRung


@dataclass(frozen=True, slots=True)
class RegionFeeds:
    """Where a region's prices come from; a region whose only source is a fixed price has it as its market."""

    market: PriceFeed | None
    stand_in: FixedFeed | None
    published: Published | None


@dataclass(frozen=True, slots=True)
class Standing:
    """The price in force [USD/MWh] and where it comes from.

    `newest` is the last real-time price heard, in force or not; `age_s` is its age in data seconds; both None while
    none was heard and nothing stands in for it.
    """

    usd_per_mwh: float | None
    rung: PriceRung
    source: str
    newest: Quote | None
    age_s: float | None

    @property
    def in_use(self) -> Quote | None:
        """The real-time price, while it is good enough to forecast from."""
        return self.newest if self.rung in (PriceRung.FRESH, PriceRung.LAST_GOOD) else None


def stand(feeds: RegionFeeds, data_unix_s: float, fresh_s: float, last_good_s: float) -> Standing:
    """The region's price at a moment of data time; limits count from the end of the newest price's interval [s]."""
    newest = feeds.market.quote(data_unix_s) if feeds.market is not None else None
    age_s = data_unix_s - newest.since_unix_s if newest is not None else None
    if feeds.market is not None and newest is not None and age_s is not None:
        over_s = age_s - newest.width_s
        if over_s < last_good_s:
            rung = PriceRung.FRESH if over_s < fresh_s else PriceRung.LAST_GOOD
            return Standing(newest.usd_per_mwh, rung, feeds.market.name, newest, age_s)
    if feeds.published is not None:
        ahead = feeds.published.usd_per_mwh(data_unix_s, data_unix_s)
        if ahead is not None:
            return Standing(ahead, PriceRung.DAY_AHEAD, feeds.published.feed.name, newest, age_s)
    seen = feeds.market.usual(data_unix_s) if feeds.market is not None else None
    if seen is not None and feeds.market is not None:
        mean = float(seen[int(data_unix_s // 3600) % len(seen)])
        return Standing(mean, PriceRung.SEASONAL, feeds.market.name, newest, age_s)
    if feeds.stand_in is not None:
        price = feeds.stand_in.usd_per_mwh
        return Standing(price, PriceRung.ASSUMED, feeds.stand_in.name, newest, 0.0 if age_s is None else age_s)
    return Standing(None, PriceRung.ASSUMED, "none", newest, age_s)


def usual(feeds: RegionFeeds, data_unix_s: float) -> Floats | None:
    """Mean price by hour of the day (24,) of the market, else of what stands in; None when neither knows."""
    for feed in (feeds.market, feeds.stand_in):
        means = feed.usual(data_unix_s) if feed is not None else None
        if means is not None:
            return means
    return None
