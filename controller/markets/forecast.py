"""What a price will probably be, from what is known now. Pure.

The forecast is the present price fading, with a time constant of one hour, into what is usual: the day-ahead price
where it is published, else the hour-of-day mean of what has been seen. Freshness does more than forecasting here: on
ERCOT 2024 a rolling plan lost 0.06-0.15 % to perfect foresight once the current interval's price was known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from controller.dispatch.inputs import PriceStep
from controller.markets.feed import Floats, PriceFeed

FADE_S = 3600.0
HORIZON_S = 48 * 3600.0
NEAR_S, NEAR_STEP_S, FAR_STEP_S = 4 * 3600.0, 900.0, 3600.0


@dataclass(frozen=True, slots=True)
class Published:
    """A day-ahead series and how far ahead of now it may be read [s]."""

    feed: PriceFeed
    known_s: float


def forecast(
    present_usd_per_mwh: float,
    unix_s: float,
    usual: Floats | None,
    published: Published | None,
    speed: float,
) -> tuple[PriceStep, ...]:
    """Steps [USD/MWh, real s from now]: now, then quarter hours for 4 h and hours to 48 h of data time.

    `unix_s` is data time; `usual` (24,) by UTC hour, None = nothing seen, so the present price persists. Nothing is
    read from a series of real-time prices past `unix_s`.
    """
    steps = [PriceStep(0.0, present_usd_per_mwh)]
    start = (unix_s // NEAR_STEP_S + 1) * NEAR_STEP_S
    while start < unix_s + HORIZON_S:
        width = NEAR_STEP_S if start < unix_s + NEAR_S or start % FAR_STEP_S else FAR_STEP_S
        ahead = start + width / 2 - unix_s
        anchor = present_usd_per_mwh if usual is None else float(usual[int(start // 3600) % 24])
        if published is not None and ahead <= published.known_s:
            quote = published.feed.quote(start)
            if quote is not None and start - quote.since_unix_s < 3600.0:
                anchor = quote.usd_per_mwh
        weight = math.exp(-ahead / FADE_S)
        price = weight * present_usd_per_mwh + (1.0 - weight) * anchor
        steps.append(PriceStep((start - unix_s) / speed, price))
        start += width
    return tuple(steps)
