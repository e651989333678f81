"""How steeply a site's import may move: one rate, or a curve of breakpoints as grid operators write it. Pure.

A curve gives the rate from each level of import upwards [W/min]. The first period is held to what the curve allows
from today's import, exactly; later ones to its steepest rate, since a linear program cannot follow a rate that
depends on where it stands. The horizon rolls on, so every period is the first one before it happens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.dispatch.arrays import INF, Floats
from controller.dispatch.inputs import SiteState
from controller.dispatch.terms import RampStep


def has_ramp(site: SiteState) -> bool:
    """Whether anything limits a site's changes."""
    return bool(site.drop_ramp_w_per_min > 0 or site.pick_up_ramp_w_per_min > 0 or site.drop_ramp or site.pick_up_ramp)


def curves(site: SiteState) -> tuple[tuple[RampStep, ...], tuple[RampStep, ...]]:
    """Drop and pick-up as curves; empty = no limit."""
    drop = site.drop_ramp or _flat(site.drop_ramp_w_per_min)
    return drop, site.pick_up_ramp or _flat(site.pick_up_ramp_w_per_min)


def rate_at(curve: Sequence[RampStep], at_w: float) -> float:
    """Rate of a curve at an import [W/min]; the first step reaches down to nothing."""
    rate = curve[0].w_per_min
    for step in curve[1:]:
        if at_w >= step.from_w:
            rate = step.w_per_min
    return rate


def reach_w(curve: Sequence[RampStep], from_w: float, minutes: float, *, up: bool) -> float:
    """Highest (or lowest) import [W] that the curve lets a site reach from `from_w` in so many minutes."""
    at, left = from_w, minutes
    knots = [s.from_w for s in curve[1:]]
    while left > 0:
        if up:
            rate = rate_at(curve, at)
            edge = next((k for k in knots if k > at), INF)
        else:
            below = [k for k in knots if k < at]
            edge = below[-1] if below else -INF
            rate = rate_at(curve, edge) if below else curve[0].w_per_min
        if rate <= 0:
            return at
        needed = abs(edge - at) / rate
        if needed >= left:
            return at + rate * left * (1 if up else -1)
        at, left = edge, left - needed
    return at


def ramp_bounds_w(site: SiteState, standing_w: float, real_s: Floats) -> tuple[Floats, Floats]:
    """Bounds [W] of import in the first period, and of its change in every later one -> two of (periods,)."""
    drop, pick_up = curves(site)
    minutes = real_s / 60.0
    lower = -_steepest(drop) * minutes if drop else np.full(len(minutes), -INF)
    upper = _steepest(pick_up) * minutes if pick_up else np.full(len(minutes), INF)
    if drop:
        lower[0] = reach_w(drop, standing_w, float(minutes[0]), up=False)
    if pick_up:
        upper[0] = reach_w(pick_up, standing_w, float(minutes[0]), up=True)
    return lower, upper


def _steepest(curve: Sequence[RampStep]) -> float:
    return max(s.w_per_min for s in curve)


def _flat(w_per_min: float) -> tuple[RampStep, ...]:
    return (RampStep(0.0, w_per_min),) if w_per_min > 0 else ()
