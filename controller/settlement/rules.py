"""Policies without a solver: always on, a threshold per class, and the merit order. What operators do today. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.settlement.plant import MODES, Floats, Plant, Setpoints
from controller.settlement.seen import Seen, SiteSeen
from controller.settlement.settle import drawn_w
from gridpivot.segments import class_segments, machines_by_mode, merit_order, pool_segments
from gridpivot.value import mining_usd_per_mwh
from gridpivot.vocabulary import AiPriority, Mode

SLEEP, NORMAL = MODES.index(Mode.SLEEP), MODES.index(Mode.NORMAL)
PRIORITIES = tuple(AiPriority)


def fixed_w(plant: Plant) -> float:
    """Import with everything asleep and every pool at its baseline [W]."""
    return float(plant.import_w(plant.all_in(Mode.SLEEP), plant.baseline_w))


def by_priority(plant: Plant) -> list[int]:
    """Pools in the order in which operators serve them: guaranteed, standard, spot."""
    return sorted(range(len(plant.pools)), key=lambda k: PRIORITIES.index(plant.pools[k].pool.priority))


def by_efficiency(plant: Plant) -> list[int]:
    """Classes from the most efficient in normal mode on."""
    return sorted(range(len(plant.classes)), key=lambda k: plant.classes[k].miner_class.efficiency_j_per_th)


def serve(plant: Plant, wanted_w: Floats, room_w: float) -> tuple[Floats, float]:
    """AI power (pool,) by priority within room at the meter above the fixed import, and the room left [W]."""
    given = plant.baseline_w.copy()
    for k in by_priority(plant):
        more = min(max(0.0, wanted_w[k] - given[k]), room_w / (1.0 + plant.overhead_ratio))
        given[k] += more
        room_w -= more * (1.0 + plant.overhead_ratio)
    return given, max(0.0, room_w)


def run_normal(plant: Plant, wanted: Floats, room_w: float) -> Floats:
    """Machines (class, 4): the wanted number of each class in normal mode, most efficient first, as room allows."""
    counts = plant.all_in(Mode.SLEEP)
    for k in by_efficiency(plant):
        modes = plant.classes[k].miner_class.modes
        each_w = (modes[Mode.NORMAL].power_w - modes[Mode.SLEEP].power_w) * (1.0 + plant.overhead_ratio)
        here = min(float(wanted[k]), room_w / each_w if each_w > 0 else float(wanted[k]))
        counts[k, SLEEP] -= here
        counts[k, NORMAL] += here
        room_w = max(0.0, room_w - here * each_w)
    return counts


@dataclass(frozen=True, slots=True)
class Static:
    """Always on, at a fixed split: AI keeps room for all of its power, mining gets what remains, whatever power costs.

    Only a lowered ceiling changes anything: AI is served first, mining keeps its share of what is left.
    """

    name: str = "static"
    knows_current: bool = False

    def decide(self, seen: Seen) -> tuple[Setpoints, ...]:
        """The same every interval, ceilings apart."""
        return tuple(self._site(site) for site in seen.sites)

    def _site(self, site: SiteSeen) -> Setpoints:
        plant = site.plant
        tops = np.array([p.pool.max_w for p in plant.pools])
        fixed = fixed_w(plant)
        _, share_w = serve(plant, tops, max(0.0, plant.ceiling_w - fixed))
        pools, left_w = serve(plant, drawn_w(plant, tops, site.demand_w), max(0.0, site.ceiling_w - fixed))
        return Setpoints(run_normal(plant, plant.machines, min(share_w, left_w)), pools)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A strike price per class: run in normal mode while mining earns more than power costs, else sleep.

    AI comes first as an operator's rule would have it: guaranteed whatever power costs, the others while their income
    at full demand pays for their power; mining gets what is left, most efficient class first.
    """

    name: str = "threshold"
    knows_current: bool = False

    def decide(self, seen: Seen) -> tuple[Setpoints, ...]:
        """One look at the newest price."""
        return tuple(self._site(site, seen.hashprice_usd_per_ph_day) for site in seen.sites)

    def _site(self, site: SiteSeen, hashprice: float) -> Setpoints:
        plant, price = site.plant, site.price_usd_per_mwh
        wanted_w = drawn_w(plant, np.full(len(plant.pools), np.inf), site.demand_w)
        for k, pool in enumerate(plant.pools):
            segments = pool_segments(pool.pool, pool.usd_per_gpu_hour, float(wanted_w[k]), plant.overhead_ratio)
            asked = sum(s.width_w for s in segments)
            earned = sum(s.width_w * s.value_usd_per_mwh for s in segments)
            if pool.pool.priority is not AiPriority.GUARANTEED and earned <= price * asked:
                wanted_w[k] = plant.baseline_w[k]
        pools, left_w = serve(plant, wanted_w, max(0.0, site.ceiling_w - fixed_w(plant)))
        values = [
            mining_usd_per_mwh(hashprice, c.miner_class.efficiency_j_per_th, plant.pool_fee_ratio, plant.overhead_ratio)
            for c in plant.classes
        ]
        return Setpoints(run_normal(plant, plant.machines * (np.array(values) > price), left_w), pools)


@dataclass(frozen=True, slots=True)
class MeritOrderRule:
    """Every watt to the segment that earns most per MWh, at the newest price; blind to wake-ups and to tomorrow."""

    name: str = "merit-order"
    knows_current: bool = False

    def decide(self, seen: Seen) -> tuple[Setpoints, ...]:
        """The merit order of each site."""
        return tuple(self._site(site, seen.hashprice_usd_per_ph_day) for site in seen.sites)

    def _site(self, site: SiteSeen, hashprice: float) -> Setpoints:
        plant = site.plant
        overhead = plant.overhead_ratio
        segments = [
            s
            for c in plant.classes
            for s in class_segments(c.miner_class, c.machines, hashprice, plant.pool_fee_ratio, overhead)
        ]
        for k, pool in enumerate(plant.pools):
            segments += pool_segments(pool.pool, pool.usd_per_gpu_hour, float(site.demand_w[k]), overhead)
        order = merit_order(segments, site.ceiling_w, fixed_w(plant), overhead, site.price_usd_per_mwh)
        machines = np.zeros((len(plant.classes), len(MODES)))
        for row, own in enumerate(plant.classes):
            for mode, count in machines_by_mode(own.miner_class, own.machines, order).items():
                machines[row, MODES.index(mode)] = count
        given = plant.baseline_w.copy()
        names = [p.pool.name for p in plant.pools]
        for segment, watts in zip(order.segments, order.watts, strict=True):
            if segment.mode is None:
                given[names.index(segment.name)] += watts
        return Setpoints(machines, given)
