"""What is not a price: not finite, beyond what any market clears at, or in another unit. Pure."""

from __future__ import annotations

import math
import re
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gridpivot.errors import BadPrice

Floats = NDArray[np.float64]

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


class PriceUnit(StrEnum):
    """Units that price files come in; dollars stand for the file's own currency."""

    USD_PER_MWH = "usd_per_mwh"
    USD_PER_KWH = "usd_per_kwh"
    CENTS_PER_KWH = "cents_per_kwh"
    CENTS_PER_MWH = "cents_per_mwh"


PER_MWH = {
    PriceUnit.USD_PER_MWH: 1.0,
    PriceUnit.USD_PER_KWH: 1000.0,
    PriceUnit.CENTS_PER_KWH: 10.0,
    PriceUnit.CENTS_PER_MWH: 0.01,
}
DAY_OF_PRICES = 96
WEEK_S = 7 * 86_400.0


def check_unit(prices: Floats, span_s: float, column: str, unit: PriceUnit | None) -> float:
    """Factor that makes USD/MWh of a whole series; raises BadPrice for one that is probably in another unit.

    A unit that is given is believed. Otherwise the column's name speaks first, then the figures of at least a day.
    Cents show only over a week or more: a power market whose middle price is 1 to 10 USD/MWh with hardly one above
    15 exists (northern Norway), so the remedy is to say the unit, whichever it is.
    """
    if unit is not None:
        return PER_MWH[unit]
    likely = _named_unit(column) or _likely_unit(prices, span_s)
    if likely is not None:
        raise BadPrice(
            f"prices in {column!r} look like {_SHOWN[likely]}; convert them to USD per MWh, or give "
            f'price_unit = "{likely}" ("usd_per_mwh" if they really are)'
        )
    return 1.0


_SHOWN = {
    PriceUnit.USD_PER_KWH: "USD/kWh",
    PriceUnit.CENTS_PER_KWH: "cents per kWh",
    PriceUnit.CENTS_PER_MWH: "cents per MWh",
}


def _named_unit(column: str) -> PriceUnit | None:
    name = column.lower()
    cents = re.search(r"cent|(^|[^a-z])(ct|c)(?=$|[^a-z])|¢", name) is not None
    if "kwh" in name:
        return PriceUnit.CENTS_PER_KWH if cents else PriceUnit.USD_PER_KWH
    return PriceUnit.CENTS_PER_MWH if cents and "mwh" in name else None


def _likely_unit(prices: Floats, span_s: float) -> PriceUnit | None:
    if len(prices) < DAY_OF_PRICES:
        return None
    size = np.abs(prices)
    tenth, middle, most = np.quantile(size, (0.1, 0.5, 0.95))
    if size.max() < 10.0 and middle < 1.0:
        return PriceUnit.USD_PER_KWH
    if span_s < WEEK_S - 3600.0:
        return None
    if 1.0 <= middle < 10.0 and most < 15.0:
        return PriceUnit.CENTS_PER_KWH
    return PriceUnit.CENTS_PER_MWH if tenth > 300.0 and middle > 1000.0 else None


def check_hashprice(usd_per_ph_day: float, where: str) -> float:
    """The hashprice itself [USD/PH/day]; raises BadPrice for one that cannot be."""
    low, high = HASHPRICE_USD_PER_PH_DAY
    if not math.isfinite(usd_per_ph_day) or not low <= usd_per_ph_day <= high:
        raise BadPrice(
            f"{where}: hashprice {usd_per_ph_day!r} USD/PH/day is outside {low:g} to {high:g}; "
            "check its unit (USD per PH/s and day, not per TH/s); the last good one stays"
        )
    return usd_per_ph_day
