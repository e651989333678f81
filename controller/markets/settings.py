"""Settings of the markets: where prices, hashprice and AI incomes come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from gridpivot.settings import Section
from gridpivot.vocabulary import AiPriority

UsdPerGpuHour = Annotated[float, Field(ge=0, le=1_000)]


class RegionPrice(Section):
    """One region's power price: a fixed one, or a CSV file (`interval_start_utc,price_usd_per_mwh`, also .gz).

    With both, the fixed price holds before the file's first interval. `day_ahead_csv` has the same shape and serves
    as the forecast, but only as far ahead as it is surely published: ERCOT's, out at 13:30 for the day after, always
    reaches 10 h.
    """

    usd_per_mwh: float | None = None
    csv: Path | None = None
    day_ahead_csv: Path | None = None
    time_zone: str | None = None  # of the files' times, where they carry no offset
    day_ahead_known_h: float = Field(default=10.0, ge=0, le=48)
    offset_usd_per_mwh: float = 0.0  # added to every price of the file: transport, a site's own contract


class MarketSettings(Section):
    """Prices by region, with one for every region not named; hashprice from a number or a daily file; AI income."""

    default: RegionPrice = RegionPrice(usd_per_mwh=45.0)
    regions: dict[str, RegionPrice] = Field(default_factory=dict)
    hashprice_usd_per_ph_day: float = Field(default=50.0, gt=0, le=5_000)
    hashprice_csv: Path | None = None
    pool_fee_ratio: float = Field(default=0.01, ge=0, lt=1)
    ai_usd_per_gpu_hour: dict[AiPriority, UsdPerGpuHour] = Field(
        default_factory=dict
    )  # over the defaults of ai_value.py
    ai_pool_usd_per_gpu_hour: dict[str, UsdPerGpuHour] = Field(
        default_factory=dict
    )  # by pool name, over the priority's
    min_price_usd_per_mwh: float = -2_000.0
    max_price_usd_per_mwh: float = 20_000.0
