"""What a grid event would do before anybody creates it, and what more notice of one would be worth. Pure.

Differences of optima: the same state is solved with and without the event, in a planner of its own. Only sites that
share a constraint with the event's are solved; a fleet hashrate floor ties all of them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from controller.dispatch.inputs import Decision, FleetState, Outlook, SiteDecision, SiteState, Window
from controller.dispatch.ladder import split
from controller.dispatch.solve import Planner, components
from gridpivot.errors import Refused
from gridpivot.vocabulary import AiPriority

NOTICE_S = 3_600.0  # of data time
Machines = tuple[float, float, float, float]  # sleep, low, normal, turbo
Watts = tuple[float, float, float]  # import, mining, AI


@dataclass(frozen=True, slots=True)
class Imagined:
    """An event that nobody has created: the fleet without it, with it, with it an hour later; its windows by site."""

    before: FleetState
    called: FleetState
    later: FleetState
    windows: Mapping[str, Window]


@dataclass(frozen=True, slots=True)
class ClassPreview:
    """Machines of a class by mode when the event begins, without it and with it."""

    name: str
    before: Machines
    after: Machines


@dataclass(frozen=True, slots=True)
class PoolPreview:
    """Wall power of an AI pool when the event begins [W], without it and with it."""

    name: str
    priority: AiPriority
    before_w: float
    after_w: float


@dataclass(frozen=True, slots=True)
class SitePreview:
    """One site: its ceiling under the event, and mean import, mining and AI over the event's part of the horizon."""

    site: str
    ceiling_w: float
    before_w: Watts
    after_w: Watts
    classes: tuple[ClassPreview, ...]
    pools: tuple[PoolPreview, ...]
    over_w: float  # import above the ceiling that nothing can shed, at worst while the event lasts


@dataclass(frozen=True, slots=True)
class Preview:
    """What an event would do [W, USD over the horizon]. `cost_usd` counts what is not earned and penalties alike."""

    sites: tuple[SitePreview, ...]
    left_out: tuple[str, ...]  # sites that it reaches and that cannot be planned, with the reason
    cost_usd: float
    notice_usd: float  # what it would cost less if it came an hour later, as long as it is
    horizon_s: float
    solve_s: float


def preview(planner: Planner, event: Imagined) -> Preview:
    """What an event would do to today's state. Blocks for as long as three to five solves take.

    Raises Refused where it reaches no site that can be planned or begins beyond the horizon, Infeasible where a state
    has no optimum.
    """
    fleet, windows = event.before, event.windows
    known = {s.name: s for s in fleet.sites}
    left_out = [f"{name}: has not reported yet" for name in windows if name not in known]
    solvable, unfit = split(fleet)
    left_out += [f"{name}: {why}" for name, why in unfit.items() if name in windows]
    part = _touched(solvable, windows)
    if part is None:
        raise Refused(f"nothing to preview: {'; '.join(left_out)}")
    starts_s = max(0.0, min(w.starts_in_s for w in windows.values()))
    plain = planner.solve(part)
    horizon_s = max(_end_s(p) for d in plain.sites for p in d.outlook)
    if starts_s >= horizon_s:
        raise Refused(
            f"the event begins in {starts_s / 3600:.0f} h, beyond the {horizon_s / 3600:.0f} h that dispatch looks ahead"
        )
    part_called = _same_sites(event.called, part)
    called, later = planner.solve(part_called), planner.solve(_same_sites(event.later, part))
    solves = [plain, called, later]
    at_start = plain, called
    if starts_s > 0:
        at_start = (
            planner.solve(ahead(_follow(part, plain), starts_s)),
            planner.solve(ahead(_follow(part_called, called), starts_s)),
        )
        solves += at_start
    sites = tuple(
        _site(site, windows[site.name], (plain, called), at_start) for site in part.sites if site.name in windows
    )
    cost, saved = called.objective_usd - plain.objective_usd, called.objective_usd - later.objective_usd
    return Preview(sites, tuple(left_out), cost, saved, horizon_s, sum(d.solve_s for d in solves))


def notice_usd(planner: Planner, fleet: FleetState, site: str) -> tuple[tuple[str, float], ...]:
    """By event that is still to come at a site: what it would cost less if it came an hour later, as long as it is.

    The site is solved alone, without the fleet's floor. Raises KeyError for an unknown site, Infeasible.
    """
    alone = {s.name: s for s in fleet.sites}[site]
    coming = [w for w in alone.windows if w.starts_in_s > 0]
    if not coming or alone.stale:
        return ()
    worked_on = {p.backlog for p in alone.pools}
    backlogs = tuple(b for b in fleet.backlogs if b.name in worked_on)
    part = replace(fleet, sites=(alone,), fleet_floor_hs=0.0, backlogs=backlogs)
    now_usd = planner.solve(part).objective_usd
    found = []
    for window in coming:
        others = tuple(w for w in alone.windows if w is not window)
        moved = replace(alone, windows=(*others, _later(window, NOTICE_S / fleet.speed)))
        found.append((window.event_id, now_usd - planner.solve(replace(part, sites=(moved,))).objective_usd))
    return tuple(found)


def ahead(fleet: FleetState, by_s: float) -> FleetState:
    """The same state `by_s` seconds on: prices, demand, supplies and promises have moved closer, nothing else has."""
    sites = []
    for site in fleet.sites:
        charge = site.demand_charge
        sites.append(
            replace(
                site,
                prices=_closer(site.prices, by_s),
                risk=_closer(site.risk, by_s),
                windows=tuple(_later(w, -by_s) for w in site.windows if w.ends_in_s is None or w.ends_in_s > by_s),
                pools=tuple(replace(p, demand=_closer(p.demand, by_s)) for p in site.pools),
                supplies=tuple(replace(s, available=_closer(s.available, by_s)) for s in site.supplies),
                sold=tuple(
                    replace(
                        s,
                        starts_in_s=s.starts_in_s - by_s,
                        ends_in_s=None if s.ends_in_s is None else s.ends_in_s - by_s,
                    )
                    for s in site.sold
                    if s.ends_in_s is None or s.ends_in_s > by_s
                ),
                demand_charge=None
                if charge is None
                else replace(charge, remaining_s=max(0.0, charge.remaining_s - by_s)),
            )
        )
    backlogs = tuple(
        replace(
            b,
            arrivals=_closer(b.arrivals, by_s),
            due_in_s=max(0.0, b.due_in_s - by_s),
            due=tuple(replace(d, due_in_s=d.due_in_s - by_s) for d in b.due),
        )
        for b in fleet.backlogs
    )
    return replace(fleet, sites=tuple(sites), backlogs=backlogs)


class _Step(Protocol):
    @property
    def starts_in_s(self) -> float: ...


Step = TypeVar("Step", bound=_Step)


def _closer(steps: Sequence[Step], by_s: float) -> tuple[Step, ...]:
    """Steps moved towards now, without those that have passed."""
    moved = [replace(step, starts_in_s=step.starts_in_s - by_s) for step in steps]  # type: ignore[type-var]
    passed = sum(step.starts_in_s <= 0 for step in moved)
    return tuple(moved[max(0, passed - 1) :])


def _later(window: Window, by_s: float) -> Window:
    ends = None if window.ends_in_s is None else window.ends_in_s + by_s
    return replace(window, starts_in_s=max(0.0, window.starts_in_s) + by_s, ends_in_s=ends)


def _touched(fleet: FleetState, windows: Mapping[str, Window]) -> FleetState | None:
    """The sites that share a constraint with those of the event; None where none of its sites can be planned."""
    if not any(s.name in windows for s in fleet.sites):
        return None
    if fleet.fleet_floor_hs > 0:
        return fleet
    parts = [part for names, part in components(fleet).items() if windows.keys() & set(names)]
    sites = tuple(site for part in parts for site in part.sites)
    return replace(fleet, sites=sites, backlogs=tuple(b for part in parts for b in part.backlogs))


def _same_sites(fleet: FleetState, part: FleetState) -> FleetState:
    """The sites of `part` as another fleet has them."""
    states = {s.name: s for s in fleet.sites}
    return replace(part, sites=tuple(states[s.name] for s in part.sites))


def _follow(fleet: FleetState, decision: Decision) -> FleetState:
    """The fleet once every site has done what it was asked."""
    sites = tuple(
        replace(
            s,
            classes=tuple(
                replace(c, commanded=m.machines, waking=0.0, waking_remaining_s=0.0)
                for c, m in zip(s.classes, d.classes, strict=True)
            ),
        )
        for s, d in zip(fleet.sites, decision.sites, strict=True)
    )
    return replace(fleet, sites=sites)


def _site(
    site: SiteState, window: Window, whole: tuple[Decision, Decision], at_start: tuple[Decision, Decision]
) -> SitePreview:
    before, after = (_of(decision, site.name) for decision in whole)
    begun, called = (_of(decision, site.name) for decision in at_start)
    return SitePreview(
        site.name,
        min(site.ceiling_w, window.ceiling_w),
        _mean_w(before.outlook, window),
        _mean_w(after.outlook, window),
        tuple(ClassPreview(a.name, a.machines, b.machines) for a, b in zip(begun.classes, called.classes, strict=True)),
        tuple(
            PoolPreview(a.name, p.pool.priority, a.expected_w, b.expected_w)
            for p, a, b in zip(site.pools, begun.pools, called.pools, strict=True)
        ),
        max((max(0.0, p.import_w - p.ceiling_w) for p in after.outlook if _inside_s(p, window) > 0), default=0.0),
    )


def _of(decision: Decision, site: str) -> SiteDecision:
    return next(d for d in decision.sites if d.site == site)


def _end_s(period: Outlook) -> float:
    return period.starts_in_s + period.width_s


def _inside_s(period: Outlook, window: Window) -> float:
    """How long of a period a window is open [s]."""
    until_s = _end_s(period) if window.ends_in_s is None else min(window.ends_in_s, _end_s(period))
    return max(0.0, until_s - max(window.starts_in_s, period.starts_in_s))


def _mean_w(outlook: Sequence[Outlook], window: Window) -> Watts:
    """Mean import, mining and AI over the part of the horizon that a window covers [W]."""
    total = [0.0, 0.0, 0.0]
    covered_s = 0.0
    for period in outlook:
        inside_s = _inside_s(period, window)
        covered_s += inside_s
        for k, watts in enumerate((period.import_w, period.mining_w, period.ai_w)):
            total[k] += inside_s * watts
    mean = [watts / covered_s if covered_s else 0.0 for watts in total]
    return mean[0], mean[1], mean[2]
