"""From an event to the plan on the wire: a whole controller, forty real mutual-TLS sessions, orders and price spikes.

Everything on loopback in one process, SQLite on disk, plans signed and stored before they leave. An event's clock runs
from the moment it is known (an operator's order accepted, a price in the book) until a site holds the new plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from dispatch_fleet import REGIONS

from agent.uplink.session import Uplink, UplinkTarget
from controller.dispatch.inputs import FleetState, SiteState
from controller.identity.caller import Caller
from controller.identity.files import make_identity
from controller.service import ControllerService
from controller.settings import ControllerSettings
from gridpivot import observability
from gridpivot.clock import SystemClock
from gridpivot.link.certificates import Authority, issue_site, load_authority
from gridpivot.link.credentials import client_credentials
from gridpivot.v1 import plan_pb2
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import telemetry_pb2 as pb
from gridpivot.vocabulary import DeviceState, Role

CLOCK = SystemClock()
HASH = b"h" * 32
DEADLINE_S = 30.0

BENCH = Caller("bench", Role.OPERATOR)


class Site:
    """One site's end of the wire: a real session; its roll-up follows the newest plan."""

    def __init__(self, service: ControllerService, state: SiteState, place: Path, authority: Authority) -> None:
        assert service.ports is not None and service.operations is not None
        self.state, self.live = state, service.operations.fleet[state.name]
        self.plan: plan_pb2.Plan | None = None
        self.at_s = 0.0
        self.arrived = asyncio.Event()
        own = issue_site(authority, "bench", state.name, dt.datetime.now(dt.UTC))
        target = UplinkTarget(
            f"localhost:{service.ports.session}", client_credentials(authority.certificate_pem, own), state.name
        )
        self.uplink = Uplink(
            target,
            place / f"{state.name}.sqlite",
            CLOCK,
            on_plan=self._take,
            on_heartbeat=lambda _beat: None,
            hello=lambda: wire.Hello(site=state.name, inventory_hash=HASH),
            on_link=lambda _up, _why: None,
            inventory_wanted=lambda: None,
        )
        self._modes = {c.miner_class.name: [0.0, 0.0, float(c.available), 0.0] for c in state.classes}
        self.live.take_inventory(
            pb.Inventory(
                inventory_hash=HASH,
                device_count=sum(c.available for c in state.classes),
                classes=[c.miner_class.to_proto() for c in state.classes],
                class_indexes=bytes(sum(c.available for c in state.classes)),
                pools=[p.pool.to_proto() for p in state.pools],
            )
        )
        self.report()

    def _take(self, signed: plan_pb2.SignedPlan) -> None:
        self.at_s = time.perf_counter()
        self.plan = plan_pb2.Plan.FromString(signed.plan)
        for c in self.plan.classes:
            self._modes[c.name] = [c.sleep_machines, c.low_machines, c.normal_machines, c.turbo_machines]
        self.report()
        self.arrived.set()

    def report(self) -> None:
        """What its agent would say: every machine in the mode that it was told."""
        now = CLOCK.now()
        classes = []
        for state in self.state.classes:
            counts = [0] * len(DeviceState)
            counts[DeviceState.HASHING.code] = state.available
            classes.append(
                pb.ClassRollup(
                    name=state.miner_class.name,
                    state_counts=counts,
                    mode_counts=[round(n) for n in self._modes[state.miner_class.name]],
                    available=state.available,
                )
            )
        self.live.take_rollup(
            pb.SiteRollup(
                observed_at_unix_ms=now.unix_ms,
                metered_power_w=0.8 * self.state.ceiling_w,
                assumed_power_w=0.8 * self.state.ceiling_w,
                site_ceiling_w=self.state.ceiling_w,
                live_ceiling_w=self.state.ceiling_w,
                classes=classes,
                pools=[
                    pb.PoolRollup(name=p.pool.name, power_w=p.power_w, limit_w=p.limit_w, demand_w=p.demand_w)
                    for p in self.state.pools
                ],
            ),
            now,
        )


def settings(place: Path, fleet: FleetState) -> ControllerSettings:
    """A controller over these sites that plans as soon as it is woken."""
    return ControllerSettings.model_validate(
        {
            "state_dir": place / "controller",
            "listen": {"host": "127.0.0.1", "session_port": 0, "operator_port": 0, "http_port": 0},
            "dispatch": {"hold_off_s": 0.0},
            "sites": [{"name": s.name, "region": s.region, "ceiling_w": s.ceiling_w} for s in fleet.sites],
        }
    )


async def event_to_plan_s(fleet: FleetState, events: int) -> dict[str, Any]:
    """Median, p99 and worst seconds over so many events, half of them ceilings, half of them price spikes."""
    observability.configure("json", level="error", stream=io.StringIO())
    took: dict[str, list[float]] = {"ceiling": [], "price": []}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        chosen = settings(place, fleet)
        make_identity(chosen, "bench", ["localhost", "127.0.0.1"], dt.datetime.now(dt.UTC))
        service = ControllerService(chosen, CLOCK)
        await service.start()
        sites: list[Site] = []
        tasks: list[asyncio.Task[None]] = []
        try:
            tls = chosen.path(chosen.tls.ca)
            authority = load_authority(tls.with_suffix(".key").read_bytes(), tls.read_bytes())
            sites = [Site(service, s, place, authority) for s in fleet.sites]
            tasks = [asyncio.create_task(s.uplink.run()) for s in sites]
            async with asyncio.timeout(DEADLINE_S):
                for site in sites:
                    await site.arrived.wait()
            for number in range(events):
                kind = ("ceiling", "price")[number % 2]
                spike = 900.0 if number // 2 % REGIONS % 2 == 0 else 5.0
                await_s = await (_ceiling if kind == "ceiling" else _price)(service, sites, number // 2, spike)
                took[kind].append(await_s)
                if number % 50 == 49:
                    print(f"events: {number + 1}, median {statistics.median(took[kind]):.3f} s")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await service.stop()
    every = sorted(took["ceiling"] + took["price"])
    return {
        "events": len(every),
        "p50_s": round(statistics.median(every), 4),
        "p99_s": round(every[min(len(every) - 1, int(0.99 * len(every)))], 4),
        "max_s": round(every[-1], 4),
        **{f"{kind}_p50_s": round(statistics.median(values), 4) for kind, values in took.items()},
    }


async def _ceiling(service: ControllerService, sites: list[Site], number: int, _spike: float) -> float:
    """An operator lowers a site's ceiling, or lets it go again."""
    assert service.operations is not None and service.loop is not None
    site = sites[number % len(sites)]
    assert site.plan is not None
    full = site.plan.ceiling_w >= site.state.ceiling_w - 1.0
    site.arrived.clear()
    begun = time.perf_counter()
    await service.operations.set_override(
        site.state.name, 0.6 * site.state.ceiling_w if full else None, None, "bench", "", BENCH
    )
    service.loop.wake()
    return await _until(site, begun, lambda plan: (plan.ceiling_w >= site.state.ceiling_w - 1.0) != full)


async def _price(service: ControllerService, sites: list[Site], number: int, spike: float) -> float:
    """A region's price jumps far above or below what mining earns."""
    assert service.operations is not None and service.loop is not None
    region = f"region-{number % REGIONS}"
    site = next(s for s in sites if s.state.region == region)
    standing = service.operations.book.usd_per_mwh(region, CLOCK.now())[0] or 0.0
    price = 5.0 if standing > 100.0 else spike if spike > 100.0 else 900.0
    assert site.plan is not None
    before = (site.plan.epoch, site.plan.version)
    site.arrived.clear()
    begun = time.perf_counter()
    service.operations.book.set_price(region, price, CLOCK.now())
    service.loop.wake()
    return await _until(site, begun, lambda plan: (plan.epoch, plan.version) > before)


async def _until(site: Site, begun: float, wanted: Any) -> float:
    """Seconds until the site holds a plan that the event brought."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while site.plan is None or not wanted(site.plan):
                await site.arrived.wait()
                site.arrived.clear()
            return site.at_s - begun
    raise SystemExit(f"{site.state.name}: no plan within {DEADLINE_S:.0f} s of an event")
