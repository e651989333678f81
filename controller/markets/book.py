"""What is known of prices at this moment: per region the price with its age and source, and a forecast for dispatch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from controller.dispatch.inputs import PriceStep
from controller.markets.ai_value import usd_per_gpu_hour
from controller.markets.bounds import check_hashprice, check_price
from controller.markets.feed import Quote
from controller.markets.forecast import HORIZON_S, forecast
from controller.markets.hashprice import DailyHashprice
from controller.markets.region import Standing, stand, usual
from controller.markets.settings import MarketSettings, RegionPrice
from controller.markets.sources import Sources, repairs_of, rows_refused
from controller.markets.tariff import Tariff
from gridpivot.clock import Instant
from gridpivot.errors import BadPrice, SettingsError
from gridpivot.vocabulary import AiPriority, PriceRung


@dataclass(frozen=True, slots=True)
class _Set:
    """A figure that somebody put in force, and when [monotonic s]."""

    figure: float
    at_s: float


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
        self._sources = Sources(settings)
        self._stamps = {region: self._sources.stamp(region) for region in regions}
        self._regions = self._sources.read(regions)
        self._tariffs = {name: Tariff(name, tariff) for name, tariff in settings.tariffs.items()}
        self._refused = dict.fromkeys(self._regions, 0)
        self.reload_error: str | None = None
        for name, region in self._regions.items():
            self._refused[name] += rows_refused(region)
        path = settings.hashprice_csv
        self._daily = DailyHashprice(path, settings.fees_btc_per_block) if path is not None else None
        self._heard_hashprice: tuple[float, float] | None = None  # Unix s of data time, USD/PH/day
        self._set: dict[str, _Set] = {}
        self._set_hashprice: _Set | None = None
        self._steps: dict[tuple[str, str], tuple[PriceStep, ...]] = {}
        self._steps_at: Instant | None = None

    def reload(self) -> tuple[str, ...]:
        """Read again the price files that have changed; returns the regions concerned. Blocks: call it in a thread.

        A file that cannot be used changes nothing: the last good prices stay and age, `reload_error` says why.
        """
        stamps = {region: self._sources.stamp(region) for region in self._regions}
        changed = tuple(r for r, stamp in stamps.items() if stamp != self._stamps[r])
        self.reload_error = None
        for region in changed:
            try:
                fresh = self._sources.read((region,))[region]
            except SettingsError as error:
                self._refused[region] += 1
                self.reload_error = str(error)
            else:
                self._refused[region] += rows_refused(fresh)
                self._regions[region] = fresh
                self._steps_at = None
        self._stamps = stamps
        return changed

    def data_unix_s(self, now: Instant) -> float:
        """Data time [Unix s] at this moment, on the monotonic clock."""
        return self._start_unix_s + (now.monotonic_s - self._started.monotonic_s) * self._speed

    def standing(self, region: str, now: Instant) -> Standing:
        """The region's price in force with its rung, source and age [data s]; raises KeyError for an unknown region."""
        data_s = self.data_unix_s(now)
        put = self._set.get(region)
        if put is not None:
            age_s = max(0.0, now.monotonic_s - put.at_s) * self._speed
            return Standing(put.figure, PriceRung.FRESH, "set", Quote(put.figure, data_s), age_s)
        return stand(self._regions[region], data_s, self._settings.fresh_s, self._settings.last_good_s)

    def price_rung(self, region: str, now: Instant) -> PriceRung:
        """Which price is in use: fresh, last good, day-ahead, seasonal or assumed."""
        return self.standing(region, now).rung

    def usd_per_mwh(self, region: str, now: Instant) -> tuple[float | None, float | None]:
        """Price in force [USD/MWh], and the age [real s] of the newest one heard: since its interval began, or was set.

        (None, None) while no price is known. Raises KeyError for an unknown region.
        """
        standing = self.standing(region, now)
        age_s = standing.age_s / self._speed if standing.age_s is not None else None
        return standing.usd_per_mwh, age_s

    def source(self, region: str, now: Instant) -> str:
        """Where the price in force comes from, for a person: 'fixed', a file's name, 'set', or 'none'."""
        return self.standing(region, now).source

    def set_price(self, region: str, usd_per_mwh: float, now: Instant) -> None:
        """Put a price in force until `release_price`; raises BadPrice (the last good one stays) outside bounds.

        Raises KeyError for an unknown region.
        """
        last_good = self.standing(region, now).usd_per_mwh
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

    def steps(self, region: str, now: Instant, tariff: str | None = None) -> tuple[PriceStep, ...]:
        """Price now and forecast [USD/MWh, real s from now] over 48 h of data time; empty while no price is known.

        The region's tariff, or the one named, turns the market's price into what a MWh costs at the meter. One
        region's steps under one tariff at one moment are one object, which dispatch averages once for all its sites.
        Raises KeyError for an unknown region or tariff.
        """
        if self._steps_at != now:
            self._steps, self._steps_at = {}, now
        terms = self.tariff(region, tariff)
        key = (region, terms.name if terms is not None else "")
        if key not in self._steps:
            market = self._market_steps(region, now)
            data_s = self.data_unix_s(now)
            self._steps[key] = market if terms is None else terms.steps(market, data_s, HORIZON_S, self._speed)
        return self._steps[key]

    def risk_steps(self, region: str, now: Instant, tariff: str | None = None) -> tuple[PriceStep, ...]:
        """Coincident-peak risk as a price on top [USD/MWh, real s from now]; empty where the tariff has none."""
        terms = self.tariff(region, tariff)
        if terms is None or not terms.settings.risk:
            return ()
        self.steps(region, now, tariff)  # sets the moment that the cache belongs to
        key = (region, f"{terms.name} risk")
        if key not in self._steps:
            self._steps[key] = terms.risk_steps(self.data_unix_s(now), HORIZON_S, self._speed)
        return self._steps[key]

    def tariff(self, region: str, name: str | None = None) -> Tariff | None:
        """The tariff of this name, else the region's own, else None; raises KeyError for an unknown name."""
        chosen = name if name is not None else self.region_settings(region).tariff
        return self._tariffs[chosen] if chosen is not None else None

    def region_settings(self, region: str) -> RegionPrice:
        """Settings of a region: its own, or the default's."""
        return self._sources.of(region)

    def _market_steps(self, region: str, now: Instant) -> tuple[PriceStep, ...]:
        key = (region, "")
        if key not in self._steps:
            known, data_s, standing = self._regions[region], self.data_unix_s(now), self.standing(region, now)
            use = standing.in_use
            self._steps[key] = forecast(
                use.usd_per_mwh if use is not None else None,
                data_s,
                usual(known, data_s),
                known.published,
                self._speed,
                since_unix_s=use.since_unix_s if use is not None else None,
                width_s=use.width_s if use is not None else 900.0,
            )
        return self._steps[key]

    def hashprice(self, now: Instant) -> tuple[float, float]:
        """Hashprice in force [USD/PH/day] and its age [real s]; the settings' figure is always fresh."""
        if self._set_hashprice is not None:
            return self._set_hashprice.figure, max(0.0, now.monotonic_s - self._set_hashprice.at_s)
        data_s = self.data_unix_s(now)
        daily = self._daily.at(data_s) if self._daily is not None else None
        heard = self._heard_hashprice
        if heard is not None and (daily is None or heard[0] >= daily[1]):
            return heard[1], max(0.0, data_s - heard[0]) / self._speed
        if daily is None:
            return self._settings.hashprice_usd_per_ph_day, 0.0
        return daily[0], (data_s - daily[1]) / self._speed

    def set_hashprice(self, usd_per_ph_day: float, now: Instant) -> None:
        """Put a hashprice in force; raises BadPrice (the last good one stays) outside bounds."""
        self._set_hashprice = _Set(check_hashprice(usd_per_ph_day, "hashprice"), now.monotonic_s)

    def take_prices(
        self, region: str, title: str, rows: Sequence[tuple[float, float]], now: Instant
    ) -> tuple[str, ...]:
        """Put in what a live source brought: (interval start [Unix s], USD/MWh); returns why rows were refused."""
        feed = self._sources.live[region, title]
        before = feed.refused
        told = feed.take(rows, self.data_unix_s(now))
        self._refused[region] += feed.refused - before
        self._steps_at = None
        return told

    def take_hashprice(self, rows: Sequence[tuple[float, float]], now: Instant) -> tuple[str, ...]:
        """Put in what the hashprice's source brought: (Unix s, USD/PH/day); the newest counts, nonsense is refused."""
        told = []
        for at_s, figure in sorted(rows):
            if at_s > self.data_unix_s(now):
                continue
            try:
                self._heard_hashprice = (at_s, check_hashprice(figure, "hashprice feed"))
            except BadPrice as error:
                told.append(str(error))
        return tuple(told)

    @property
    def settings(self) -> MarketSettings:
        """What it was made from."""
        return self._settings

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of all regions."""
        return tuple(self._regions)

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

    def repairs(self) -> tuple[str, ...]:
        """What was put right or left out in the price files now in use, one line each with file and line."""
        told: dict[str, None] = {}
        for feeds in self._regions.values():
            told |= dict.fromkeys(repairs_of(feeds))
        return tuple(told)
