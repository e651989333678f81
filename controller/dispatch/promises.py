"""Promises in the dispatch model: capacity sold to the grid, and the fleet's least hashrate.

Sold capacity is a floor on load that runs and can be shed within the product's notice. Products of one site are
ranked by notice and added up, and the reserve kept for swings of AI comes on top, so that no MW is promised twice:
what can be shed within 10 min must cover the 10-min product and the AI reserve, within 30 min the 30-min product as
well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.dispatch.ai import Ai
from controller.dispatch.arrays import INF, Draft, Floats, Ints, Matrix, Numbers
from controller.dispatch.horizon import sold_w
from controller.dispatch.inputs import FleetState, PoolState, SiteState
from controller.dispatch.mining import Mining, hashrate_entries
from controller.dispatch.parameters import Parameters
from gridpivot.vocabulary import AiPriority


@dataclass(frozen=True, slots=True, eq=False)
class Promises:
    """Where promises stand in the model. Arrays are (site and notice, period) unless said otherwise."""

    levels: tuple[tuple[int, float], ...]  # (site, notice [s]), ascending in notice within a site
    short: Ints
    sold_row: Ints
    floor_short: Ints  # (period,), empty without a fleet floor
    floor_row: Ints
    hashing: Matrix | None  # rows = periods: hashrate [PH/s] from all columns; None while no floor asks for it


def sheddable(state: PoolState, notice_s: float) -> bool:
    """Whether a pool's flexible power counts towards what was sold: never where it is guaranteed or has no time."""
    return state.pool.priority is not AiPriority.GUARANTEED and state.shed_s is not None and state.shed_s <= notice_s


def lay_out_promises(draft: Draft, fleet: FleetState, mining: Mining, ai: Ai, real_s: Floats, floor: bool) -> Promises:
    """Columns, rows and coefficients; `floor` whether the fleet's hashrate stands in this model."""
    periods = len(real_s)
    levels = tuple((i, n) for i, s in enumerate(fleet.sites) for n in sorted({p.notice_s for p in s.sold}))
    short, sold_row = draft.columns(len(levels), periods), draft.rows(len(levels), periods)
    floor_short, floor_row = draft.columns(periods if floor else 0), draft.rows(periods if floor else 0)
    classes = [(i, c) for i, s in enumerate(fleet.sites) for c in s.classes]
    pools = [(i, p) for i, s in enumerate(fleet.sites) for p in s.pools]
    for row, (i, notice_s) in enumerate(levels):
        loading = 1.0 + fleet.sites[i].overhead_ratio
        for k, (site, state) in enumerate(classes):
            if site == i and state.miner_class.shed_s <= notice_s:
                for kind, columns in enumerate(mining.steps):
                    draft.add(sold_row[row], columns[k], mining.watts[k, kind] / 1e3 * loading)
        for n, (site, pool) in enumerate(pools):
            if site == i and sheddable(pool, notice_s):
                draft.add(sold_row[row], ai.segment[ai.first[n] : ai.first[n + 1]], loading)
    draft.add(sold_row, short, 1.0)
    hashing = None
    if fleet.fleet_floor_hs > 0 and classes:
        own = Draft()
        own.columns(draft.column_count)
        every = own.rows(periods)
        for columns, petahash in hashrate_entries(mining, [c for _, c in classes], real_s):
            rows = np.broadcast_to(every[: columns.shape[1]], columns.shape)
            own.add(rows, columns, petahash)
            if floor:
                draft.add(floor_row[rows], columns, petahash)
        hashing = own.matrix()
    draft.add(floor_row, floor_short, 1.0)
    return Promises(levels, short, sold_row, floor_short, floor_row, hashing)


def promise_numbers(
    promises: Promises, numbers: Numbers, fleet: FleetState, parameters: Parameters, hours: Floats, edges_s: Floats
) -> float:
    """What was sold and what the fleet must hash; the availability payments of the horizon, as negative cost [USD]."""
    nominal_s, paid = hours * 3600.0, 0.0
    for row, (i, notice_s) in enumerate(promises.levels):
        site = fleet.sites[i]
        sold = [p for p in site.sold if p.notice_s <= notice_s]
        asked = sold_w(sold, edges_s, nominal_s)
        reserve = np.where(asked > 0, site.ai_reserve_w, 0.0)
        numbers.row_lower[promises.sold_row[row]] = np.where(asked > 0, (asked + reserve) / 1e6, -INF)
        numbers.row_upper[promises.sold_row[row]] = INF
        penalty = max(p.penalty_usd_per_mwh for p in sold)
        numbers.cost[promises.short[row]] = penalty * hours
    for site in fleet.sites:
        paid += sum(_availability_usd(site, k, hours, edges_s, nominal_s) for k in range(len(site.sold)))
    if promises.floor_row.size:
        numbers.row_lower[promises.floor_row] = fleet.fleet_floor_hs / 1e15
        numbers.row_upper[promises.floor_row] = INF
        numbers.cost[promises.floor_short] = parameters.floor_penalty_usd_per_ph_h * hours
    return -paid


def _availability_usd(site: SiteState, k: int, hours: Floats, edges_s: Floats, nominal_s: Floats) -> float:
    one = site.sold[k]
    return one.availability_usd_per_mwh * float((sold_w([one], edges_s, nominal_s) / 1e6 * hours).sum())
