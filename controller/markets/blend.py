"""How much of the newest real-time price to keep: a weight that fades, fitted on the past. Pure.

`look_back` lays out what was known at each moment of a past series and what came; `fit` chooses the fade on it. Fit
on one part, report on another: tests/bench/bench_forecast.py does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FADES_S = (900.0, 1800.0, 2700.0, 3600.0, 4500.0, 5400.0, 7200.0, 10_800.0, 14_400.0)
SHAPES = (1.0, 1.25, 1.5, 2.0)
PERSISTENT = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
PERSISTENT_MOST_USD_PER_MWH = 25.0  # about a mean price: a spike of thousands says nothing of tomorrow


@dataclass(frozen=True, slots=True)
class Blend:
    """What stays of the newest price's distance to the usual one: it fades as exp(-(ahead / fade_s) ^ shape).

    `persist_ratio` of it stays throughout, of at most 25 USD/MWh. A shape above 1 keeps more of the price for the next quarter hours and lets go of it sooner after that.
    """

    fade_s: float
    shape: float
    persist_ratio: float

    def price(self, newest: float, usual: float, ahead_s: float) -> float:
        """Forecast [USD/MWh] for `ahead_s` after the interval that `newest` belongs to."""
        most = PERSISTENT_MOST_USD_PER_MWH
        basis = newest - usual
        lasting = self.persist_ratio * min(most, max(-most, basis))
        return usual + lasting + self._fade(ahead_s) * (basis - lasting)

    def prices(self, newest: Floats, usual: Floats, ahead_s: float) -> Floats:
        """The same for many moments (n,)."""
        basis = newest - usual
        lasting = self.persist_ratio * np.clip(basis, -PERSISTENT_MOST_USD_PER_MWH, PERSISTENT_MOST_USD_PER_MWH)
        return usual + lasting + self._fade(ahead_s) * (basis - lasting)

    def _fade(self, ahead_s: float) -> float:
        return math.exp(-((ahead_s / self.fade_s) ** self.shape))


# Both fitted on ERCOT's hub, January to June 2024 (`make bench-forecast`): what is usual is the day-ahead price, or
# the hour-of-day mean of a fortnight.
WITH_DAY_AHEAD = Blend(fade_s=3600.0, shape=2.0, persist_ratio=0.4)
BY_HOUR = Blend(fade_s=3600.0, shape=2.0, persist_ratio=0.8)


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """Moments of a past series: the newest price at each (n,), what was usual for each horizon and what came (n, h)."""

    ahead_s: tuple[float, ...]
    newest: Floats
    usual: Floats
    came: Floats


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean absolute and root mean square error [USD/MWh]."""

    mae: float
    rmse: float


def errors(forecast: Floats, came: Floats) -> Errors:
    """Errors of one horizon's forecasts, moments without either left out."""
    off = forecast - came
    off = off[np.isfinite(off)]
    return Errors(float(np.mean(np.abs(off))), float(np.sqrt(np.mean(off**2))))


def blended(blend: Blend, past: Past) -> Floats:
    """Forecasts of a blend (n, h) [USD/MWh]."""
    made = [blend.prices(past.newest, past.usual[:, at], ahead) for at, ahead in enumerate(past.ahead_s)]
    return np.stack(made, axis=1)


def fit(past: Past) -> Blend:
    """The fade with the least mean absolute error, each horizon counted against what persistence errs there.

    Absolute, not squared: one scarcity evening holds most of a year's squared error, and a fade fitted to it is a fit
    to that evening.
    """
    by_persistence = [errors(past.newest, past.came[:, at]).mae for at in range(len(past.ahead_s))]

    def loss(blend: Blend) -> float:
        made = blended(blend, past)
        found = (errors(made[:, at], past.came[:, at]).mae for at in range(len(past.ahead_s)))
        return sum(mae / naive for mae, naive in zip(found, by_persistence, strict=True))

    return min(itertools.starmap(Blend, itertools.product(FADES_S, SHAPES, PERSISTENT)), key=loss)


def look_back(
    starts_unix_s: Floats,
    usd_per_mwh: Floats,
    origins: Ints,
    ahead_s: Sequence[float],
    anchor: Callable[[Floats, Floats], Floats],
) -> Past:
    """What was known at the intervals `origins` (indices), and what came `ahead_s` after each; NaN where nothing did.

    `anchor(at_unix_s, known_unix_s)` gives what was usual for a moment as known at another; it must not look further.
    """
    at = starts_unix_s[origins]
    usual, came = [], []
    for ahead in ahead_s:
        found = np.searchsorted(starts_unix_s, at + ahead)
        inside = np.minimum(found, len(starts_unix_s) - 1)
        there = starts_unix_s[inside] == at + ahead
        came.append(np.where(there, usd_per_mwh[inside], np.nan))
        usual.append(anchor(at + ahead, at))
    return Past(tuple(ahead_s), usd_per_mwh[origins], np.stack(usual, axis=1), np.stack(came, axis=1))


def seasonal_mean(
    starts_unix_s: Floats, usd_per_mwh: Floats, at_unix_s: Floats, known_unix_s: Floats, period_h: int, days: int
) -> Floats:
    """Mean price of the same hour, every `period_h` hours back over `days`, of what had begun by `known_unix_s` (n,)."""
    total, count = np.zeros(len(at_unix_s)), np.zeros(len(at_unix_s))
    running = np.concatenate(([0.0], np.cumsum(usd_per_mwh)))
    hour_s = at_unix_s // 3600 * 3600
    for back in range(1, days * 24 // period_h + 2):
        begin = hour_s - back * period_h * 3600.0
        low = np.searchsorted(starts_unix_s, begin, side="left")
        high = np.searchsorted(starts_unix_s, np.minimum(begin + 3600.0, known_unix_s + 1e-6), side="left")
        recent = (begin >= known_unix_s - days * 86_400.0) & (high > low)
        total += np.where(recent, running[high] - running[np.minimum(low, high)], 0.0)
        count += np.where(recent, high - low, 0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
