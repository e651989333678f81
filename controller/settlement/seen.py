"""What a policy may know at the start of an interval, and nothing else.

Prices end with the newest one known: the previous interval's, or the current one's for policies that are told it.
Hashprice, ceilings in force and AI demand are what a site reads live; calls are known from their notice on; day-ahead
prices from their publication. tests/unit/settlement hold that blanking the future changes no decision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from controller.dispatch.inputs import Window
from controller.dispatch.terms import SoldCapacity
from controller.markets.forecast import Published
from controller.markets.series import PriceSeries
from controller.settlement.plant import Floats, Plant, Setpoints
from controller.settlement.scenario import Scenario, sold_from, windows_of

MEMORY_S = 15 * 86_400.0
PROMISED_S = 48 * 3600.0  # how far ahead sold capacity is handed on


@dataclass(frozen=True, slots=True, eq=False)
class SiteSeen:
    """One site at the start of an interval."""

    plant: Plant
    standing: Floats  # machines (class, 4) as commanded in the interval before
    ceiling_w: float  # in force
    windows: tuple[Window, ...]  # calls known so far, counted from now
    demand_w: Floats  # (pool,) now
    past_w: Floats  # (pool, intervals before now)
    history: PriceSeries  # ends with the newest price known
    published: Published | None
    sold: tuple[SoldCapacity, ...]
    peak_w: float  # highest import of the billing month so far
    month_left_s: float

    @property
    def price_usd_per_mwh(self) -> float:
        """The newest price known."""
        return float(self.history.usd_per_mwh[-1])


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The fleet at the start of an interval."""

    unix_s: float
    width_s: float
    hashprice_usd_per_ph_day: float
    sites: tuple[SiteSeen, ...]


class Policy(Protocol):
    """A rule that runs a fleet; it may remember what it has seen."""

    @property
    def name(self) -> str:
        """A word for tables."""
        ...

    @property
    def knows_current(self) -> bool:
        """Whether it is told the current interval's price."""
        ...

    def decide(self, seen: Seen) -> tuple[Setpoints, ...]:
        """Setpoints for this interval, site by site."""
        ...


def look(
    scenario: Scenario, at: int, standing: tuple[Floats, ...], peaks_w: tuple[float, ...], knows_current: bool
) -> Seen:
    """What is known at the start of interval `at`; `standing` and `peaks_w` by site.

    Where no earlier price exists at all, the first interval's stands in for it.
    """
    now, width = float(scenario.starts_unix_s[at]), scenario.width_s
    histories: dict[int, PriceSeries] = {}
    sites = []
    for site, machines, peak in zip(scenario.sites, standing, peaks_w, strict=True):
        market = scenario.market(site.plant)
        if id(market) not in histories:
            newest = now if knows_current else now - width
            histories[id(market)] = _until(market.series, newest)
        known = tuple(c for c in site.calls if c.known_unix_s <= now or c.first <= at)
        until = min(scenario.intervals, at + int(PROMISED_S // width))
        sites.append(
            SiteSeen(
                plant=site.plant,
                standing=machines,
                ceiling_w=float(site.ceiling_w[at]),
                windows=windows_of(known, at, width) if known else (),
                demand_w=site.demand_w[:, at],
                past_w=_past(site.past_w, site.demand_w, at),
                history=histories[id(market)],
                published=market.published,
                sold=sold_from(site, at, until, width) if site.plant.sold else (),
                peak_w=peak,
                month_left_s=float(site.month_ends[at] - at) * width
                if site.plant.demand_charge_usd_per_kw is not None
                else 0.0,
            )
        )
    return Seen(now, width, float(scenario.hashprice[at]), tuple(sites))


def _until(series: PriceSeries, newest_unix_s: float) -> PriceSeries:
    """The series up to the interval that starts at or before `newest_unix_s`, as far back as anybody looks."""
    last = max(1, int(np.searchsorted(series.starts_unix_s, newest_unix_s, side="right")))
    first = min(last - 1, int(np.searchsorted(series.starts_unix_s, newest_unix_s - MEMORY_S)))
    return replace(
        series,
        starts_unix_s=series.starts_unix_s[first:last],
        usd_per_mwh=series.usd_per_mwh[first:last],
        gaps=(),
        repaired=(),
    )


def _past(lead_w: Floats, window_w: Floats, at: int) -> Floats:
    """The last days of demand before interval `at` -> (pool, intervals), as long as the lead is."""
    length = lead_w.shape[1]
    if at >= length:
        return window_w[:, at - length : at]
    return np.concatenate((lead_w[:, at:], window_w[:, :at]), axis=1)
