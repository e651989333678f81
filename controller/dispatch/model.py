"""The dispatch model as arrays: which columns and rows there are, their coefficients, and the numbers that move.

Units: MW, thousand machines, hours of data time, USD. Columns per class and period are machines awake (in the class's
base mode), machines of those in low and in turbo instead, and wake-ups; per pool segment and period its power; per
site and period the import and what stands over the ceiling. `Layout` holds what stays while the fleet stays the same,
`numbers` the costs, bounds and right-hand sides of one moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.dispatch.horizon import Floats, average_price, ceilings
from controller.dispatch.inputs import ClassState, FleetState, SiteState
from controller.dispatch.parameters import Parameters
from gridpivot.curves import MinerClass, ModePoint
from gridpivot.segments import class_hull, pool_segments
from gridpivot.vocabulary import Mode

Ints = NDArray[np.int32]
INF = np.inf
NOWHERE = ModePoint(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Shapes:
    """A class's hull as the model sees it: the base mode that machines wake into, and what low and turbo add to it."""

    sleep_w: float
    base: Mode
    base_w: float
    base_hs: float
    low: tuple[float, float] | None  # (W, H/s) of a machine in low less the same machine in base mode
    turbo: tuple[float, float] | None

    @classmethod
    def of(cls, miner_class: MinerClass) -> Shapes:
        """From the class's concave hull; a class that hashes in no mode wakes into nothing."""
        hull = dict(class_hull(miner_class))
        asleep = hull.pop(Mode.SLEEP)
        base = Mode.NORMAL if Mode.NORMAL in hull else next(iter(hull), Mode.NORMAL)
        point = hull.get(base, NOWHERE if hull else asleep)

        def less_base(mode: Mode) -> tuple[float, float] | None:
            if mode is base or mode not in hull:
                return None
            return hull[mode].power_w - point.power_w, hull[mode].hashrate_hs - point.hashrate_hs

        return cls(asleep.power_w, base, point.power_w, point.hashrate_hs, less_base(Mode.LOW), less_base(Mode.TURBO))


def commanded_awake(state: ClassState) -> tuple[float, float, float]:
    """Machines as last commanded: awake, of those low, of those turbo; never more than are available."""
    _, low, normal, turbo = state.commanded
    awake = low + normal + turbo
    share = min(1.0, state.available / awake) if awake > 0 else 0.0
    return awake * share, low * share, turbo * share


def fixed_import_w(site: SiteState) -> float:
    """Import that no plan moves [W]: the rest of the site, silent and sleeping machines, baselines, with overhead."""
    loads = sum(c.silent_power_w + c.available * c.miner_class.modes[Mode.SLEEP].power_w for c in site.classes)
    loads += sum(p.pool.baseline_w for p in site.pools)
    return site.fixed_w + (1.0 + site.overhead_ratio) * loads


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Columns, rows and matrix (compressed by column). Index arrays are (entity, period) unless said otherwise."""

    period_s: Floats  # nominal
    real_s: Floats  # as the clock on the wall sees it
    shapes: tuple[Shapes, ...]  # by class, in the order of the sites
    class_site: Ints
    segment_site: Ints
    ramped: Ints  # sites with a ramp
    awake: Ints
    low: Ints
    turbo: Ints
    wake: Ints
    resumed: Ints  # (class,): machines already on their way up that stay so
    move_up: Ints  # (class, 3): awake, low, turbo against the commanded state
    move_down: Ints
    segment: Ints
    import_: Ints
    over: Ints
    ramp_over: Ints  # (ramped site, period)
    ramp_under: Ints
    floor_short: Ints  # (period,), empty without a fleet floor
    balance_row: Ints
    mode_row: Ints
    wake_row: Ints
    move_row: Ints  # (class, 3)
    ramp_row: Ints
    floor_row: Ints
    columns: int
    rows: int
    start: Ints
    index: Ints
    value: Floats

    @property
    def edges_s(self) -> Floats:
        """Bounds of the periods [real s from now] -> (periods + 1,)."""
        return np.concatenate(([0.0], np.cumsum(self.real_s)))


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Costs, bounds and right-hand sides of one moment, and the constant that turns cost into USD over the horizon."""

    cost: Floats
    column_lower: Floats
    column_upper: Floats
    row_lower: Floats
    row_upper: Floats
    offset_usd: float


def shape_key(fleet: FleetState) -> tuple[object, ...]:
    """Equal keys have the same columns, rows and matrix, so that only `numbers` differ."""
    sites = tuple(
        (
            s.name,
            s.overhead_ratio,
            s.drop_ramp_w_per_min > 0 or s.pick_up_ramp_w_per_min > 0,
            tuple((c.miner_class.name, Shapes.of(c.miner_class), c.miner_class.wake_s) for c in s.classes),
            tuple((p.pool.name, p.pool.baseline_w, p.pool.curve) for p in s.pools),
        )
        for s in fleet.sites
    )
    return (*sites, fleet.fleet_floor_hs > 0, fleet.speed)


def lay_out(fleet: FleetState, period_s: Sequence[float]) -> Layout:
    """Columns, rows and coefficients for this fleet's shape over periods of these nominal widths [s]."""
    periods = len(period_s)
    nominal = np.array(period_s, dtype=np.float64)
    real = nominal / fleet.speed
    classes = [(i, c) for i, s in enumerate(fleet.sites) for c in s.classes]
    shapes = tuple(Shapes.of(c.miner_class) for _, c in classes)
    segment_site = [
        i for i, s in enumerate(fleet.sites) for p in s.pools for _ in pool_segments(p.pool, 0.0, None, 0.0)
    ]
    ramped = [i for i, s in enumerate(fleet.sites) if s.drop_ramp_w_per_min > 0 or s.pick_up_ramp_w_per_min > 0]
    floors = periods if fleet.fleet_floor_hs > 0 else 0
    n_class, n_site = len(classes), len(fleet.sites)

    column, row = _numbering(), _numbering()
    awake, low, turbo, wake = (column(n_class, periods) for _ in range(4))
    resumed, move_up, move_down = column(n_class), column(n_class, 3), column(n_class, 3)
    segment = column(len(segment_site), periods)
    import_, over = column(n_site, periods), column(n_site, periods)
    ramp_over, ramp_under = column(len(ramped), periods), column(len(ramped), periods)
    floor_short = column(floors)
    balance_row, mode_row, wake_row = row(n_site, periods), row(n_class, periods), row(n_class, periods)
    move_row, ramp_row, floor_row = row(n_class, 3), row(len(ramped), periods), row(floors)

    class_site = np.array([i for i, _ in classes], dtype=np.int32)
    loading = np.array([1.0 + fleet.sites[i].overhead_ratio for i in range(n_site)])
    entries = _Entries()
    if n_class:
        at_meter = loading[class_site] / 1e3  # W a machine -> MW a thousand machines, at the meter
        base = np.array([s.base_w - s.sleep_w for s in shapes]) * at_meter
        less = np.array([s.low[0] if s.low else 0.0 for s in shapes]) * at_meter
        more = np.array([s.turbo[0] if s.turbo else 0.0 for s in shapes]) * at_meter
        for cols, megawatts in ((awake, base), (low, less), (turbo, more)):
            entries.add(balance_row[class_site], cols, megawatts[:, None])
        entries.add(mode_row, low, 1.0)
        entries.add(mode_row, turbo, 1.0)
        entries.add(mode_row, awake, -1.0)
        entries.add(wake_row, awake, 1.0)
        entries.add(wake_row[:, 1:], awake[:, :-1], -1.0)
        entries.add(wake_row, wake, -1.0)
        entries.add(wake_row[:, 0], resumed, -1.0)
        for kind, cols in enumerate((awake, low, turbo)):
            entries.add(move_row[:, kind], cols[:, 0], 1.0)
        entries.add(move_row, move_up, -1.0)
        entries.add(move_row, move_down, 1.0)
    sites_of_segments = np.array(segment_site, dtype=np.int32)
    entries.add(balance_row[sites_of_segments], segment, loading[sites_of_segments][:, None])
    entries.add(balance_row, import_, -1.0)
    entries.add(balance_row, over, -1.0)
    ramped_sites = np.array(ramped, dtype=np.int32)
    for cols in (import_, over):
        entries.add(ramp_row, cols[ramped_sites], 1.0)
        entries.add(ramp_row[:, 1:], cols[ramped_sites][:, :-1], -1.0)
    entries.add(ramp_row, ramp_over, -1.0)
    entries.add(ramp_row, ramp_under, 1.0)
    if floors and n_class:
        # PH/s of a thousand machines; a waking machine counts for nothing until it hashes.
        base_ph = np.array([s.base_hs for s in shapes])[:, None] / 1e12
        less_ph = np.array([s.low[1] if s.low else 0.0 for s in shapes])[:, None] / 1e12
        more_ph = np.array([s.turbo[1] if s.turbo else 0.0 for s in shapes])[:, None] / 1e12
        lost = np.minimum(1.0, np.array([c.miner_class.wake_s for _, c in classes])[:, None] / real[None, :])
        rows = np.broadcast_to(floor_row, (n_class, periods))
        for cols, petahash in ((awake, base_ph), (low, less_ph), (turbo, more_ph), (wake, -base_ph * lost)):
            entries.add(rows, cols, petahash)
        entries.add(rows[:, 0], resumed, -base_ph[:, 0])
    entries.add(floor_row, floor_short, 1.0)
    n_columns, n_rows = column.used(), row.used()
    start, index, value = entries.by_column(n_columns)
    return Layout(
        nominal, real, shapes, class_site, sites_of_segments, ramped_sites,
        awake, low, turbo, wake, resumed, move_up, move_down, segment, import_, over, ramp_over, ramp_under, floor_short,
        balance_row, mode_row, wake_row, move_row, ramp_row, floor_row,
        n_columns, n_rows, start, index, value,
    )  # fmt: skip


def numbers(layout: Layout, fleet: FleetState, parameters: Parameters) -> Numbers:
    """Costs, bounds and right-hand sides for this moment; `fleet` has the shape that `layout` was made for."""
    hours, edges = layout.period_s / 3600.0, layout.edges_s
    cost, lower, upper = np.zeros(layout.columns), np.zeros(layout.columns), np.full(layout.columns, INF)
    row_lower, row_upper = np.full(layout.rows, -INF), np.zeros(layout.rows)
    fixed = np.array([fixed_import_w(s) for s in fleet.sites]) / 1e6

    averages: dict[int, Floats] = {}
    for i, site in enumerate(fleet.sites):
        if id(site.prices) not in averages:
            averages[id(site.prices)] = average_price(site.prices, edges, parameters.assumed_price_usd_per_mwh)
        cost[layout.import_[i]] = averages[id(site.prices)] * hours
        upper[layout.import_[i]] = ceilings(site, edges, layout.period_s) / 1e6
    cost[layout.over] = parameters.ceiling_penalty_usd_per_mwh * hours
    row_lower[layout.balance_row] = row_upper[layout.balance_row] = -fixed[:, None]

    for k, (site, state) in enumerate((s, c) for s in fleet.sites for c in s.classes):
        _class_numbers(layout, k, site, state, fleet, parameters, cost, upper, row_upper)
    row_lower[layout.move_row] = row_upper[layout.move_row]

    offset, k = 0.0, 0
    for site in fleet.sites:
        for pool in site.pools:
            for s in pool_segments(pool.pool, pool.income_usd_per_gpu_hour, pool.demand_w, site.overhead_ratio):
                penalty = parameters.guaranteed_penalty_usd_per_mwh if s.guaranteed else 0.0
                cost[layout.segment[k]] = -(s.value_usd_per_mwh * (1.0 + site.overhead_ratio) + penalty) * hours
                upper[layout.segment[k]] = s.width_w / 1e6
                offset += penalty * s.width_w / 1e6 * float(hours.sum())
                k += 1

    minutes = layout.real_s / 60.0
    cost[layout.ramp_over] = cost[layout.ramp_under] = parameters.ramp_penalty_usd_per_mwh * hours
    for k, i in enumerate(layout.ramped):
        site = fleet.sites[i]
        drop = site.drop_ramp_w_per_min / 1e6 if site.drop_ramp_w_per_min > 0 else INF
        pick_up = site.pick_up_ramp_w_per_min / 1e6 if site.pick_up_ramp_w_per_min > 0 else INF
        row_lower[layout.ramp_row[k]] = -drop * minutes
        row_upper[layout.ramp_row[k]] = pick_up * minutes
        standing = import_now_w(site) / 1e6
        row_lower[layout.ramp_row[k, 0]] += standing
        row_upper[layout.ramp_row[k, 0]] += standing
    if layout.floor_row.size:
        row_lower[layout.floor_row] = fleet.fleet_floor_hs / 1e15
        row_upper[layout.floor_row] = INF
        cost[layout.floor_short] = parameters.floor_penalty_usd_per_ph_h * hours
    return Numbers(cost, lower, upper, row_lower, row_upper, offset)


def import_now_w(site: SiteState) -> float:
    """Import that ramps start from [W]: metered where known, else as commanded."""
    if site.metered_power_w is not None:
        return site.metered_power_w
    loads = sum(p.power_w if p.power_w is not None else p.limit_w for p in site.pools)
    loads -= sum(p.pool.baseline_w for p in site.pools)
    for state in site.classes:
        shapes = Shapes.of(state.miner_class)
        awake, low, turbo = commanded_awake(state)
        loads += awake * (shapes.base_w - shapes.sleep_w)
        loads += low * (shapes.low[0] if shapes.low else 0.0) + turbo * (shapes.turbo[0] if shapes.turbo else 0.0)
    return fixed_import_w(site) + (1.0 + site.overhead_ratio) * max(0.0, loads)


def _class_numbers(
    layout: Layout, k: int, site: SiteState, state: ClassState, fleet: FleetState, parameters: Parameters,
    cost: Floats, upper: Floats, row_upper: Floats,
) -> None:  # fmt: skip
    """One class: income as negative cost [USD per thousand machines], machines to be had, the commanded state."""
    shapes, hours = layout.shapes[k], layout.period_s / 3600.0
    usd_per_hs_hour = fleet.hashprice_usd_per_ph_day * (1.0 - site.pool_fee_ratio) / 24.0 / 1e15
    usd_per_hour = shapes.base_hs * usd_per_hs_hour * 1e3
    awake, low, turbo = commanded_awake(state)
    available = state.available / 1e3
    data_hours = fleet.speed / 3600.0  # per real second
    cost[layout.awake[k]] = -usd_per_hour * hours
    cost[layout.low[k]] = -(shapes.low[1] if shapes.low else 0.0) * usd_per_hs_hour * 1e3 * hours
    cost[layout.turbo[k]] = -(shapes.turbo[1] if shapes.turbo else 0.0) * usd_per_hs_hour * 1e3 * hours
    cost[layout.wake[k]] = usd_per_hour * state.miner_class.wake_s * data_hours + parameters.wear_usd_per_wake * 1e3
    cost[layout.resumed[k]] = usd_per_hour * state.waking_remaining_s * data_hours
    waking = min(state.waking, awake)
    upper[layout.awake[k]] = available
    upper[layout.low[k]] = available if shapes.low else 0.0
    upper[layout.turbo[k]] = available if shapes.turbo else 0.0
    upper[layout.resumed[k]] = waking / 1e3
    row_upper[layout.wake_row[k, 0]] = (awake - waking) / 1e3
    megawatts = ((shapes.base_w - shapes.sleep_w) / 1e3, _size(shapes.low), _size(shapes.turbo))
    kept = (awake, low if shapes.low else 0.0, turbo if shapes.turbo else 0.0)
    for kind in range(3):
        row_upper[layout.move_row[k, kind]] = kept[kind] / 1e3
        cost[layout.move_up[k, kind]] = cost[layout.move_down[k, kind]] = (
            parameters.move_usd_per_mw * megawatts[kind] * (1.0 + site.overhead_ratio)
        )


def _size(step: tuple[float, float] | None) -> float:
    return abs(step[0]) / 1e3 if step else 0.0


class _numbering:  # noqa: N801 - used as a function that counts
    """Hands out consecutive indices as arrays of the asked shape."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, *shape: int) -> Ints:
        size = int(np.prod(shape))
        self._next += size
        return np.arange(self._next - size, self._next, dtype=np.int32).reshape(shape)

    def used(self) -> int:
        return self._next


class _Entries:
    """Coefficients collected as (row, column, value) blocks."""

    def __init__(self) -> None:
        self._blocks: list[tuple[Ints, Ints, Floats]] = []

    def add(self, rows: Ints, columns: Ints, values: Floats | float) -> None:
        shape = np.broadcast_shapes(rows.shape, columns.shape)
        self._blocks.append((
            np.broadcast_to(rows, shape).ravel(),
            np.broadcast_to(columns, shape).ravel(),
            np.broadcast_to(np.asarray(values, dtype=np.float64), shape).ravel(),
        ))  # fmt: skip

    def by_column(self, columns: int) -> tuple[Ints, Ints, Floats]:
        """Compressed by column: start (columns + 1), row index, value; zeros left out."""
        row = np.concatenate([b[0] for b in self._blocks])
        column = np.concatenate([b[1] for b in self._blocks])
        value = np.concatenate([b[2] for b in self._blocks])
        kept = value != 0.0
        row, column, value = row[kept], column[kept], value[kept]
        order = np.lexsort((row, column))
        start = np.zeros(columns + 1, dtype=np.int32)
        np.cumsum(np.bincount(column, minlength=columns), out=start[1:])
        return start, row[order].astype(np.int32), value[order]
