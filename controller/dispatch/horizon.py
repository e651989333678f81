"""Prices and ceilings averaged into periods of fixed width, counted from now. Pure; all times real seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.dispatch.arrays import Floats
from controller.dispatch.inputs import PriceStep, SiteState
from controller.dispatch.terms import SoldCapacity, WattStep

# Up to this width [nominal s] a ceiling counts with its least value in the period, beyond with its average: near
# at hand nothing may exceed it for a minute, far ahead only its energy matters.
STRICT_PERIOD_S = 300.0


def average_price(steps: Sequence[PriceStep], edges_s: Floats, assumed_usd_per_mwh: float) -> Floats:
    """Time-weighted mean price [USD/MWh] of each period between `edges_s` (n + 1 values from 0) -> (n,).

    The first step reaches back to now, the last one to the end; without steps the assumed price holds throughout.
    """
    return average([(s.starts_in_s, s.usd_per_mwh) for s in steps], edges_s, assumed_usd_per_mwh)


def average_watts(steps: Sequence[WattStep], edges_s: Floats, assumed_w: float) -> Floats:
    """The same for power [W]."""
    return average([(s.starts_in_s, s.power_w) for s in steps], edges_s, assumed_w)


def average(steps: Sequence[tuple[float, float]], edges_s: Floats, assumed: float) -> Floats:
    """Time-weighted mean of (start, value) steps in each period -> (n,); without steps the assumed value throughout."""
    if not steps:
        return np.full(len(edges_s) - 1, assumed)
    starts, values = np.array(steps, dtype=np.float64).T
    starts[0] = min(starts[0], 0.0)
    knots = np.append(starts, max(starts[-1], edges_s[-1]) + 1.0)
    area = np.concatenate(([0.0], np.cumsum(values * np.diff(knots))))
    return np.asarray(np.diff(np.interp(edges_s, knots, area)) / np.diff(edges_s))


def ceiling_now(site: SiteState) -> tuple[float, str]:
    """Ceiling in force [W] and its name: 'site ceiling' or 'event <id>'."""
    lowest, name = max(0.0, site.ceiling_w), "site ceiling"
    for window in site.windows:
        open_now = window.starts_in_s <= 0 and (window.ends_in_s is None or window.ends_in_s > 0)
        if open_now and window.ceiling_w < lowest:
            lowest, name = max(0.0, window.ceiling_w), f"event {window.event_id}"
    return lowest, name


def first_ceiling(site: SiteState, until_s: float) -> tuple[float, str]:
    """Lowest ceiling [W] between now and `until_s`, and its name."""
    lowest, name = ceiling_now(site)
    for window in site.windows:
        overlaps = window.starts_in_s < until_s and (window.ends_in_s is None or window.ends_in_s > 0)
        if overlaps and window.ceiling_w < lowest:
            lowest, name = max(0.0, window.ceiling_w), f"event {window.event_id}"
    return lowest, name


def ceilings(site: SiteState, edges_s: Floats, nominal_s: Floats) -> Floats:
    """Ceiling [W] of each period: the least value inside strict periods, the time-weighted mean elsewhere -> (n,)."""
    base = max(0.0, site.ceiling_w)
    result = np.full(len(nominal_s), base)
    live = [w for w in site.windows if w.ends_in_s is None or w.ends_in_s > 0]
    if not live:
        return result
    end = float(edges_s[-1])
    cuts = {0.0, end, *edges_s.tolist()}
    for window in live:
        cuts.update(t for t in (window.starts_in_s, window.ends_in_s) if t is not None and 0 < t < end)
    knots = np.array(sorted(cuts))
    middle = (knots[:-1] + knots[1:]) / 2
    level = np.full(len(middle), base)
    for window in live:
        until = np.inf if window.ends_in_s is None else window.ends_in_s
        inside = (middle >= window.starts_in_s) & (middle < until)
        level[inside] = np.minimum(level[inside], max(0.0, window.ceiling_w))
    return _strict_or_mean(level, knots, middle, edges_s, nominal_s, np.minimum, np.inf)


def sold_w(sold: Sequence[SoldCapacity], edges_s: Floats, nominal_s: Floats) -> Floats:
    """Capacity sold in each period, all of these products together [W]: the most in strict periods, else the mean."""
    end = float(edges_s[-1])
    cuts = {0.0, end, *edges_s.tolist()}
    for one in sold:
        cuts.update(t for t in (one.starts_in_s, one.ends_in_s) if t is not None and 0 < t < end)
    knots = np.array(sorted(cuts))
    middle = (knots[:-1] + knots[1:]) / 2
    level = np.zeros(len(middle))
    for one in sold:
        until = np.inf if one.ends_in_s is None else one.ends_in_s
        level[(middle >= one.starts_in_s) & (middle < until)] += one.power_w
    return _strict_or_mean(level, knots, middle, edges_s, nominal_s, np.maximum, 0.0)


def _strict_or_mean(
    level: Floats, knots: Floats, middle: Floats, edges_s: Floats, nominal_s: Floats, worst: np.ufunc, start: float
) -> Floats:
    """Levels between knots, by period: the worst of them where periods are strict, their mean elsewhere."""
    owner = np.searchsorted(edges_s, middle, side="right") - 1
    extreme = np.full(len(nominal_s), start)
    worst.at(extreme, owner, level)
    mean = np.bincount(owner, level * np.diff(knots), len(nominal_s)) / np.diff(edges_s)
    return np.where(nominal_s <= STRICT_PERIOD_S, extreme, mean)
