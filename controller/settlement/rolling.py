"""The dispatch LP as a policy, and the rungs of the ladder under it: the same planner that runs the fleet.

`Rolling` solves at every interval, or less often and then stands by its last plan, clipped to the ceiling in force:
that is what a fleet earns when the solver does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.dispatch.inputs import ClassState, FleetState, PoolState, PriceStep, SiteState, Window
from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner
from controller.dispatch.terms import DemandCharge, SoldCapacity, WattStep
from controller.markets.feed import FileFeed
from controller.markets.forecast import forecast
from controller.settlement.demand import demand_ahead_w
from controller.settlement.plant import MODES, Floats, Plant, Setpoints
from controller.settlement.rules import by_priority, fixed_w
from controller.settlement.seen import Seen, SiteSeen
from controller.settlement.settle import drawn_w
from gridpivot.vocabulary import AiPriority, Mode

NEAR_S, FAR_S, FAR_STEP_S = 8 * 3600.0, 36 * 3600.0, 3600.0
SLEEP = MODES.index(Mode.SLEEP)


def periods(width_s: float) -> tuple[float, ...]:
    """Widths [s] for intervals of `width_s`: those to 8 h, hours to 36 h; all begin where an interval begins."""
    far = max(FAR_STEP_S, width_s)
    near = int(max(1.0, NEAR_S // width_s))
    return (width_s,) * near + (far,) * max(0, int((FAR_S - near * width_s) // far))


class Rolling:
    """A plan every `every_s` (0 = every interval); between plans the last one, clipped."""

    def __init__(
        self,
        name: str,
        width_s: float,
        parameters: Parameters | None = None,
        *,
        knows_current: bool = False,
        every_s: float = 0.0,
    ) -> None:
        self.name, self.knows_current, self._every_s = name, knows_current, every_s
        self._planner = Planner(parameters, periods(width_s), record=False)
        self._planned_unix_s = -np.inf
        self._plan: tuple[Setpoints, ...] = ()

    def decide(self, seen: Seen) -> tuple[Setpoints, ...]:
        """The first period of a new plan, or the last plan under today's ceilings; raises Infeasible."""
        if seen.unix_s < self._planned_unix_s + self._every_s:
            return tuple(clip(site, plan) for site, plan in zip(seen.sites, self._plan, strict=True))
        outlooks: dict[int, tuple[PriceStep, ...]] = {}
        states = []
        for site in seen.sites:
            if id(site.history) not in outlooks:
                outlooks[id(site.history)] = prices_ahead(site, seen)
            states.append(state_of(site, outlooks[id(site.history)], seen.width_s))
        decision = self._planner.solve(FleetState(tuple(states), seen.hashprice_usd_per_ph_day))
        self._plan = tuple(
            Setpoints(
                np.array([c.machines for c in site.classes]).reshape(-1, len(MODES)),
                np.array([p.expected_w for p in site.pools]),
            )
            for site in decision.sites
        )
        self._planned_unix_s = seen.unix_s
        if not self._every_s:
            return self._plan
        # Held plans let AI follow its demand as far as the plan allowed, as agents do.
        answer = self._plan
        self._plan = tuple(
            Setpoints(plan.machines, np.array([p.max_w for p in site.pools]))
            for plan, site in zip(answer, decision.sites, strict=True)
        )
        return answer


def prices_ahead(site: SiteSeen, seen: Seen) -> tuple[PriceStep, ...]:
    """The forecast that the live controller would make of what is known here."""
    history = site.history
    usual = FileFeed(history).usual(seen.unix_s)
    since = float(history.starts_unix_s[-1])
    return forecast(
        site.price_usd_per_mwh,
        seen.unix_s,
        usual,
        site.published,
        1.0,
        since_unix_s=since,
        width_s=history.width_s,
    )


def state_of(site: SiteSeen, prices: Sequence[PriceStep], width_s: float) -> SiteState:
    """The site as dispatch wants to see it."""
    plant = site.plant
    ahead = int(FAR_S // width_s)
    demands = [demand_ahead_w(site.past_w[k], float(site.demand_w[k]), width_s, ahead) for k in range(len(plant.pools))]
    return site_state(
        plant,
        site.standing,
        prices=tuple(prices),
        demands=[_steps(d, width_s) for d in demands],
        now_w=site.demand_w,
        windows=site.windows,
        sold=site.sold,
        charge=DemandCharge(plant.demand_charge_usd_per_kw, site.peak_w, site.month_left_s)
        if plant.demand_charge_usd_per_kw is not None
        else None,
    )


def site_state(
    plant: Plant,
    standing: Floats,
    *,
    prices: tuple[PriceStep, ...],
    demands: Sequence[tuple[WattStep, ...]],
    now_w: Floats,
    windows: tuple[Window, ...],
    sold: tuple[SoldCapacity, ...],
    charge: DemandCharge | None,
) -> SiteState:
    """A plant with its machines as they stand [counts (class, 4)], and what lies ahead of it."""
    classes = tuple(
        ClassState(
            own.miner_class,
            own.machines,
            0,
            0.0,
            (float(row[0]), float(row[1]), float(row[2]), float(row[3])),
            0.0,
            0.0,
            own.feeder,
        )
        for own, row in zip(plant.classes, standing, strict=True)
    )
    pools = tuple(
        PoolState(
            own.pool,
            float(now),
            own.pool.max_w,
            float(now),
            own.usd_per_gpu_hour,
            own.idle_paid,
            own.feeder,
            demand,
            own.shed_s,
        )
        for own, now, demand in zip(plant.pools, now_w, demands, strict=True)
    )
    return SiteState(
        name=plant.name,
        region=plant.region,
        ceiling_w=plant.ceiling_w,
        windows=windows,
        classes=classes,
        pools=pools,
        overhead_ratio=plant.overhead_ratio,
        fixed_w=plant.fixed_w,
        prices=prices,
        pool_fee_ratio=plant.pool_fee_ratio,
        drop_ramp_w_per_min=0.0,
        pick_up_ramp_w_per_min=0.0,
        connected=True,
        metered_power_w=None,
        feeders=plant.feeders,
        contract=plant.contract,
        demand_charge=charge,
        sold=sold,
    )


def _steps(watts: Floats, width_s: float) -> tuple[WattStep, ...]:
    """Demand ahead in steps as fine as the plan's periods: intervals to 8 h, hourly means after."""
    near, each = int(max(1.0, NEAR_S // width_s)), int(max(1.0, FAR_STEP_S // width_s))
    steps = [WattStep(k * width_s, float(w)) for k, w in enumerate(watts[:near])]
    far = [WattStep(k * width_s, float(watts[k : k + each].mean())) for k in range(near, len(watts), each)]
    return (*steps, *far)


def clip(site: SiteSeen, plan: Setpoints) -> Setpoints:
    """A standing plan under the ceiling in force: AI up to its demand, mining gives way first, then spot, standard.

    Mining sleeps its least efficient class first, as the agent's merit order does.
    """
    plant, loading = site.plant, 1.0 + site.plant.overhead_ratio
    pools = drawn_w(plant, plan.pool_w, site.demand_w)
    for k, own in enumerate(plant.pools):
        if own.pool.priority is AiPriority.GUARANTEED:
            pools[k] = float(np.clip(site.demand_w[k], own.pool.baseline_w, own.pool.max_w))
    machines = plan.machines.copy()
    over = float(plant.import_w(machines, pools)) - max(site.ceiling_w, fixed_w(plant))
    watts = np.nan_to_num(plant.mode_w)
    worst_first = sorted(range(len(plant.classes)), key=lambda k: -plant.classes[k].miner_class.efficiency_j_per_th)
    for k in worst_first:
        for mode in range(len(MODES) - 1, SLEEP, -1):
            each = (watts[k, mode] - watts[k, SLEEP]) * loading
            if over <= 0 or each <= 0:
                continue
            count = min(machines[k, mode], over / each)
            machines[k, mode] -= count
            machines[k, SLEEP] += count
            over -= count * each
    for k in reversed(by_priority(plant)):
        less = min(max(0.0, over) / loading, pools[k] - plant.baseline_w[k])
        pools[k] -= less
        over -= less * loading
    return Setpoints(machines, pools)
