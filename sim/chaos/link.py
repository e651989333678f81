"""The link goes dark, flaps, breaks in one direction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gridpivot.v1 import operator_pb2 as op
from sim.chaos.crash import accounts
from sim.chaos.outcome import Outcome
from sim.chaos.rig import standing, until


async def black_hole(place: Path, short: bool) -> Outcome:
    """No byte passes and nobody is told; a grid event begins and ends meanwhile, and the lease with it."""
    async with standing(place, sites=1) as rig:
        (site,) = rig.sites
        now_ms = round(time.time() * 1000)
        dark_s = 40.0 if short else 300.0
        starts_ms, ends_ms = now_ms + 14_000, now_ms + round(1000 * (dark_s - 6.0))
        event = op.CreateEventRequest(
            sites=[site.spec.name],
            ceiling_ratio=0.7,
            starts_at_unix_ms=starts_ms,
            ends_at_unix_ms=ends_ms,
            reason="chaos",
        )
        created = await rig.call("CreateEvent", event)
        await until(
            lambda: site.agent.book.plan is not None and bool(site.agent.book.plan.events), 20.0, "event at the site"
        )
        began_s = time.monotonic()
        site.link.dark()
        agent_s = await until(lambda: not site.connected, 30.0, "agent notices")
        while await rig.link_of(site.spec.name) == "connected":  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.2)
        controller_s = time.monotonic() - began_s
        await until(lambda: created.event_id in site.agent.book.active_events(site.clock.now()), 30.0, "event begins")
        ceiling_w = 0.7 * site.spec.ceiling_w
        await until(lambda: site.world.true_power_w <= ceiling_w, 30.0, "power under the event's ceiling")
        await until(lambda: not site.agent.book.active_events(site.clock.now()), dark_s, "event ends by itself")
        site.link.light()
        back_s = await until(lambda: site.connected, 40.0, "agent back")
        await rig.drained()
        saw = "SiteSilent; grid_event_started and _ended at the site, told after the outage"
        found_s = max(agent_s, controller_s)
        return await accounts(rig, "black_hole", saw, detection_s=found_s, recovery_s=back_s)


async def flapping(place: Path, short: bool) -> Outcome:
    """Three seconds of light, three of darkness."""
    async with standing(place, sites=1) as rig:
        (site,) = rig.sites
        for _ in range(4 if short else 20):
            site.link.dark()
            await asyncio.sleep(3.0)
            site.link.light()
            await asyncio.sleep(3.0)
        back_s = await until(lambda: site.connected, 40.0, "agent back")
        await rig.drained()
        return await accounts(rig, "flapping", "link_lost and link_restored, if at all", recovery_s=back_s)


async def outage_backlog(place: Path, short: bool) -> Outcome:
    """Six hours of roll-ups wait (time compressed: they are spooled at once); what is live does not wait behind them."""
    async with standing(place, sites=1) as rig:
        (site,) = rig.sites
        site.link.dark()
        await until(lambda: not site.connected, 30.0, "agent notices")
        now = site.clock.now()
        for _ in range(2_000 if short else 10_800):
            site.agent._send_rollup(now)
        waiting = site.agent.uplink.waiting() if site.agent.uplink is not None else 0
        site.link.light()
        began_s = time.monotonic()
        await until(lambda: site.connected, 40.0, "agent back")
        fresh_ms = round(time.time() * 1000)

        def newest_ms() -> int:
            rows = rig.read("SELECT max(observed_at_unix_ms) FROM rollups WHERE site = ?", site.spec.name)
            return int(rows[0][0] or 0)

        while await asyncio.to_thread(newest_ms) < fresh_ms:  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.1)
        live_s = time.monotonic() - began_s
        await rig.drained()
        drained_s = time.monotonic() - began_s
        note = "" if live_s < 10.0 else f"the first live roll-up came after {live_s:.1f} s"
        saw = f"{waiting} records waited; live again after {live_s:.1f} s, all after {drained_s:.1f} s"
        return await accounts(rig, "outage_backlog", saw, recovery_s=live_s, note=note)


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {
    "black_hole": black_hole,
    "flapping": flapping,
    "outage_backlog": outage_backlog,
}
