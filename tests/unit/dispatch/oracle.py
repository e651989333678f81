"""The dispatch problem a second time: slow, in watts and machines, each equation as a person would write it (linopy).

It shares with the product the averages of prices and ceilings over periods, and nothing of the model: machines are
counted by mode rather than as awake and instead, a contract is what is bought and sold, pools lack what they lack.
"""

from __future__ import annotations

import warnings
from itertools import count, pairwise

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # xarray and pandas warn of each other at import
    import linopy
    import pandas as pd

from controller.dispatch.horizon import average, average_price, average_watts, ceilings, sold_w
from gridpivot.vocabulary import AiPriority

AWAKE = ("low", "normal", "turbo")
linopy.options["semantics"] = "v1"


def before(quantity):
    """What it was in the period before; nothing before the first."""
    return (1 * quantity).shift(t=1).fillna(0)


class Oracle:
    """One fleet, one answer: `cost_usd` over the horizon."""

    def __init__(self, fleet, parameters, period_s):
        self.fleet, self.p = fleet, parameters
        self.nominal_s = np.array(period_s)
        self.edges_s = np.concatenate(([0.0], np.cumsum(self.nominal_s / fleet.speed)))
        self.h = self.nominal_s / 3600.0
        self.t = pd.RangeIndex(len(self.h), name="t")
        self.m = linopy.Model()
        self.names = count()
        self.costs, self.constant = [], 0.0
        self.hashes = []  # PH/s of the fleet, by period
        self.served = {b.name: [] for b in fleet.backlogs}  # GPU-h
        self.wanted = {b.name: 0.0 for b in fleet.backlogs}  # GPU-h of its pools' own demand

    def var(self, usd=0.0, lower=0.0, upper=np.inf):
        """A quantity per period, at least `lower`; `usd` per unit and period."""
        whole = np.zeros(len(self.t))
        v = self.m.add_variables(
            lower=pd.Series(whole + lower, self.t), upper=pd.Series(whole + upper, self.t), name=f"v{next(self.names)}"
        )
        self.costs.append((v * self.per(usd)).sum())
        return v

    def one(self, usd=0.0, upper=np.inf):
        """One quantity for the whole horizon."""
        v = self.m.add_variables(lower=0.0, upper=upper, name=f"v{next(self.names)}")
        self.costs.append(v * usd)
        return v

    def per(self, values):
        """Numbers by period as linopy wants them."""
        return pd.Series(np.zeros(len(self.t)) + values, self.t)

    def hold(self, constraint):
        self.m.add_constraints(constraint, name=f"c{next(self.names)}")

    def cost_usd(self):
        for site in self.fleet.sites:
            self.site(site)
        for backlog in self.fleet.backlogs:
            self.backlog(backlog)
        if self.fleet.fleet_floor_hs:
            short = self.var(self.p.floor_penalty_usd_per_ph_h * self.h)
            self.hold(sum(self.hashes) + short >= self.fleet.fleet_floor_hs / 1e15)
        self.m.add_objective(sum(self.costs))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status, why = self.m.solve("highs", io_api="direct", output_flag=False, threads=1, progress=False)
        assert status == "ok", why
        return float(self.m.objective.value) + self.constant

    def site(self, site):
        over_1 = 1 + site.overhead_ratio
        price = average_price(site.prices, self.edges_s, self.p.assumed_price_usd_per_mwh)
        price = price + average([(s.starts_in_s, s.usd_per_mwh) for s in site.risk], self.edges_s, 0.0)
        on_feeder = {f.name: 0.0 for f in site.feeders}
        sheddable = {s.notice_s: 0.0 for s in site.sold}
        loads = 0.0
        for state in site.classes:
            watts, flexible = self.machines(site, state)
            loads = loads + watts
            if state.feeder in on_feeder:
                on_feeder[state.feeder] = on_feeder[state.feeder] + watts
            for notice in sheddable:
                if state.miner_class.shed_s <= notice:
                    sheddable[notice] = sheddable[notice] + flexible
        for state in site.pools:
            watts, flexible = self.pool(site, state)
            loads = loads + watts
            if state.feeder in on_feeder:
                on_feeder[state.feeder] = on_feeder[state.feeder] + watts
            for notice in sheddable:
                soft = state.pool.priority is not AiPriority.GUARANTEED and state.shed_s is not None
                if soft and state.shed_s <= notice:
                    sheddable[notice] = sheddable[notice] + flexible

        over = self.var(self.p.ceiling_penalty_usd_per_mwh / 1e6 * self.h)
        paid = self.var(upper=ceilings(site, self.edges_s, self.nominal_s))
        supply, must = 0.0, np.zeros(len(self.t))
        for one in site.supplies:
            most = average_watts(one.available, self.edges_s, 0.0) * one.running
            least = np.minimum(one.min_w, most)
            must += least
            supply = supply + self.var(one.usd_per_mwh / 1e6 * self.h, least, most)
        if site.supplies:
            supply = supply - self.var(-(price - site.export_fee_usd_per_mwh) / 1e6 * self.h, 0.0, site.export_limit_w)
            supply = supply - self.var(self.p.spill_usd_per_mwh / 1e6 * self.h, 0.0, must)
        taken = paid + over
        self.hold(taken + supply - over_1 * loads == site.fixed_w)

        if site.contract is None:
            self.costs.append((paid * self.per(price / 1e6 * self.h)).sum())
        else:
            c = site.contract
            bought = self.var(price / 1e6 * self.h)
            back = price - c.sell_fee_usd_per_mwh if c.sell_back else np.minimum(price, 0.0)
            left = self.var(-back / 1e6 * self.h, 0.0, c.block_w)
            self.hold(paid - bought + left == c.block_w)
            self.constant += float((c.usd_per_mwh * self.h).sum()) * c.block_w / 1e6
        if site.demand_charge is not None:
            d = site.demand_charge
            share = min(1.0, self.edges_s[-1] / d.remaining_s)
            higher = self.one(d.usd_per_kw / 1e3 * share)
            inside = self.edges_s[:-1] < d.remaining_s
            self.hold(taken - higher <= self.per(np.where(inside, d.peak_w, 1e12)))
        for feeder in site.feeders:
            too_much = self.var(self.p.ceiling_penalty_usd_per_mwh / 1e6 * self.h)
            self.hold(over_1 * on_feeder[feeder.name] - too_much <= feeder.limit_w)
        for notice, flexible in sheddable.items():
            asked = sold_w([s for s in site.sold if s.notice_s <= notice], self.edges_s, self.nominal_s)
            penalty = max(s.penalty_usd_per_mwh for s in site.sold if s.notice_s <= notice)
            short = self.var(penalty / 1e6 * self.h)
            wanted = np.where(asked > 0, asked + site.ai_reserve_w, -1e12)
            self.hold(over_1 * flexible + short >= self.per(wanted))
        for one in site.sold:
            ready_mw = sold_w([one], self.edges_s, self.nominal_s) / 1e6
            self.constant -= one.availability_usd_per_mwh * float((ready_mw * self.h).sum())
        self.ramp(site, taken)

    def ramp(self, site, taken):
        minutes = self.nominal_s / 60 / self.fleet.speed
        penalty = self.p.ramp_penalty_usd_per_mwh / 1e6 * self.h
        if not (site.pick_up_ramp_w_per_min or site.drop_ramp_w_per_min):
            return
        steep, slow = self.var(penalty), self.var(penalty)
        change = taken - before(taken)
        if site.pick_up_ramp_w_per_min:
            most = site.pick_up_ramp_w_per_min * minutes
            most[0] += site.metered_power_w
            self.hold(change - steep + slow <= self.per(most))
        if site.drop_ramp_w_per_min:
            least = -site.drop_ramp_w_per_min * minutes
            least[0] += site.metered_power_w
            self.hold(change - steep + slow >= self.per(least))

    def machines(self, site, state):
        modes, made = state.miner_class.modes, state.miner_class
        earns = self.fleet.hashprice_usd_per_ph_day / 24 / 1e15 * (1 - site.pool_fee_ratio)
        rate = earns * modes["normal"].hashrate_hs
        data_h = self.fleet.speed / 3600
        running = {m: self.var(-earns * modes[m].hashrate_hs * self.h, 0.0, state.available) for m in AWAKE}
        asleep = self.var(0.0, 0.0, state.available)
        awake = sum(running.values())
        self.hold(awake + asleep == state.available)
        woken = self.var(rate * made.wake_s * data_h + self.p.wear_usd_per_wake)
        kept_waking = self.one(rate * state.waking_remaining_s * data_h, state.waking)
        first = pd.Series((np.arange(len(self.t)) == 0) * 1.0, self.t)
        settled = sum(state.commanded[1:]) - state.waking
        self.hold(awake - before(awake) - woken - kept_waking * first <= self.per(first * settled))
        lost = np.minimum(1.0, made.wake_s / (self.nominal_s / self.fleet.speed))
        ph = 1 / 1e15
        self.hashes += [running[m] * (modes[m].hashrate_hs * ph) for m in AWAKE]
        self.hashes.append(woken * self.per(-modes["normal"].hashrate_hs * ph * lost))
        self.hashes.append(kept_waking * (first * -modes["normal"].hashrate_hs * ph))
        flexible = sum(running[m] * (modes[m].power_w - modes["sleep"].power_w) for m in AWAKE)
        watts = sum(running[m] * modes[m].power_w for m in AWAKE) + asleep * modes["sleep"].power_w
        if state.achievable_w is not None:
            self.hold(flexible <= max(0.0, state.achievable_w - state.available * modes["sleep"].power_w))
        return watts + state.silent_power_w, flexible

    def pool(self, site, state):
        pool = state.pool
        income = next((b.usd_per_gpu_hour for b in self.fleet.backlogs if b.name == state.backlog), None)
        income = state.income_usd_per_gpu_hour if income is None else income
        if state.demand:
            asked = np.minimum(pool.max_w, average_watts(state.demand, self.edges_s, 0.0))
            asked[0] = max(asked[0], min(pool.max_w, state.demand_w or 0.0))
        else:
            asked = np.full(len(self.t), pool.max_w if state.demand_w is None else min(pool.max_w, state.demand_w))
        wanted = np.maximum(asked, pool.baseline_w)
        asked = np.full(len(self.t), pool.max_w) if state.backlog else wanted
        flexible, at_demand = 0.0, 0.0
        for (w0, r0), (w1, r1) in pairwise(((pool.baseline_w, 0.0), *pool.curve)):
            gpus_per_w = (r1 - r0) * pool.gpu_count / (w1 - w0)
            width = np.clip(asked - w0, 0.0, w1 - w0)
            drawn = self.var(-gpus_per_w * income * self.h, 0.0, width)
            at_demand = at_demand + gpus_per_w * width
            flexible = flexible + drawn
            if state.backlog:
                self.served[state.backlog].append(drawn * self.per(gpus_per_w * self.h))
                self.wanted[state.backlog] += gpus_per_w * np.clip(wanted - w0, 0.0, w1 - w0) * self.h
        if pool.priority is AiPriority.GUARANTEED:
            lacking = self.var(self.p.guaranteed_penalty_usd_per_mwh / 1e6 * self.h)
            self.hold(flexible + lacking >= self.per(asked - pool.baseline_w))
        if state.idle_paid:
            self.constant -= float(((pool.gpu_count - at_demand) * state.income_usd_per_gpu_hour * self.h).sum())
        return flexible + pool.baseline_w, flexible

    def backlog(self, b):
        """Work by cohort: what came in each period must be done by its deadline, or costs while it is late."""
        rate = average([(s.starts_in_s, s.gpu_h_per_h) for s in b.arrivals], self.edges_s, 0.0)
        came = np.concatenate(([0.0], np.cumsum(rate * self.h)))
        arrived = np.diff(came)
        arrived[0] += b.work_gpu_h
        waits, late = self.var(), self.var(b.late_usd_per_gpu_hour * self.h)
        done = sum(self.served[b.name])
        urgent = self.wanted[b.name] if b.follows_demand else 0.0
        lost = self.var(0.0, 0.0, urgent)
        self.hold(waits - before(waits) + done + lost == self.per(arrived + urgent))
        ends = self.edges_s[1:]
        may_wait = came[1:] - np.interp(ends - b.deadline_s, self.edges_s, came, left=0.0)
        if b.due:
            may_wait += [sum(one.gpu_h for one in b.due if end <= one.due_in_s) for end in ends]
        else:
            may_wait += np.where(ends <= b.due_in_s, b.work_gpu_h, 0.0)
        self.hold(waits - late <= self.per(may_wait))
        last = pd.Series((np.arange(len(self.t)) == len(self.t) - 1) * 1.0, self.t)
        self.costs.append((waits * (last * -self.p.left_over_ratio * b.usd_per_gpu_hour)).sum())
