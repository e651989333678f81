"""Settings of the markets: where prices, hashprice and AI incomes come from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from controller.markets.bounds import PriceUnit
from controller.markets.tariff_settings import TariffSettings, ZoneName
from gridpivot.settings import Section
from gridpivot.vocabulary import AiPriority

UsdPerGpuHour = Annotated[float, Field(ge=0, le=1_000)]


class HttpFeedSettings(Section):
    """Rows of JSON behind a URL, and where in them time and figure stand.

    `rows` is the way to the list of rows, names and positions joined by dots (none: the answer is the list, or the
    one row); `time_field` and `value_field` are ways inside a row. A secret header's value comes from a file of mode
    0600 or from an environment variable, never from the settings.
    """

    url: str = Field(pattern=r"^https?://[^\s]+$")
    rows: str | None = None
    time_field: str = "time"
    value_field: str = "price"
    time_zone: ZoneName | None = None  # of times without offset
    price_unit: PriceUnit = PriceUnit.USD_PER_MWH
    header_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]+$")
    header_file: Path | None = None
    header_env: str | None = None
    poll_s: float = Field(default=60.0, ge=1, le=86_400)
    deadline_s: float = Field(default=10.0, gt=0, le=120)
    max_bytes: int = Field(default=4 * 2**20, ge=1_000, le=2**28)

    @property
    def title(self) -> str:
        """What it is called in logs and as a price's source: the URL without what may be secret in it."""
        return re.sub(r"//[^/@]*@", "//", self.url.split("?")[0])

    @model_validator(mode="after")
    def _header(self) -> Self:
        sources = (self.header_file is not None) + (self.header_env is not None)
        if sources != (self.header_name is not None):
            raise ValueError("give header_name with exactly one of header_file and header_env, or none of the three")
        return self


class IsoFeedSettings(Section):
    """Prices of a North American system operator, read by the package gridstatus (extra `iso`)."""

    iso: Literal["ercot", "caiso", "isone", "miso", "nyiso", "spp"]
    location: str = Field(min_length=1)  # hub, zone or node, as the operator spells it
    market: Literal["real_time_5_min", "real_time_15_min", "day_ahead_hourly"] = "real_time_15_min"
    poll_s: float = Field(default=300.0, ge=60, le=86_400)
    deadline_s: float = Field(default=60.0, gt=0, le=600)

    @property
    def title(self) -> str:
        """What it is called in logs and as a price's source."""
        return f"{self.iso} {self.location}"


class RegionPrice(Section):
    """One region's power price: a fixed one, a file, a URL, or a system operator's.

    With a fixed price beside another source, it stands in before the first interval and when all else is too old.
    Files are CSV (plain or .gz) or Parquet; columns are guessed unless named. `day_ahead_csv` serves as the forecast,
    as far ahead as it is surely published: with `day_ahead_publish_hour` (clock of `time_zone`) tomorrow from that
    hour on, else `day_ahead_known_h`: ERCOT's, out at 13:30 for the day after, always reaches 10 h.
    """

    usd_per_mwh: float | None = None
    csv: Path | None = None
    day_ahead_csv: Path | None = None
    time_zone: ZoneName | None = None  # of the files' times, where they carry no offset
    time_column: str | None = None
    price_column: str | None = None
    day_ahead_price_column: str | None = None
    price_unit: PriceUnit | None = None  # none = USD per MWh, refused when it looks like another
    http: HttpFeedSettings | None = None
    iso: IsoFeedSettings | None = None
    day_ahead_known_h: float = Field(default=10.0, ge=0, le=48)
    day_ahead_publish_hour: float | None = Field(default=None, ge=0, lt=24)
    offset_usd_per_mwh: float = 0.0  # added to every price of the file: transport, a site's own contract
    tariff: str | None = None  # name of a tariff, over the market's bare price

    @model_validator(mode="after")
    def _one_market(self) -> Self:
        real_time_iso = self.iso is not None and self.iso.market != "day_ahead_hourly"
        if (self.csv is not None) + (self.http is not None) + real_time_iso > 1:
            raise ValueError("give one of csv, http and iso as the market's price")
        if self.day_ahead_publish_hour is not None and self.time_zone is None:
            raise ValueError("day_ahead_publish_hour needs time_zone: the clock that it is read on")
        return self


class MarketSettings(Section):
    """Prices by region, with one for every region not named; hashprice from a number or a daily file; AI income."""

    default: RegionPrice = RegionPrice(usd_per_mwh=45.0)
    regions: dict[str, RegionPrice] = Field(default_factory=dict)
    tariffs: dict[str, TariffSettings] = Field(default_factory=dict)
    fresh_s: float = Field(default=1_800.0, ge=0)  # past its interval's end a real-time price counts as fresh
    last_good_s: float = Field(default=7_200.0, ge=0)  # past its interval's end it is used at all
    hashprice_usd_per_ph_day: float = Field(default=50.0, gt=0, le=5_000)
    hashprice_csv: Path | None = None
    hashprice_http: HttpFeedSettings | None = None
    fees_btc_per_block: float = Field(default=0.0, ge=0, le=50)  # where the hashprice follows from the difficulty
    pool_fee_ratio: float = Field(default=0.01, ge=0, lt=1)
    ai_usd_per_gpu_hour: dict[AiPriority, UsdPerGpuHour] = Field(
        default_factory=dict
    )  # over the defaults of ai_value.py
    ai_pool_usd_per_gpu_hour: dict[str, UsdPerGpuHour] = Field(
        default_factory=dict
    )  # by pool name, over the priority's
    min_price_usd_per_mwh: float = -2_000.0
    max_price_usd_per_mwh: float = 20_000.0

    @model_validator(mode="after")
    def _tariffs_exist(self) -> Self:
        for name, region in (("default", self.default), *self.regions.items()):
            if region.tariff is not None and region.tariff not in self.tariffs:
                known = ", ".join(sorted(self.tariffs)) or "none"
                raise ValueError(f"region {name!r} names tariff {region.tariff!r}; tariffs are: {known}")
        if self.last_good_s < self.fresh_s:
            raise ValueError("last_good_s is under fresh_s; raise it")
        return self
