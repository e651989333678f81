"""When dispatch runs again, and why. Pure: the last planning, the fleet as it is, and the time go in.

A new or lowered ceiling re-plans at once. Prices, AI demand, queues and availability re-plan past a threshold, the first
at once and the next at least `hold_off_s` later. Without any of it dispatch runs every `period_s` / speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from controller.dispatch.horizon import ceiling_now
from controller.dispatch.inputs import FleetState, PoolState, SiteState, Window


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What counts as material. Real seconds, except `period_s`, which compressed time divides."""

    period_s: float = 300.0
    hold_off_s: float = 10.0
    price_usd_per_mwh: float = 10.0
    price_ratio: float = 0.10
    demand_ratio: float = 0.02  # of the site's ceiling
    demand_w: float = 10_000.0
    queue_h: float = 0.5  # of all the pool's GPUs
    availability_ratio: float = 0.02  # of the class
    availability_machines: float = 10.0
    hashprice_ratio: float = 0.02


DEFAULT_THRESHOLDS = Thresholds()


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


def due(
    last: Planned | None, fleet: FleetState, now_s: float, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> Trigger | None:
    """Why to plan now, dearest reason first, or None. `now_s` is monotonic [s]; `last` None = never planned.

    Everything is compared with what the last planning saw, so slow drifts add up until they matter.
    """
    if last is None:
        return Trigger("First plan since the controller started.", urgent=True, material=False)
    before = {site.name: site for site in last.fleet.sites}
    pairs = [(before[site.name], site) for site in fleet.sites if site.name in before]
    urgent = [sentence for old, new in pairs for sentence in _lowered(old, new, now_s - last.at_s)]
    if urgent:
        return Trigger(_counted(urgent), urgent=True)
    if last.material_at_s is None or now_s - last.material_at_s >= thresholds.hold_off_s:
        changes = [change for old, new in pairs for change in _changes(old, new, thresholds)]
        changes += _fleet_changes(last.fleet, fleet, thresholds)
        if changes:
            changes.sort(key=lambda change: -change[0])
            return Trigger(_counted([sentence for _, sentence in changes]))
    if now_s - last.at_s >= thresholds.period_s / fleet.speed:
        return Trigger(f"{now_s - last.at_s:.0f} s have passed since the last planning.", material=False)
    return None


def _counted(sentences: list[str]) -> str:
    more = f" ({len(sentences) - 1} more such changes)" if len(sentences) > 1 else ""
    return f"{sentences[0]}{more}."


def _lowered(old: SiteState, new: SiteState, passed_s: float) -> Iterator[str]:
    """Ceilings that are new, lower or at another time than `passed_s` ago."""
    if new.ceiling_w < old.ceiling_w:
        yield f"Ceiling at {new.name} was lowered to {new.ceiling_w / 1e6:.2f} MW"
    known = {window.event_id: window for window in old.windows}
    for window in new.windows:
        if window.ends_in_s is not None and window.ends_in_s <= 0:
            continue
        earlier = known.get(window.event_id)
        if earlier is None:
            when = "now" if window.starts_in_s <= 0 else f"in {window.starts_in_s:.0f} s"
            yield f"Event {window.event_id} lowers {new.name} to {window.ceiling_w / 1e6:.2f} MW {when}"
        elif window.ceiling_w < earlier.ceiling_w or _moved(earlier, window, passed_s):
            yield f"Event {window.event_id} at {new.name} changed to {window.ceiling_w / 1e6:.2f} MW"


def _moved(earlier: Window, window: Window, passed_s: float) -> bool:
    """Whether a window now starts earlier or ends later, by more than a second of jitter; one that runs has started."""
    if max(0.0, window.starts_in_s) < max(0.0, earlier.starts_in_s - passed_s) - 1.0:
        return True
    if earlier.ends_in_s is None:
        return False
    return window.ends_in_s is None or window.ends_in_s > earlier.ends_in_s - passed_s + 1.0


def _changes(old: SiteState, new: SiteState, limits: Thresholds) -> Iterator[tuple[float, str]]:
    """Changes past their thresholds, each with its size in thresholds."""
    was, now = ceiling_now(old)[0], ceiling_now(new)[0]
    ended = {w.event_id for w in old.windows} - {
        w.event_id for w in new.windows if w.ends_in_s is None or w.ends_in_s > 0
    }
    if now > was:
        yield 1e6, f"Ceiling at {new.name} rose to {now / 1e6:.2f} MW"
    elif ended:
        yield 1e6, f"Event {min(ended)} at {new.name} is over"
    if new.connected and not old.connected:
        yield 1e5, f"Site {new.name} is connected"
    if new.stale != old.stale:
        yield 1e5, f"Reports of {new.name} {'are too old to plan on' if new.stale else 'come again'}"
    if old.prices and new.prices:
        before, price = old.prices[0].usd_per_mwh, new.prices[0].usd_per_mwh
        size = abs(price - before) / max(limits.price_usd_per_mwh, limits.price_ratio * abs(before))
        if size > 1:
            yield size, f"Power price at {new.name} went from {before:.2f} to {price:.2f} USD/MWh"
    elif new.prices and not old.prices:
        yield 1e5, f"Power price at {new.name} became known"
    pools = {p.pool.name: p for p in old.pools}
    demand_limit_w = max(limits.demand_w, limits.demand_ratio * new.ceiling_w)
    for pool in new.pools:
        if pool.pool.name not in pools:
            yield 1e5, f"AI pool {pool.pool.name} appeared at {new.name}"
            continue
        step_w = _demand_w(pool) - _demand_w(pools[pool.pool.name])
        if abs(step_w) > demand_limit_w:
            verb = "rose" if step_w > 0 else "fell"
            yield abs(step_w) / demand_limit_w, f"AI demand at {new.name} {verb} by {abs(step_w) / 1e6:.1f} MW"
        before_q, now_q = pools[pool.pool.name].queue, pool.queue
        if before_q is not None and now_q is not None:
            step_h = (now_q.pending_gpu_h - before_q.pending_gpu_h) / max(1, pool.pool.gpu_count)
            if step_h > limits.queue_h:  # what is worked off is in the plan already
                came = f"{now_q.pending_gpu_h - before_q.pending_gpu_h:,.0f} GPU-h"
                yield step_h / limits.queue_h, f"{came} more wait for {pool.pool.name} at {new.name}"
    classes = {c.miner_class.name: c for c in old.classes}
    for state in new.classes:
        name = state.miner_class.name
        if name not in classes:
            yield 1e5, f"Class {name} appeared at {new.name}"
            continue
        step = state.available - classes[name].available
        enough = max(limits.availability_machines, limits.availability_ratio * classes[name].available)
        if abs(step) > enough:
            verb = "came back" if step > 0 else "went missing"
            yield abs(step) / enough, f"{abs(step)} machines of {name} at {new.name} {verb}"


def _demand_w(pool: PoolState) -> float:
    """Demand as dispatch takes it: unknown demand counts as all the pool can draw."""
    return pool.pool.max_w if pool.demand_w is None else min(pool.demand_w, pool.pool.max_w)


def _fleet_changes(old: FleetState, new: FleetState, limits: Thresholds) -> list[tuple[float, str]]:
    found = []
    before, after = {s.name for s in old.sites}, {s.name for s in new.sites}
    found += [(1e5, f"Site {name} joined") for name in sorted(after - before)]
    found += [(1e5, f"Site {name} left") for name in sorted(before - after)]
    was, now = old.hashprice_usd_per_ph_day, new.hashprice_usd_per_ph_day
    size = abs(now - was) / max(1e-9, limits.hashprice_ratio * abs(was))
    if size > 1:
        found.append((size, f"Hashprice went from {was:.2f} to {now:.2f} USD/PH/day"))
    if new.fleet_floor_hs != old.fleet_floor_hs:
        found.append((1e5, f"The fleet's hashrate floor is now {new.fleet_floor_hs / 1e18:.2f} EH/s"))
    return found
