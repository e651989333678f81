"""Dispatch in /metrics: closed labels, and no sample for what is not known."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import Metric

from controller.dispatch.inputs import Binding
from controller.dispatch_metrics import dispatch_families, shadow_by_kind
from controller.identity.caller import Caller
from controller.planner import PlanLoop
from controller.service import ControllerService
from gridpivot.vocabulary import ConstraintKind, Role, Rung

pytestmark = pytest.mark.unit
OPS = Caller("ops", Role.OPERATOR)


def samples(families: list[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


async def decided(service: ControllerService) -> PlanLoop:
    async with asyncio.timeout(30):
        while service.loop.last is None:
            await asyncio.sleep(0.01)
    return service.loop


async def test_solved_decision_shows_its_rung_and_every_kind_of_shadow_price(controller: ControllerService) -> None:
    await decided(controller)
    await controller.operations.set_override("falcon-1", 2e5, None, "tight", "", OPS)
    controller.loop.wake()
    async with asyncio.timeout(30):
        while controller.operations.board.posted("falcon-1").plan.ceiling_w > 2e5:
            await asyncio.sleep(0.01)
    found = samples(list(dispatch_families(controller.loop)))
    assert found["gridpivot_dispatch_rung", (("rung", "plan"),)] == 1
    assert found["gridpivot_dispatch_rung", (("rung", "hold"),)] == 0
    site = ("site", "falcon-1")
    shadow = "gridpivot_site_shadow_price_usd_per_megawatt_hour"
    assert found[shadow, (("kind", "ceiling"), site)] > 0
    assert found[shadow, (("kind", "sold"), site)] == 0
    assert len([name for name, _ in found if name == shadow]) == len(ConstraintKind)
    assert found["gridpivot_site_interconnect_worth_usd_per_megawatt", (site,)] > 0
    assert found["gridpivot_dispatch_late_total", ()] == 0


async def test_site_that_was_not_solved_has_a_rung_and_no_shadow_price(controller: ControllerService) -> None:
    loop = await decided(controller)
    (site,) = loop.last.decision.sites
    held = replace(site, rung=Rung.HOLD, rung_reason="its newest report is too old to plan on")
    loop.last = replace(loop.last, decision=replace(loop.last.decision, sites=(held,)))
    found = samples(list(dispatch_families(loop)))
    assert found["gridpivot_site_dispatch_rung", (("rung", "hold"), ("site", "falcon-1"))] == 1
    assert not any("shadow" in name or "interconnect" in name for name, _ in found)


async def test_many_events_make_one_series(controller: ControllerService) -> None:
    loop = await decided(controller)
    (site,) = loop.last.decision.sites
    crowded = replace(site, binding=tuple(Binding(f"event e{n}", 1e5, float(n)) for n in range(50)))
    assert shadow_by_kind(crowded)[ConstraintKind.EVENT] == 49.0
    assert len(shadow_by_kind(crowded)) == len(ConstraintKind)
