"""A region's feeds made from its settings: files read, live feeds set up, tariffs' clocks looked up.

Blocking: reading a year of prices takes a fifth of a second. What arrived live is kept when files are read again.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from controller.markets.bounds import check_fixed
from controller.markets.feed import FileFeed, FixedFeed, LiveFeed, PriceFeed
from controller.markets.forecast import Published
from controller.markets.region import RegionFeeds
from controller.markets.series import read_prices
from controller.markets.settings import HttpFeedSettings, IsoFeedSettings, MarketSettings, RegionPrice
from controller.markets.zones import zone
from gridpivot.errors import BadPrice, SettingsError

Files = dict[tuple[object, ...], FileFeed]


class Sources:
    """Makes feeds; `live` holds those that arrive while the controller runs, by region and title."""

    def __init__(self, settings: MarketSettings) -> None:
        self._settings = settings
        self.live: dict[tuple[str, str], LiveFeed] = {}

    def of(self, region: str) -> RegionPrice:
        """Settings of a region: its own, or the default's."""
        return self._settings.regions.get(region, self._settings.default)

    def read(self, regions: Collection[str]) -> dict[str, RegionFeeds]:
        """Feeds by region; a file that several of them name is read once. Raises SettingsError for a bad file."""
        files: Files = {}
        return {region: self._feeds(region, self.of(region), files) for region in regions}

    def stamp(self, region: str) -> tuple[float, ...]:
        """Modification times of a region's files; 0 for one that is gone."""
        source = self.of(region)
        paths = [p for p in (source.csv, source.day_ahead_csv) if p is not None]
        return tuple(p.stat().st_mtime if p.exists() else 0.0 for p in paths)

    def _feeds(self, region: str, source: RegionPrice, files: Files) -> RegionFeeds:
        market: PriceFeed | None = None
        day_ahead: PriceFeed | None = None
        if source.csv is not None:
            market = self._file(source.csv, source.price_column, source, files)
        if source.day_ahead_csv is not None:
            column = source.day_ahead_price_column or source.price_column
            day_ahead = self._file(source.day_ahead_csv, column, source, files)
        if source.http is not None:
            market = self._live(region, source.http, source)
        if source.iso is not None and source.iso.market == "day_ahead_hourly":
            day_ahead = self._live(region, source.iso, source)
        elif source.iso is not None:
            market = self._live(region, source.iso, source)
        stand_in = self._fixed(source.usd_per_mwh) if source.usd_per_mwh is not None else None
        published = None
        if day_ahead is not None:
            clock = zone(source.time_zone) if source.time_zone is not None else None
            known_s = source.day_ahead_known_h * 3600.0
            published = Published(day_ahead, known_s, source.day_ahead_publish_hour, clock)
        return RegionFeeds(market if market is not None else stand_in, stand_in, published)

    def _fixed(self, usd_per_mwh: float) -> FixedFeed:
        low, high = self._settings.min_price_usd_per_mwh, self._settings.max_price_usd_per_mwh
        try:
            return FixedFeed(check_fixed(usd_per_mwh, "settings", low, high))
        except BadPrice as error:
            raise SettingsError(str(error)) from error

    def _live(self, region: str, live: HttpFeedSettings | IsoFeedSettings, source: RegionPrice) -> LiveFeed:
        low, high = self._settings.min_price_usd_per_mwh, self._settings.max_price_usd_per_mwh
        feed = LiveFeed(live.title, source.offset_usd_per_mwh, low, high)
        return self.live.setdefault((region, live.title), feed)

    def _file(self, path: Path, column: str | None, source: RegionPrice, files: Files) -> FileFeed:
        key = (path, column, source.time_column, source.time_zone, source.price_unit, source.offset_usd_per_mwh)
        if key not in files:
            series = read_prices(
                path,
                time_column=source.time_column,
                price_column=column,
                time_zone=source.time_zone,
                price_unit=source.price_unit,
                low=self._settings.min_price_usd_per_mwh,
                high=self._settings.max_price_usd_per_mwh,
            )
            files[key] = FileFeed(series, source.offset_usd_per_mwh)
        return files[key]


def rows_refused(feeds: RegionFeeds) -> int:
    """Rows of a region's files that were no price."""
    return sum(file.refused for file in _files(feeds))


def repairs_of(feeds: RegionFeeds) -> tuple[str, ...]:
    """What was repaired in a region's files, one line each."""
    return tuple(line for file in _files(feeds) for line in file.repaired)


def _files(feeds: RegionFeeds) -> list[FileFeed]:
    published = feeds.published.feed if feeds.published is not None else None
    return [feed for feed in (feeds.market, published) if isinstance(feed, FileFeed)]
