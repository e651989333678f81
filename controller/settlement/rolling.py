"""The dispatch LP as a policy, and the rungs of the ladder under it: the same planner that runs the fleet.

`Rolling` solves at every interval, or less often; in between stands what the live ladder would publish, its last plan
under today's ceilings (`clipped`) or the commanded state (`hold`): what a fleet earns when the solver does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from controller.dispatch.inputs import ClassState, FleetState, PoolState, PriceStep, SiteDecision, SiteState, Window
from controller.dispatch.ladder import clipped, held
from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner
from controller.dispatch.terms import DemandCharge, SoldCapacity, WattStep
from controller.markets.feed import FileFeed
from controller.markets.forecast import forecast
from controller.settlement.demand import demand_ahead_w
from controller.settlement.plant import MODES, Floats, Plant, Setpoints
from controller.settlement.seen import Seen, SiteSeen
from gridpivot.vocabulary import Rung

NEAR_S, FAR_S, FAR_STEP_S = 8 * 3600.0, 36 * 3600.0, 3600.0


def periods(width_s: float) -> tuple[float, ...]:
    """Widths [s] for intervals of `width_s`: those to 8 h, hours to 36 h; all begin where an interval begins."""
    far = max(FAR_STEP_S, width_s)
    near = int(max(1.0, NEAR_S // width_s))
    return (width_s,) * near + (far,) * max(0, int((FAR_S - near * width_s) // far))


class Rolling:
    """A plan every `every_s` (0 = every interval); between plans what `between` puts in its place."""

    def __init__(
        self,
        name: str,
        width_s: float,
        parameters: Parameters | None = None,
        *,
        knows_current: bool = False,
        every_s: float = 0.0,
        between: Rung = Rung.CLIPPED_PLAN,
    ) -> None:
        self.name, self.knows_current, self._every_s, self._between = name, knows_current, every_s, between
        self._planner = Planner(parameters, periods(width_s))
        self._planned_unix_s = -np.inf
        self._plan: dict[str, SiteDecision] = {}

    def decide(self, seen: Seen) -> tuple[Setpoints, ...]:
        """The first period of a new plan, or what the ladder has between plans; raises Infeasible."""
        fresh = seen.unix_s >= self._planned_unix_s + self._every_s
        outlooks: dict[int, tuple[PriceStep, ...]] = {}
        states = []
        for site in seen.sites:
            if fresh and id(site.history) not in outlooks:
                outlooks[id(site.history)] = prices_ahead(site, seen)
            states.append(state_of(site, outlooks.get(id(site.history), ()), seen.width_s if fresh else None))
        fleet = FleetState(tuple(states), seen.hashprice_usd_per_ph_day)
        if fresh:
            decided = self._planner.solve(fleet).sites
            self._plan = {d.site: d for d in decided}
            self._planned_unix_s = seen.unix_s
        else:
            decided = tuple(self._stand_by(state, fleet) for state in fleet.sites)
        return tuple(
            Setpoints(
                np.array([c.machines for c in site.classes]).reshape(-1, len(MODES)),
                np.array([p.expected_w for p in site.pools]),
            )
            for site in decided
        )

    def _stand_by(self, state: SiteState, fleet: FleetState) -> SiteDecision:
        """The rung's own answer; AI follows its demand as far as the last plan allowed, as agents let it."""
        last = self._plan[state.name]
        most = [d.max_w for d in last.pools]
        draws = [min(m, p.demand_w or 0.0) for m, p in zip(most, state.pools, strict=True)]
        if self._between is Rung.CLIPPED_PLAN:
            pools = tuple(replace(d, expected_w=w) for d, w in zip(last.pools, draws, strict=True))
            return clipped(state, replace(last, pools=pools), fleet, self._planner.parameters)
        pools_now = (replace(p, power_w=w, limit_w=m) for p, w, m in zip(state.pools, draws, most, strict=True))
        return held(replace(state, pools=tuple(pools_now)), fleet, self._planner.parameters)


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


def state_of(site: SiteSeen, prices: Sequence[PriceStep], width_s: float | None) -> SiteState:
    """The site as dispatch wants to see it; without a width of intervals it looks no further than now."""
    plant = site.plant
    demands: list[tuple[WattStep, ...]] = [()] * len(plant.pools)
    if width_s is not None:
        ahead = int(FAR_S // width_s)
        forecasts = (
            demand_ahead_w(p, float(w), width_s, ahead) for p, w in zip(site.past_w, site.demand_w, strict=True)
        )
        demands = [_steps(watts, width_s) for watts in forecasts]
    return site_state(
        plant,
        site.standing,
        prices=tuple(prices),
        demands=demands,
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
