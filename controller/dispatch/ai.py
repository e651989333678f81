"""AI in the dispatch model: power of each pool in concave segments, and regional backlogs of deferrable work.

Units: MW, thousand GPU-hours (at full throughput), hours of data time, USD. A pool's segments are bounded by its
demand ahead; guaranteed ones pay a penalty for every MWh that is not served. A pool that works on a backlog may draw
what it can: the backlog holds it back, and the deadline drives it on. Where a backlog is a pool's own, the rest of its
demand comes into it as work that is due at once or lost, so that nothing is counted twice. Regional backlogs tie the
sites of a region together.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from controller.dispatch.arrays import INF, Draft, Floats, Ints, Numbers
from controller.dispatch.horizon import average, average_watts
from controller.dispatch.inputs import FleetState, PoolState, SiteState
from controller.dispatch.parameters import Parameters
from controller.dispatch.terms import Backlog, WorkDue
from gridpivot.segments import Segment, pool_corners, pool_segments


@dataclass(frozen=True, slots=True, eq=False)
class Ai:
    """Where AI stands in the model. Arrays are (segment, period), segments in the order of sites and pools."""

    site: Ints  # (segment,)
    first: Ints  # (pool + 1,): first segment of each pool
    corners_w: Floats  # (segment, 2): wall power at which a segment begins and ends
    segment: Ints
    left: Ints  # (backlog, period): work that waits at the end of the period
    late: Ints
    lost: Ints  # demand that is not served and does not wait either
    backlog_row: Ints
    deadline_row: Ints


def pools_of(fleet: FleetState) -> list[tuple[SiteState, PoolState]]:
    """All pools with their sites, in the model's order."""
    return [(s, p) for s in fleet.sites for p in s.pools]


def lay_out_ai(draft: Draft, fleet: FleetState, hours: Floats) -> Ai:
    """Columns, rows and coefficients of all pools and backlogs over periods of these widths [h of data time]."""
    periods = len(hours)
    site, first, corners = [], [0], []
    for i, s in enumerate(fleet.sites):
        for p in s.pools:
            own = pool_corners(p.pool)
            corners += [(low[0], high[0]) for low, high in pairwise(own)]
            site += [i] * (len(own) - 1)
            first.append(len(site))
    segment = draft.columns(len(site), periods)
    count = len(fleet.backlogs)
    left, late, lost = (draft.columns(count, periods) for _ in range(3))
    backlog_row, deadline_row = draft.rows(count, periods), draft.rows(count, periods)
    draft.add(backlog_row, left, 1.0)
    draft.add(backlog_row[:, 1:], left[:, :-1], -1.0)
    draft.add(backlog_row, lost, 1.0)
    draft.add(deadline_row, left, 1.0)
    draft.add(deadline_row, late, -1.0)
    names = {b.name: k for k, b in enumerate(fleet.backlogs)}
    for n, (_, p) in enumerate(pools_of(fleet)):
        if p.backlog in names:
            rates = _gpu_kh_per_mwh(p)
            for j, rate in zip(range(first[n], first[n + 1]), rates, strict=True):
                draft.add(backlog_row[names[p.backlog]], segment[j], rate * hours)
    return Ai(
        np.array(site, dtype=np.int32), np.array(first, dtype=np.int32), np.array(corners).reshape(-1, 2),
        segment, left, late, lost, backlog_row, deadline_row,
    )  # fmt: skip


def _gpu_kh_per_mwh(state: PoolState) -> list[float]:
    """Work that a MWh of each segment does [thousand GPU-h]."""
    own = pool_corners(state.pool)
    gpus = max(1, state.pool.gpu_count)
    return [(r1 - r0) * gpus / 1e3 / ((w1 - w0) / 1e6) for (w0, r0), (w1, r1) in pairwise(own)]


def income_usd_per_gpu_hour(state: PoolState, fleet: FleetState) -> float:
    """What a GPU-hour of a pool earns: its backlog's figure where it works on one."""
    for backlog in fleet.backlogs:
        if backlog.name == state.backlog:
            return backlog.usd_per_gpu_hour
    return state.income_usd_per_gpu_hour


def segments_of(state: PoolState, site: SiteState, fleet: FleetState, demand_w: float | None) -> tuple[Segment, ...]:
    """A pool's segments as the model values them."""
    return pool_segments(state.pool, income_usd_per_gpu_hour(state, fleet), demand_w, site.overhead_ratio)


def demand_now_w(state: PoolState) -> float | None:
    """Demand in force [W]; None where it is unknown, or where a backlog stands in its place."""
    return None if state.backlog else state.demand_w


def ai_numbers(
    ai: Ai, numbers: Numbers, fleet: FleetState, parameters: Parameters, hours: Floats, edges_s: Floats
) -> float:
    """Income as negative cost, demand as width, backlogs as they will grow; the constant that belongs to it [USD]."""
    offset, total_h = 0.0, float(hours.sum())
    for n, (site, state) in enumerate(pools_of(fleet)):
        own = slice(int(ai.first[n]), int(ai.first[n + 1]))
        segments = segments_of(state, site, fleet, None)
        penalty = parameters.guaranteed_penalty_usd_per_mwh if segments and segments[0].guaranteed else 0.0
        value = np.array([s.value_usd_per_mwh * (1.0 + site.overhead_ratio) + penalty for s in segments])
        widths_mw = segment_widths_w(ai.corners_w[own], state, edges_s) / 1e6
        numbers.cost[ai.segment[own]] = -value[:, None] * hours
        numbers.column_upper[ai.segment[own]] = widths_mw
        offset += penalty * float((widths_mw * hours).sum())
        if state.idle_paid:
            # Paid for every GPU all the time; what is asked for and not served is a refund, the segments' value.
            served = float((widths_mw * (value - penalty)[:, None] * hours).sum())
            offset -= state.income_usd_per_gpu_hour * state.pool.gpu_count * total_h - served
    for k, backlog in enumerate(fleet.backlogs):
        due = backlog.deadline_s
        ends = edges_s[1:]
        rate = average([(s.starts_in_s, s.gpu_h_per_h) for s in backlog.arrivals], edges_s, 0.0) / 1e3
        came = np.concatenate(([0.0], np.cumsum(rate * hours)))
        arrivals = np.diff(came)
        arrivals[0] += backlog.work_gpu_h / 1e3
        young = came[1:] - np.interp(ends - due, edges_s, came, left=0.0)
        dues = backlog.due or (WorkDue(backlog.due_in_s, backlog.work_gpu_h),)
        waiting = sum(np.where(ends <= one.due_in_s, one.gpu_h / 1e3, 0.0) for one in dues)
        wanted = _demand_gpu_kh(ai, fleet, backlog, hours, edges_s)
        arrivals = arrivals + wanted
        numbers.column_upper[ai.lost[k]] = wanted
        numbers.row_lower[ai.backlog_row[k]] = numbers.row_upper[ai.backlog_row[k]] = arrivals
        numbers.row_upper[ai.deadline_row[k]] = young + waiting
        numbers.row_lower[ai.deadline_row[k]] = -INF
        numbers.cost[ai.late[k]] = backlog.late_usd_per_gpu_hour * 1e3 * hours
        numbers.cost[ai.left[k, -1]] -= parameters.left_over_ratio * backlog.usd_per_gpu_hour * 1e3
    return offset


def _demand_gpu_kh(ai: Ai, fleet: FleetState, backlog: Backlog, hours: Floats, edges_s: Floats) -> Floats:
    """Work that the demand ahead of a backlog's pools brings in each period [thousand GPU-h] -> (period,)."""
    came = np.zeros(len(hours))
    for n, (_, state) in enumerate(pools_of(fleet)):
        if backlog.follows_demand and state.backlog == backlog.name:
            own = slice(int(ai.first[n]), int(ai.first[n + 1]))
            rates = np.array(_gpu_kh_per_mwh(state))
            came += rates @ (demand_widths_w(ai.corners_w[own], state, edges_s) / 1e6) * hours
    return came


def segment_widths_w(corners_w: Floats, state: PoolState, edges_s: Floats) -> Floats:
    """Width of each segment in each period under the demand ahead [W] -> (segment, period); all of it on a backlog."""
    if state.backlog:
        return _under_w(corners_w, np.full(len(edges_s) - 1, state.pool.max_w))
    return demand_widths_w(corners_w, state, edges_s)


def demand_widths_w(corners_w: Floats, state: PoolState, edges_s: Floats) -> Floats:
    """What of each segment the demand ahead fills [W] -> (segment, period), on a backlog or not."""
    top = np.full(len(edges_s) - 1, state.pool.max_w)
    if state.demand:
        top = np.minimum(top, average_watts(state.demand, edges_s, state.pool.max_w))
        if state.demand_w is not None:  # what it wants now it shall have now, whatever it will want later
            top[0] = max(top[0], min(state.pool.max_w, state.demand_w))
    elif state.demand_w is not None:
        top = np.minimum(top, state.demand_w)
    return _under_w(corners_w, top)


def _under_w(corners_w: Floats, top_w: Floats) -> Floats:
    low, high = corners_w[:, 0, None], corners_w[:, 1, None]
    return np.asarray(np.clip(top_w[None, :] - low, 0.0, high - low))
