"""A day is settled from its decision records: the plans beside the rules that operators use, and perfect foresight."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from controller.dispatch.inputs import PriceStep
from controller.dispatch.parameters import Parameters
from controller.dispatch.solve import Planner
from controller.exporter import registry, render
from controller.replay import record_of
from controller.settlement.daily import LIVE, Taken, settle_day
from controller.settling import Settling
from controller.store.store import Store
from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority
from tests.unit.dispatch.conftest import fleet, follow, machines, pool, site

pytestmark = pytest.mark.unit

DAY = 1_735_689_600.0  # 2025-01-01T00:00Z
P = Parameters()


class At:
    """A clock that stands where it is told."""

    def __init__(self, unix_s: float) -> None:
        self.unix_s = unix_s

    def now(self) -> Instant:
        return Instant(0.0, self.unix_s)


def price(at_s: float) -> float:
    hour = at_s / 3600.0 % 24
    return 40.0 + 35.0 * math.sin((hour - 9.0) / 24 * 2 * math.pi) + (400.0 if 18 <= hour < 18.5 else 0.0)


def day_of(names=("a", "b"), every_s=900.0):
    """Plans through a day whose prices are known for two hours ahead, each from where the last one left the site."""
    planner, taken = Planner(P, period_s=(900.0,) * 8), []
    made = [
        site(
            n,
            ceiling_w=4.5e6,
            classes=[machines()],
            pools=[pool("spot", AiPriority.SPOT, 400, demand_w=3e5, income=0.1)],
        )
        for n in names
    ]
    state = fleet(*made)
    at = 0.0
    while at < 86_400.0:
        steps = tuple(PriceStep(900.0 * k, price(at + 900.0 * k)) for k in range(8))
        state = replace(state, sites=tuple(replace(s, prices=steps) for s in state.sites))
        decision = planner.solve(state)
        taken.append(Taken(DAY + at, state, {d.site: d for d in decision.sites}))
        state = follow(state, decision)
        at += every_s
    return taken


def test_plans_earn_more_than_a_threshold_and_less_than_foresight():
    accounts = settle_day(day_of(), DAY, P)
    margins = {(a.site, a.policy): a.margin_usd for a in accounts}
    assert {policy for _, policy in margins} == {LIVE, "threshold", "merit-order", "foresight"}
    for name in ("a", "b"):
        best, live = margins[name, "foresight"], margins[name, LIVE]
        assert margins[name, "threshold"] < live <= best + 1e-6
        assert (best - live) / best < 0.01  # prices were known two hours ahead
    assert all(a.ceiling_excess_mwh == 0 for a in accounts)


def test_site_that_was_not_planned_all_day_is_left_out():
    taken = day_of()
    late = [
        replace(t, fleet=replace(t.fleet, sites=t.fleet.sites[:1])) if t.at_unix_s < DAY + 7200 else t for t in taken
    ]
    assert {a.site for a in settle_day(late, DAY, P)} == {"a"}
    assert settle_day(taken[4:], DAY, P) == []
    assert settle_day([], DAY, P) == []


async def test_day_is_settled_once_from_the_store_and_shown(tmp_path: Path) -> None:
    clock = At(DAY + 86_400.0 + 600.0)
    store = await Store.open(tmp_path / "c.db", clock)
    try:
        planner = Planner(P, period_s=(900.0,) * 4)
        state = fleet(site("a", price=55.0))
        for quarter in range(96):
            now = Instant(0.0, DAY + 900.0 * quarter)
            decision = planner.solve(state)
            await store.ledger.record_decision(record_of(f"d{quarter:02d}", decision, state, now, "test", P), [])
            state = follow(state, decision)
        settling = Settling(store, clock, P)
        assert await settling.settle_yesterday()
        assert settling.day_unix_s == DAY - 86_400.0  # a quarter of an hour has to pass after midnight
        clock.unix_s += 900.0
        assert await settling.settle_yesterday()
        assert not await settling.settle_yesterday()
        assert (settling.day_unix_s, {a.site for a in settling.accounts}) == (DAY, {"a"})
        text = render(registry(settling)).decode()
        assert 'gridpivot_settled_margin_usd{policy="live",site="a"}' in text
        assert 'gridpivot_settled_regret_ratio{site="a"}' in text
        again = Settling(store, clock, P)
        await again.restore()
        assert (again.day_unix_s, list(again.accounts)) == (DAY, sorted(settling.accounts, key=lambda a: a.policy))
    finally:
        await store.close()
