"""What an AI pool will probably want to draw: its own habits by the hour of the day, begun from what it wants now. Pure.

The present fades into the habit with a time constant of two hours. That figure is chosen, not fitted: no public trace
of a pool's power runs over several days.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.dispatch.terms import WattStep

QUARTER_S = 900.0
HOUR_S, DAY_S = 3600.0, 86_400.0
FADE_S = 2 * HOUR_S
MEMORY_S = 14 * DAY_S
STALE_S = 1_800.0  # an older last word on demand is history, not the present


@dataclass(frozen=True, slots=True)
class DemandSample:
    """Mean power that a pool wanted [W] in the quarter hour that began then [Unix s], of so many readings."""

    since_unix_s: float
    power_w: float
    readings: int = 1


def remembered(history: Sequence[DemandSample], at_unix_s: float, power_w: float | None) -> tuple[DemandSample, ...]:
    """History with one more reading; readings of one quarter are averaged, what is over a fortnight old is forgotten.

    An unknown demand (None) adds nothing.
    """
    if power_w is None or not math.isfinite(power_w) or power_w < 0:
        return tuple(history)
    quarter = at_unix_s // QUARTER_S * QUARTER_S
    kept = [s for s in history if s.since_unix_s > at_unix_s - MEMORY_S]
    if kept and kept[-1].since_unix_s == quarter:
        count = kept[-1].readings + 1
        kept[-1] = DemandSample(quarter, kept[-1].power_w + (power_w - kept[-1].power_w) / count, count)
    elif not kept or kept[-1].since_unix_s < quarter:
        kept.append(DemandSample(quarter, power_w))
    return tuple(kept)


def forecast_demand(
    history: Sequence[DemandSample],
    present_w: float | None,
    now_unix_s: float,
    horizon_s: float = 48 * HOUR_S,
    speed: float = 1.0,
    most_w: float = math.inf,
    habit: Sequence[float] | None = None,
) -> tuple[WattStep, ...]:
    """Demand ahead [W, real s from now], hour by hour; () while nothing is known of the pool.

    `present_w` None takes the newest sample if it is fresh. Hours never seen take the mean of all that were; nothing
    goes above `most_w`, what the pool can draw. `habit` is what `habit_w` made of the history, where it is at hand: a
    fortnight of samples is much to go through every second.
    """
    seen = [s for s in history if now_unix_s - MEMORY_S <= s.since_unix_s <= now_unix_s]
    present = present_w
    if present is None and seen and now_unix_s - seen[-1].since_unix_s <= STALE_S:
        present = seen[-1].power_w
    if present is None and not seen:
        return ()
    habit = _by_hour(seen) if habit is None else habit
    steps = [WattStep(0.0, min(most_w, _mixed(present, habit, now_unix_s, 0.0)))]
    start = (now_unix_s // HOUR_S + 1) * HOUR_S
    while start < now_unix_s + horizon_s:
        middle_s = start + HOUR_S / 2 - now_unix_s
        steps.append(WattStep((start - now_unix_s) / speed, min(most_w, _mixed(present, habit, start, middle_s))))
        start += HOUR_S
    return tuple(steps)


def habit_w(history: Sequence[DemandSample], now_unix_s: float) -> Sequence[float] | None:
    """What a pool usually wants by hour of the day, UTC [W] -> (24,); None while nothing was seen."""
    return _by_hour([s for s in history if now_unix_s - MEMORY_S <= s.since_unix_s <= now_unix_s])


def _by_hour(seen: Sequence[DemandSample]) -> Sequence[float] | None:
    if not seen:
        return None
    hours = np.array([int(s.since_unix_s // HOUR_S) % 24 for s in seen])
    powers = np.array([s.power_w for s in seen])
    count = np.bincount(hours, minlength=24)
    return [float(p) for p in np.where(count > 0, np.bincount(hours, powers, 24) / np.maximum(count, 1), powers.mean())]


def _mixed(present: float | None, habit: Sequence[float] | None, at_unix_s: float, ahead_s: float) -> float:
    usual = habit[int(at_unix_s // HOUR_S) % 24] if habit is not None else None
    if present is None or usual is None:
        return present if usual is None and present is not None else usual or 0.0
    weight = math.exp(-ahead_s / FADE_S)
    return weight * present + (1.0 - weight) * usual
