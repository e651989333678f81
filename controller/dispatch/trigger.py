"""When dispatch runs again, and why. Pure: the last planning, the fleet as it is, and the time go in.

A new or lowered ceiling re-plans at once. Prices, AI demand and availability re-plan past a threshold, the first
at once and the next at least `hold_off_s` later. Without any of it dispatch runs every `period_s` / speed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.dispatch.inputs import FleetState


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What counts as material. Real seconds, except `period_s`, which compressed time divides."""

    period_s: float = 300.0
    hold_off_s: float = 10.0
    price_usd_per_mwh: float = 10.0
    price_ratio: float = 0.10
    demand_ratio: float = 0.02  # of the site's ceiling
    demand_w: float = 10_000.0
    availability_ratio: float = 0.02  # of the class
    availability_machines: float = 10.0
    hashprice_ratio: float = 0.02


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why dispatch runs. `urgent` ones ignore the hold-off; `material` ones start it."""

    sentence: str
    urgent: bool = False
    material: bool = True


@dataclass(frozen=True, slots=True)
class Planned:
    """The last planning: what it saw and when [monotonic s]."""

    fleet: FleetState
    at_s: float
    material_at_s: float | None = None

    def after(self, trigger: Trigger, fleet: FleetState, now_s: float) -> Planned:
        """The record once dispatch has run for `trigger` on `fleet` at `now_s`."""
        return replace(self, fleet=fleet, at_s=now_s, material_at_s=now_s if trigger.material else self.material_at_s)


def due(last: Planned | None, fleet: FleetState, now_s: float, thresholds: Thresholds = Thresholds()) -> Trigger | None:
    """Why to plan now, dearest reason first, or None. `now_s` is monotonic [s]; `last` None = never planned."""
    raise NotImplementedError
