"""The dispatch model as arrays: which columns and rows there are, their coefficients, and the numbers that move.

Units: MW, thousand machines, thousand GPU-hours, hours of data time, USD. `Layout` holds what stays while the fleet
stays the same, `numbers_of` the costs, bounds and right-hand sides of one moment. The parts stand in rooms of their
own: mining, ai, grid, promises. docs/dispatch.md writes the same model as mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controller.dispatch.ai import Ai, ai_numbers, lay_out_ai
from controller.dispatch.arrays import Draft, Floats, Matrix, Numbers
from controller.dispatch.grid import Grid, grid_numbers, lay_out_grid
from controller.dispatch.inputs import FleetState, SiteState
from controller.dispatch.mining import Mining, lay_out_mining, mining_numbers
from controller.dispatch.parameters import Parameters
from controller.dispatch.promises import Promises, lay_out_promises, promise_numbers
from controller.dispatch.ramp import has_ramp


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Columns, rows and matrix of one model."""

    period_s: Floats  # nominal
    real_s: Floats  # as the clock on the wall sees it
    mining: Mining
    ai: Ai
    grid: Grid
    promises: Promises
    matrix: Matrix

    @property
    def hours(self) -> Floats:
        """Widths of the periods [h of data time] -> (periods,)."""
        return self.period_s / 3600.0

    @property
    def edges_s(self) -> Floats:
        """Bounds of the periods [real s from now] -> (periods + 1,)."""
        return np.concatenate(([0.0], np.cumsum(self.real_s)))


def shape_key(fleet: FleetState, floor: bool) -> tuple[object, ...]:
    """Equal keys have the same columns, rows and matrix, so that only the numbers differ."""
    sites = tuple(_site_key(s) for s in fleet.sites)
    return (*sites, tuple(b.name for b in fleet.backlogs), floor, fleet.fleet_floor_hs > 0, fleet.speed)


def _site_key(site: SiteState) -> tuple[object, ...]:
    return (
        site.name,
        site.overhead_ratio,
        has_ramp(site),
        site.contract is not None,
        site.demand_charge is not None,
        tuple(s.name for s in site.supplies),
        tuple(f.name for f in site.feeders),
        tuple(sorted({p.notice_s for p in site.sold})),
        tuple(
            (
                c.miner_class.name,
                c.feeder,
                c.achievable_w is None,
                tuple(c.miner_class.modes.items()),
                c.miner_class.wake_s,
                c.miner_class.shed_s,
            )
            for c in site.classes
        ),
        tuple((p.pool, p.feeder, p.shed_s, p.backlog) for p in site.pools),
    )


def lay_out(fleet: FleetState, period_s: Sequence[float], floor: bool) -> Layout:
    """The model of this fleet's shape over periods of these nominal widths [s]; `floor`: with the fleet's hashrate."""
    nominal = np.array(period_s, dtype=np.float64)
    real = nominal / fleet.speed
    draft = Draft()
    mining = lay_out_mining(draft, fleet, len(nominal))
    ai = lay_out_ai(draft, fleet, nominal / 3600.0)
    grid = lay_out_grid(draft, fleet, mining, ai, len(nominal))
    promises = lay_out_promises(draft, fleet, mining, ai, real, floor)
    return Layout(nominal, real, mining, ai, grid, promises, draft.matrix())


def numbers_of(layout: Layout, fleet: FleetState, parameters: Parameters) -> Numbers:
    """Costs, bounds and right-hand sides for this moment; `fleet` has the shape that `layout` was made for."""
    hours, edges_s = layout.hours, layout.edges_s
    numbers = Numbers.empty(layout.matrix)
    mining_numbers(layout.mining, numbers, fleet, parameters, hours)
    offset = ai_numbers(layout.ai, numbers, fleet, parameters, hours, edges_s)
    offset += grid_numbers(layout.grid, numbers, fleet, parameters, hours, edges_s)
    offset += promise_numbers(layout.promises, numbers, fleet, parameters, hours, edges_s)
    return replace(numbers, offset_usd=offset)
