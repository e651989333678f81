"""What dispatch refuses to plan on: numbers that are not finite, counts and limits below zero. Pure."""

from __future__ import annotations

import math

from controller.dispatch.inputs import FleetState, SiteState
from gridpivot.errors import Infeasible


def refuse_nonsense(fleet: FleetState) -> None:
    """Raise Infeasible for a number that cannot be, naming where it stands."""
    _finite("fleet", hashprice=fleet.hashprice_usd_per_ph_day, floor=fleet.fleet_floor_hs, speed=fleet.speed)
    if fleet.speed <= 0:
        raise Infeasible(f"fleet: speed is {fleet.speed!r}; it must be above 0")
    for site in fleet.sites:
        _site(site)
        _terms(site)
    for backlog in fleet.backlogs:
        place = f"backlog {backlog.name}"
        _finite(place, work_gpu_h=backlog.work_gpu_h, deadline_s=backlog.deadline_s, due_in_s=backlog.due_in_s)
        _finite(place, income=backlog.usd_per_gpu_hour, late=backlog.late_usd_per_gpu_hour)
        for due in backlog.due:
            _finite(place, due_gpu_h=due.gpu_h, due_in_s=due.due_in_s)
        for step in backlog.arrivals:
            _finite(place, arrivals=step.gpu_h_per_h, arrivals_from=step.starts_in_s)


def fault_of(site: SiteState) -> str | None:
    """What of a site cannot be, in one sentence; None where all can. The fleet is planned without such a site."""
    try:
        _site(site)
        _terms(site)
    except Infeasible as error:
        return str(error)
    return None


def _site(site: SiteState) -> None:
    _finite(
        site.name,
        ceiling_w=site.ceiling_w,
        overhead_ratio=site.overhead_ratio,
        fixed_w=site.fixed_w,
        drop_ramp=site.drop_ramp_w_per_min,
        pick_up_ramp=site.pick_up_ramp_w_per_min,
        metered_power_w=site.metered_power_w,
        ai_reserve_w=site.ai_reserve_w,
        export_limit_w=site.export_limit_w,
    )
    for window in site.windows:
        _finite(f"{site.name} event {window.event_id}", ceiling_w=window.ceiling_w, starts_in_s=window.starts_in_s)
    steps = (*site.prices, *site.risk)
    if not math.isfinite(sum(step.usd_per_mwh + step.starts_in_s for step in steps)):
        for step in steps:
            _finite(site.name, price_usd_per_mwh=step.usd_per_mwh, price_starts_in_s=step.starts_in_s)
    for state in site.classes:
        place = f"{site.name} class {state.miner_class.name}"
        _finite(place, silent_power_w=state.silent_power_w, waking=state.waking, remaining=state.waking_remaining_s)
        _finite(place, sleep=state.commanded[0], low=state.commanded[1], normal=state.commanded[2])
        _finite(place, turbo=state.commanded[3], achievable_w=state.achievable_w)
        if state.available < 0 or min(state.commanded) < 0:
            raise Infeasible(f"{place}: a count of machines is below zero; plans stay")
    for pool in site.pools:
        place = f"{site.name} pool {pool.pool.name}"
        _finite(place, income=pool.income_usd_per_gpu_hour, demand_w=pool.demand_w, power_w=pool.power_w)
        for ahead in pool.demand:
            _finite(place, demand_w=ahead.power_w, demand_starts_in_s=ahead.starts_in_s)


def _terms(site: SiteState) -> None:
    for feeder in site.feeders:
        _finite(f"{site.name} feeder {feeder.name}", limit_w=feeder.limit_w)
    for curve in (site.drop_ramp, site.pick_up_ramp):
        for ramp in curve:
            _finite(f"{site.name} ramp", from_w=ramp.from_w, w_per_min=ramp.w_per_min)
        if curve and max(r.w_per_min for r in curve) <= 0:
            raise Infeasible(f"{site.name} ramp: no step allows any change; give a rate above 0")
    if site.contract is not None:
        contract = site.contract
        _finite(f"{site.name} contract", block_w=contract.block_w, price=contract.usd_per_mwh)
        if contract.block_w < 0 or contract.sell_fee_usd_per_mwh < 0:
            raise Infeasible(f"{site.name} contract: block and selling fee must not be below zero")
    if site.demand_charge is not None:
        charge = site.demand_charge
        _finite(f"{site.name} demand charge", usd_per_kw=charge.usd_per_kw, peak_w=charge.peak_w)
        _finite(f"{site.name} demand charge", remaining_s=charge.remaining_s)
    for supply in site.supplies:
        place = f"{site.name} supply {supply.name}"
        _finite(place, price=supply.usd_per_mwh, min_w=supply.min_w)
        for step in supply.available:
            _finite(place, available_w=step.power_w, starts_in_s=step.starts_in_s)
            if step.power_w < 0:
                raise Infeasible(f"{place}: available power is below zero; plans stay")
    for sold in site.sold:
        place = f"{site.name} sold {sold.product}"
        _finite(place, power_w=sold.power_w, notice_s=sold.notice_s, penalty=sold.penalty_usd_per_mwh)
        _finite(place, starts_in_s=sold.starts_in_s, ends_in_s=sold.ends_in_s)


def _finite(place: str, **values: float | None) -> None:
    # A sum of finite numbers is finite, anything else shows in it: forty sites have thousands of figures.
    if math.isfinite(sum(filter(None, values.values()))):
        return
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise Infeasible(f"{place}: {name} is {value!r}; dispatch publishes nothing on it, plans stay")
