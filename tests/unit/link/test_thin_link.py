"""64 kbit/s, 800 ms, 5 % loss: the session stays up, roll-ups come, tables come slower and say so, a plan is there in seconds."""

import asyncio
import datetime as dt
from pathlib import Path

import pytest

from agent.governor.state import Policy
from agent.hardware import Beats, Hardware
from agent.site import SiteAgent
from agent.uplink.session import UplinkTarget
from gridpivot.link.certificates import issue_site
from gridpivot.link.credentials import client_credentials
from gridpivot.plan import sign
from gridpivot.v1 import plan_pb2
from gridpivot.vocabulary import EventKind, Stage
from sim.fleet import SiteSpec, inventory_of
from sim.physics import Truth
from sim.thin_link import VSAT, ThinLink
from sim.virtual import VirtualSite
from tests.unit.link.conftest import CLOCK, Centre, until
from tests.unit.link.test_site_over_link import KEY

pytestmark = [pytest.mark.unit, pytest.mark.slow]


async def test_site_of_eleven_thousand_works_over_a_thin_link(centre: Centre, tmp_path: Path) -> None:
    centre.timing = centre.servicer._timing = type(centre.timing)(500, 10_000, 4 * 2**20)
    link = ThinLink("127.0.0.1", centre.port, VSAT)
    port = await link.start()
    inventory = inventory_of(SiteSpec("falcon-1", "ercot", 0, 11_250, 4e7, stock_only=False, seed=7))
    world = VirtualSite(inventory, Truth(7, 0.0, 1.0, 0.04, 100.0, 5e3), CLOCK.now().monotonic_s)
    world.settle()
    own = issue_site(centre.authority, "test", "falcon-1", dt.datetime.now(dt.UTC))
    credentials = client_credentials(centre.authority.certificate_pem, own)
    agent = SiteAgent(
        "falcon-1",
        Policy(ceiling_w=4e7, protection_w=1.08 * 4e7, stage=Stage.OBSERVE),
        inventory,
        Hardware(world, world, world),
        UplinkTarget(f"127.0.0.1:{port}", credentials, "falcon-1"),
        {"k1": KEY.public_key()},
        tmp_path / "agent",
        CLOCK,
        Beats(governor_s=1.0, rollup_s=1.0, devices_s=3.0),
    )

    async def turn_world() -> None:
        while True:
            world.advance(CLOCK.now().monotonic_s)
            await asyncio.sleep(0.5)

    tasks = [asyncio.create_task(turn_world()), asyncio.create_task(agent.run())]
    try:
        live = centre.fleet["falcon-1"]
        async with asyncio.timeout(50):
            while not agent.device_beat.thinned or live.reports_received < 1:
                await asyncio.sleep(0.1)
            assert agent.uplink.state.sessions_total == 1  # never given up
            fallback = plan_pb2.Fallback(posture="hold", ceiling_w=4e7)
            plan = plan_pb2.Plan(
                site="falcon-1", epoch=1, version=1, ceiling_w=4e7, valid_for_ms=60_000, fallback=fallback
            )
            published_s = CLOCK.now().monotonic_s
            centre.board.publish(sign(plan, KEY, "k1"), CLOCK.now())
            await until(lambda: agent.book.highest == (1, 1))
            assert agent.book.accepted_at.monotonic_s - published_s < 5.0
        await until(lambda: live.rollup is not None and live.rollup.devices_beat_s > 3.0)
        async with asyncio.timeout(20):
            while EventKind.REPORTS_THINNED not in [e.kind for e in await centre.store.lanes.events("falcon-1", 100)]:
                await asyncio.sleep(0.1)
        assert centre.store.lanes.records_lost == 0
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await link.stop()
