"""Both ends of the session protocol on loopback: real gRPC, real mutual TLS, real SQLite at either end."""

import asyncio
import datetime as dt
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from sqlalchemy import func, select

from agent.uplink.session import Uplink, UplinkTarget
from controller.board import PlanBoard
from controller.fleet.tables import Fleet
from controller.link.servicer import SessionServicer
from controller.link.session import LinkTiming
from controller.store import schema
from controller.store.store import Store
from gridpivot import observability
from gridpivot.clock import SystemClock
from gridpivot.link.certificates import Authority, issue_server, issue_site, make_authority
from gridpivot.link.codec import KIND_OF, encode_payload
from gridpivot.link.credentials import SERVER_OPTIONS, client_credentials, session_server_credentials
from gridpivot.link.lanes import Lane
from gridpivot.v1 import plan_pb2, session_pb2_grpc
from gridpivot.v1 import session_pb2 as wire
from gridpivot.v1 import telemetry_pb2 as pb
from sim.bad_link import BadLink

DEADLINE_S = 25.0
CLOCK = SystemClock()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


class Centre:
    """The controller's end: servicer, store, board; stops and comes back on the same port and database."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.directory, self.authority = directory, authority
        self.own = issue_server(authority, ["localhost", "127.0.0.1"], dt.datetime.now(dt.UTC))
        self.port = 0
        self.link: BadLink  # what agents dial; it can go dark
        self.timing = LinkTiming(heartbeat_ms=200, dead_after_ms=1_200, window_bytes=256 * 1024)
        self.running = False

    async def start(self) -> None:
        self.store = await Store.open(self.directory / "controller.db", CLOCK, group_s=0.01)
        self.fleet = Fleet([("falcon-1", "ercot"), ("oryx-1", "uae")])
        self.board = PlanBoard()
        self.servicer = SessionServicer(self.fleet, self.store, self.board, self.timing, CLOCK)
        self.server = grpc.aio.server(options=list(SERVER_OPTIONS))
        session_pb2_grpc.add_SessionServiceServicer_to_server(self.servicer, self.server)
        credentials = session_server_credentials(self.authority.certificate_pem, self.own)
        first = self.port == 0
        self.port = self.server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        if first:
            self.link = BadLink("127.0.0.1", self.port)
            await self.link.start()
        await self.server.start()
        self.running = True

    async def stop(self) -> None:
        if self.running:
            self.running = False
            await self.servicer.shut_down()
            await self.server.stop(1.0)
            await self.store.close()

    async def stored(self, table) -> int:
        async with self.store._reading.connect() as connection:
            return (await connection.execute(select(func.count()).select_from(table))).scalar_one()

    async def events(self, site: str = "falcon-1") -> list[str]:
        return [event.message for event in await self.store.lanes.events(site, 10_000)]

    async def rollups(self) -> int:
        return await self.stored(schema.rollups)


class Site:
    """The agent's end: an Uplink that remembers what it was told."""

    def __init__(self, centre: Centre, directory: Path, name: str, certified: str | None, ca: bytes) -> None:
        self.plans: list[plan_pb2.SignedPlan] = []
        self.beats: list[wire.Heartbeat] = []
        self.links: list[tuple[bool, str]] = []
        self.inventories_wanted = 0
        own = None
        if certified is not None:
            own = issue_site(centre.authority, "test", certified, dt.datetime.now(dt.UTC))
        self.name = name
        self.uplink = Uplink(
            UplinkTarget(f"127.0.0.1:{centre.link.port}", client_credentials(ca, own), name),
            directory / "spool.sqlite",
            CLOCK,
            on_plan=self.plans.append,
            on_heartbeat=self.beats.append,
            hello=lambda: wire.Hello(site=name, inventory_hash=b"h" * 32),
            on_link=lambda up, reason: self.links.append((up, reason)),
            inventory_wanted=self._wanted,
        )
        self._task: asyncio.Task[None] | None = None

    def _wanted(self) -> None:
        self.inventories_wanted += 1

    def say(self, *messages: str) -> None:
        for message in messages:
            self.send(wire.LANE_EVENTS, pb.SiteEvent(occurred_at_unix_ms=1, kind="meter_fault", message=message))

    def send(self, lane: Lane, message) -> int:
        return self.uplink.send(lane, KIND_OF[type(message)], encode_payload(message))

    def dial(self) -> None:
        self._task = asyncio.create_task(self.uplink.run())

    async def connected(self) -> None:
        await until(lambda: self.uplink.state.connected)

    async def delivered(self) -> None:
        await until(lambda: self.uplink.waiting() == 0)

    async def close(self) -> None:
        if self._task is None:
            self.uplink.spool.close()
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None


@pytest.fixture
async def centre(tmp_path: Path) -> AsyncIterator[Centre]:
    """A controller's end that listens."""
    observability.configure("json", stream=io.StringIO())
    (tmp_path / "centre").mkdir()
    made = Centre(tmp_path / "centre", make_authority("test", dt.datetime.now(dt.UTC)))
    await made.start()
    yield made
    await made.stop()
    await made.link.stop()


@pytest.fixture
async def site(centre: Centre, tmp_path: Path) -> AsyncIterator[Callable[..., Site]]:
    """Makes agents' ends; nothing is dialled until `dial`."""
    made: list[Site] = []

    def make(name: str = "falcon-1", certified: str | None = "", directory: str = "", ca: bytes = b"") -> Site:
        own = name if certified == "" else certified
        where = tmp_path / (directory or name)
        made.append(Site(centre, where, name, own, ca or centre.authority.certificate_pem))
        return made[-1]

    yield make
    for one in made:
        await one.close()
