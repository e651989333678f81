"""Run a policy through a scenario, interval by interval, and settle what it asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from controller.dispatch.parameters import Parameters
from controller.settlement.foresight import foresee
from controller.settlement.plant import Floats
from controller.settlement.scenario import Scenario
from controller.settlement.seen import Policy, look
from controller.settlement.settle import Course, Settled, drawn_w, settle
from gridpivot.vocabulary import Mode

Told = Callable[[int], None]


def beginnings(scenario: Scenario) -> tuple[Floats, ...]:
    """Where every policy starts from: all machines in normal mode, (class, 4) by site."""
    return tuple(site.plant.all_in(Mode.NORMAL) for site in scenario.sites)


def rehearse(
    scenario: Scenario, policy: Policy, told: Told = lambda _: None, start: tuple[Floats, ...] | None = None
) -> tuple[Course, ...]:
    """What a policy asked for through the window, by site; `told` hears of each interval done.

    `start` is how machines stood before it, (class, 4) by site; None = as `beginnings`.
    """
    start = beginnings(scenario) if start is None else start
    standing = start
    machines = [np.empty((scenario.intervals, *s.shape)) for s in start]
    pools = [np.empty((scenario.intervals, len(s.plant.pools))) for s in scenario.sites]
    peaks = [0.0] * len(scenario.sites)
    for at in range(scenario.intervals):
        asked = policy.decide(look(scenario, at, standing, tuple(peaks), policy.knows_current))
        for k, (site, setpoints) in enumerate(zip(scenario.sites, asked, strict=True)):
            machines[k][at], pools[k][at] = setpoints.machines, setpoints.pool_w
            if site.plant.demand_charge_usd_per_kw is not None:
                drawn = drawn_w(site.plant, setpoints.pool_w, site.demand_w[:, at])
                fresh = at + 1 < scenario.intervals and site.month[at + 1] != site.month[at]
                peaks[k] = 0.0 if fresh else max(peaks[k], float(site.plant.import_w(setpoints.machines, drawn)))
        standing = tuple(s.machines for s in asked)
        told(at + 1)
    return tuple(Course(m, p, s) for m, p, s in zip(machines, pools, start, strict=True))


def settled(scenario: Scenario, policy: Policy, parameters: Parameters, told: Told = lambda _: None) -> list[Settled]:
    """A policy's accounts, site by site."""
    courses = rehearse(scenario, policy, told)
    return [
        settle(scenario, site, course, policy.name, parameters)
        for site, course in zip(scenario.sites, courses, strict=True)
    ]


def foreseen(scenario: Scenario, parameters: Parameters, told: Told = lambda _: None) -> list[Settled]:
    """Perfect foresight's accounts, site by site, settled by the same rules."""
    accounts = []
    for at, (site, start) in enumerate(zip(scenario.sites, beginnings(scenario), strict=True)):
        course, _ = foresee(scenario, site, start, parameters)
        accounts.append(settle(scenario, site, course, "foresight", parameters))
        told(at + 1)
    return accounts
