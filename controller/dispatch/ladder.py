"""What is published when a site could not be solved: its last plan re-clipped, the merit order, or what stands. Pure.

A plan always goes out, never with a higher ceiling, and what it expects is under the ceiling in force as far as
anything can be shed: mining of least value first, then spot and standard AI, guaranteed AI last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controller.dispatch.ai import demand_now_w, segments_of
from controller.dispatch.answer import PRIORITIES, fallback_mining_w, fallback_w
from controller.dispatch.check import fault_of
from controller.dispatch.grid import fixed_import_w
from controller.dispatch.horizon import ceiling_now
from controller.dispatch.inputs import (
    ClassDecision,
    ClassState,
    Decision,
    FleetState,
    PoolDecision,
    SiteDecision,
    SiteState,
)
from controller.dispatch.mining import Shapes
from controller.dispatch.parameters import Parameters
from gridpivot.segments import class_segments, machines_by_mode, merit_order, pool_segments
from gridpivot.value import mining_usd_per_mwh
from gridpivot.vocabulary import COMMANDABLE_MODES, AiPriority, Mode, Rung

TOO_OLD = "its newest report is too old to plan on"
Machines = tuple[float, float, float, float]  # sleep, low, normal, turbo


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a rung would like at a site before today's limits: machines by class, wall watts by pool."""

    machines: Sequence[Machines]
    pools_w: Sequence[float]
    max_w: Sequence[float]


def split(fleet: FleetState) -> tuple[FleetState, dict[str, str]]:
    """What may be solved, and why each of the other sites may not: an old report, or a number that cannot be.

    The floor is what those others leave to be hashed.
    """
    left_out: dict[str, str] = {}
    for site in fleet.sites:
        if site.stale:
            left_out[site.name] = TOO_OLD
        elif (fault := fault_of(site)) is not None:
            left_out[site.name] = fault
    if not left_out:
        return fleet, {}
    hashing = sum(_hashrate_hs(c, c.commanded) for s in fleet.sites if s.name in left_out for c in s.classes)
    fresh = tuple(s for s in fleet.sites if s.name not in left_out)
    worked_on = {p.backlog for s in fresh for p in s.pools}
    backlogs = tuple(b for b in fleet.backlogs if b.name in worked_on)
    floor = max(0.0, fleet.fleet_floor_hs - (hashing if math.isfinite(hashing) else 0.0))
    return replace(fleet, sites=fresh, fleet_floor_hs=floor, backlogs=backlogs), left_out


def complete(
    solved: Decision | None,
    reason: str,
    last: Decision | None,
    fleet: FleetState,
    parameters: Parameters,
    recent: bool = True,
) -> Decision:
    """A decision for every site: solved ones as they are, the others on the best rung there is.

    `reason` says why nothing was solved (with `solved` None); `last` is the newest decision of any rung; unless
    its plan is `recent`, a site whose price is known has the merit order instead. A site whose own limits are not
    numbers gets none: its last plan stays in force.
    """
    done = {d.site: d for d in solved.sites} if solved is not None else {}
    before = {d.site: d for d in last.sites} if last is not None else {}
    left_out = split(fleet)[1]
    sites = []
    for site in fleet.sites:
        if site.name in done:
            sites.append(done[site.name])
            continue
        why = left_out.get(site.name, reason)
        decided = _stand_in(site, before.get(site.name), recent, fleet, parameters, why)
        if math.isfinite(decided.expected_power_w) and _limits_known(site):
            sites.append(decided)
    if solved is not None:
        return replace(solved, sites=tuple(sites))
    rung = max((s.rung for s in sites), key=list(Rung).index, default=Rung.HOLD)
    return Decision(tuple(sites), 0.0, 0.0, False, 0.0, "none", None, rung, reason)


def _limits_known(site: SiteState) -> bool:
    limits = [site.ceiling_w, *(w.ceiling_w for w in site.windows), *(f.limit_w for f in site.feeders)]
    return all(math.isfinite(limit) for limit in limits)


def _stand_in(
    site: SiteState, before: SiteDecision | None, recent: bool, fleet: FleetState, parameters: Parameters, why: str
) -> SiteDecision:
    priced = bool(site.prices) and not site.stale and fault_of(site) is None
    if before is not None and _same_equipment(site, before) and (recent or not priced):
        decided, rung = clipped(site, before, fleet, parameters), Rung.CLIPPED_PLAN
    elif priced:
        decided, rung = by_merit(site, fleet, parameters), Rung.MERIT_ORDER
    else:
        decided, rung = held(site, fleet, parameters), Rung.HOLD
    return replace(decided, rung=rung, rung_reason=why)


def _same_equipment(site: SiteState, before: SiteDecision) -> bool:
    classes = [c.miner_class.name for c in site.classes] == [c.name for c in before.classes]
    return classes and [p.pool.name for p in site.pools] == [p.name for p in before.pools]


def clipped(site: SiteState, before: SiteDecision, fleet: FleetState, parameters: Parameters) -> SiteDecision:
    """The last plan under today's limits: machines that are there, and no more than the ceilings allow."""
    machines = [_available(c, d.machines) for c, d in zip(site.classes, before.classes, strict=True)]
    pools = [min(p.pool.max_w, d.expected_w) for p, d in zip(site.pools, before.pools, strict=True)]
    most = [min(p.pool.max_w, d.max_w) for p, d in zip(site.pools, before.pools, strict=True)]
    return _fitted(site, Wanted(machines, pools, most), fleet, parameters)


def by_merit(site: SiteState, fleet: FleetState, parameters: Parameters) -> SiteDecision:
    """The segment merit order: one site, one period, exact where wake-ups cost nothing."""
    price = site.prices[0].usd_per_mwh + (site.risk[0].usd_per_mwh if site.risk else 0.0)
    segments = [
        s
        for c in site.classes
        for s in class_segments(
            c.miner_class, c.available, fleet.hashprice_usd_per_ph_day, site.pool_fee_ratio, site.overhead_ratio
        )
    ]
    for p in site.pools:
        segments += segments_of(p, site, fleet, demand_now_w(p))
    order = merit_order(segments, ceiling_now(site)[0], fixed_import_w(site), site.overhead_ratio, price)
    machines = []
    for c in site.classes:
        counts = machines_by_mode(c.miner_class, float(c.available), order)
        sleep, low, normal, turbo = (counts.get(mode, 0.0) for mode in COMMANDABLE_MODES)
        machines.append((sleep, low, normal, turbo))
    given = {p.pool.name: p.pool.baseline_w for p in site.pools}
    for segment, watts in zip(order.segments, order.watts, strict=True):
        if segment.name in given:
            given[segment.name] += watts
    pools = [given[p.pool.name] for p in site.pools]
    most = [
        p.pool.max_w if p.pool.priority is AiPriority.GUARANTEED else w for p, w in zip(site.pools, pools, strict=True)
    ]
    return _fitted(site, Wanted(machines, pools, most), fleet, parameters)


def held(site: SiteState, fleet: FleetState, parameters: Parameters) -> SiteDecision:
    """What is commanded now, under today's limits."""
    machines = [_available(c, c.commanded) for c in site.classes]
    limits = [min(p.pool.max_w, p.limit_w) for p in site.pools]
    drawn = [min(m, p.power_w if p.power_w is not None else m) for p, m in zip(site.pools, limits, strict=True)]
    return _fitted(site, Wanted(machines, drawn, limits), fleet, parameters)


def _available(state: ClassState, machines: Machines) -> Machines:
    """The same modes for the machines that are there now; those that came back sleep."""
    awake = sum(machines[1:])
    share = min(1.0, state.available / awake) if awake > 0 else 0.0
    low, normal, turbo = (n * share for n in machines[1:])
    return max(0.0, state.available - low - normal - turbo), low, normal, turbo


def _fitted(site: SiteState, wanted: Wanted, fleet: FleetState, parameters: Parameters) -> SiteDecision:
    """`wanted` with so much shed, cheapest first, that the ceiling in force and every feeder's limit hold."""
    loading = 1.0 + site.overhead_ratio
    machines = [list(m) for m in wanted.machines]
    pools = [max(p.pool.baseline_w, w) for p, w in zip(site.pools, wanted.pools_w, strict=True)]
    ceiling_w, _ = ceiling_now(site)
    for k, state in enumerate(site.classes):
        if state.achievable_w is not None:
            _shed(site, machines, pools, _watts(state, machines[k]) - state.achievable_w, fleet, [k], [])
    for feeder in site.feeders:
        at = [k for k, c in enumerate(site.classes) if c.feeder == feeder.name]
        on = [n for n, p in enumerate(site.pools) if p.feeder == feeder.name]
        silent_w = sum(site.classes[k].silent_power_w for k in at)
        load_w = silent_w + sum(_watts(site.classes[k], machines[k]) for k in at) + sum(pools[n] for n in on)
        _shed(site, machines, pools, load_w - feeder.limit_w / loading, fleet, at, on)
    every = range(len(site.classes)), range(len(site.pools))
    _shed(site, machines, pools, (_import_w(site, machines, pools) - ceiling_w) / loading, fleet, *every)
    value = {
        c.miner_class.name: mining_usd_per_mwh(
            fleet.hashprice_usd_per_ph_day, c.miner_class.efficiency_j_per_th, site.pool_fee_ratio, site.overhead_ratio
        )
        for c in site.classes
    }
    classes = tuple(
        ClassDecision(c.miner_class.name, _rounded(m), value[c.miner_class.name])
        for c, m in zip(site.classes, machines, strict=True)
    )
    mining_w = fallback_mining_w(site, tuple(Shapes.of(c.miner_class) for c in site.classes), classes)
    made = []
    for p, w, most, fall in zip(site.pools, pools, wanted.max_w, fallback_w(site, mining_w, parameters), strict=True):
        full = pool_segments(p.pool, p.income_usd_per_gpu_hour, None, site.overhead_ratio)
        worth = full[0].value_usd_per_mwh if full else 0.0
        top = most if p.pool.priority is AiPriority.GUARANTEED else min(most, max(w, p.pool.baseline_w))
        made.append(PoolDecision(p.pool.name, max(top, w), w, fall, worth))
    return SiteDecision(site.name, ceiling_w, _import_w(site, machines, pools), classes, tuple(made), ())


def _rounded(machines: Sequence[float]) -> Machines:
    sleep, low, normal, turbo = (round(n, 6) for n in machines)
    return sleep, low, normal, turbo


def _shed(
    site: SiteState,
    machines: list[list[float]],
    pools: list[float],
    excess_w: float,
    fleet: FleetState,
    classes: Sequence[int],
    on: Sequence[int],
) -> None:
    """Take `excess_w` [W at the devices] off in place: mining by value per watt, then AI, the guaranteed last."""
    groups = []
    for k in classes:
        asleep_w = _mode_w(site.classes[k], Mode.SLEEP)
        for m, mode in enumerate(COMMANDABLE_MODES[1:], start=1):
            freed_w = _mode_w(site.classes[k], mode) - asleep_w
            if machines[k][m] > 0 and freed_w > 0:
                groups.append((_hashrate_hs(site.classes[k], _one(m)) / freed_w, k, m, freed_w))
    for _, k, m, freed_w in sorted(groups):
        if excess_w <= 0:
            return
        moved = min(machines[k][m], excess_w / freed_w)
        machines[k][m] -= moved
        machines[k][0] += moved
        excess_w -= moved * freed_w
    incomes = {n: site.pools[n].income_usd_per_gpu_hour for n in on}
    for n in sorted(on, key=lambda n: (-PRIORITIES.index(site.pools[n].pool.priority), incomes[n])):
        given = min(max(0.0, excess_w), pools[n] - site.pools[n].pool.baseline_w)
        pools[n] -= given
        excess_w -= given


def _one(mode: int) -> Machines:
    low, normal, turbo = (float(m == mode) for m in (1, 2, 3))
    return 0.0, low, normal, turbo


def _mode_w(state: ClassState, mode: Mode) -> float:
    modes = state.miner_class.modes
    return (modes[mode] if mode in modes else modes[Mode.NORMAL]).power_w


def _watts(state: ClassState, machines: Sequence[float]) -> float:
    return sum(n * _mode_w(state, mode) for n, mode in zip(machines, COMMANDABLE_MODES, strict=True))


def _hashrate_hs(state: ClassState, machines: Sequence[float]) -> float:
    modes: Mapping[Mode, object] = state.miner_class.modes
    points = [state.miner_class.modes[m if m in modes else Mode.NORMAL] for m in COMMANDABLE_MODES]
    return sum(n * p.hashrate_hs for n, p in zip(machines[1:], points[1:], strict=True))


def _import_w(site: SiteState, machines: Sequence[Sequence[float]], pools: Sequence[float]) -> float:
    loads = sum(_watts(c, m) + c.silent_power_w for c, m in zip(site.classes, machines, strict=True)) + sum(pools)
    return site.fixed_w + (1.0 + site.overhead_ratio) * loads
