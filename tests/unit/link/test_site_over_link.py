"""A complete agent over the real link: its plan's lease lives on heartbeats, its inventory and its faults get through."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.governor.state import Policy
from agent.hardware import Beats, Hardware
from agent.site import SiteAgent
from agent.uplink.session import UplinkTarget
from gridpivot.link.certificates import issue_site
from gridpivot.link.credentials import client_credentials
from gridpivot.plan import sign
from gridpivot.v1 import plan_pb2
from gridpivot.vocabulary import EventKind, LinkState, Rung, Stage
from sim.fleet import SiteSpec, inventory_of
from sim.physics import Truth
from sim.virtual import VirtualSite
from tests.unit.link.conftest import CLOCK, Centre, until

pytestmark = pytest.mark.unit

KEY = Ed25519PrivateKey.generate()
CEILING_W = 1.4e6
LEASE_MS = 3_000


@pytest.fixture
async def agent(centre: Centre, tmp_path: Path) -> AsyncIterator[SiteAgent]:
    """falcon-1 with three hundred virtual miners, in stage full."""
    inventory = inventory_of(SiteSpec("falcon-1", "ercot", 0, 300, CEILING_W, stock_only=False, seed=7))
    world = VirtualSite(inventory, Truth(7, 0.0, 1.0, 0.04, 100.0, 5e3), CLOCK.now().monotonic_s)
    world.settle()
    own = issue_site(centre.authority, "test", "falcon-1", dt.datetime.now(dt.UTC))
    made = SiteAgent(
        "falcon-1",
        Policy(ceiling_w=CEILING_W, protection_w=1.08 * CEILING_W, stage=Stage.FULL),
        inventory,
        Hardware(world, world, world),
        UplinkTarget(
            f"127.0.0.1:{centre.link.port}", client_credentials(centre.authority.certificate_pem, own), "falcon-1"
        ),
        {"k1": KEY.public_key()},
        tmp_path / "agent",
        CLOCK,
        Beats(governor_s=0.2, rollup_s=0.5, devices_s=1.0),
    )

    async def turn_world() -> None:
        while True:
            world.advance(CLOCK.now().monotonic_s)
            await asyncio.sleep(0.1)

    tasks = [asyncio.create_task(turn_world()), asyncio.create_task(made.run())]
    await until(lambda: made.uplink is not None and made.uplink.state.connected)
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def publish(centre: Centre, version: int) -> None:
    fallback = plan_pb2.Fallback(posture="hold", ceiling_w=CEILING_W)
    plan = plan_pb2.Plan(
        site="falcon-1", epoch=1, version=version, ceiling_w=CEILING_W, valid_for_ms=LEASE_MS, fallback=fallback
    )
    assert centre.board.publish(sign(plan, KEY, "k1"), CLOCK.now())


async def test_inventory_roll_ups_and_tables_fill_the_controllers_picture(centre: Centre, agent: SiteAgent) -> None:
    live = centre.fleet["falcon-1"]
    await until(lambda: live.reports_received and live.rollup is not None)
    assert live.inventory_hash == agent.inventory_message.inventory_hash
    assert live.device_count == 300
    assert centre.store.lanes.records_lost == 0


async def test_lease_lives_on_heartbeats_ends_without_them_and_comes_back(centre: Centre, agent: SiteAgent) -> None:
    publish(centre, 1)
    await until(lambda: agent.book.highest == (1, 1) and agent.orders.rung is Rung.PLAN)
    accepted_s = agent.book.accepted_at.monotonic_s
    await until(lambda: CLOCK.now().monotonic_s > accepted_s + 1.3 * LEASE_MS / 1000)
    assert agent.book.leased(CLOCK.now())
    centre.link.dark()
    await until(lambda: agent.orders.rung is Rung.HOLD)
    assert centre.fleet["falcon-1"].link is LinkState.SILENT
    centre.link.light()
    await until(lambda: agent.orders.rung is Rung.PLAN)
    await until(lambda: agent.uplink.waiting() == 0)
    kinds = [event.kind for event in await centre.store.lanes.events("falcon-1", 1_000)]
    for kind in (EventKind.LINK_LOST, EventKind.LEASE_EXPIRED, EventKind.LINK_RESTORED):
        assert kind in kinds


async def test_disk_that_refuses_is_said_once_and_nothing_is_lost(centre: Centre, agent: SiteAgent) -> None:
    database = agent.uplink.spool._database
    database.execute("ALTER TABLE record RENAME TO elsewhere")
    await until(lambda: agent.uplink.spool.degraded)
    ticks = agent.counters.ticks_total
    await until(lambda: agent.counters.ticks_total > ticks + 5)
    database.execute("ALTER TABLE elsewhere RENAME TO record")
    await until(lambda: agent.uplink.spool.degraded is None)

    async def said() -> list[str]:
        events = await centre.store.lanes.events("falcon-1", 1_000)
        return [e.message for e in events if e.kind == EventKind.SPOOL_DEGRADED]

    async with asyncio.timeout(20):
        while len(await said()) < 2:
            await asyncio.sleep(0.05)
    assert (await said())[-1] == "the disk takes records again"
    assert centre.store.lanes.records_lost == 0
