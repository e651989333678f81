"""Prices and ceilings averaged into periods of fixed width, counted from now. Pure; all times real seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from controller.dispatch.inputs import PriceStep, SiteState

Floats = NDArray[np.float64]

# Up to this width [nominal s] a ceiling counts with its least value in the period, beyond with its average: near
# at hand nothing may exceed it for a minute, far ahead only its energy matters.
STRICT_PERIOD_S = 300.0


def average_price(steps: Sequence[PriceStep], edges_s: Floats, assumed_usd_per_mwh: float) -> Floats:
    """Time-weighted mean price [USD/MWh] of each period between `edges_s` (n + 1 values from 0) -> (n,).

    The first step reaches back to now, the last one to the end; without steps the assumed price holds throughout.
    """
    if not steps:
        return np.full(len(edges_s) - 1, assumed_usd_per_mwh)
    starts = np.array([s.starts_in_s for s in steps])
    prices = np.array([s.usd_per_mwh for s in steps])
    starts[0] = min(starts[0], 0.0)
    knots = np.append(starts, max(starts[-1], edges_s[-1]) + 1.0)
    area = np.concatenate(([0.0], np.cumsum(prices * np.diff(knots))))
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
    owner = np.searchsorted(edges_s, middle, side="right") - 1
    lowest = np.full(len(nominal_s), np.inf)
    np.minimum.at(lowest, owner, level)
    mean = np.bincount(owner, level * np.diff(knots), len(nominal_s)) / np.diff(edges_s)
    return np.where(nominal_s <= STRICT_PERIOD_S, lowest, mean)
