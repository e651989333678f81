"""What is known of prices at this moment: per region the price with its age and source, and a forecast for dispatch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from controller.dispatch.inputs import PriceStep
from controller.markets.ai_value import usd_per_gpu_hour
from controller.markets.bounds import check_fixed, check_hashprice, check_price
from controller.markets.feed import FileFeed, FixedFeed, PriceFeed
from controller.markets.forecast import Published, forecast
from controller.markets.hashprice import DailyHashprice
from controller.markets.series import read_prices
from controller.markets.settings import MarketSettings, RegionPrice
from gridpivot.clock import Instant
from gridpivot.errors import BadPrice, SettingsError
from gridpivot.vocabulary import AiPriority


@dataclass(frozen=True, slots=True)
class _Set:
    """A figure that somebody put in force, and when [monotonic s]."""

    figure: float
    at_s: float


@dataclass(frozen=True, slots=True)
class _Region:
    """One region's feeds: the first that knows a price gives it."""

    feeds: tuple[PriceFeed, ...]
    published: Published | None


class MarketBook:
    """Prices, hashprice and AI incomes by region, from feeds and from what people set.

    `started` is the moment at which data time stood at `start_unix_s` (None: data time is UTC now); from there data
    time runs `speed` times as fast as real time. A region that was not named has the default's prices.
    """

    def __init__(
        self,
        settings: MarketSettings,
        regions: Collection[str],
        started: Instant,
        *,
        start_unix_s: float | None = None,
        speed: float = 1.0,
    ) -> None:
        """Reads the files named in the settings; raises SettingsError for one that cannot be used."""
        if not speed > 0:
            raise SettingsError(f"speed is {speed!r}; give a number above 0")
        self._settings = settings
        self._started = started
        self._start_unix_s = started.unix_s if start_unix_s is None else start_unix_s
        self._speed = speed
        files: dict[tuple[object, ...], FileFeed] = {}
        self._stamps = self._stamp(regions)
        self._regions = {r: self._region(settings.regions.get(r, settings.default), files) for r in regions}
        self._refused = dict.fromkeys(self._regions, 0)
        self.reload_error: str | None = None
        for name, region in self._regions.items():
            self._refused[name] += sum(f.refused for f in region.feeds if isinstance(f, FileFeed))
        path = settings.hashprice_csv
        self._daily = DailyHashprice(path) if path is not None else None
        self._set: dict[str, _Set] = {}
        self._set_hashprice: _Set | None = None
        self._steps: dict[str, tuple[PriceStep, ...]] = {}
        self._steps_at: Instant | None = None

    def _region(self, source: RegionPrice, files: dict[tuple[object, ...], FileFeed]) -> _Region:
        """Feeds of one region; a file that several regions name is read once."""
        low, high = self._settings.min_price_usd_per_mwh, self._settings.max_price_usd_per_mwh
        feeds: list[PriceFeed] = []
        published = None
        if source.csv is not None:
            key = (source.csv, source.offset_usd_per_mwh)
            if key not in files:
                files[key] = self._file(source.csv, source)
            feeds.append(files[key])
        if source.day_ahead_csv is not None:
            key = (source.day_ahead_csv, source.offset_usd_per_mwh)
            if key not in files:
                files[key] = self._file(source.day_ahead_csv, source)
            published = Published(files[key], source.day_ahead_known_h * 3600.0)
        if source.usd_per_mwh is not None:
            try:
                feeds.append(FixedFeed(check_fixed(source.usd_per_mwh, "settings", low, high)))
            except BadPrice as error:
                raise SettingsError(str(error)) from error
        return _Region(tuple(feeds), published)

    def _file(self, path: Path, source: RegionPrice) -> FileFeed:
        low, high = self._settings.min_price_usd_per_mwh, self._settings.max_price_usd_per_mwh
        series = read_prices(path, time_zone=source.time_zone, low=low, high=high)
        return FileFeed(series, source.offset_usd_per_mwh)

    def _stamp(self, regions: Collection[str]) -> dict[str, tuple[float, ...]]:
        """Modification times of each region's files; 0 for one that is gone."""
        stamps = {}
        for region in regions:
            source = self._settings.regions.get(region, self._settings.default)
            paths = [p for p in (source.csv, source.day_ahead_csv) if p is not None]
            stamps[region] = tuple(p.stat().st_mtime if p.exists() else 0.0 for p in paths)
        return stamps

    def reload(self) -> tuple[str, ...]:
        """Read again the price files that have changed; returns the regions concerned. Blocks: call it in a thread.

        A file that cannot be used changes nothing: the last good prices stay and age, `reload_error` says why.
        """
        stamps = self._stamp(self._regions)
        changed = tuple(r for r, stamp in stamps.items() if stamp != self._stamps[r])
        files: dict[tuple[object, ...], FileFeed] = {}
        self.reload_error = None
        for region in changed:
            try:
                fresh = self._region(self._settings.regions.get(region, self._settings.default), files)
            except SettingsError as error:
                self._refused[region] += 1
                self.reload_error = str(error)
            else:
                self._refused[region] += sum(f.refused for f in fresh.feeds if isinstance(f, FileFeed))
                self._regions[region] = fresh
                self._steps_at = None
        self._stamps = stamps
        return changed

    def data_unix_s(self, now: Instant) -> float:
        """Data time [Unix s] at this moment, on the monotonic clock."""
        return self._start_unix_s + (now.monotonic_s - self._started.monotonic_s) * self._speed

    def _quote(self, region: str, now: Instant) -> tuple[float | None, float | None, str]:
        """Price, age [real s], source."""
        put = self._set.get(region)
        if put is not None:
            return put.figure, max(0.0, now.monotonic_s - put.at_s), "set"
        data_s = self.data_unix_s(now)
        for feed in self._regions[region].feeds:
            quote = feed.quote(data_s)
            if quote is not None:
                return quote.usd_per_mwh, (data_s - quote.since_unix_s) / self._speed, feed.name
        return None, None, "none"

    def usd_per_mwh(self, region: str, now: Instant) -> tuple[float | None, float | None]:
        """Price in force [USD/MWh] and its age [real s]: since its interval began, or since it was set.

        (None, None) while no price is known. Raises KeyError for an unknown region.
        """
        return self._quote(region, now)[:2]

    def source(self, region: str, now: Instant) -> str:
        """Where the price in force comes from, for a person: 'fixed', a file's name, 'set', or 'none'."""
        return self._quote(region, now)[2]

    def set_price(self, region: str, usd_per_mwh: float, now: Instant) -> None:
        """Put a price in force until `release_price`; raises BadPrice (the last good one stays) outside bounds.

        Raises KeyError for an unknown region.
        """
        last_good = self._quote(region, now)[0]
        low, high = self._settings.min_price_usd_per_mwh, self._settings.max_price_usd_per_mwh
        try:
            checked = check_price(usd_per_mwh, region, last_good, low, high)
        except BadPrice:
            self._refused[region] += 1
            raise
        self._set[region] = _Set(checked, now.monotonic_s)
        self._steps_at = None

    def release_price(self, region: str) -> None:
        """Back to the feed."""
        self._set.pop(region, None)
        self._steps_at = None

    def steps(self, region: str, now: Instant) -> tuple[PriceStep, ...]:
        """Price now and forecast [USD/MWh, real s from now] over 48 h of data time; empty while no price is known.

        One region's steps at one moment are one object, which dispatch averages once for all its sites.
        """
        if self._steps_at != now:
            self._steps, self._steps_at = {}, now
        if region not in self._steps:
            price = self._quote(region, now)[0]
            data_s = self.data_unix_s(now)
            known = self._regions[region]
            usual = next((u for u in (feed.usual(data_s) for feed in known.feeds) if u is not None), None)
            self._steps[region] = () if price is None else forecast(price, data_s, usual, known.published, self._speed)
        return self._steps[region]

    def hashprice(self, now: Instant) -> tuple[float, float]:
        """Hashprice in force [USD/PH/day] and its age [real s]; the settings' figure is always fresh."""
        if self._set_hashprice is not None:
            return self._set_hashprice.figure, max(0.0, now.monotonic_s - self._set_hashprice.at_s)
        data_s = self.data_unix_s(now)
        daily = self._daily.at(data_s) if self._daily is not None else None
        if daily is None:
            return self._settings.hashprice_usd_per_ph_day, 0.0
        return daily[0], (data_s - daily[1]) / self._speed

    def set_hashprice(self, usd_per_ph_day: float, now: Instant) -> None:
        """Put a hashprice in force; raises BadPrice (the last good one stays) outside bounds."""
        self._set_hashprice = _Set(check_hashprice(usd_per_ph_day, "hashprice"), now.monotonic_s)

    def ai_usd_per_gpu_hour(self, pool: str, priority: AiPriority) -> float:
        """Income of one GPU at full throughput [USD/GPU-h]."""
        by_pool, by_priority = self._settings.ai_pool_usd_per_gpu_hour, self._settings.ai_usd_per_gpu_hour
        return usd_per_gpu_hour(pool, priority, by_pool, by_priority)

    @property
    def pool_fee_ratio(self) -> float:
        """Share of mining income that the mining pool keeps."""
        return self._settings.pool_fee_ratio

    def refusals(self) -> dict[str, int]:
        """Prices refused so far, by region: set ones, and rows of its files."""
        return dict(self._refused)
