"""The solver's columns back into a decision: machines, watts, fallback limits, and which constraints bind. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.dispatch.horizon import Floats, ceiling_now, first_ceiling
from controller.dispatch.inputs import (
    Binding,
    ClassDecision,
    FleetState,
    PoolDecision,
    PoolState,
    SiteDecision,
    SiteState,
)
from controller.dispatch.model import Layout, Numbers, Shapes, commanded_awake
from controller.dispatch.parameters import Parameters
from gridpivot.segments import Segment, pool_segments
from gridpivot.value import mining_usd_per_mwh
from gridpivot.vocabulary import AiPriority, Mode

PRICE_NOISE_USD_PER_MWH = 0.01  # shadow prices under a cent are the solver's rounding
TIGHT = 1e-6  # MW or PH/s
NEAR_S = 3600.0
PRIORITIES = tuple(AiPriority)  # guaranteed, standard, spot: the order in which fallback room is given


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """One optimal solution: columns, duals, cost [USD over the horizon] and the worst breach of a constraint."""

    x: Floats
    column_dual: Floats
    row_dual: Floats
    row_value: Floats
    objective_usd: float
    primal_infeasibility: float


def decide(
    layout: Layout, now: Numbers, solution: Solution, fleet: FleetState, parameters: Parameters
) -> tuple[SiteDecision, ...]:
    """What each site is asked to do in the first period, in the order of the fleet's sites."""
    decisions = []
    first_class = first_segment = 0
    ramp_of = {int(site): k for k, site in enumerate(layout.ramped)}
    hours = float(layout.period_s[0]) / 3600.0
    for i, site in enumerate(fleet.sites):
        classes = tuple(
            _class(layout, solution, first_class + k, site, fleet.hashprice_usd_per_ph_day)
            for k in range(len(site.classes))
        )
        # What one more MWh of load costs here: power, and whatever it crowds out under the ceiling.
        price = float(now.cost[layout.import_[i, 0]]) / hours
        rent = _rent(layout, solution.x[layout.import_[i]] >= now.column_upper[layout.import_[i]] - TIGHT,
                     -solution.column_dual[layout.import_[i]])  # fmt: skip
        marginal = price + max(0.0, rent)
        mining_w = _fallback_mining_w(site, layout.shapes[first_class : first_class + len(site.classes)], classes)
        fallbacks = fallback_w(site, mining_w, parameters)
        pools = []
        for pool, fallback in zip(site.pools, fallbacks, strict=True):
            segments = pool_segments(pool.pool, pool.income_usd_per_gpu_hour, pool.demand_w, site.overhead_ratio)
            given = solution.x[layout.segment[first_segment : first_segment + len(segments), 0]] * 1e6
            pools.append(_pool(pool, segments, given, marginal, fallback, site.overhead_ratio))
            first_segment += len(segments)
        import_w = float(solution.x[layout.import_[i, 0]] + solution.x[layout.over[i, 0]]) * 1e6
        binding = _binding(layout, now, solution, ramp_of.get(i), site, hours, rent)
        decisions.append(SiteDecision(site.name, ceiling_now(site)[0], import_w, classes, tuple(pools), binding))
        first_class += len(site.classes)
    return tuple(decisions)


def _class(layout: Layout, solution: Solution, k: int, site: SiteState, hashprice: float) -> ClassDecision:
    state, shapes = site.classes[k - _first_of(layout, k)], layout.shapes[k]
    awake, low, turbo = (float(solution.x[block[k, 0]]) * 1e3 for block in (layout.awake, layout.low, layout.turbo))
    awake = min(max(0.0, awake), float(state.available))
    low, turbo = min(max(0.0, low), awake), min(max(0.0, turbo), awake)
    turbo = min(turbo, awake - low)
    counts = {Mode.SLEEP: state.available - awake, Mode.LOW: low, Mode.NORMAL: 0.0, Mode.TURBO: turbo}
    counts[shapes.base] += awake - low - turbo
    machines = (counts[Mode.SLEEP], counts[Mode.LOW], counts[Mode.NORMAL], counts[Mode.TURBO])
    value = mining_usd_per_mwh(
        hashprice, state.miner_class.efficiency_j_per_th, site.pool_fee_ratio, site.overhead_ratio
    )
    sleep, low, normal, turbo = (round(m, 6) for m in machines)
    return ClassDecision(state.miner_class.name, (sleep, low, normal, turbo), value)


def _first_of(layout: Layout, k: int) -> int:
    return int(np.searchsorted(layout.class_site, layout.class_site[k], side="left"))


def _pool(
    state: PoolState, segments: tuple[Segment, ...], given_w: Floats, marginal: float, fallback: float, overhead: float
) -> PoolDecision:
    """Power of one pool. Guaranteed AI may always go to its top; the rest as far as a segment outbids the margin.

    The agent raises AI on its own, so `max_w` looks past today's demand: a segment counts when its value is above
    what the displaced load costs, power included.
    """
    pool = state.pool
    expected = pool.baseline_w + float(given_w.sum())
    full = pool_segments(pool, state.income_usd_per_gpu_hour, None, overhead)
    if pool.priority is AiPriority.GUARANTEED:
        most = pool.max_w
    else:
        worthy = sum(s.width_w for s in full if s.value_usd_per_mwh > marginal + PRICE_NOISE_USD_PER_MWH)
        most = min(pool.max_w, max(expected, pool.baseline_w + worthy))
    used = [s for s, w in zip(segments, given_w, strict=True) if w > 1.0]
    value = used[-1].value_usd_per_mwh if used else (full[0].value_usd_per_mwh if full else 0.0)
    return PoolDecision(pool.name, most, expected, fallback, value)


def _fallback_mining_w(site: SiteState, shapes: tuple[Shapes, ...], classes: tuple[ClassDecision, ...]) -> float:
    """Mining that may run without a live governor [W at the devices]: the higher of commanded and planned, by class."""
    total = 0.0
    for state, shape, chosen in zip(site.classes, shapes, classes, strict=True):
        modes = state.miner_class.modes
        powers = [
            modes[m].power_w if m in modes else shape.base_w for m in (Mode.SLEEP, Mode.LOW, Mode.NORMAL, Mode.TURBO)
        ]
        planned = sum(n * w for n, w in zip(chosen.machines, powers, strict=True))
        awake, _, _ = commanded_awake(state)
        share = awake / max(1e-9, sum(state.commanded[1:]))
        standing = sum(n * share * w for n, w in zip(state.commanded[1:], powers[1:], strict=True))
        standing += max(0.0, state.available - awake) * powers[0]
        booting = state.waking * max(0.0, state.miner_class.boot_w - modes[Mode.NORMAL].power_w)
        total += max(planned, standing + booting) + state.silent_power_w
    return total


def fallback_w(site: SiteState, mining_w: float, parameters: Parameters) -> tuple[float, ...]:
    """Wall power of each pool's fallback limit [W], in the order of the pools.

    Together with mining, the rest of the site and the worst overhead they stay under the ceiling in force. First
    every pool's `min_w`, guaranteed before standard before spot, then what is left up to `max_w` in the same order.
    """
    worst = 1.0 + site.overhead_ratio * parameters.fallback_overhead_factor
    room = max(0.0, (ceiling_now(site)[0] - site.fixed_w) / worst - mining_w)
    given = [0.0] * len(site.pools)
    ranked = sorted(range(len(site.pools)), key=lambda k: PRIORITIES.index(site.pools[k].pool.priority))
    for tops in ([p.pool.min_w for p in site.pools], [p.pool.max_w for p in site.pools]):
        for k in ranked:
            more = min(room, max(0.0, tops[k] - given[k]))
            given[k] += more
            room -= more
    return tuple(given)


def _rent(layout: Layout, tight: NDArray[np.bool_], duals: Floats) -> float:
    """Worth of one more unit for an hour of a constraint that is tight now [USD]; 0 where it is not.

    Meant over the stretch of the first hour in which it stays tight: where wake-ups tie periods together the dual
    of one period alone is not unique, the sum over the stretch is what relaxing it would bring.
    """
    near = int(np.searchsorted(np.cumsum(layout.period_s), NEAR_S, side="right"))
    stretch = tight[: max(1, near)]
    run = len(stretch) if stretch.all() else int(np.argmin(stretch))
    return float(duals[:run].sum()) / (float(layout.period_s[:run].sum()) / 3600.0) if run else 0.0


def _binding(
    layout: Layout, now: Numbers, solution: Solution, ramp: int | None, site: SiteState, hours: float, rent: float
) -> tuple[Binding, ...]:
    """Constraints of the first period without slack [W, or W/min for a ramp], dearest first."""
    found = []
    limit_w, name = first_ceiling(site, float(layout.real_s[0]))
    if rent > PRICE_NOISE_USD_PER_MWH:
        found.append(Binding(name, limit_w, rent))
    if ramp is not None:
        dual = float(solution.row_dual[layout.ramp_row[ramp, 0]]) / hours
        if dual < -PRICE_NOISE_USD_PER_MWH:
            found.append(Binding("pick-up ramp", site.pick_up_ramp_w_per_min, -dual))
        elif dual > PRICE_NOISE_USD_PER_MWH:
            found.append(Binding("drop ramp", site.drop_ramp_w_per_min, dual))
    if layout.floor_row.size:
        # The slack stands at 0 in a floor that is met, so a floor is tight where its row is.
        duals = solution.row_dual[layout.floor_row]
        per_ph = _rent(layout, solution.row_value[layout.floor_row] <= now.row_lower[layout.floor_row] + TIGHT, duals)
        best = max((s.base_hs / s.base_w for s in layout.shapes if s.base_w > 0), default=0.0)
        if per_ph > PRICE_NOISE_USD_PER_MWH / 1e3 and best > 0:
            # PH/s that a MW at the best machine brings: what a MWh earns towards the floor.
            floor_hs = float(now.row_lower[layout.floor_row[0]]) * 1e15
            found.append(Binding("fleet hashrate floor", floor_hs, per_ph * best * 1e6 / 1e15))
    return tuple(sorted(found, key=lambda b: -b.shadow_price_usd_per_mwh))
