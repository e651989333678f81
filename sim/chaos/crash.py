"""The controller dies, stops, comes back with an older database; forty agents reconnect; its database is locked."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from gridpivot.v1 import operator_pb2 as op
from sim.chaos.outcome import RECONNECT_BAR_S, Outcome
from sim.chaos.rig import Rig, Site, standing, until


async def controller_killed(place: Path, short: bool) -> Outcome:
    """kill -9 under load, again and again; nothing acknowledged may be missing afterwards."""
    async with standing(place, sites=2) as rig:
        back: list[float] = []
        for _ in range(2 if short else 5):
            await asyncio.sleep(2.0)
            await rig.kill_controller()
            await asyncio.sleep(1.0)
            began_s = time.monotonic()
            await rig.start_controller()
            await until(lambda: all(site.connected for site in rig.sites), 40.0, "sites back")
            back.append(time.monotonic() - began_s)
        await rig.drained()
        saw = "link_lost, link_restored at each site"
        return await accounts(rig, "controller_killed", saw, recovery_s=max(back))


async def controller_stopped(place: Path, short: bool) -> Outcome:
    """SIGSTOP: connections stay open and nobody answers; the agents find out by themselves."""
    async with standing(place, sites=1) as rig:
        (site,) = rig.sites
        rig.signal(signal.SIGSTOP)
        began_s = time.monotonic()
        found_s = await until(lambda: not site.connected, 30.0, "agent notices")
        await asyncio.sleep(max(0.0, (15.0 if short else 60.0) - (time.monotonic() - began_s)))
        rig.signal(signal.SIGCONT)
        back_s = await until(lambda: site.connected, 40.0, "agent back")
        await rig.drained()
        return await accounts(rig, "controller_stopped", "link_lost", detection_s=found_s, recovery_s=back_s)


async def older_database(place: Path, short: bool) -> Outcome:
    """The controller comes back on a copy of its database from before several restarts: epochs must not go back."""
    async with standing(place, sites=1) as rig:
        (site,) = rig.sites
        assert rig.controller is not None
        rig.first_rss_mb = None
        await rig.controller.stop()
        kept = place / "kept"
        shutil.copytree(rig.database.parent, kept)
        for _ in range(2):
            await rig.start_controller()
            await _newer_epoch(site, site.agent.book.highest[0])
            await rig.controller.stop()
        seen = site.agent.book.highest
        for name in ("controller.db", "controller.db-wal", "controller.db-shm"):
            rig.database.with_name(name).unlink(missing_ok=True)
            if (kept / name).exists():
                shutil.copy(kept / name, rig.database.with_name(name))
        began_s = time.monotonic()
        await rig.start_controller()
        await until(lambda: site.agent.book.highest > seen, 60.0, "a plan above everything seen")
        back_s = time.monotonic() - began_s
        ok = site.agent.book.leased(site.clock.now())
        note = "" if ok else "the site has no lease"
        saw = "controller log: epoch raised above what a site has seen"
        return Outcome("older_database", ok, saw, "processes", recovery_s=back_s, note=note)


async def forty_reconnect(place: Path, short: bool) -> Outcome:
    """The controller restarts under forty agents: all of them stream again, and not all at the same moment."""
    async with standing(place, sites=40, devices=60) as rig:
        await rig.kill_controller()
        await asyncio.sleep(1.0)
        began_s = time.monotonic()
        up_s = await rig.start_controller()
        moments: dict[str, float] = {}

        def all_back() -> bool:
            for site in rig.sites:
                if site.connected:
                    moments.setdefault(site.spec.name, time.monotonic() - began_s - up_s)
            return len(moments) == len(rig.sites)

        await until(all_back, 60.0, "forty sites back")
        last_s = time.monotonic() - began_s
        seconds = [int(moment) for moment in moments.values()]
        busiest = max(seconds.count(second) for second in set(seconds))
        await rig.drained()
        saw = f"gridpivot_sites_connected 40; at most {busiest} connects in a second"
        outcome = await accounts(rig, "forty_reconnect", saw, recovery_s=last_s)
        return dataclasses.replace(outcome, recovery_bar_s=RECONNECT_BAR_S)


async def database_locked(place: Path, short: bool) -> Outcome:
    """Somebody holds the database while a ceiling is lowered: the plan goes out all the same, its record follows."""
    async with standing(place, sites=1) as rig:
        (site,) = rig.sites
        lock = sqlite3.connect(rig.database, isolation_level=None, timeout=20.0, check_same_thread=False)
        lock.execute("BEGIN IMMEDIATE")
        began_s = time.monotonic()
        ceiling_w = 0.8 * site.world.true_power_w
        request = op.SetOverrideRequest(site=site.spec.name, ceiling_w=ceiling_w, reason="chaos")
        await rig.call("SetOverride", request, 20.0)
        await until(
            lambda: site.agent.book.orders(site.clock.now()).ceiling_w <= ceiling_w + 1.0, 30.0, "plan at the site"
        )
        reached_s = time.monotonic() - began_s
        await asyncio.sleep(max(0.0, (12.0 if short else 30.0) - (time.monotonic() - began_s)))
        pending = await asyncio.to_thread(rig.metric, "gridpivot_store_records_pending")
        with contextlib.closing(lock):
            lock.rollback()
        await _until_metric(rig, "gridpivot_store_records_pending", 0.0)
        await rig.drained()
        trail = await rig.call("ListAudit", op.ListAuditRequest())
        audited = any(line.action == "override" and line.reason == "chaos" for line in trail.lines)
        ok = audited and pending >= 1 and reached_s < 15.0
        note = "" if ok else f"audited {audited}, pending {pending:g}, reached after {reached_s:.1f} s"
        saw = f"gridpivot_store_records_pending {pending:g}; lowered plan at the site after {reached_s:.1f} s"
        return await accounts(rig, "database_locked", saw, note=note)


async def controller_disk_full(place: Path, short: bool) -> Outcome:
    """The controller's disk takes no more: nothing is acknowledged, lowering goes on, everything comes after."""
    async with standing(place, sites=1) as rig:
        (site,) = rig.sites
        process = rig.process()
        wal = rig.database.with_name("controller.db-wal")
        limit = max(rig.database.stat().st_size, wal.stat().st_size if wal.exists() else 0)
        before = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (limit, before[1]))
        ceiling_w = 0.8 * site.world.true_power_w
        request = op.SetOverrideRequest(site=site.spec.name, ceiling_w=ceiling_w, reason="full")
        began_s = time.monotonic()
        for _ in range(30):  # until the write-ahead log has reached the limit
            with contextlib.suppress(Exception):
                await rig.call("SetOverride", request, 10.0)
            if site.agent.book.orders(site.clock.now()).ceiling_w <= ceiling_w + 1.0:
                break
            await asyncio.sleep(0.5)
        await until(
            lambda: site.agent.book.orders(site.clock.now()).ceiling_w <= ceiling_w + 1.0, 30.0, "plan at the site"
        )
        reached_s = time.monotonic() - began_s
        await asyncio.sleep(8.0 if short else 30.0)
        process.rlimit(psutil.RLIMIT_FSIZE, before)
        await _until_metric(rig, "gridpivot_store_records_pending", 0.0)
        await until(lambda: site.connected, 40.0, "agent back")
        await rig.drained()
        saw = f"log: the store refuses; lowered plan at the site after {reached_s:.1f} s"
        return await accounts(rig, "controller_disk_full", saw)


async def _newer_epoch(site: Site, before: int) -> None:
    await until(lambda: site.agent.book.highest[0] > before, 40.0, "a plan of the new epoch")


async def _until_metric(rig: Rig, name: str, value: float) -> None:
    async with asyncio.timeout(60.0):
        while await asyncio.to_thread(rig.metric, name) != value:  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.5)


async def accounts(
    rig: Rig,
    name: str,
    saw: str,
    *,
    detection_s: float | None = None,
    recovery_s: float | None = None,
    note: str = "",
) -> Outcome:
    """The outcome with every account of the rig; a `note` says what went wrong."""
    return Outcome(
        name,
        ok=not note,
        saw=saw,
        how="processes",
        acked_lost=await asyncio.to_thread(rig.acked_lost),
        ledger_gap_j=rig.ledger_gap_j(),
        ceiling_excess_pct=rig.excess_pct(),
        protection_reached=rig.protection_reached(),
        commands_without_record=await asyncio.to_thread(rig.commands_without_record),
        detection_s=detection_s,
        recovery_s=recovery_s,
        memory_growth_mb=rig.growth_mb(),
        note=note,
    )


SCENARIOS: dict[str, Callable[[Path, bool], Awaitable[Outcome]]] = {
    "controller_killed": controller_killed,
    "controller_stopped": controller_stopped,
    "older_database": older_database,
    "forty_reconnect": forty_reconnect,
    "database_locked": database_locked,
    "controller_disk_full": controller_disk_full,
}
