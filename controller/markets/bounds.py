"""What is not a price: not finite, beyond what any market clears at, or in another unit. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gridpivot.errors import BadPrice

# Real prices run from about -250 to 9,000 USD/MWh (ERCOT, 2021); twice that leaves room for other markets.
LOW_USD_PER_MWH, HIGH_USD_PER_MWH = -2_000.0, 20_000.0
HASHPRICE_USD_PER_PH_DAY = (1.0, 5_000.0)  # 2020-04..2025-04 saw 35 to 400
SLIP = 1_000.0  # USD/kWh against USD/MWh


def check_price(
    usd_per_mwh: float,
    where: str,
    last_good: float | None = None,
    low: float = LOW_USD_PER_MWH,
    high: float = HIGH_USD_PER_MWH,
) -> float:
    """The price itself [USD/MWh]; raises BadPrice, naming `where` and the likely cause, for one that cannot be.

    A price that is the last good one divided by a thousand, within a fifth, is taken for USD/kWh. A market that
    really falls that far will say another figure next time.
    """
    if not math.isfinite(usd_per_mwh):
        raise BadPrice(f"{where}: price is {usd_per_mwh!r}, not a number; the last good price stays")
    if not low <= usd_per_mwh <= high:
        raise BadPrice(
            f"{where}: price {usd_per_mwh:g} USD/MWh is outside {low:g} to {high:g}; "
            "check its unit (USD per MWh); the last good price stays"
        )
    if last_good is not None and abs(last_good) >= 10.0 and abs(usd_per_mwh * SLIP / last_good - 1.0) < 0.2:
        raise BadPrice(
            f"{where}: price {usd_per_mwh:g} after {last_good:g} USD/MWh looks like USD/kWh; give USD per MWh; "
            "the last good price stays"
        )
    return usd_per_mwh


def check_fixed(usd_per_mwh: float, where: str, low: float, high: float) -> float:
    """A price from the settings [USD/MWh]; raises BadPrice outside bounds, or under 1 (0 apart): that is USD/kWh."""
    if 0.0 < abs(usd_per_mwh) < 1.0:
        raise BadPrice(f"{where}: fixed price {usd_per_mwh:g} looks like USD/kWh; give USD per MWh")
    return check_price(usd_per_mwh, where, None, low, high)


def check_series(prices: Sequence[float], where: str) -> None:
    """Raise BadPrice for a series of at least a day's quarter hours that never leaves 1 USD/MWh: it is in USD/kWh."""
    if len(prices) >= 96 and max(map(abs, prices)) < 10.0 and sorted(map(abs, prices))[len(prices) // 2] < 1.0:
        raise BadPrice(f"{where}: half of all prices are under 1 and none reaches 10; they look like USD/kWh")


def check_hashprice(usd_per_ph_day: float, where: str) -> float:
    """The hashprice itself [USD/PH/day]; raises BadPrice for one that cannot be."""
    low, high = HASHPRICE_USD_PER_PH_DAY
    if not math.isfinite(usd_per_ph_day) or not low <= usd_per_ph_day <= high:
        raise BadPrice(
            f"{where}: hashprice {usd_per_ph_day!r} USD/PH/day is outside {low:g} to {high:g}; "
            "check its unit (USD per PH/s and day, not per TH/s); the last good one stays"
        )
    return usd_per_ph_day
