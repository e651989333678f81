"""The plain dispatch model (one limit a site) written for linopy and for cvxpy, both solved by HiGHS on one thread.

Written as their manuals would have it, whole arrays at a time; the fleet is the bench's own, where every site has the
same classes and pools. Each returns the cost over the horizon [USD].
"""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np

from controller.dispatch.ai import pools_of, segment_widths_w, segments_of
from controller.dispatch.grid import fixed_import_w, site_prices
from controller.dispatch.horizon import ceilings
from controller.dispatch.inputs import FleetState
from controller.dispatch.mining import Shapes, commanded_awake
from controller.dispatch.parameters import PERIOD_S, Parameters
from gridpivot.segments import pool_corners


class Figures:
    """What both need, as arrays: sites m, classes c, segments s, periods t."""

    def __init__(self, fleet: FleetState, parameters: Parameters) -> None:
        self.hours = np.array(PERIOD_S) / 3600.0
        edges = np.concatenate(([0.0], np.cumsum(PERIOD_S)))
        self.m, self.c, self.t = len(fleet.sites), len(fleet.sites[0].classes), len(self.hours)
        shapes = [[Shapes.of(c.miner_class) for c in s.classes] for s in fleet.sites]
        self.watts = np.array([[s.steps_w for s in row] for row in shapes]) / 1e3  # (m, c, 3) MW of a thousand machines
        rate = np.array([fleet.hashprice_usd_per_ph_day * (1 - s.pool_fee_ratio) / 24 / 1e12 for s in fleet.sites])
        self.usd_per_h = np.array([[s.steps_hs for s in row] for row in shapes]) * rate[:, None, None]
        states = [list(s.classes) for s in fleet.sites]
        self.available = np.array([[c.available for c in row] for row in states]) / 1e3
        self.standing = np.array([[commanded_awake(c) for c in row] for row in states]) / 1e3  # (m, c, 3)
        wake_h = np.array([[c.miner_class.wake_s for c in row] for row in states]) / 3600.0
        self.wake_usd = self.usd_per_h[:, :, 0] * wake_h + parameters.wear_usd_per_wake * 1e3
        self.loading = np.array([1.0 + s.overhead_ratio for s in fleet.sites])
        self.move_usd = parameters.move_usd_per_mw * np.abs(self.watts) * self.loading[:, None, None]
        self.price = site_prices(fleet, parameters, edges)
        self.limit = np.array([ceilings(s, edges, np.array(PERIOD_S)) for s in fleet.sites]) / 1e6
        self.fixed = np.array([fixed_import_w(s) for s in fleet.sites]) / 1e6
        self.over_usd = parameters.ceiling_penalty_usd_per_mwh
        widths, values, self.offset = [], [], 0.0
        for site, state in pools_of(fleet):
            corners = pool_corners(state.pool)
            pairs = np.array([(a[0], b[0]) for a, b in pairwise(corners)])
            width = segment_widths_w(pairs, state, edges) / 1e6
            own = segments_of(state, site, fleet, None)
            penalty = parameters.guaranteed_penalty_usd_per_mwh if own[0].guaranteed else 0.0
            values += [s.value_usd_per_mwh * (1 + site.overhead_ratio) + penalty for s in own]
            widths.append(width)
            self.offset += penalty * float((width * self.hours).sum())
        self.widths = np.concatenate(widths).reshape(self.m, -1, self.t)
        self.values = np.array(values).reshape(self.m, -1)


def by_linopy(fleet: FleetState, parameters: Parameters) -> float:
    """Build and solve with linopy."""
    import linopy
    import xarray as xr

    f = Figures(fleet, parameters)
    linopy.options["semantics"] = "v1"
    m, c, t, s = (np.arange(n) for n in (f.m, f.c, f.t, f.widths.shape[1]))
    mc, mct, mst, mt = {"m": m, "c": c}, {"m": m, "c": c, "t": t}, {"m": m, "s": s, "t": t}, {"m": m, "t": t}

    def array(values: np.ndarray, coords: dict[str, np.ndarray]) -> xr.DataArray:
        return xr.DataArray(values, coords=coords, dims=list(coords))

    model = linopy.Model()
    top = array(np.repeat(f.available[:, :, None], f.t, axis=2), mct)
    zero = xr.zeros_like(top)
    awake, low, turbo, wake = (
        model.add_variables(lower=zero, upper=u, name=n)
        for n, u in (("awake", top), ("low", top), ("turbo", top), ("wake", zero + np.inf))
    )
    segment = model.add_variables(lower=0, upper=array(f.widths, mst), name="segment")
    imports = model.add_variables(lower=0, upper=array(f.limit, mt), name="imports")
    over = model.add_variables(lower=0, coords=mt, name="over")
    steps = (awake, low, turbo)
    load = sum((x * array(f.watts[:, :, k], mc)).sum("c") for k, x in enumerate(steps)) * array(f.loading, {"m": m})
    ai = segment.sum("s") * array(f.loading, {"m": m})
    model.add_constraints(load + ai - imports - over == array(np.repeat(-f.fixed[:, None], f.t, axis=1), mt))
    model.add_constraints(low + turbo - awake <= 0)
    before = (1 * awake).shift(t=1).fillna(0)
    first = np.zeros((f.m, f.c, f.t))
    first[:, :, 0] = f.standing[:, :, 0]
    model.add_constraints(awake - before - wake <= array(first, mct))
    hours = array(f.hours, {"t": t})
    cost = (imports * array(f.price, mt) * hours).sum() + (over * f.over_usd * hours).sum()
    cost = cost - (segment * array(f.values, {"m": m, "s": s}) * hours).sum()
    cost = cost + (wake * array(f.wake_usd, mc)).sum()
    for k, x in enumerate(steps):
        up = model.add_variables(lower=0, coords=mc, name=f"up{k}")
        down = model.add_variables(lower=0, coords=mc, name=f"down{k}")
        model.add_constraints(x.isel(t=0, drop=True) - up + down == array(f.standing[:, :, k], mc))
        cost = cost - (x * array(f.usd_per_h[:, :, k], mc) * hours).sum()
        cost = cost + ((up + down) * array(f.move_usd[:, :, k], mc)).sum()
    model.add_objective(cost)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.solve("highs", io_api="direct", output_flag=False, threads=1, progress=False)
    return float(model.objective.value) + f.offset


def by_cvxpy(fleet: FleetState, parameters: Parameters) -> float:
    """Build and solve with cvxpy."""
    import cvxpy as cp
    import scipy.sparse as sp

    f = Figures(fleet, parameters)
    n, s = f.m * f.c, f.m * f.widths.shape[1]
    of_class, of_segment = sp.kron(sp.eye(f.m), np.ones((1, f.c))), sp.kron(sp.eye(f.m), np.ones((1, s // f.m)))
    awake, low, turbo, wake = (cp.Variable((n, f.t), nonneg=True) for _ in range(4))
    segment = cp.Variable((s, f.t), nonneg=True)
    imports, over = cp.Variable((f.m, f.t), nonneg=True), cp.Variable((f.m, f.t), nonneg=True)
    flat = {k: f.watts[:, :, k].reshape(n) * np.repeat(f.loading, f.c) for k in range(3)}
    steps = (awake, low, turbo)
    load = sum(of_class @ sp.diags(flat[k]) @ x for k, x in enumerate(steps))
    top, first = f.available.reshape(n)[:, None], np.zeros((n, f.t))
    first[:, 0] = f.standing[:, :, 0].reshape(n)
    before = cp.hstack([np.zeros((n, 1)), awake[:, :-1]])
    rules = [
        load + of_segment @ sp.diags(np.repeat(f.loading, s // f.m)) @ segment - imports - over
        == np.repeat(-f.fixed[:, None], f.t, axis=1),
        low + turbo <= awake,
        awake - before - wake <= first,
        awake <= np.repeat(top, f.t, axis=1),
        segment <= f.widths.reshape(s, f.t),
        imports <= f.limit,
    ]
    cost = cp.sum(cp.multiply(imports, f.price * f.hours)) + cp.sum(over @ (f.over_usd * f.hours))
    cost -= cp.sum(cp.multiply(segment, np.outer(f.values.reshape(s), f.hours)))
    cost += cp.sum(cp.multiply(wake, np.repeat(f.wake_usd.reshape(n)[:, None], f.t, axis=1)))
    for k, x in enumerate(steps):
        up, down = cp.Variable(n, nonneg=True), cp.Variable(n, nonneg=True)
        rules.append(x[:, 0] - up + down == f.standing[:, :, k].reshape(n))
        cost -= cp.sum(cp.multiply(x, np.outer(f.usd_per_h[:, :, k].reshape(n), f.hours)))
        cost += (up + down) @ f.move_usd[:, :, k].reshape(n)
    problem = cp.Problem(cp.Minimize(cost), rules)
    problem.solve(solver=cp.HIGHS, highs_options={"threads": 1})
    return float(problem.value) + f.offset
