"""What is known of prices at this moment: per region the price with its age and source, and a forecast for dispatch."""

from __future__ import annotations

from collections.abc import Collection

from controller.dispatch.inputs import PriceStep
from controller.markets.settings import MarketSettings
from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority


class MarketBook:
    """Prices, hashprice and AI incomes by region, from feeds and from what people set.

    `started` is the moment at which data time stood at `start_unix_s` (None: data time is UTC now); from there data
    time runs `speed` times as fast as real time.
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

    def usd_per_mwh(self, region: str, now: Instant) -> tuple[float | None, float | None]:
        """Price in force [USD/MWh] and the age [real s] of what it rests on; (None, None) before the first."""
        raise NotImplementedError

    def source(self, region: str, now: Instant) -> str:
        """Where the price in force comes from, for a person: 'fixed', a file's name, 'set', or 'none'."""
        raise NotImplementedError

    def set_price(self, region: str, usd_per_mwh: float, now: Instant) -> None:
        """Put a price in force until `release_price`; raises BadPrice (and keeps the last good one) outside bounds."""

    def release_price(self, region: str) -> None:
        """Back to the feed."""

    def steps(self, region: str, now: Instant) -> tuple[PriceStep, ...]:
        """Price now and forecast [USD/MWh, real s from now] over 48 h of data time; empty while no price is known."""
        raise NotImplementedError

    def hashprice(self, now: Instant) -> tuple[float, float]:
        """Hashprice in force [USD/PH/day] and its age [real s]."""
        raise NotImplementedError

    def set_hashprice(self, usd_per_ph_day: float, now: Instant) -> None:
        """Put a hashprice in force; raises BadPrice outside bounds."""

    def ai_usd_per_gpu_hour(self, pool: str, priority: AiPriority) -> float:
        """Income of one GPU at full throughput [USD/GPU-h]."""
        raise NotImplementedError

    @property
    def pool_fee_ratio(self) -> float:
        """Share of mining income that the mining pool keeps."""
        raise NotImplementedError

    def refusals(self) -> dict[str, int]:
        """Prices refused so far, by region."""
        raise NotImplementedError
