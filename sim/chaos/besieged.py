"""A rig with one well-behaved site and one name that is left to an intruder, and what must hold after every attack."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

from gridpivot.v1 import operator_pb2 as op
from sim.chaos.crash import accounts
from sim.chaos.outcome import MEMORY_BAR_MB, Outcome
from sim.chaos.rig import Rig, Site, until

BACK_S = 20.0
GIVEN_BACK_S = 25.0
REFUSALS = ("events lost",)  # errors in the log that are the right word for what the intruder did


class Siege:
    """Takes the measure before an attack, and the account after it."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.victim = rig, rig.specs[1].name
        self.before_mb = rig.rss_mb()

    def growth_mb(self) -> float:
        """Memory of the controller over what it was before the attack [MB]."""
        return self.rig.rss_mb() - self.before_mb

    def complaints(self) -> dict[str, int]:
        """What the controller logged as an error (a defect, not a refusal): text -> how often."""
        found: dict[str, int] = {}
        assert self.rig.controller is not None
        for raw in self.rig.controller.log.read_text(encoding="utf-8", errors="replace").splitlines():
            line: object = None
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(raw)
            if not isinstance(line, dict):
                text = raw.strip() if "Error" in raw else ""
            elif line.get("level") in ("error", "critical") and line.get("event") not in REFUSALS:
                text = f"{line.get('event')}: {line.get('error') or str(line.get('exception', '')).strip()[-160:]}"
            else:
                text = ""
            if text:
                found[text[:300]] = found.get(text[:300], 0) + 1
        return found

    async def planned_anew(self) -> float:
        """Make the whole loop turn once for the well-behaved site: order, plan, signature, lane, agent [s]."""
        (site,) = self.rig.sites
        began_s, before = time.monotonic(), site.agent.book.highest
        ceiling_w = site.spec.ceiling_w * (0.9 - 0.001 * (round(began_s) % 50))
        request = op.SetOverrideRequest(site=site.spec.name, ceiling_w=ceiling_w, for_s=600.0, reason="chaos")
        await self.rig.call("SetOverride", request)
        await until(lambda: site.agent.book.highest > before, BACK_S, "a new plan at the well-behaved site")
        return time.monotonic() - began_s

    async def outcome(self, name: str, saw: str, *, notes: list[str] | None = None) -> Outcome:
        """After the attack: the well-behaved site is there or gets in, is planned for, and nothing of its own is lost."""
        (site,) = self.rig.sites
        self.rig.process()  # raises when the controller is gone
        back_s = await until(lambda: site.connected, BACK_S, "the well-behaved site connected")
        await self.planned_anew()
        await self.rig.drained()
        with contextlib.suppress(TimeoutError):  # what was freed goes back to the system within a beat or two
            await until(lambda: self.growth_mb() <= MEMORY_BAR_MB, GIVEN_BACK_S, "memory given back")
        growth_mb = self.growth_mb()
        notes = [*(notes or ()), *(f"{count} x {text}" for text, count in self.complaints().items())]
        found = await accounts(self.rig, name, saw, recovery_s=back_s, note="; ".join(notes)[:1500])
        return dataclasses.replace(found, memory_growth_mb=max(0.0, growth_mb))


@contextlib.asynccontextmanager
async def besieged(place: Path) -> AsyncIterator[Siege]:
    """A controller, `site-0` behaving well on a plan, `site-1` enrolled and in the intruder's hands."""
    rig = Rig(place, sites=2)
    try:
        await rig.start_controller()
        rig.sites = [Site(rig, rig.specs[0])]
        await rig.sites[0].start()
        await until(lambda: rig.sites[0].connected, 30.0, "the well-behaved site connected")
        await rig.planned()
        await asyncio.to_thread(rig.metric, "gridpivot_sites")  # what is imported or built once, before the measure
        yield Siege(rig)
    finally:
        await rig.stop()
