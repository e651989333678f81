"""One window of the past as numbers: prices, ceilings, demand and what was sold, interval by interval. Pure.

All arrays of a site are (interval,) unless said otherwise and share the intervals of the window. Ceilings count with
their least value in an interval, so that an event holds from the interval it begins in to the one it ends in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.dispatch.inputs import PriceStep, Window
from controller.dispatch.terms import SoldCapacity
from controller.markets.forecast import Published
from controller.markets.series import PriceSeries
from controller.settlement.demand import demand_w, local_days, local_hours
from controller.settlement.plant import EventRule, Floats, Plant
from gridpivot.errors import SettingsError

LEAD_S = 7 * 86_400.0  # demand of the days before the window, which forecasts may look at
LONGEST_GAP_S = 6 * 3600.0  # filled with the last price before it; longer ones are refused


@dataclass(frozen=True, slots=True)
class Call:
    """One ceiling below the site's own: intervals [first, last), and from when on it is known [Unix s]."""

    event_id: str
    first: int
    last: int
    ceiling_w: float
    known_unix_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """A region's prices: the whole series from file, those of the window, and day-ahead prices as published."""

    series: PriceSeries
    usd_per_mwh: Floats
    published: Published | None


@dataclass(frozen=True, slots=True, eq=False)
class SiteScenario:
    """One site through the window. `demand_w` is (pool, interval), `past_w` (pool, intervals of the lead)."""

    plant: Plant
    ceiling_w: Floats
    calls: tuple[Call, ...]
    called: NDArray[np.bool_]
    demand_w: Floats
    past_w: Floats
    sold_w: Floats  # (sold product, interval)
    month: Floats  # billing period that each interval belongs to: year x 100 + month on the site's clock

    @property
    def month_ends(self) -> NDArray[np.intp]:
        """For each interval the first one after its billing period, or the window's end."""
        change = np.append(np.flatnonzero(np.diff(self.month)) + 1, len(self.month))
        return np.asarray(change[np.searchsorted(change, np.arange(len(self.month)), side="right")])


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """The window: intervals of one width, markets by region, hashprice in force [USD/PH/day], sites."""

    starts_unix_s: Floats
    width_s: float
    markets: Mapping[str, Market]
    hashprice: Floats
    sites: tuple[SiteScenario, ...]
    notes: tuple[str, ...] = ()

    @property
    def intervals(self) -> int:
        """How many."""
        return len(self.starts_unix_s)

    @property
    def hours(self) -> float:
        """Width of an interval [h]."""
        return self.width_s / 3600.0

    def market(self, plant: Plant) -> Market:
        """Prices of a site's region; a single market serves every region."""
        return self.markets[plant.region] if plant.region in self.markets else self.markets[""]

    def price(self, site: SiteScenario) -> Floats:
        """Power price at a site [USD/MWh] -> (interval,)."""
        return self.market(site.plant).usd_per_mwh


def lay_out_scenario(
    plants: Sequence[Plant],
    prices: Mapping[str, PriceSeries],
    published: Mapping[str, Published],
    hashprice_at: Mapping[float, float] | float,
    from_unix_s: float,
    until_unix_s: float,
) -> Scenario:
    """The window [from, until) over these plants; raises SettingsError where prices do not cover it.

    `prices` by region, "" for every other one; `hashprice_at` is one figure, or figures by the time [Unix s] from
    which each was in force.
    """
    width_s = max(series.width_s for series in prices.values())
    if len({series.width_s for series in prices.values()}) > 1:
        raise SettingsError("price files of one backtest need intervals of one width; give files of one kind")
    starts = np.arange(np.ceil(from_unix_s / width_s) * width_s, until_unix_s, width_s)
    if not len(starts):
        raise SettingsError(f"the window holds no interval of {width_s:g} s; give --from before --to")
    for plant in plants:
        if plant.region not in prices and "" not in prices:
            raise SettingsError(
                f"site {plant.name!r}: no prices for region {plant.region!r}; give --prices {plant.region}=FILE"
            )
    notes: list[str] = []
    markets = {}
    for region, series in prices.items():
        filled, told = _in_window(series, starts, width_s)
        notes += told
        markets[region] = Market(series, filled, published.get(region, published.get("")))
    return Scenario(
        starts, width_s, markets, _hashprice(hashprice_at, starts),
        tuple(_site(plant, starts, width_s) for plant in plants), tuple(notes),
    )  # fmt: skip


def _in_window(series: PriceSeries, starts: Floats, width_s: float) -> tuple[Floats, list[str]]:
    """Prices of each interval; a short gap takes the last price before it, and says so."""
    at = np.searchsorted(series.starts_unix_s, starts, side="right") - 1
    age = np.where(at >= 0, starts - series.starts_unix_s[np.maximum(at, 0)], np.inf)
    ends = series.starts_unix_s[-1] + width_s
    if age.max() > LONGEST_GAP_S or starts[-1] >= ends:
        worst = int(np.argmax((age > LONGEST_GAP_S) | (starts >= ends)))
        raise SettingsError(
            f"{series.name}: no price for {_utc(starts[worst])}, and gaps over {LONGEST_GAP_S / 3600:g} h are not "
            f"filled; it holds {_utc(series.starts_unix_s[0])} to {_utc(ends)}; give another --from and --to"
        )
    missing = int((age >= width_s).sum())
    told = [f"{series.name}: {missing} intervals without a price took the last one before them"] if missing else []
    return series.usd_per_mwh[at].astype(np.float64), told


def _hashprice(figures: Mapping[float, float] | float, starts: Floats) -> Floats:
    if not isinstance(figures, Mapping):
        return np.full(len(starts), float(figures))
    since = np.array(sorted(figures))
    at = np.searchsorted(since, starts, side="right") - 1
    if at.min() < 0:
        raise SettingsError(f"no hashprice before {_utc(since[0])}; give a --hashprice file that covers --from")
    return np.array([figures[s] for s in since.tolist()])[at]


def _site(plant: Plant, starts: Floats, width_s: float) -> SiteScenario:
    lead = np.arange(starts[0] - LEAD_S, starts[0], width_s)
    ceiling, called, calls = np.full(len(starts), plant.ceiling_w), np.zeros(len(starts), dtype=bool), []
    for rule in plant.events:
        for first, last in _occurrences(rule, plant, starts, width_s):
            ceiling[first:last] = np.minimum(ceiling[first:last], rule.ceiling_w)
            called[first:last] = True
            calls.append(Call(rule.event_id, first, last, rule.ceiling_w, float(starts[first]) - rule.notice_s))
    hour = local_hours(starts, plant.time_zone)
    sold = [np.where((hour >= s.from_hour) & (hour < s.until_hour), s.power_w, 0.0) for s in plant.sold]
    return SiteScenario(
        plant,
        ceiling,
        tuple(sorted(calls, key=lambda c: c.first)),
        called,
        _stack([demand_w(p.demand, starts, width_s, plant.time_zone) for p in plant.pools], len(starts)),
        _stack([demand_w(p.demand, lead, width_s, plant.time_zone) for p in plant.pools], len(lead)),
        _stack(sold, len(starts)),
        local_days(starts, plant.time_zone)[0],
    )


def _stack(rows: Sequence[Floats], width: int) -> Floats:
    return np.array(rows).reshape(len(rows), width)


def _occurrences(rule: EventRule, plant: Plant, starts: Floats, width_s: float) -> list[tuple[int, int]]:
    """Runs [first, last) of intervals that an event touches."""
    if rule.once_unix_s is not None:
        begins, ends = rule.once_unix_s
        inside = (starts + width_s > begins) & (starts < ends)
    else:
        hour = local_hours(starts, plant.time_zone)
        month, weekday = local_days(starts, plant.time_zone)
        inside = (hour + width_s / 3600 > rule.from_hour) & (hour < rule.until_hour)
        inside &= np.isin(month % 100, rule.months) & np.isin(weekday, rule.weekdays)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], inside, [False])).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def windows_of(calls: Sequence[Call], at: int, width_s: float) -> tuple[Window, ...]:
    """Calls as dispatch wants them, counted from the start of interval `at` [s]; what is over is left out."""
    return tuple(
        Window(c.event_id, c.ceiling_w, (c.first - at) * width_s, (c.last - at) * width_s) for c in calls if c.last > at
    )


def sold_from(site: SiteScenario, at: int, until: int, width_s: float) -> tuple[SoldCapacity, ...]:
    """Capacity sold between two intervals, as dispatch wants it, counted from the start of interval `at` [s]."""
    sold = []
    for rule, watts in zip(site.plant.sold, site.sold_w, strict=True):
        inside = np.concatenate(([False], watts[at:until] > 0, [False])).astype(int)
        edges = np.flatnonzero(np.diff(inside))
        runs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)) or [(-1, -1)]
        sold += [
            SoldCapacity(
                rule.product, rule.power_w, rule.notice_s, first * width_s, last * width_s,
                rule.availability_usd_per_mwh, rule.penalty_usd_per_mwh,
            )
            for first, last in runs
        ]  # fmt: skip
    return tuple(sold)


def exact_steps(values: Floats, width_s: float) -> tuple[PriceStep, ...]:
    """A price per interval as steps from now on."""
    return tuple(PriceStep(k * width_s, float(v)) for k, v in enumerate(values))


def _utc(unix_s: float) -> str:
    return str(np.datetime64(int(unix_s), "s")) + "Z"
