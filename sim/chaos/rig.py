"""The stage of a fault: one controller as a real process, sites as complete agents with simulated physics behind a link
that can break, and the accounts that say afterwards what was lost.

Everything is on loopback; every process is ended by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import psutil

from agent.hardware import Beats, Hardware
from agent.identity.trust import load_planner_keys
from agent.site import SiteAgent
from agent.uplink.session import UplinkTarget
from gridpivot.clock import Instant, SystemClock
from gridpivot.link.credentials import KeyPair, client_credentials
from gridpivot.v1 import operator_pb2 as op
from gridpivot.v1 import operator_pb2_grpc
from gridpivot.v1 import session_pb2 as wire
from sim import staging
from sim.bad_link import BadLink
from sim.children import Child, wait_for_log
from sim.fleet import SiteSpec, inventory_of, policy_of
from sim.physics import Truth
from sim.referee import Referee
from sim.virtual import VirtualSite

STEP_S = 0.25
CEILING_PER_DEVICE_W = 3_800.0  # a little above what all of it draws: no site begins above its ceiling


class SteppedClock(SystemClock):
    """The wall clock, moved by `step_s`; the monotonic one as it is."""

    step_s = 0.0

    def now(self) -> Instant:
        """Now, as this clock believes."""
        now = super().now()
        return Instant(now.monotonic_s, now.unix_s + self.step_s)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], object], deadline_s: float, what: str) -> float:
    """Wait for something to become true; returns how long it took [s]. Raises TimeoutError with `what`."""
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > deadline_s:
            raise TimeoutError(f"{what}: not within {deadline_s:.0f} s")
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


class Site:
    """One site: physics, agent, link, referee, and every sequence number that was acknowledged."""

    def __init__(self, rig: Rig, spec: SiteSpec, clock: SteppedClock | None = None) -> None:
        self.rig, self.spec, self.clock = rig, spec, clock or SteppedClock()
        self.link = BadLink("127.0.0.1", rig.session_port)
        truth = Truth(spec.seed, 1.0, 1.0, 0.04, 100.0, 0.004 * spec.ceiling_w, silent_ratio=0.0)
        self.world = VirtualSite(inventory_of(spec), truth, time.monotonic())
        self.world.settle()
        self.referee = Referee(spec.name, spec.ceiling_w, spec.protection_w, stock_only=False)
        self.acked: set[tuple[int, int]] = set()
        self.inventories: set[int] = set()
        self.plans_followed: set[tuple[int, int]] = set()
        self.said: list[str] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self.state_name = spec.name  # of the agent's directory
        self._first_j: int | None = None  # the meter's counter when the ledger began
        self.agent: SiteAgent

    async def start(self, *, address: str | None = None) -> None:
        """Physics and agent; the link stands."""
        port = await self.link.start()
        credentials = client_credentials(self.rig.ca_pem, self.rig.pair(self.spec.name))
        target = UplinkTarget(address or f"127.0.0.1:{port}", credentials, self.spec.name)
        keys = load_planner_keys(self.rig.place / "planner")
        self.agent = SiteAgent(
            self.spec.name,
            policy_of(self.spec),
            self.world.inventory,
            Hardware(self.world, self.world, self.world),
            target,
            keys,
            self.rig.place / "agents" / self.state_name,
            self.clock,
            Beats(1.0, 1.0, 5.0),
        )
        self._tasks = [asyncio.create_task(self._physics()), asyncio.create_task(self.agent.run())]
        async with asyncio.timeout(10.0):
            while self.agent.uplink is None:  # noqa: ASYNC110 - before its first byte, or the inventory is not seen leaving
                await asyncio.sleep(0)
        self._listen()

    def _listen(self) -> None:
        """Note what is acknowledged, what is said, which plans are followed."""
        uplink, agent = self.agent.uplink, self.agent
        assert uplink is not None
        delete, send, say, order = uplink.spool.delete, uplink.send, agent.say, agent._order

        def deleted(lane: Any, seqs: Any) -> None:
            self.acked.update((lane, seq) for seq in seqs)
            delete(lane, seqs)

        def sent(lane: Any, kind: int, payload: bytes) -> int:
            seq = send(lane, kind, payload)
            if kind == wire.RECORD_KIND_INVENTORY:
                self.inventories.add(seq)
            return seq

        def told(kind: Any, *words: Any, **more: Any) -> None:
            self.said.append(kind.value)
            say(kind, *words, **more)

        def ordered(*words: Any) -> None:
            self.plans_followed.add(agent.book.highest)
            order(*words)

        for name, target, wrapped in (("delete", uplink.spool, deleted), ("send", uplink, sent)):
            setattr(target, name, wrapped)
        for name, wrapper in (("say", told), ("_order", ordered)):
            setattr(agent, name, wrapper)

    async def _physics(self) -> None:
        while True:
            now_s = time.monotonic()
            self.world.advance(now_s)
            self.referee.see(now_s, self.world.true_power_w, self.world.true_ai_w)
            base = self.agent.energy.ledger.base
            if self._first_j is None and base is not None:
                self._first_j = base.counter_j - self.agent.energy.ledger.totals.import_j
            await asyncio.sleep(STEP_S)

    @property
    def connected(self) -> bool:
        """Whether the agent thinks that its session is up."""
        return self.agent.uplink is not None and self.agent.uplink.state.connected

    async def stop(self) -> None:
        """End the agent and the link."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.stop()

    def ledger_gap_j(self) -> int | None:
        """Meter's counter over the ledger's total since the first reading [J]; 0 or what the next reading will bring."""
        ledger = self.agent.energy.ledger
        if ledger.base is None or self._first_j is None:
            return None
        return ledger.base.counter_j - self._first_j - ledger.totals.import_j


class Rig:
    """Controller and sites of one scenario."""

    def __init__(self, place: Path, sites: int = 1, devices: int = 200) -> None:
        self.place = place
        self.session_port, self.operator_port, self.http_port = free_port(), free_port(), free_port()
        self.specs = [
            SiteSpec(f"site-{n}", "ercot", n, devices, CEILING_PER_DEVICE_W * devices, False, 40 + n)
            for n in range(sites)
        ]
        self.sites: list[Site] = []
        self.controller: Child | None = None
        self.first_rss_mb: float | None = None  # of the controller that runs now, once every site has a plan
        staging.make_identities(place, self.specs)
        for spec in self.specs:
            staging.write_prices(staging.price_file(place, spec.region), [(time.time() - 600.0, 30.0)])
        config = staging.write_controller_settings(place, self.specs, staging.Markets(None, None, None, 1.0))
        text = config.read_text(encoding="utf-8")
        ports = {"session_port = 0": self.session_port, "operator_port = 0": self.operator_port}
        for old, port in ports.items():
            text = text.replace(old, old.replace("0", str(port)))
        text = text.replace("http_port = 0", f"http_port = {self.http_port}")
        self.config = config
        config.write_text(text, encoding="utf-8")
        self.ca_pem = (place / "ca.crt").read_bytes()

    def pair(self, site: str) -> KeyPair:
        """A site's key and certificate."""
        place = self.place / "sites" / site
        return KeyPair((place / "site.key").read_bytes(), (place / "site.crt").read_bytes())

    @property
    def database(self) -> Path:
        """The controller's."""
        return self.place / "controller" / "controller.db"

    # ---- the controller -------------------------------------------------------------------------------------------

    async def start_controller(self) -> float:
        """Until it listens; returns how long that took [s]."""
        began_s = time.monotonic()
        number = len(list(self.place.glob("controller-*.log")))
        child = Child("controller", self.place / f"controller-{number}.log")
        await child.start(staging.entry("controller.cli", "run", "--config", str(self.config)))
        await wait_for_log(child, "controller up", 30.0)
        self.controller = child
        return time.monotonic() - began_s

    def process(self) -> psutil.Process:
        """The controller's own process, which the tether may have become."""
        assert self.controller is not None and self.controller.process is not None
        return psutil.Process(self.controller.process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send the controller a signal."""
        os.kill(self.process().pid, number)

    def growth_mb(self) -> float | None:
        """What the controller's memory has grown by since the sites had plans [MB]; None after a restart."""
        return None if self.first_rss_mb is None else max(0.0, self.rss_mb() - self.first_rss_mb)

    async def kill_controller(self) -> None:
        """kill -9, and wait until it is gone."""
        self.first_rss_mb = None
        assert self.controller is not None and self.controller.process is not None
        self.signal(signal.SIGKILL)
        await self.controller.process.wait()

    def rss_mb(self) -> float:
        """Memory of the controller [MB]."""
        return float(self.process().memory_info().rss / 1e6)

    async def call(self, method: str, request: Any, deadline_s: float = 15.0) -> Any:
        """One call as the operator of `init`."""
        token = (self.place / "controller" / "operator.token").read_text(encoding="ascii").strip()
        credentials = client_credentials(self.ca_pem, None)
        async with grpc.aio.secure_channel(f"localhost:{self.operator_port}", credentials) as channel:
            stub = operator_pb2_grpc.OperatorServiceStub(channel)
            metadata = (("authorization", f"Bearer {token}"),)
            return await getattr(stub, method)(request, timeout=deadline_s, metadata=metadata)

    async def link_of(self, site: str) -> str:
        """What the controller thinks of a site's link."""
        answer = await self.call("ListSites", op.ListSitesRequest(sites=[site]))
        return str(answer.sites[0].link)

    def metric(self, name: str) -> float:
        """Sum of a metric's samples on /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    # ---- sites ----------------------------------------------------------------------------------------------------

    async def start_sites(self, **options: Any) -> None:
        """All of them, and wait until each stands on a plan."""
        self.sites = [Site(self, spec) for spec in self.specs]
        await asyncio.gather(*(site.start(**options) for site in self.sites))
        await until(lambda: all(site.connected for site in self.sites), 30.0, "every site connected")

    async def planned(self) -> None:
        """Until every site has a plan."""
        await until(lambda: all(site.agent.book.highest > (0, 0) for site in self.sites), 40.0, "every site has a plan")

    # ---- accounts -------------------------------------------------------------------------------------------------

    def read(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the controller's database, read only."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=20.0)) as database:
            return database.execute(query, values).fetchall()

    def acked_lost(self) -> int:
        """Records that an agent saw acknowledged and that do not stand in the database (events and roll-ups)."""
        lost = 0
        for site in self.sites:
            assert site.agent.uplink is not None
            boot = site.agent.uplink.spool.opened.boot_id
            for table, lane, absent in (
                ("site_events", wire.LANE_EVENTS, site.inventories),
                ("rollups", wire.LANE_SITE, set()),
            ):
                query = f"SELECT seq FROM {table} WHERE site = ? AND boot_id = ?"  # noqa: S608 - table is one of two literals
                stored = {row[0] for row in self.read(query, site.spec.name, boot)}
                lost += len({seq for its_lane, seq in site.acked if its_lane == lane} - stored - absent)
        return lost

    def commands_without_record(self) -> int:
        """Plans under which commands went to devices and that do not stand in the database."""
        known = {(row[0], row[1], row[2]) for row in self.read("SELECT site, epoch, version FROM plans")}
        return sum(
            (site.spec.name, *plan) not in known
            for site in self.sites
            for plan in site.plans_followed
            if plan != (0, 0)
        )

    def excess_pct(self) -> float:
        """Highest excess of any site over the ceiling in force [%]."""
        return max(100.0 * site.referee.findings.excess_max_ratio for site in self.sites)

    def protection_reached(self) -> int:
        """How often a protection limit was reached."""
        return sum(site.referee.findings.protection_limit_reached for site in self.sites)

    def ledger_gap_j(self) -> int | None:
        """Largest of all sites [J]."""
        gaps = [gap for site in self.sites if (gap := site.ledger_gap_j()) is not None]
        return max(gaps, key=abs) if gaps else None

    async def drained(self) -> None:
        """Until every site's spool is acknowledged down to what is being made now."""
        await until(
            lambda: all(site.agent.uplink is not None and site.agent.uplink.waiting() <= 6 for site in self.sites),
            60.0,
            "backlog acknowledged",
        )

    async def stop(self) -> None:
        """Everything down, by process id."""
        await asyncio.gather(*(site.stop() for site in self.sites))
        if self.controller is not None:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                self.signal(signal.SIGCONT)
            await self.controller.stop()


@contextlib.asynccontextmanager
async def standing(place: Path, sites: int = 1, devices: int = 200) -> AsyncIterator[Rig]:
    """A controller and sites that are connected and planned."""
    rig = Rig(place, sites, devices)
    try:
        await rig.start_controller()
        await rig.start_sites()
        await rig.planned()
        rig.first_rss_mb = rig.rss_mb()
        yield rig
    finally:
        await rig.stop()
