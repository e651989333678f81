"""Price feeds: what a region's power cost, interval by interval, as far as the present allows to know.

All times are data time, seconds since the Unix epoch, UTC. A feed never answers from an interval that has not
started: `quote` and `usual` look back only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from controller.markets.bounds import HIGH_USD_PER_MWH, LOW_USD_PER_MWH, check_price
from controller.markets.series import PriceSeries, usual_width_s
from gridpivot.errors import BadPrice

Floats = NDArray[np.float64]
MEMORY_S = 14 * 86_400.0  # how far back the hour-of-day means reach
KEPT_S = 40 * 86_400.0  # how much of a live feed is kept
AHEAD_S = 4 * 86_400.0  # no market publishes further ahead


@dataclass(frozen=True, slots=True)
class Quote:
    """One price [USD/MWh], the start of its interval [Unix s] and how long it holds [s]."""

    usd_per_mwh: float
    since_unix_s: float
    width_s: float = 900.0


class PriceFeed(Protocol):
    """What a market feed can do; one more market is one more class with these three."""

    @property
    def name(self) -> str:
        """Where its prices come from, for a person."""
        ...

    def quote(self, unix_s: float) -> Quote | None:
        """The newest price known at `unix_s`; None before the first."""
        ...

    def usual(self, unix_s: float) -> Floats | None:
        """Mean price [USD/MWh] by hour of the day (UTC) of what had been seen by `unix_s` -> (24,), or None."""
        ...


@dataclass(frozen=True, slots=True)
class FixedFeed:
    """One price for ever, from the settings."""

    usd_per_mwh: float
    name: str = "fixed"

    def quote(self, unix_s: float) -> Quote | None:
        """Always the same, always fresh."""
        return Quote(self.usd_per_mwh, unix_s)

    def usual(self, unix_s: float) -> Floats | None:
        """Flat."""
        return np.full(24, self.usd_per_mwh)


class FileFeed:
    """A price series from a file, read whole; about 20 bytes an interval in memory. `refused` counts its bad rows."""

    def __init__(self, series: PriceSeries, offset_usd_per_mwh: float = 0.0) -> None:
        self.name = series.name
        self.refused = series.skipped  # the price before them stays
        self.repaired = series.repaired
        self.width_s = series.width_s
        self.starts_unix_s: Floats = series.starts_unix_s
        self.usd_per_mwh: Floats = series.usd_per_mwh + offset_usd_per_mwh

    def quote(self, unix_s: float) -> Quote | None:
        """The interval that started last; past the file's end its last one, ageing."""
        return _newest(self.starts_unix_s, self.usd_per_mwh, self.width_s, unix_s)

    def usual(self, unix_s: float) -> Floats | None:
        """Hour-of-day means over the fortnight before `unix_s`; hours not seen in it take the mean of all that were."""
        return _hour_means(self.starts_unix_s, self.usd_per_mwh, unix_s)


class LiveFeed:
    """Prices that arrive while the controller runs; `take` puts in what a poll brought, `refused` counts bad ones."""

    def __init__(
        self,
        name: str,
        offset_usd_per_mwh: float = 0.0,
        low: float = LOW_USD_PER_MWH,
        high: float = HIGH_USD_PER_MWH,
    ) -> None:
        self.name, self.refused = name, 0
        self._offset, self._low, self._high = offset_usd_per_mwh, low, high
        self._seen: dict[float, float] = {}
        self._starts: Floats = np.empty(0)
        self._prices: Floats = np.empty(0)
        self._width_s = 900.0

    def take(self, rows: Sequence[tuple[float, float]], now_unix_s: float) -> tuple[str, ...]:
        """Intervals (start [Unix s], price [USD/MWh]) in any order; a later word on an interval replaces the earlier.

        Returns why rows were refused, one line each; what was good before them stays. A time that is weeks past or
        days ahead is a wrong one: taken, it would push out everything that is right.
        """
        told = []
        for start, price in sorted(rows):
            earlier = [self._seen[max(self._seen)]] if self._seen else []
            try:
                if not now_unix_s - KEPT_S <= start <= now_unix_s + AHEAD_S:
                    raise BadPrice(
                        f"{self.name}: an interval begins {start - now_unix_s:+.0f} s from now; check its time"
                    )
                checked = check_price(price, self.name, earlier[0] if earlier else None, self._low, self._high)
            except BadPrice as error:
                self.refused += 1
                told.append(str(error))
                continue
            self._seen[start] = checked
        if self._seen:
            oldest = max(self._seen) - KEPT_S
            self._seen = {start: self._seen[start] for start in sorted(self._seen) if start >= oldest}
            self._starts = np.array(list(self._seen))
            self._prices = np.array(list(self._seen.values())) + self._offset
            self._width_s = usual_width_s(self._starts) if len(self._starts) > 1 else self._width_s
        return tuple(told)

    def quote(self, unix_s: float) -> Quote | None:
        """The interval that started last of those that arrived."""
        return _newest(self._starts, self._prices, self._width_s, unix_s)

    def usual(self, unix_s: float) -> Floats | None:
        """Hour-of-day means of what arrived in the fortnight before `unix_s`."""
        return _hour_means(self._starts, self._prices, unix_s)


def _newest(starts: Floats, prices: Floats, width_s: float, unix_s: float) -> Quote | None:
    at = int(np.searchsorted(starts, unix_s, side="right")) - 1
    return Quote(float(prices[at]), float(starts[at]), width_s) if at >= 0 else None


def _hour_means(starts: Floats, prices: Floats, unix_s: float) -> Floats | None:
    first = int(np.searchsorted(starts, unix_s - MEMORY_S, side="left"))
    last = int(np.searchsorted(starts, unix_s, side="right"))
    if last <= first:
        return None
    hours = (starts[first:last] // 3600 % 24).astype(int)
    count = np.bincount(hours, minlength=24)
    total = np.bincount(hours, prices[first:last], 24)
    return np.where(count > 0, total / np.maximum(count, 1), float(prices[first:last].mean()))
