"""Perfect foresight: one LP over the whole window with the prices, demand and calls that came. Pure.

It is the dispatch model itself, laid out with one period for each interval, without the cost on moves, and with
mining valued at each interval's hashprice: no second model to keep true.
"""

from __future__ import annotations

from dataclasses import replace

import highspy
import numpy as np

from controller.dispatch.arrays import INF, Matrix, Numbers
from controller.dispatch.block import OPTIONS, pass_model
from controller.dispatch.inputs import FleetState
from controller.dispatch.model import Layout, lay_out, numbers_of
from controller.dispatch.parameters import Parameters
from controller.dispatch.terms import DemandCharge, WattStep
from controller.settlement.plant import MODES, Floats
from controller.settlement.rolling import site_state
from controller.settlement.scenario import Scenario, SiteScenario, exact_steps, sold_from, windows_of
from controller.settlement.settle import Course
from gridpivot.errors import Infeasible
from gridpivot.vocabulary import Mode


def foresee(scenario: Scenario, site: SiteScenario, start: Floats, parameters: Parameters) -> tuple[Course, float]:
    """The best course of one site through the window from machines (class, 4), and its margin [USD].

    Raises Infeasible when the solver finds no optimum.
    """
    plant, width = site.plant, scenario.width_s
    charge = None
    if plant.demand_charge_usd_per_kw is not None:
        charge = DemandCharge(plant.demand_charge_usd_per_kw, 0.0, scenario.intervals * width)
    state = site_state(
        plant,
        start,
        prices=exact_steps(scenario.price(site), width),
        demands=[tuple(WattStep(k * width, float(w)) for k, w in enumerate(row)) for row in site.demand_w],
        now_w=site.demand_w[:, 0],
        windows=windows_of(site.calls, 0, width),
        sold=sold_from(site, 0, scenario.intervals, width),
        charge=charge,
    )
    still = parameters.model_copy(update={"move_usd_per_mw": 0.0})
    fleet = FleetState((state,), 1.0)
    layout = lay_out(fleet, (width,) * scenario.intervals, floor=False)
    numbers = _at_hashprice(layout, numbers_of(layout, fleet, still), scenario.hashprice, still)
    if charge is not None:
        layout, numbers = _peak_by_month(layout, numbers, site.month)
    x, cost = _optimum(layout, numbers)
    return _course(layout, x, site, start), -cost


def _at_hashprice(layout: Layout, numbers: Numbers, hashprice: Floats, parameters: Parameters) -> Numbers:
    """Mining that was valued at 1 USD/PH/day, at each interval's hashprice; wear stays what it is."""
    cost = numbers.cost.copy()
    mining = layout.mining
    for columns in mining.steps:
        cost[columns] *= hashprice
    wear = parameters.wear_usd_per_wake * 1e3
    cost[mining.wake] = (cost[mining.wake] - wear) * hashprice + wear
    return replace(numbers, cost=cost)


def _peak_by_month(layout: Layout, numbers: Numbers, month: Floats) -> tuple[Layout, Numbers]:
    """A peak of its own for each billing month, where the model over one horizon knows a single one."""
    matrix, peak = layout.matrix, int(layout.grid.new_peak[0])
    entries = np.arange(matrix.start[peak], matrix.start[peak + 1])
    of_entry = month[np.searchsorted(layout.grid.charge_row[0], matrix.index[entries])]
    later = [entries[of_entry == m] for m in np.unique(month)[1:]]
    moved = np.concatenate([np.zeros(0, dtype=entries.dtype), *later])
    counts = np.diff(matrix.start)
    counts[peak] -= len(moved)
    start = np.concatenate(([0], np.cumsum([*counts, *map(len, later)]))).astype(np.int32)
    split = Matrix(
        matrix.columns + len(later),
        matrix.rows,
        start,
        np.concatenate((np.delete(matrix.index, moved), matrix.index[moved])),
        np.concatenate((np.delete(matrix.value, moved), matrix.value[moved])),
    )
    more = replace(
        numbers,
        cost=np.append(numbers.cost, np.full(len(later), numbers.cost[peak])),
        column_lower=np.append(numbers.column_lower, np.zeros(len(later))),
        column_upper=np.append(numbers.column_upper, np.full(len(later), INF)),
    )
    return replace(layout, matrix=split), more


def _optimum(layout: Layout, numbers: Numbers) -> tuple[Floats, float]:
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    for option, value in OPTIONS:
        highs.setOptionValue(option, value)
    pass_model(highs, layout, numbers)
    highs.run()
    status = highs.getModelStatus()
    if status != highspy.HighsModelStatus.kOptimal:
        raise Infeasible(f"foresight ended {highs.modelStatusToString(status)!r}; give a shorter window")
    x = np.asarray(highs.getSolution().col_value)
    return x, float((numbers.cost * x).sum()) + numbers.offset_usd


def _course(layout: Layout, x: Floats, site: SiteScenario, start: Floats) -> Course:
    mining, plant = layout.mining, site.plant
    awake, low, turbo = (np.maximum(0.0, x[c]) * 1e3 for c in mining.steps)
    machines = np.zeros((awake.shape[1], len(plant.classes), len(MODES)))
    for k, shape in enumerate(mining.shapes):
        awake_k = np.minimum(awake[k], plant.machines[k])
        low_k = np.minimum(low[k], awake_k)
        turbo_k = np.minimum(turbo[k], awake_k - low_k)
        machines[:, k, MODES.index(Mode.SLEEP)] = plant.machines[k] - awake_k
        machines[:, k, MODES.index(Mode.LOW)] = low_k
        machines[:, k, MODES.index(Mode.TURBO)] = turbo_k
        machines[:, k, MODES.index(shape.base)] += awake_k - low_k - turbo_k
    given = np.maximum(0.0, x[layout.ai.segment]) * 1e6
    pools = np.zeros((awake.shape[1], len(plant.pools)))
    for k, own in enumerate(plant.pools):
        pools[:, k] = own.pool.baseline_w + given[layout.ai.first[k] : layout.ai.first[k + 1]].sum(axis=0)
    return Course(machines, pools, start)
