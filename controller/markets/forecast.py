"""What a price will probably be, from what is known now. Pure.

The forecast is the newest real-time price fading into what is usual: the day-ahead price as far as it is published,
else the hour-of-day mean of what has been seen. How fast it fades is fitted on past data (`blend`; figures in
docs/markets.md). A caller that knows only the previous interval's price gives the start of that interval: the present
one is then forecast like any other. Freshness does more than forecasting here: on ERCOT 2024 a rolling plan lost
0.06-0.15 % to perfect foresight once the current interval's price was known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from controller.dispatch.inputs import PriceStep
from controller.markets.blend import BY_HOUR, WITH_DAY_AHEAD, Blend
from controller.markets.feed import PriceFeed

Floats = NDArray[np.float64]
HORIZON_S = 48 * 3600.0
NEAR_S, NEAR_STEP_S, FAR_STEP_S = 4 * 3600.0, 900.0, 3600.0


@dataclass(frozen=True, slots=True)
class Published:
    """A day-ahead series and how far ahead of now it may be read.

    With `publish_hour`, on the clock of `zone`, tomorrow is known from that hour on and today always; without it
    `known_s` ahead of now. A whole year's file thus gives nothing away before its time.
    """

    feed: PriceFeed
    known_s: float
    publish_hour: float | None = None
    zone: ZoneInfo | None = None

    def until(self, unix_s: float) -> float:
        """End of what is published at a moment [Unix s]."""
        if self.publish_hour is None or self.zone is None:
            return unix_s + self.known_s
        local = datetime.fromtimestamp(unix_s, self.zone)
        out = local.hour + local.minute / 60.0 >= self.publish_hour
        day = (local + timedelta(days=2 if out else 1)).date()
        return datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp()

    def usd_per_mwh(self, at_unix_s: float, now_unix_s: float) -> float | None:
        """Day-ahead price of a moment [USD/MWh] as known now; None where it is not published or not in the file."""
        return self.cleared(at_unix_s) if at_unix_s < self.until(now_unix_s) else None

    def cleared(self, at_unix_s: float) -> float | None:
        """Price of a moment [USD/MWh] as the market cleared, whether that is published yet or not; None = no such hour."""
        quote = self.feed.quote(at_unix_s)
        return quote.usd_per_mwh if quote is not None and at_unix_s - quote.since_unix_s < 3600.0 else None


def forecast(
    present_usd_per_mwh: float | None,
    unix_s: float,
    usual: Floats | None,
    published: Published | None,
    speed: float,
    *,
    since_unix_s: float | None = None,
    width_s: float = NEAR_STEP_S,
    blend: Blend | None = None,
) -> tuple[PriceStep, ...]:
    """Steps [USD/MWh, real s from now]: now, then quarter hours for 4 h and hours to 48 h of data time.

    `unix_s` is data time. `present_usd_per_mwh` belongs to the interval of `width_s` that began at `since_unix_s`
    (None: it holds now); None = no real-time price is worth using. `usual` (24,) by UTC hour or (168,) by hour of
    the week from Thursday 00:00 UTC on; None = nothing seen. Nothing is read from real-time prices past `unix_s`;
    () when nothing at all is known. `blend` None takes the fitted one for whatever is usual then.
    """
    known_s = unix_s if since_unix_s is None else min(unix_s, since_unix_s + width_s)

    until_s = published.until(unix_s) if published is not None else unix_s

    def price(at_s: float, ahead_s: float) -> float | None:
        base, fitted = published.cleared(at_s) if published is not None and at_s < until_s else None, WITH_DAY_AHEAD
        if base is None and usual is not None:
            base, fitted = float(usual[int(at_s // 3600) % len(usual)]), BY_HOUR
        if present_usd_per_mwh is None or base is None:
            return present_usd_per_mwh if base is None else base
        return (blend or fitted).price(present_usd_per_mwh, base, max(0.0, ahead_s))

    first = price(unix_s, unix_s - known_s) if present_usd_per_mwh is None or known_s < unix_s else present_usd_per_mwh
    if first is None:
        return ()
    steps = [PriceStep(0.0, first)]
    start = (unix_s // NEAR_STEP_S + 1) * NEAR_STEP_S
    while start < unix_s + HORIZON_S:
        width = NEAR_STEP_S if start < unix_s + NEAR_S or start % FAR_STEP_S else FAR_STEP_S
        known = price(start, start + width / 2 - known_s)
        if known is not None:
            steps.append(PriceStep((start - unix_s) / speed, known))
        start += width
    return tuple(steps)
