"""The simulated cluster keeps the same rules as real managers: else what the desk is tested on would be a fiction."""

from __future__ import annotations

import asyncio

import pytest

from gridpivot.clock import Instant
from gridpivot.vocabulary import AiPriority
from sim.ai_cluster import SimCluster, SimJob, SimNode
from tests.unit.ai.workload_kit import World, passes

pytestmark = pytest.mark.unit

UNIX_S = 1.8e9


def test_simulated_cluster_passes_the_kit() -> None:
    nodes = [SimNode(f"gpu{n}", 8) for n in range(4)]
    nodes[3].held_by = "alice: bad fan"
    jobs = [
        SimJob("41", AiPriority.SPOT, ("gpu0",), 8, 345.0),
        SimJob("42", AiPriority.GUARANTEED, ("gpu1",), 8, 345.0),
    ]
    cluster = SimCluster(AiPriority.SPOT, nodes, jobs, now=Instant(0.0, UNIX_S))

    async def pass_time(seconds: float) -> None:
        cluster.advance(Instant(cluster.now.monotonic_s + seconds, cluster.now.unix_s + seconds))

    async def settle() -> None:
        await pass_time(60.0)

    asyncio.run(passes(World(cluster, "gpu2", "gpu3", "41", "42", lambda: cluster.now.unix_s, pass_time, settle)))
