"""What constraints cost: dual prices of a solution as USD per MWh, by site and period, and what changes would be worth.

Signs: the solver gives the change of cost per unit of a bound or right-hand side. Everything here is worded as a gain:
what one more MWh under the constraint would earn. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.dispatch.ai import segment_widths_w
from controller.dispatch.arrays import Floats, Numbers
from controller.dispatch.block import Solution
from controller.dispatch.horizon import first_ceiling
from controller.dispatch.inputs import Binding, FleetState, Outlook, SiteState, Worth
from controller.dispatch.model import Layout
from controller.dispatch.parameters import Parameters
from controller.dispatch.ramp import curves, rate_at
from gridpivot.curves import AiPool
from gridpivot.segments import pool_corners
from gridpivot.vocabulary import AiPriority

NOISE_USD_PER_MWH = 0.01  # shadow prices under a cent are the solver's rounding
TIGHT = 1e-6  # MW or PH/s
NEAR_S = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Shadow:
    """One constraint of a site: its limit now, and what one more MWh of it earns in each period -> (periods,).

    `now_usd_per_mwh` is the mean over the stretch of the first hour in which it stays tight: where wake-ups tie
    periods together the dual of one period alone is not unique, the sum over the stretch is what relaxing it brings.
    """

    name: str
    limit: float
    usd_per_mwh: Floats
    now_usd_per_mwh: float


class Prices:
    """Dual prices of one solution, site by site."""

    def __init__(self, layout: Layout, now: Numbers, solution: Solution, fleet: FleetState) -> None:
        self._layout, self._now, self._solution, self._fleet = layout, now, solution, fleet
        grid = layout.grid
        self.hours = layout.hours
        imports = solution.x[grid.import_]
        self.import_w = (imports + solution.x[grid.over]) * 1e6  # (site, period)
        self.price_usd_per_mwh = now.cost[grid.import_] / self.hours
        self.ceiling_w = now.column_upper[grid.import_] * 1e6
        self._rows: dict[str, dict[int, int]] = {
            "ramp": {int(i): k for k, i in enumerate(grid.ramped)},
            "charge": {int(i): k for k, i in enumerate(grid.charged)},
        }

    def ceiling(self, i: int) -> Shadow:
        """The ceiling of a site: its own, or an event's."""
        grid, solution = self._layout.grid, self._solution
        columns = grid.import_[i]
        tight = solution.x[columns] >= self._now.column_upper[columns] - TIGHT
        limit_w, name = first_ceiling(self._fleet.sites[i], float(self._layout.real_s[0]))
        return self._shadow(name, limit_w, tight, -solution.column_dual[columns])

    def feeder(self, k: int) -> Shadow:
        """One feeder, by its place in the layout."""
        i, name = self._layout.grid.feeders[k]
        limit_w = next(f.limit_w for f in self._fleet.sites[i].feeders if f.name == name)
        return self._upper_row(f"feeder {name}", limit_w, self._layout.grid.feeder_row[k])

    def of_site(self, i: int) -> list[Shadow]:
        """All constraints of a site, whether they bind or not."""
        layout, site, grid = self._layout, self._fleet.sites[i], self._layout.grid
        found = [self.ceiling(i)]
        found += [self.feeder(k) for k, (owner, _) in enumerate(grid.feeders) if owner == i]
        if i in self._rows["ramp"]:
            found += self._ramps(site, grid.ramp_row[self._rows["ramp"][i]], i)
        if i in self._rows["charge"] and site.demand_charge is not None:
            row = grid.charge_row[self._rows["charge"][i]]
            found.append(self._upper_row("demand charge", site.demand_charge.peak_w, row))
        for k, (owner, notice_s) in enumerate(layout.promises.levels):
            if owner == i:
                names = "+".join(p.product for p in site.sold if p.notice_s == notice_s)
                row = layout.promises.sold_row[k]
                asked_w = max(0.0, float(self._now.row_lower[row[0]])) * 1e6
                found.append(self._lower_row(f"sold {names}", asked_w, row))
        for k, at in enumerate(layout.mining.capped):
            if layout.mining.site[at] == i:
                state = site.classes[int(at) - int(np.searchsorted(layout.mining.site, i))]
                shadow = self._upper_row(
                    f"achievable {state.miner_class.name}", state.achievable_w or 0.0, layout.mining.cap_row[k]
                )
                found.append(_scaled(shadow, 1.0 / (1.0 + site.overhead_ratio)))
        found += self._backlogs(site)
        if layout.promises.floor_row.size:
            found.append(self._floor())
        return found

    def _ramps(self, site: SiteState, row: NDArray[np.int32], i: int) -> Iterator[Shadow]:
        drop, pick_up = curves(site)
        at_w = float(self.import_w[i, 0])
        duals = self._solution.row_dual[row]
        tight = np.abs(duals) > 0
        if pick_up:
            yield self._shadow("pick-up ramp", rate_at(pick_up, at_w), tight, np.maximum(0.0, -duals), first=True)
        if drop:
            yield self._shadow("drop ramp", rate_at(drop, at_w), tight, np.maximum(0.0, duals), first=True)

    def _backlogs(self, site: SiteState) -> Iterator[Shadow]:
        """Deadlines of the work that a site's pools do: USD per MWh of AI power that would do more of it."""
        for k, backlog in enumerate(self._fleet.backlogs):
            rates = [gpu_kh_per_mwh(p.pool) for p in site.pools if p.backlog == backlog.name]
            if rates:
                shadow = self._upper_row(f"backlog {backlog.name}", backlog.work_gpu_h, self._layout.ai.deadline_row[k])
                yield _scaled(shadow, max(rates))

    def _floor(self) -> Shadow:
        row = self._layout.promises.floor_row
        floor_hs = float(self._now.row_lower[row[0]]) * 1e15
        best = max((s.base_hs / s.base_w for s in self._layout.mining.shapes if s.base_w > 0), default=0.0)
        # PH/s that a MW at the best machine brings: what a MWh earns towards the floor.
        return _scaled(self._lower_row("fleet hashrate floor", floor_hs, row), best * 1e6 / 1e15)

    def _upper_row(self, name: str, limit: float, row: NDArray[np.int32]) -> Shadow:
        tight = self._solution.row_value[row] >= self._now.row_upper[row] - TIGHT
        return self._shadow(name, limit, tight, -self._solution.row_dual[row])

    def _lower_row(self, name: str, limit: float, row: NDArray[np.int32]) -> Shadow:
        tight = self._solution.row_value[row] <= self._now.row_lower[row] + TIGHT
        return self._shadow(name, limit, tight, self._solution.row_dual[row])

    def _shadow(
        self, name: str, limit: float, tight: NDArray[np.bool_], gains: Floats, *, first: bool = False
    ) -> Shadow:
        """`gains` are USD per MW of each period; `first` takes the first period alone for now."""
        near = 1 if first else max(1, int(np.searchsorted(np.cumsum(self._layout.period_s), NEAR_S, side="right")))
        stretch = tight[:near]
        run = len(stretch) if stretch.all() else int(np.argmin(stretch))
        now = float(gains[:run].sum()) / float(self.hours[:run].sum()) if run else 0.0
        return Shadow(name, limit, np.where(tight, np.maximum(0.0, gains), 0.0) / self.hours, max(0.0, now))


def _scaled(shadow: Shadow, factor: float) -> Shadow:
    return Shadow(shadow.name, shadow.limit, shadow.usd_per_mwh * factor, shadow.now_usd_per_mwh * factor)


def gpu_kh_per_mwh(pool: AiPool) -> float:
    """Work that a MWh does along a pool's steepest segment [thousand GPU-h]."""
    corners = pool_corners(pool)
    (w0, r0), (w1, r1) = corners[0], corners[min(1, len(corners) - 1)]
    return (r1 - r0) * pool.gpu_count / 1e3 / ((w1 - w0) / 1e6) if w1 > w0 else 0.0


def binding(shadows: list[Shadow]) -> tuple[Binding, ...]:
    """Constraints that bind now, dearest first."""
    found = [Binding(s.name, s.limit, s.now_usd_per_mwh) for s in shadows if s.now_usd_per_mwh > NOISE_USD_PER_MWH]
    return tuple(sorted(found, key=lambda b: -b.shadow_price_usd_per_mwh))


def outlook(
    prices: Prices, i: int, shadows: list[Shadow], edges_s: Floats, mining_w: Floats, ai_w: Floats
) -> tuple[Outlook, ...]:
    """The plan ahead, period by period."""
    bound: list[list[tuple[str, float]]] = [[] for _ in range(len(edges_s) - 1)]
    for shadow in shadows:
        for t in np.flatnonzero(shadow.usd_per_mwh > NOISE_USD_PER_MWH):
            bound[t].append((shadow.name, float(shadow.usd_per_mwh[t])))
    numbers = (
        edges_s[:-1], np.diff(edges_s), prices.price_usd_per_mwh[i], prices.ceiling_w[i], prices.import_w[i], mining_w, ai_w,
    )  # fmt: skip
    starts, widths, price, ceiling, imports, mining, ai = (n.tolist() for n in numbers)
    shadow_of = [tuple(sorted(own, key=lambda b: -b[1])) for own in bound]
    return tuple(map(Outlook, starts, widths, price, ceiling, imports, mining, ai, shadow_of))


def worth(
    layout: Layout, solution: Solution, fleet: FleetState, prices: Prices, i: int, parameters: Parameters
) -> Worth:
    """What changes at a site would be worth over the horizon [USD]."""
    site, grid = fleet.sites[i], layout.grid
    columns = grid.import_[i]
    own = prices.ceiling_w[i] >= site.ceiling_w - 1.0  # where an event holds, more interconnect brings nothing
    tight = own & (solution.x[columns] >= prices.ceiling_w[i] / 1e6 - TIGHT)
    interconnect = float(np.where(tight, np.maximum(0.0, -solution.column_dual[columns]), 0.0).sum())
    feeders = tuple(
        (name, max(0.0, -float(solution.row_dual[grid.feeder_row[k]].sum())))
        for k, (owner, name) in enumerate(grid.feeders)
        if owner == i
    )
    sold = []
    for product in site.sold:
        rows = [
            layout.promises.sold_row[k]
            for k, (owner, notice_s) in enumerate(layout.promises.levels)
            if owner == i and notice_s >= product.notice_s
        ]
        sold.append((product.product, max(0.0, sum(float(solution.row_dual[r].sum()) for r in rows))))
    promised, first = [], sum(len(s.pools) for s in fleet.sites[:i])
    for n, state in enumerate(site.pools, start=first):
        if state.pool.priority is AiPriority.GUARANTEED and state.pool.gpu_count:
            span = slice(int(layout.ai.first[n]), int(layout.ai.first[n + 1]))
            widths = segment_widths_w(layout.ai.corners_w[span], state, layout.edges_s) / 1e6
            # Penalty of what is asked for, less the gain of serving it: the cost of one MW more that was promised.
            cost = (
                solution.column_dual[layout.ai.segment[span]] + parameters.guaranteed_penalty_usd_per_mwh * layout.hours
            )
            promised.append((state.pool.name, float((cost * widths).sum()) / state.pool.gpu_count))
    return Worth(interconnect, feeders, tuple(promised), tuple(sold))
