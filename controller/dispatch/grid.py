"""The grid connection in the dispatch model: balance, ceiling, contract, demand charge, ramps, supplies, feeders.

Units: MW at the meter, hours of data time, USD. Everything beyond the balance exists only where a site has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.dispatch.ai import Ai, pools_of
from controller.dispatch.arrays import INF, Draft, Floats, Ints, Numbers
from controller.dispatch.horizon import average_price, average_watts, ceilings
from controller.dispatch.inputs import FleetState, SiteState
from controller.dispatch.mining import Mining, commanded_awake
from controller.dispatch.parameters import Parameters
from controller.dispatch.ramp import has_ramp, ramp_bounds_w
from gridpivot.vocabulary import Mode


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where the connection stands in the model. Arrays are (entity, period) unless said otherwise."""

    import_: Ints
    over: Ints
    balance_row: Ints
    ramped: Ints  # sites with a ramp
    ramp_over: Ints
    ramp_under: Ints
    ramp_row: Ints
    contracted: Ints  # sites with a contract
    untaken: Ints  # of the block
    contract_row: Ints
    charged: Ints  # sites with a demand charge
    new_peak: Ints  # (charged site,): demand above the peak so far
    charge_row: Ints
    supplied: Ints  # sites with supplies
    supply_site: Ints  # (supply,)
    supply: Ints
    export: Ints  # (supplied site, period)
    spill: Ints
    feeders: tuple[tuple[int, str], ...]  # (site, name)
    feeder_over: Ints
    feeder_row: Ints


def fixed_import_w(site: SiteState) -> float:
    """Import that no plan moves [W]: the rest of the site, silent and sleeping machines, baselines, with overhead."""
    return site.fixed_w + (1.0 + site.overhead_ratio) * fixed_loads_w(site, None)


def fixed_loads_w(site: SiteState, feeder: str | None) -> float:
    """Silent and sleeping machines and baselines of a site, or of one of its feeders [W at the devices]."""
    loads = sum(
        c.silent_power_w + c.available * c.miner_class.modes[Mode.SLEEP].power_w
        for c in site.classes
        if feeder in (None, c.feeder)
    )
    return loads + sum(p.pool.baseline_w for p in site.pools if feeder in (None, p.feeder))


def import_now_w(site: SiteState) -> float:
    """Import that ramps start from [W]: metered where known, else as commanded."""
    if site.metered_power_w is not None:
        return site.metered_power_w
    loads = sum((p.power_w if p.power_w is not None else p.limit_w) - p.pool.baseline_w for p in site.pools)
    for state in site.classes:
        awake, low, turbo = commanded_awake(state)
        modes = state.miner_class.modes
        normal_w = modes[Mode.NORMAL].power_w
        for count, mode in ((low, Mode.LOW), (awake - low - turbo, Mode.NORMAL), (turbo, Mode.TURBO)):
            loads += count * ((modes[mode].power_w if mode in modes else normal_w) - modes[Mode.SLEEP].power_w)
    return fixed_import_w(site) + (1.0 + site.overhead_ratio) * max(0.0, loads)


def lay_out_grid(draft: Draft, fleet: FleetState, mining: Mining, ai: Ai, periods: int) -> Grid:
    """Columns, rows and coefficients of all connections."""
    sites = fleet.sites

    def which(*wanted: bool) -> Ints:
        return np.flatnonzero(np.array(wanted, dtype=bool)).astype(np.int32)

    ramped = which(*(has_ramp(s) for s in sites))
    contracted = which(*(s.contract is not None for s in sites))
    charged = which(*(s.demand_charge is not None for s in sites))
    supplied = which(*(bool(s.supplies) for s in sites))
    supply_site = np.array([i for i, s in enumerate(sites) for _ in s.supplies], dtype=np.int32)
    feeders = tuple((i, f.name) for i, s in enumerate(sites) for f in s.feeders)

    import_, over = draft.columns(len(sites), periods), draft.columns(len(sites), periods)
    ramp_over, ramp_under = draft.columns(len(ramped), periods), draft.columns(len(ramped), periods)
    untaken, new_peak = draft.columns(len(contracted), periods), draft.columns(len(charged))
    supply = draft.columns(len(supply_site), periods)
    export, spill = draft.columns(len(supplied), periods), draft.columns(len(supplied), periods)
    feeder_over = draft.columns(len(feeders), periods)
    balance_row, ramp_row = draft.rows(len(sites), periods), draft.rows(len(ramped), periods)
    contract_row, charge_row = draft.rows(len(contracted), periods), draft.rows(len(charged), periods)
    feeder_row = draft.rows(len(feeders), periods)

    loading = np.array([1.0 + s.overhead_ratio for s in sites])
    mw = mining.watts / 1e3 * loading[mining.site, None]
    for kind, columns in enumerate(mining.steps):
        draft.add(balance_row[mining.site], columns, mw[:, kind, None])
    draft.add(balance_row[ai.site], ai.segment, loading[ai.site][:, None])
    draft.add(balance_row, import_, -1.0)
    draft.add(balance_row, over, -1.0)
    draft.add(balance_row[supply_site], supply, -1.0)
    draft.add(balance_row[supplied], export, 1.0)
    draft.add(balance_row[supplied], spill, 1.0)
    for columns in (import_, over):
        draft.add(ramp_row, columns[ramped], 1.0)
        draft.add(ramp_row[:, 1:], columns[ramped][:, :-1], -1.0)
        draft.add(charge_row, columns[charged], 1.0)
    draft.add(contract_row, import_[contracted], 1.0)
    draft.add(ramp_row, ramp_over, -1.0)
    draft.add(ramp_row, ramp_under, 1.0)
    draft.add(contract_row, untaken, 1.0)
    draft.add(charge_row, new_peak[:, None], -1.0)

    at = {feeder: k for k, feeder in enumerate(feeders)}
    for k, (i, state) in enumerate((i, c) for i, s in enumerate(sites) for c in s.classes):
        if (i, state.feeder) in at:
            for kind, columns in enumerate(mining.steps):
                draft.add(feeder_row[at[i, state.feeder]], columns[k], mw[k, kind])
    for n, (i, pool) in enumerate((i, p) for i, s in enumerate(sites) for p in s.pools):
        if (i, pool.feeder) in at:
            draft.add(feeder_row[at[i, pool.feeder]], ai.segment[ai.first[n] : ai.first[n + 1]], loading[i])
    draft.add(feeder_row, feeder_over, -1.0)
    assert len(pools_of(fleet)) == len(ai.first) - 1
    return Grid(
        import_, over, balance_row, ramped, ramp_over, ramp_under, ramp_row, contracted, untaken, contract_row,
        charged, new_peak, charge_row, supplied, supply_site, supply, export, spill, feeders, feeder_over, feeder_row,
    )  # fmt: skip


def grid_numbers(
    grid: Grid, numbers: Numbers, fleet: FleetState, parameters: Parameters, hours: Floats, edges_s: Floats
) -> float:
    """Prices, ceilings and terms of this moment; the constant that belongs to them [USD]."""
    sites, periods = fleet.sites, len(hours)
    cost, upper, offset = numbers.cost, numbers.column_upper, 0.0
    prices = site_prices(fleet, parameters, edges_s)
    nominal_s = hours * 3600.0
    cost[grid.import_] = prices * hours
    upper[grid.import_] = np.array([ceilings(s, edges_s, nominal_s) for s in sites]).reshape(-1, periods) / 1e6
    cost[grid.over] = parameters.ceiling_penalty_usd_per_mwh * hours
    fixed = np.array([fixed_import_w(s) for s in sites]) / 1e6
    numbers.row_lower[grid.balance_row] = numbers.row_upper[grid.balance_row] = -fixed[:, None]

    cost[grid.ramp_over] = cost[grid.ramp_under] = parameters.ramp_penalty_usd_per_mwh * hours
    for k, i in enumerate(grid.ramped):
        lower_w, upper_w = ramp_bounds_w(sites[i], import_now_w(sites[i]), np.diff(edges_s))
        numbers.row_lower[grid.ramp_row[k]], numbers.row_upper[grid.ramp_row[k]] = lower_w / 1e6, upper_w / 1e6

    for k, i in enumerate(grid.contracted):
        contract = sites[i].contract
        assert contract is not None
        block = contract.block_w / 1e6
        # What is not taken is sold at the price less the fee, or lost; it never pays to leave it for a price under 0.
        untaken = contract.sell_fee_usd_per_mwh if contract.sell_back else np.maximum(0.0, prices[i])
        cost[grid.untaken[k]] = untaken * hours
        upper[grid.untaken[k]] = block
        numbers.row_lower[grid.contract_row[k]], numbers.row_upper[grid.contract_row[k]] = block, INF
        offset += float(((contract.usd_per_mwh - prices[i]) * hours).sum()) * block

    horizon_s = float(edges_s[-1])
    for k, i in enumerate(grid.charged):
        charge = sites[i].demand_charge
        assert charge is not None
        # A higher peak serves the rest of the billing period too: this horizon bears its share of it.
        share = min(1.0, horizon_s / charge.remaining_s) if charge.remaining_s > 0 else 1.0
        cost[grid.new_peak[k]] = charge.usd_per_kw * 1e3 * share
        inside = edges_s[:-1] < charge.remaining_s
        numbers.row_upper[grid.charge_row[k]] = np.where(inside, charge.peak_w / 1e6, INF)

    row = 0
    for k, i in enumerate(grid.supplied):
        site, least = sites[i], np.zeros(periods)
        for own in site.supplies:
            most = average_watts(own.available, edges_s, 0.0) / 1e6 if own.running else np.zeros(periods)
            upper[grid.supply[row]] = most
            numbers.column_lower[grid.supply[row]] = np.minimum(own.min_w / 1e6, most)
            cost[grid.supply[row]] = own.usd_per_mwh * hours
            least += numbers.column_lower[grid.supply[row]]
            row += 1
        cost[grid.export[k]] = -(prices[i] - site.export_fee_usd_per_mwh) * hours
        upper[grid.export[k]] = site.export_limit_w / 1e6
        # Only what a supply must give can be spilled: at a price below nothing no import is bought to be thrown away.
        cost[grid.spill[k]] = parameters.spill_usd_per_mwh * hours
        upper[grid.spill[k]] = least

    cost[grid.feeder_over] = parameters.ceiling_penalty_usd_per_mwh * hours
    limits = {(i, f.name): f.limit_w for i, s in enumerate(sites) for f in s.feeders}
    for k, (i, name) in enumerate(grid.feeders):
        room_w = limits[i, name] - (1.0 + sites[i].overhead_ratio) * fixed_loads_w(sites[i], name)
        numbers.row_upper[grid.feeder_row[k]] = room_w / 1e6
    return offset


def site_prices(fleet: FleetState, parameters: Parameters, edges_s: Floats) -> Floats:
    """What a MWh of import costs at each site in each period, risk included [USD/MWh] -> (site, period)."""
    averages: dict[int, Floats] = {}

    def mean(steps: tuple[object, ...], otherwise: float) -> Floats:
        if id(steps) not in averages:
            averages[id(steps)] = average_price(steps, edges_s, otherwise)  # type: ignore[arg-type]
        return averages[id(steps)]

    rows = []
    for site in fleet.sites:
        price = mean(site.prices, parameters.assumed_price_usd_per_mwh)
        rows.append(price + mean(site.risk, 0.0) if site.risk else price)
    return np.array(rows).reshape(len(rows), len(edges_s) - 1)
