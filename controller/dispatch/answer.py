"""The solver's columns back into a decision: machines, watts, fallback limits, and what each constraint costs. Pure."""

from __future__ import annotations

import numpy as np

from controller.dispatch.admission import LESS_RATIO, admits
from controller.dispatch.ai import demand_now_w, segments_of
from controller.dispatch.arrays import Floats, Numbers
from controller.dispatch.block import Solution
from controller.dispatch.horizon import ceiling_now
from controller.dispatch.inputs import (
    ClassDecision,
    ClassState,
    FleetState,
    PoolDecision,
    PoolState,
    SiteDecision,
    SiteState,
)
from controller.dispatch.mining import Shapes, commanded_awake
from controller.dispatch.model import Layout
from controller.dispatch.parameters import Parameters
from controller.dispatch.shadow import NOISE_USD_PER_MWH, Prices, binding, outlook, worth
from gridpivot.segments import Segment
from gridpivot.value import mining_usd_per_mwh
from gridpivot.vocabulary import AiPriority, Mode

SWING_RATIO = 0.05  # of what it is given: once its door is closed, only what runs can swing up
NOISE_GPU_H = 1e-3  # less than this does not wait: the solver's tolerance
PRIORITIES = tuple(AiPriority)  # guaranteed, standard, spot: the order in which fallback room is given


def decide(
    layout: Layout, now: Numbers, solution: Solution, fleet: FleetState, parameters: Parameters
) -> tuple[SiteDecision, ...]:
    """What each site is asked to do in the first period, and what is expected after it, in the order of the sites."""
    decisions, prices, edges_s = [], Prices(layout, now, solution, fleet), layout.edges_s
    mining, ai = layout.mining, layout.ai
    machines = solution.x[mining.awake], solution.x[mining.low], solution.x[mining.turbo]  # thousands, (class, period)
    given_w = solution.x[ai.segment] * 1e6
    waits_gpu_h = {b.name: float(solution.x[ai.left[k, 0]]) * 1e3 for k, b in enumerate(fleet.backlogs)}
    held_back = {b.name for b in fleet.backlogs if not b.follows_demand or waits_gpu_h[b.name] > NOISE_GPU_H}
    extra_w = sum(n * mining.watts[:, kind, None] * 1e3 for kind, n in enumerate(machines))
    first_class = first_pool = 0
    for i, site in enumerate(fleet.sites):
        own = slice(first_class, first_class + len(site.classes))
        classes = tuple(
            _class(state, mining.shapes[k], [float(n[k, 0]) * 1e3 for n in machines], site, fleet)
            for k, state in enumerate(site.classes, start=first_class)
        )
        shadows = prices.of_site(i)
        # What one more MWh of load costs here: power, and whatever it crowds out under the ceiling.
        marginal = float(prices.price_usd_per_mwh[i, 0]) + shadows[0].now_usd_per_mwh
        mining_w = fallback_mining_w(site, mining.shapes[own], classes)
        pools = []
        for n, (pool, fallback) in enumerate(
            zip(site.pools, fallback_w(site, mining_w, parameters), strict=True), start=first_pool
        ):
            segments = segments_of(pool, site, fleet, demand_now_w(pool))
            crowded = marginal + sum(s.now_usd_per_mwh for s in shadows if s.name == f"feeder {pool.feeder}")
            at = slice(int(ai.first[n]), int(ai.first[n + 1]))
            full = segments_of(pool, site, fleet, None)
            pools.append(_pool(pool, segments, full, given_w[at, 0], crowded, fallback, pool.backlog in held_back))
        asleep_w = sum(c.available * c.miner_class.modes[Mode.SLEEP].power_w + c.silent_power_w for c in site.classes)
        span = slice(int(ai.first[first_pool]), int(ai.first[first_pool + len(site.pools)]))
        decisions.append(
            SiteDecision(
                site.name,
                ceiling_now(site)[0],
                float(prices.import_w[i, 0]),
                classes,
                tuple(pools),
                binding(shadows),
                outlook(
                    prices,
                    i,
                    shadows,
                    edges_s,
                    np.asarray(extra_w)[own].sum(axis=0) + asleep_w,
                    given_w[span].sum(axis=0) + sum(p.pool.baseline_w for p in site.pools),
                ),
                worth(layout, solution, fleet, prices, i, parameters),
            )
        )
        first_class += len(site.classes)
        first_pool += len(site.pools)
    return tuple(decisions)


def _class(state: ClassState, shapes: Shapes, solved: list[float], site: SiteState, fleet: FleetState) -> ClassDecision:
    """Machines by mode from those awake, in low and in turbo as solved."""
    awake = min(max(0.0, solved[0]), float(state.available))
    low, turbo = min(max(0.0, solved[1]), awake), min(max(0.0, solved[2]), awake)
    turbo = min(turbo, awake - low)
    counts = {Mode.SLEEP: state.available - awake, Mode.LOW: low, Mode.NORMAL: 0.0, Mode.TURBO: turbo}
    counts[shapes.base] += awake - low - turbo
    sleep, low, normal, turbo = (round(counts[mode], 6) for mode in (Mode.SLEEP, Mode.LOW, Mode.NORMAL, Mode.TURBO))
    value = mining_usd_per_mwh(
        fleet.hashprice_usd_per_ph_day, state.miner_class.efficiency_j_per_th, site.pool_fee_ratio, site.overhead_ratio
    )
    return ClassDecision(state.miner_class.name, (sleep, low, normal, turbo), value)


def _pool(
    state: PoolState,
    segments: tuple[Segment, ...],
    full: tuple[Segment, ...],
    given_w: Floats,
    marginal: float,
    fallback: float,
    held_back: bool,
) -> PoolDecision:
    """Power of one pool. Guaranteed AI may always go to its top; the rest as far as a segment outbids the margin.

    The agent raises AI on its own, so `max_w` looks past today's demand: a segment counts when its value is above
    what the displaced load costs, power included. While deferrable work is `held_back`, its pool is held to what it
    was given; a little above that once its site has closed the door to new work, so that what runs is not slowed.
    """
    pool = state.pool
    expected = pool.baseline_w + float(given_w.sum())
    if pool.priority is AiPriority.GUARANTEED:
        most = pool.max_w
    elif held_back:
        closed = state.queue is not None and not state.queue.admitting
        served = state.demand_w is not None and expected >= (1.0 - LESS_RATIO) * state.demand_w
        most = min(pool.max_w, (1.0 + SWING_RATIO * (closed and served)) * expected)
    else:
        worthy = sum(s.width_w for s in full if s.value_usd_per_mwh > marginal + NOISE_USD_PER_MWH)
        most = min(pool.max_w, max(expected, pool.baseline_w + worthy))
    used = [s for s, w in zip(segments, given_w, strict=True) if w > 1.0]
    value = used[-1].value_usd_per_mwh if used else (full[0].value_usd_per_mwh if full else 0.0)
    return PoolDecision(pool.name, most, expected, fallback, value, admits(state, expected, held_back))


def fallback_mining_w(site: SiteState, shapes: tuple[Shapes, ...], classes: tuple[ClassDecision, ...]) -> float:
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
