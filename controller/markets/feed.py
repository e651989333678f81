"""Price feeds: what a region's power cost, interval by interval, as far as the present allows to know.

All times are data time, seconds since the Unix epoch, UTC. A feed never answers from an interval that has not
started: `quote` and `seen` look back only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from controller.markets.series import PriceSeries

Floats = NDArray[np.float64]
MEMORY_S = 14 * 86_400.0  # how far back the hour-of-day means reach


@dataclass(frozen=True, slots=True)
class Quote:
    """One price [USD/MWh] and the start of its interval [Unix s]."""

    usd_per_mwh: float
    since_unix_s: float


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
        self.starts_unix_s: Floats = series.starts_unix_s
        self.usd_per_mwh: Floats = series.usd_per_mwh + offset_usd_per_mwh

    def quote(self, unix_s: float) -> Quote | None:
        """The interval that started last; past the file's end its last one, ageing."""
        at = int(np.searchsorted(self.starts_unix_s, unix_s, side="right")) - 1
        if at < 0:
            return None
        return Quote(float(self.usd_per_mwh[at]), float(self.starts_unix_s[at]))

    def usual(self, unix_s: float) -> Floats | None:
        """Hour-of-day means over the fortnight before `unix_s`; hours not seen in it take the mean of all that were."""
        first = int(np.searchsorted(self.starts_unix_s, unix_s - MEMORY_S, side="left"))
        last = int(np.searchsorted(self.starts_unix_s, unix_s, side="right"))
        if last <= first:
            return None
        hours = (self.starts_unix_s[first:last] // 3600 % 24).astype(int)
        count = np.bincount(hours, minlength=24)
        total = np.bincount(hours, self.usd_per_mwh[first:last], 24)
        mean = float(self.usd_per_mwh[first:last].mean())
        return np.where(count > 0, total / np.maximum(count, 1), mean)
