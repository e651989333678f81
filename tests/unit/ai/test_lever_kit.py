"""Every lever of the ladder passes the kit, over a simulated pool that draws what its jobs, limits and clocks make of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from agent.ai.curve import HeldFactor
from agent.ai.lever import LADDER, Lever
from agent.ai.levers.clocks import ClockLock
from agent.ai.levers.hold import Admission, ParkIdle
from agent.ai.levers.limit import PowerLimit
from agent.ai.levers.requeue import Requeue
from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority, LeverName
from sim.ai_cluster import SimCluster, SimJob, SimNode
from sim.ai_desk import VirtualDesk
from tests.unit.ai.lever_kit import LeverWorld, passes

pytestmark = pytest.mark.unit

UNIX_S = 1.8e9
MAKES: dict[LeverName, Callable[[VirtualDesk], Lever]] = {
    LeverName.PARK_IDLE: lambda pool: ParkIdle(pool.cluster, pool.clock),
    LeverName.POWER_LIMIT: lambda pool: PowerLimit("train", pool._cap, pool._limit_w, HeldFactor(), pool._host_w),
    LeverName.CLOCK_LOCK: lambda pool: ClockLock("train", 1200, pool._lock, pool.cluster.clocks, pool._host_w),
    LeverName.ADMISSION: lambda pool: Admission(pool.cluster, pool.clock),
    LeverName.REQUEUE: lambda pool: Requeue(pool.cluster, pool.clock, pool.cluster.kill_wait_s + 10.0),
}


def world(name: LeverName) -> LeverWorld:
    nodes = [SimNode(f"gpu{n}", 8) for n in range(5)]  # the last one idles
    jobs = [SimJob(f"job{n}", AiPriority.SPOT, (f"gpu{n}",), 8, 345.0) for n in range(4)]
    pool = VirtualDesk("train", SimCluster(AiPriority.SPOT, nodes, jobs, now=Instant(0.0, UNIX_S)), meter_noise=0.0)

    async def pass_time(seconds: float) -> None:
        for _ in range(round(seconds)):
            at = pool.clock.now()
            await pool.step(Instant(at.monotonic_s + 1.0, at.unix_s + 1.0))

    def lever() -> Lever:
        pool._cap(None)  # a cap is a wish of the process, and dies with it
        return MAKES[name](pool)

    def held() -> frozenset[str]:
        cluster = pool.cluster
        found = {node.name for node in cluster.nodes if node.held_by} | {
            j for jobs in cluster.orders.values() for j in jobs
        }
        found |= {"admission"} if cluster.closed_by else set()
        found |= {"clocks"} if cluster.lock_mhz is not None else set()
        return frozenset(found | ({"limits"} if pool.cap_w is not None else set()))

    asyncio.run(pass_time(30.0))
    return LeverWorld(
        lever,
        pool.power,
        lambda: pool.cluster.observe(pool.clock.now().monotonic_s),
        lambda: pool.clock.now().unix_s,
        pass_time,
        held,
        ends_alone=name is LeverName.PARK_IDLE,
        tolerance_w=0.005 * pool.cluster.power_w,
    )


@pytest.mark.parametrize("name", list(dict.fromkeys(lever for ladder in LADDER.values() for lever in ladder)))
def test_every_lever_of_the_ladder_passes_the_kit(name: LeverName) -> None:
    asyncio.run(passes(world(name)))
