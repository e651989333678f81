"""Solve the dispatch model: one HiGHS object kept alive, warm-started from the last basis, checked before it speaks.

A state of the same shape changes only costs, bounds and right-hand sides. Another shape is a new model; where only
coefficients differ (overhead drifts with the weather) the old basis still starts it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from controller.dispatch.answer import Solution, decide
from controller.dispatch.horizon import Floats
from controller.dispatch.inputs import Decision, FleetState
from controller.dispatch.model import Ints, Layout, Numbers, lay_out, numbers, shape_key
from controller.dispatch.parameters import PERIOD_S, Parameters
from gridpivot.errors import Infeasible

TOLERANCE = 1e-6  # MW, or thousand machines: a watt
SOLVER_TOLERANCE = 1e-7
TIME_LIMIT_S = 60.0  # a stopped solver publishes nothing; this only keeps its thread from being lost


class Planner:
    """Turns fleet states into decisions; keeps the solver's model and basis between calls.

    Not safe for two threads at once; safe to move from thread to thread, one call at a time. HiGHS gives the
    interpreter's lock up while it solves, so an event loop beside it keeps running.
    """

    def __init__(self, parameters: Parameters | None = None, period_s: Sequence[float] = PERIOD_S) -> None:
        self.parameters = parameters if parameters is not None else Parameters()
        self.period_s = tuple(period_s)
        self._key: tuple[object, ...] | None = None
        self._layout: Layout | None = None
        self._numbers: Numbers | None = None
        self._highs: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        self._solver = f"HiGHS {self._highs.version()}"
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("primal_feasibility_tolerance", SOLVER_TOLERANCE),
        ):
            self._highs.setOptionValue(option, value)

    def solve(self, fleet: FleetState) -> Decision:
        """The optimal decision for this moment; blocks for up to some seconds (cold), so call it in a worker thread.

        Raises Infeasible, and publishes nothing, when the solver's answer is not optimal or breaks a constraint by
        more than 1e-6 (MW, or thousand machines), or when the state holds a number that is not finite.
        """
        begun = time.perf_counter()
        _refuse_nonsense(fleet)
        if not fleet.sites:
            return Decision((), 0.0, 0.0, False, 0.0, self._solver)
        layout, now, warm = self._load(fleet)
        solution = self._run(layout, now)
        if solution is None and warm:
            warm = False
            self._highs.clearSolver()
            solution = self._run(layout, now)
        if solution is None:
            status = self._highs.modelStatusToString(self._highs.getModelStatus())
            self._key = None
            raise Infeasible(f"dispatch: {self._solver} ended {status!r} without a publishable optimum; plans stay")
        sites = decide(layout, now, solution, fleet, self.parameters)
        return Decision(
            sites,
            solution.objective_usd,
            time.perf_counter() - begun,
            warm,
            solution.primal_infeasibility,
            self._solver,
        )

    def _load(self, fleet: FleetState) -> tuple[Layout, Numbers, bool]:
        """Bring the solver's model up to this moment; True when it starts from an earlier basis."""
        key = shape_key(fleet)
        if self._layout is not None and self._numbers is not None and key == self._key:
            now = numbers(self._layout, fleet, self.parameters)
            self._change(self._numbers, now)
            self._numbers = now
            return self._layout, now, True
        old, basis = self._layout, self._highs.getBasis()
        layout = lay_out(fleet, self.period_s)
        now = numbers(layout, fleet, self.parameters)
        self._key = None  # until the new model is whole
        self._highs.passModel(_linear_program(layout, now))
        same_size = old is not None and (old.columns, old.rows) == (layout.columns, layout.rows)
        warm = same_size and basis.valid and self._highs.setBasis(basis) == highspy.HighsStatus.kOk
        self._key, self._layout, self._numbers = key, layout, now
        return layout, now, warm

    def _change(self, old: Numbers, new: Numbers) -> None:
        """Pass on only what moved."""
        at = _where(old.cost != new.cost)
        if at.size:
            self._highs.changeColsCost(at.size, at, new.cost[at])
        at = _where((old.column_lower != new.column_lower) | (old.column_upper != new.column_upper))
        if at.size:
            self._highs.changeColsBounds(at.size, at, new.column_lower[at], new.column_upper[at])
        at = _where((old.row_lower != new.row_lower) | (old.row_upper != new.row_upper))
        if at.size:
            self._highs.changeRowsBounds(at.size, at, new.row_lower[at], new.row_upper[at])

    def _run(self, layout: Layout, now: Numbers) -> Solution | None:
        """Solve; None unless optimal and, by our own arithmetic, inside every bound and row."""
        # HiGHS counts its limit from the object's first run on.
        self._highs.setOptionValue("time_limit", self._highs.getRunTime() + TIME_LIMIT_S)
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        found = self._highs.getSolution()
        x = np.asarray(found.col_value)
        worst = violation(layout, now, x)
        if not worst <= TOLERANCE:
            return None
        return Solution(
            x=x,
            column_dual=np.asarray(found.col_dual),
            row_dual=np.asarray(found.row_dual),
            row_value=np.asarray(found.row_value),
            objective_usd=float((now.cost * x).sum()) + now.offset_usd,  # a dot product would wake BLAS threads
            primal_infeasibility=worst,
        )


def _where(moved: NDArray[np.bool_]) -> Ints:
    return np.flatnonzero(moved).astype(np.int32)


def violation(layout: Layout, now: Numbers, x: Floats) -> float:
    """Largest breach of a bound or row by `x` (MW, or thousand machines); NaN where `x` holds one."""
    per_column = np.repeat(x, np.diff(layout.start))
    activity = np.bincount(layout.index, layout.value * per_column, layout.rows)
    breaches = (now.column_lower - x, x - now.column_upper, now.row_lower - activity, activity - now.row_upper)
    return max(0.0, *(float(b.max(initial=0.0)) for b in breaches)) if np.isfinite(x).all() else math.nan


def _linear_program(layout: Layout, now: Numbers) -> highspy.HighsLp:
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = layout.columns, layout.rows
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = now.cost, now.column_lower, now.column_upper
    lp.row_lower_, lp.row_upper_ = now.row_lower, now.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = layout.start, layout.index, layout.value
    return lp


def _refuse_nonsense(fleet: FleetState) -> None:
    """Raise Infeasible for a number that is not finite, or a count or limit below zero, naming where it stands."""
    _finite("fleet", hashprice=fleet.hashprice_usd_per_ph_day, floor=fleet.fleet_floor_hs, speed=fleet.speed)
    if fleet.speed <= 0:
        raise Infeasible(f"fleet: speed is {fleet.speed!r}; it must be above 0")
    for site in fleet.sites:
        _finite(
            site.name,
            ceiling_w=site.ceiling_w,
            overhead_ratio=site.overhead_ratio,
            fixed_w=site.fixed_w,
            drop_ramp=site.drop_ramp_w_per_min,
            pick_up_ramp=site.pick_up_ramp_w_per_min,
            metered_power_w=site.metered_power_w,
        )
        for window in site.windows:
            _finite(f"{site.name} event {window.event_id}", ceiling_w=window.ceiling_w, starts_in_s=window.starts_in_s)
        for step in site.prices:
            _finite(site.name, price_usd_per_mwh=step.usd_per_mwh, price_starts_in_s=step.starts_in_s)
        for state in site.classes:
            place = f"{site.name} class {state.miner_class.name}"
            _finite(place, silent_power_w=state.silent_power_w, waking=state.waking, remaining=state.waking_remaining_s)
            _finite(place, sleep=state.commanded[0], low=state.commanded[1], normal=state.commanded[2])
            if state.available < 0 or min(state.commanded) < 0:
                raise Infeasible(f"{place}: a count of machines is below zero; plans stay")
        for pool in site.pools:
            place = f"{site.name} pool {pool.pool.name}"
            _finite(place, income=pool.income_usd_per_gpu_hour, demand_w=pool.demand_w, power_w=pool.power_w)


def _finite(place: str, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise Infeasible(f"{place}: {name} is {value!r}; dispatch publishes nothing on it, plans stay")
